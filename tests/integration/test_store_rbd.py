"""The RBD driver against a real Ceph."""

import contextlib
import signal
import threading
import time
import uuid
from collections.abc import Iterator

import pytest

from common import errors
from common.context import RequestContext
from common.upload import Upload
from glance_store import BackendUnavailable, StorageFull, StorageWriteDenied
from glance_store.testing import (
    StoreConformance,
    WatchedSource,
    content_of,
    upload_of,
)
from tests.functional.daemons import RAW
from tests.functional.steps import path, upload, wait_for_status
from tests.integration.lifecycle import StoreLifecycle
from tests.integration.unfinished import killed_add
from tests.servers.ceph import Ceph

MIB = 1024 * 1024
# What an empty pool may hold: Ceph's own lists.
LISTS = {"rbd_info", "rbd_directory", "rbd_children", "rbd_trash"}
TIMEOUT = 2


def make_store(conf, **options):
    from glance_store.drivers.rbd import RBDStore

    defaults = {option.dest: option.default for option in RBDStore.options}
    ours = {"rbd_store_ceph_conf": str(conf), "rbd_store_chunk_size": 1}
    return RBDStore({**defaults, **ours, **options})


@pytest.fixture(scope="module")
def ceph() -> Iterator[Ceph]:
    Ceph.require()
    with Ceph() as server:
        # So long is a killed client that had an image open taken for alive; 30 s by default.
        server.ceph("config", "set", "osd", "osd_client_watch_timeout", "3")
        yield server


@pytest.fixture(scope="module")
def shared_store(ceph):
    return make_store(ceph.conf)


@pytest.fixture
def store(shared_store):
    return shared_store


@pytest.fixture
def ctx():
    return RequestContext(user="user", tenant="tenant")


@pytest.fixture
def image_id():
    return str(uuid.uuid4())


@pytest.fixture
def image(store, ctx, image_id):
    """The URL of a stored image, gone after the test."""
    content = content_of(2 * MIB + 5)
    url, _ = store.add(ctx, image_id, upload_of(content, len(content)))
    yield url
    with contextlib.suppress(errors.NotFound):
        store.delete(ctx, url)


def read(store, ctx, url):
    with contextlib.closing(store.get(ctx, url)) as body:
        return b"".join(body)


class TestRBD(StoreConformance):
    chunk = MIB
    malformed = (
        "rbd://",
        "rbd:x",
        "rbd:///",
        "rbd://fsid/pool/image",
        "rbd://fsid/pool/image/",
        "rbd://fsid//image/snap",
        "rbd://fsid/pool/image/snap/more",
        "rbd://fsid/pool/im%2Fage/snap",
    )

    @pytest.fixture
    def store(self, ceph, shared_store):
        self.ceph = ceph
        return shared_store

    def backend(self, store):
        return frozenset(self.ceph.rados_objects()) - LISTS

    def unfinished_add(self, store, ctx, image_id):
        options = {"conf": self.ceph.conf}
        stored = self.ceph.rados_objects
        return killed_add(make_store, options, ctx, image_id, content_of(2 * MIB + 3), stored)

    @contextlib.contextmanager
    def broken(self, store):
        """Connections stay open and nobody answers, which is worse than a refusal."""
        with self.ceph.paused():
            yield

    @pytest.fixture
    def impatient(self, ceph, store):
        return make_store(ceph.conf, rbd_store_operation_timeout=TIMEOUT)

    def test_unreachable_backend_is_reported_in_bounded_time(self, impatient, ctx):
        super().test_unreachable_backend_is_reported_in_bounded_time(impatient, ctx)


class TestDelete:
    """REL-070: an image that something depends on stays, whole."""

    def assert_untouched(self, ceph, store, ctx, image, image_id):
        assert read(store, ctx, image) == content_of(2 * MIB + 5)
        listed = {stored.image_id: stored for stored in store.contents()}
        assert listed[image_id].complete
        assert ceph.rbd_images()[image_id].snapshots == ("snap",)

    @pytest.mark.parametrize("clone_format", ["1", "2"])
    def test_clones_keep_an_image_in_use_and_readable(
        self, ceph, store, ctx, image, image_id, clone_format
    ):
        clone = f"volumes/clone-{image_id}"
        snapshot = f"images/{image_id}@snap"
        ceph.rbd("clone", "--rbd-default-clone-format", clone_format, snapshot, clone)
        with pytest.raises(errors.InUse):
            store.delete(ctx, image)
        self.assert_untouched(ceph, store, ctx, image, image_id)
        ceph.rbd("rm", clone)
        store.delete(ctx, image)
        with pytest.raises(errors.NotFound):
            store.size(ctx, image)

    def test_somebody_elses_snapshot_keeps_an_image(self, ceph, store, ctx, image, image_id):
        ceph.rbd("snap", "create", f"images/{image_id}@other")
        with pytest.raises(errors.InUse):
            store.delete(ctx, image)
        ceph.rbd("snap", "rm", f"images/{image_id}@other")
        self.assert_untouched(ceph, store, ctx, image, image_id)

    def test_an_image_open_elsewhere_is_kept(self, ceph, store, ctx, image, image_id):
        import rados
        import rbd

        with (
            rados.Rados(conffile=str(ceph.conf)) as cluster,
            cluster.open_ioctx("images") as pool,
            rbd.Image(pool, image_id),
            pytest.raises(errors.InUse),
        ):
            store.delete(ctx, image)
        self.assert_untouched(ceph, store, ctx, image, image_id)

    def test_a_delete_that_was_cut_off_is_completed(self, ceph, store, ctx, image, image_id):
        ceph.rbd("snap", "unprotect", f"images/{image_id}@snap")
        ceph.rbd("snap", "rm", f"images/{image_id}@snap")
        with pytest.raises(errors.NotFound):
            store.get(ctx, image)
        store.delete(ctx, image)
        assert image_id not in ceph.rbd_images()


