"""The filesystem store on disks that are full, read-only or gone, and on a network filesystem."""

import os
import subprocess
import uuid

import pytest

from common.context import RequestContext
from common.upload import BytesSource, Upload
from glance_store import BackendUnavailable, StorageFull, StorageWriteDenied
from glance_store.drivers.filesystem import FilesystemStore
from glance_store.testing import StoreConformance, WatchedSource, content_of, upload_of
from tests.servers.gluster import Gluster

CTX = RequestContext()
MIB = 1 << 20


def store_in(path):
    return FilesystemStore({"filesystem_store_datadir": str(path)})


def add(store, content, size=None):
    return store.add(CTX, str(uuid.uuid4()), upload_of(content, size))[0]


def read(store, url):
    body = store.get(CTX, url)
    try:
        return b"".join(body)
    finally:
        body.close()


# A disk of sixteen MiB.


@pytest.fixture
def store(small_filesystem):
    return store_in(small_filesystem.path)


def test_image_larger_than_the_disk_is_refused_before_it_is_read(store, small_filesystem):
    """REL-017, V1-IMG-228."""
    reads = []
    source = WatchedSource(b"", lambda: reads.append(1))
    with pytest.raises(StorageFull):
        store.add(CTX, str(uuid.uuid4()), Upload(source, size=17 * MIB))
    assert reads == []
    assert os.listdir(small_filesystem.path) == []


def test_disk_that_fills_up_leaves_nothing_of_the_image(store, small_filesystem):
    """REL-001: the size was not known; what was there before is intact."""
    kept = add(store, content_of(4 * MIB))
    with pytest.raises(StorageFull):
        add(store, content_of(20 * MIB))
    assert read(store, kept) == content_of(4 * MIB)
    assert len(os.listdir(small_filesystem.path)) == 1
    assert read(store, add(store, content_of(8 * MIB))) == content_of(8 * MIB)


def test_two_images_that_fit_only_one_by_one_do_not_both_begin(store, small_filesystem):
    """Space is claimed when the size is known, so the second hears it before it has sent all."""
    content = content_of(10 * MIB)
    second = []

    def begin_another():
        if not second:
            second.append("begun")
            with pytest.raises(StorageFull):
                add(store, content, size=len(content))

    source = WatchedSource(content, lambda: claimed(small_filesystem) and begin_another())
    url, _ = store.add(CTX, str(uuid.uuid4()), Upload(source, size=len(content)))
    assert second
    assert read(store, url) == content


def claimed(filesystem):
    found = os.statvfs(filesystem.path)
    return found.f_bfree < found.f_blocks


def test_read_only_disk_serves_and_refuses_to_be_written(store, small_filesystem):
    """SEC-051, REL-017."""
    url = add(store, b"content")
    with small_filesystem.read_only():
        assert read(store, url) == b"content"
        assert read(store_in(small_filesystem.path), url) == b"content"
        with pytest.raises(StorageWriteDenied):
            add(store, b"content")
        with pytest.raises(StorageWriteDenied):
            store.delete(CTX, url)
    store.delete(CTX, url)


def test_vanished_mount_is_unavailable_and_returns_whole(small_filesystem, tmp_path):
    """REL-032: nothing is written to, or missed in, what lies under the mount point."""
    at = tmp_path / "mounted"
    at.mkdir()
    subprocess.run(["mount", "--bind", small_filesystem.path, at], check=True)
    try:
        store = store_in(at)
        url = add(store, b"content")
        subprocess.run(["umount", at], check=True)
        for call in (
            lambda: store.get(CTX, url),
            lambda: store.size(CTX, url),
            lambda: store.delete(CTX, url),
            lambda: store.discard(CTX, "image"),
            lambda: list(store.contents()),
            lambda: add(store, b"content"),
        ):
            with pytest.raises(BackendUnavailable):
                call()
        assert os.listdir(at) == []
    finally:
        subprocess.run(["mount", "--bind", small_filesystem.path, at], check=True)
    assert read(store, url) == b"content"
    subprocess.run(["umount", at], check=True)


def test_second_directory_takes_over_when_the_first_is_full(small_filesystem, tmp_path):
    entries = [f"{small_filesystem.path}:20", f"{tmp_path}/large:10"]
    store = FilesystemStore({"filesystem_store_datadirs": entries})
    small = add(store, content_of(10 * MIB), 10 * MIB)
    large = add(store, content_of(10 * MIB), 10 * MIB)
    assert str(small_filesystem.path) in small
    assert f"{tmp_path}/large" in large


# A network filesystem.


@pytest.fixture(scope="module")
def server():
    """A server of these tests' own: they kill it."""
    Gluster.require()
    with Gluster() as gluster:
        yield gluster


class TestGluster(StoreConformance):
    @pytest.fixture
    def store(self, server):
        self.server = server
        return store_in(server.path / "images")

    def backend(self, store):
        return frozenset(os.listdir(self.server.brick / "images"))

    def broken(self, store):
        return Killed(self.server)


class Killed:
    """A brick that is dead inside the block."""

    def __init__(self, server):
        self.server = server

    def __enter__(self):
        self.server.kill()

    def __exit__(self, *_):
        self.server.restart()


@pytest.fixture
def own_gluster():
    Gluster.require()
    with Gluster() as gluster:
        yield gluster


def test_server_that_dies_during_an_upload_fails_it_clearly(own_gluster):
    """REL-001, REL-032."""
    store = store_in(own_gluster.path / "images")
    kept = add(store, b"kept")
    reads = []

    def die():
        reads.append(1)
        if len(reads) == 3:
            own_gluster.kill()

    with pytest.raises(BackendUnavailable):
        store.add(CTX, "image", Upload(WatchedSource(content_of(8 * MIB), die)))
    own_gluster.restart()
    assert read(store, kept) == b"kept"
    store.discard(CTX, "image")
    assert os.listdir(own_gluster.brick / "images") == [kept.rpartition("/")[2]]


def test_server_that_dies_during_a_download_breaks_it_off(own_gluster):
    """REL-030: never a short success."""
    store = store_in(own_gluster.path / "images")
    url = add(store, content_of(32 * MIB))
    body = store.get(CTX, url)
    # The kernel still has what was written; it must be fetched again.
    os.posix_fadvise(body.file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    chunks = iter(body)
    next(chunks)
    own_gluster.kill()
    with pytest.raises(OSError, match=r"not connected|bad state|I/O"):
        list(chunks)
    body.close()
    own_gluster.restart()


def test_bytes_are_on_the_server_when_add_returns(own_gluster):
    """REL-066: several hosts share one store; what one wrote is there for all."""
    store = store_in(own_gluster.path / "images")
    content = content_of(3 * MIB)
    store.add(CTX, "image", Upload(BytesSource(content), size=len(content)))
    assert (own_gluster.brick / "images" / "image").read_bytes() == content
