"""The Sheepdog driver: a real cluster where Sheepdog is installed, else the stand-in `dog`."""

import contextlib
import os
import signal
import sys
import uuid
from pathlib import Path

import pytest

from common import errors
from common.context import RequestContext
from common.upload import Upload
from glance_store import BackendUnavailable
from glance_store.drivers.sheepdog import SheepdogStore
from glance_store.testing import StoreConformance, WatchedSource, content_of, upload_of
from tests.integration.lifecycle import StoreLifecycle
from tests.servers.sheepdog import Sheepdog

MIB = 1024 * 1024
CTX = RequestContext()


@pytest.fixture(scope="module")
def sheepdog():
    Sheepdog.require()
    with Sheepdog() as server:
        yield server


def options_for(server):
    return {
        "sheepdog_store_address": server.address,
        "sheepdog_store_port": server.port,
        "sheepdog_store_chunk_size": 1,
        # The stand-in is a Python program, and a wrapper around Python would double its time.
        "sheepdog_store_program_path": f"{server.bin}:{Path(sys.executable).parent}:/usr/bin:/bin",
    }


def make_store(server, **options):
    defaults = {option.dest: option.default for option in SheepdogStore.options}
    return SheepdogStore({**defaults, **options_for(server), **options})


@pytest.fixture
def store(sheepdog):
    return make_store(sheepdog)


def read(store, url):
    with contextlib.closing(store.get(CTX, url)) as body:
        return b"".join(body)


class TestSheepdog(StoreConformance):
    chunk = MIB
    malformed = (
        "sheepdog://",
        "sheepdog:x",
        "sheepdog://a:b",
        "sheepdog://a:b:c",
        "sheepdog://a:0:c",
        "sheepdog://a:70000:c",
        "sheepdog://a:7000:b:c",
        "sheepdog://a/b:7000:c",
        "sheepdog://a:7000:b/c",
    )

    @pytest.fixture
    def store(self, sheepdog):
        self.server = sheepdog
        return make_store(sheepdog)

    def backend(self, store):
        return frozenset(self.server.vdis())

    @contextlib.contextmanager
    def broken(self, store):
        with self.server.killed():
            yield


def test_an_image_of_an_earlier_release_resolves(sheepdog, store):
    name = str(uuid.uuid4())
    sheepdog.vdi("create", name, "1M")
    for url in (f"sheepdog://{name}", f"sheepdog://{sheepdog.address}:{sheepdog.port}:{name}"):
        assert store.size(CTX, url) == MIB
        assert read(store, url) == bytes(MIB)
    store.delete(CTX, f"sheepdog://{name}")
    assert name not in sheepdog.vdis()


def test_snapshots_of_a_vdi_are_not_taken_for_it(sheepdog, store):
    image_id = str(uuid.uuid4())
    url, _ = store.add(CTX, image_id, upload_of(b"content"))
    sheepdog.vdi("snapshot", "-s", "today", image_id)
    assert [stored.url for stored in store.contents()] == [url]
    store.delete(CTX, url)
    with pytest.raises(errors.NotFound):
        store.get(CTX, url)
    assert list(store.contents()) == []
    sheepdog.vdi("delete", "-s", "today", image_id)


@pytest.mark.parametrize("after", [2, 4], ids=["in a run", "between runs"])
def test_a_cluster_that_goes_away_during_an_upload_is_an_unavailable_backend(after):
    Sheepdog.require()
    with Sheepdog() as server:
        store = make_store(server)
        reads = []

        def fail_half_way():
            reads.append(None)
            if len(reads) == after:
                server.kill()

        content = content_of(6 * MIB)
        with pytest.raises(BackendUnavailable):
            store.add(
                CTX,
                str(uuid.uuid4()),
                Upload(WatchedSource(content, fail_half_way), size=len(content)),
            )


class Noticed(Sheepdog):
    """The stand-in reads and writes files, so it does not notice by itself that the cluster is
    gone; the real program loses its connection."""

    def kill(self):
        super().kill()
        for entry in Path("/proc").glob("[0-9]*/cmdline"):
            with contextlib.suppress(OSError):
                if str(self.dog) in entry.read_text().split("\0"):
                    os.kill(int(entry.parent.name), signal.SIGKILL)


class TestLifecycle(StoreLifecycle):
    @pytest.fixture(scope="class")
    @classmethod
    def backend(cls):
        Sheepdog.require()
        with Noticed() as server:
            yield server

    @pytest.fixture(scope="class")
    @classmethod
    def options(cls, backend):
        return {
            "stores": "sheepdog,http",
            "default_store": "sheepdog",
            **options_for(backend),
            "sheepdog_store_chunk_size": 8,
            "sheepdog_store_timeout": 20,
        }

    @pytest.fixture(scope="class")
    @classmethod
    def stored(cls, backend):
        return backend.vdis