def test_images_have_what_compute_clones_from(ceph, store, ctx, image, image_id):
    info = ceph.rbd("info", f"images/{image_id}")
    assert "features: layering\n" in info
    assert "order 20 " in info
    listed = ceph.rbd("snap", "ls", f"images/{image_id}")
    assert "snap" in listed
    assert "yes" in listed
    assert image == f"rbd://{ceph.fsid}/images/{image_id}/snap"


def test_images_of_the_first_releases_resolve(ceph, store, ctx, image_id):
    """`rbd://image`: no pool, no snapshot."""
    ceph.rbd("create", "--size", "2M", f"images/{image_id}")
    url = f"rbd://{image_id}"
    assert store.size(ctx, url) == 2 * MIB
    assert read(store, ctx, url) == bytes(2 * MIB)
    store.delete(ctx, url)
    assert image_id not in ceph.rbd_images()


def test_a_location_may_name_another_pool(ceph, store, ctx, image_id):
    ceph.rbd("create", "--size", "1M", f"volumes/{image_id}")
    ceph.rbd("snap", "create", f"volumes/{image_id}@today")
    url = f"rbd://{ceph.fsid}/volumes/{image_id}/today"
    assert store.size(ctx, url) == MIB
    store.delete(ctx, url)
    assert image_id not in ceph.rbd_images("volumes")


def test_a_pool_that_does_not_exist(ceph, ctx, image_id):
    store = make_store(ceph.conf, rbd_store_pool="nowhere")
    with pytest.raises(BackendUnavailable):
        store.add(ctx, image_id, upload_of(b"content"))
    with pytest.raises(errors.NotFound):
        store.get(ctx, f"rbd://{ceph.fsid}/elsewhere/{image_id}/snap")


def test_a_missing_configuration_file_is_an_unavailable_backend(ctx, tmp_path):
    Ceph.require()
    store = make_store(tmp_path / "ceph.conf")
    with pytest.raises(BackendUnavailable):
        store.size(ctx, "rbd://fsid/images/image/snap")


def test_a_full_pool_refuses_the_upload_and_keeps_nothing(ceph, ctx, image_id):
    """images-v1.md 9: store full."""
    ceph.create_pool("small")
    ceph.ceph("osd", "pool", "set-quota", "small", "max_bytes", str(MIB))
    store = make_store(ceph.conf, rbd_store_pool="small")
    deadline = time.monotonic() + 60
    # The manager notices that the quota is used up a moment later.
    while time.monotonic() < deadline:
        try:
            store.add(ctx, str(uuid.uuid4()), upload_of(content_of(MIB), MIB))
        except StorageFull:
            break
        time.sleep(0.2)
    before = ceph.rbd_images("small")
    with pytest.raises(StorageFull):
        store.add(ctx, image_id, upload_of(content_of(2 * MIB)))
    assert ceph.rbd_images("small") == before


class TestFaults:
    """REL-085: a cluster that stops answering in the middle."""

    @pytest.fixture
    def store(self, ceph):
        return make_store(ceph.conf, rbd_store_operation_timeout=TIMEOUT)

    def test_an_osd_that_dies_during_an_upload_fails_it_in_bounded_time(
        self, ceph, store, ctx, image_id
    ):
        content = content_of(8 * MIB)
        reads = []

        def fail_half_way():
            reads.append(None)
            if len(reads) == 4:
                self.signal_osd(ceph, signal.SIGSTOP)

        source = WatchedSource(content, fail_half_way)
        started = time.monotonic()
        try:
            with pytest.raises(BackendUnavailable):
                store.add(ctx, image_id, Upload(source, size=len(content)))
        finally:
            self.signal_osd(ceph, signal.SIGCONT)
        assert time.monotonic() - started < 10 * TIMEOUT
        store.discard(ctx, image_id)
        assert image_id not in ceph.rbd_images()
        self.assert_works(store, ctx, image_id)

    def test_an_osd_that_stops_for_a_while_fails_the_upload_and_nothing_remains(
        self, ceph, ctx, image_id
    ):
        # It is back before what cleans up has to give up.
        store = make_store(ceph.conf, rbd_store_operation_timeout=4)
        later = threading.Timer(6, self.signal_osd, [ceph, signal.SIGCONT])
        reads = []

        def stop_half_way():
            reads.append(None)
            if len(reads) == 4:
                self.signal_osd(ceph, signal.SIGSTOP)
                later.start()

        source = WatchedSource(content_of(8 * MIB), stop_half_way)
        with pytest.raises(BackendUnavailable):
            store.add(ctx, image_id, Upload(source, size=8 * MIB))
        later.join()
        assert image_id not in ceph.rbd_images()

    def test_an_osd_that_dies_during_a_download_ends_it_in_bounded_time(
        self, ceph, store, ctx, image_id
    ):
        content = content_of(20 * MIB)
        url, _ = store.add(ctx, image_id, upload_of(content, len(content)))
        body = store.get(ctx, url)
        started = time.monotonic()
        try:
            chunks = iter(body)
            next(chunks)
            self.signal_osd(ceph, signal.SIGSTOP)
            with pytest.raises(BackendUnavailable):
                list(chunks)
            body.close()
        finally:
            self.signal_osd(ceph, signal.SIGCONT)
        assert time.monotonic() - started < 10 * TIMEOUT
        assert read(store, ctx, url) == content
        store.delete(ctx, url)

    def signal_osd(self, ceph, number):
        [osd] = [process for process in ceph.processes if process.name == "osd"]
        osd.signal(number)

    def assert_works(self, store, ctx, image_id):
        url, _ = store.add(ctx, image_id, upload_of(b"works"))
        assert read(store, ctx, url) == b"works"
        store.delete(ctx, url)


@pytest.fixture(scope="module")
def secured():
    Ceph.require()
    with Ceph(cephx=True) as server:
        caps = ("mon", "profile rbd", "osd", "profile rbd-read-only pool=images")
        key = server.ceph("auth", "get-or-create", "client.reader", *caps)
        server.keyring.write_text(server.keyring.read_text() + key)
        yield server


class TestReadOnly:
    """SEC-051: credentials that may only read."""

    def test_reading_works_and_writing_is_denied(self, secured, ctx, image_id):
        writer = make_store(secured.conf, rbd_store_user="glance")
        reader = make_store(secured.conf, rbd_store_user="reader")
        url, _ = writer.add(ctx, image_id, upload_of(b"content"))
        assert reader.size(ctx, url) == 7
        assert read(reader, ctx, url) == b"content"
        for refused in (
            lambda: reader.add(ctx, str(uuid.uuid4()), upload_of(b"content")),
            lambda: reader.delete(ctx, url),
        ):
            with pytest.raises(StorageWriteDenied):
                refused()
        assert read(writer, ctx, url) == b"content"

    def test_an_unknown_user_is_an_unavailable_backend(self, secured, ctx, caplog):
        """SEC-031: and the log holds no key."""
        store = make_store(secured.conf, rbd_store_user="nobody")
        with pytest.raises(BackendUnavailable):
            store.size(ctx, f"rbd://{secured.fsid}/images/image/snap")
        keys = [
            line.split("=", 1)[1].strip()
            for line in secured.keyring.read_text().splitlines()
            if "key =" in line
        ]
        assert keys
        assert not any(key in caplog.text for key in keys)


class TestLifecycle(StoreLifecycle):
    @pytest.fixture(scope="class")
    @classmethod
    def backend(cls):
        Ceph.require()
        # What is in memory would not survive being killed.
        with Ceph(store="bluestore") as server:
            yield server

    @pytest.fixture(scope="class")
    @classmethod
    def options(cls, backend):
        return {
            "stores": "rbd,http",
            "default_store": "rbd",
            "rbd_store_ceph_conf": backend.conf,
            "rbd_store_operation_timeout": 2,
        }

    @pytest.fixture(scope="class")
    @classmethod
    def stored(cls, backend):
        return lambda: set(backend.rados_objects()) - LISTS

    def test_only_an_administrator_copies_what_the_services_rights_open(self, service, backend):
        """SEC-040: whoever knows the id of another tenant's image knows its URL."""
        image_id = upload(service.caller("t1"), b"private").image["id"]
        source = {"x-glance-api-copy-from": f"rbd://{backend.fsid}/images/{image_id}/snap"}
        stranger, admin = service.caller("t2"), service.caller("ops", "admin")
        queued = stranger.post("/v1/images", RAW).image["id"]
        assert stranger.post("/v1/images", {**RAW, **source}).status == 400
        assert stranger.put(path(queued), source).status == 400
        copied = admin.post("/v1/images", {**RAW, **source}).image["id"]
        assert wait_for_status(admin, copied, "active", "killed") == "active"
        assert admin.get(path(copied)).content == b"private"
        for each in (image_id, queued, copied):
            assert admin.delete(path(each)).status == 200
