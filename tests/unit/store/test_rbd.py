"""The RBD driver on a Ceph in memory that fails when told to."""

import contextlib
import errno
import sys
import threading
import traceback
import uuid

import pytest

from common import errors
from common.context import RequestContext
from common.upload import Upload
from glance_store import (
    BackendUnavailable,
    BadLocation,
    BadStoreConfiguration,
    StorageFull,
    StorageWriteDenied,
)
from glance_store.drivers import rbd as rbd_driver
from glance_store.drivers.rbd import RBDStore
from glance_store.testing import StoreConformance, content_of, outcomes, upload_of
from tests.clock import Clock
from tests.unit.store.fake_ceph import RBD_ERRORS, FakeCeph, expired_watches

MIB = 1024 * 1024
CTX = RequestContext()


def make_store(**options):
    defaults = {option.dest: option.default for option in RBDStore.options}
    return RBDStore({**defaults, "rbd_store_chunk_size": 1, **options})


@pytest.fixture
def ceph(monkeypatch):
    fake = FakeCeph()
    monkeypatch.setitem(sys.modules, "rados", fake.rados)
    monkeypatch.setitem(sys.modules, "rbd", fake.rbd)
    return fake


@pytest.fixture
def store(ceph):
    return make_store()


@pytest.fixture
def image_id():
    return str(uuid.uuid4())


def read(store, url):
    with contextlib.closing(store.get(CTX, url)) as body:
        return b"".join(body)


class TestOnAFake(StoreConformance):
    chunk = MIB

    @pytest.fixture
    def store(self, ceph):
        self.ceph = ceph
        return make_store()

    def backend(self, store):
        return frozenset(self.ceph.images)

    @contextlib.contextmanager
    def unfinished_add(self, store, ctx, image_id):
        with super().unfinished_add(store, ctx, image_id), expired_watches(self.ceph):
            yield

    @contextlib.contextmanager
    def broken(self, store):
        self.ceph.down = True
        yield
        self.ceph.down = False
        # What could not be undone then is found later.
        for stored in list(store.contents()):
            if not stored.complete:
                store.discard(CTX, stored.image_id)


class HugeUpload(Upload):
    """So many whole chunks, for as little work as possible."""

    def __init__(self, chunk, count):
        super().__init__(source=None)
        self.chunk = chunk
        self.left = count

    def read_full(self, size):
        if not self.left:
            return b""
        assert size == len(self.chunk)
        self.left -= 1
        return self.chunk


def test_100_gib_of_unknown_size_take_few_resizes_and_end_exact(ceph, store, image_id, monkeypatch):
    """REL-093."""
    sizes, ends = [], []
    monkeypatch.setattr(ceph.rbd.Image, "resize", lambda image, size: sizes.append(size))
    monkeypatch.setattr(
        ceph.rbd.Image, "write", lambda image, data, offset: ends.append(offset + len(data))
    )
    store.add(CTX, image_id, HugeUpload(bytes(MIB), 100 * 1024 + 1))
    assert len(sizes) <= 100
    assert sizes[-1] == ends[-1] == 100 * 1024 * MIB + MIB
    assert all(size >= end for size, end in zip(sizes, ends, strict=False))


def test_a_known_size_is_created_at_once_and_never_resized(ceph, store, image_id):
    store.add(CTX, image_id, upload_of(content_of(3 * MIB + 1), 3 * MIB + 1))
    assert ceph.calls[0] == "create"
    assert "resize" not in ceph.calls
    assert len(ceph.images[image_id].content) == 3 * MIB + 1


def test_writes_cover_whole_objects(ceph, image_id, monkeypatch):
    """REL-093, LP 1916482."""
    offsets = []
    monkeypatch.setattr(
        ceph.rbd.Image, "write", lambda image, data, offset: offsets.append((offset, len(data)))
    )
    make_store(rbd_store_chunk_size=2).add(CTX, image_id, upload_of(content_of(5 * MIB), 5 * MIB))
    assert offsets == [(0, 2 * MIB), (2 * MIB, 2 * MIB), (4 * MIB, MIB)]


@pytest.mark.parametrize("size", [None, 2 * MIB + 3], ids=["size unknown", "size known"])
def test_failure_at_any_step_of_an_add_leaves_nothing(ceph, size):
    """REL-093, LP 1473953."""
    store = make_store()
    store.add(CTX, str(uuid.uuid4()), upload_of(content_of(2 * MIB + 3), size))
    steps = list(ceph.calls)
    before = set(ceph.images)
    assert len(steps) > 7
    for number, step in enumerate(steps):
        ceph.fail(number, RBD_ERRORS["OSError"]("input/output error", errno.EIO))
        image_id = str(uuid.uuid4())
        with pytest.raises(BackendUnavailable):
            store.add(CTX, image_id, upload_of(content_of(2 * MIB + 3), size))
        assert set(ceph.images) == before, step
        url, _ = store.add(CTX, image_id, upload_of(b"retried"))
        assert read(store, url) == b"retried", step
        store.delete(CTX, url)


def test_failure_at_any_step_of_a_delete_leaves_it_readable_or_to_be_repeated(ceph, store):
    """REL-070."""
    url, _ = store.add(CTX, str(uuid.uuid4()), upload_of(b"content"))
    mark = len(ceph.calls)
    store.delete(CTX, url)
    steps = ceph.calls[mark:]
    for number, step in enumerate(steps):
        url, _ = store.add(CTX, str(uuid.uuid4()), upload_of(b"content"))
        ceph.fail(number, RBD_ERRORS["OSError"]("input/output error", errno.EIO))
        with pytest.raises(BackendUnavailable):
            store.delete(CTX, url)
        with contextlib.suppress(errors.NotFound):
            assert read(store, url) == b"content", step
        store.delete(CTX, url)
        assert not ceph.images, step


class TestInUse:
    """REL-070: in use means unchanged."""

    @pytest.fixture
    def image(self, ceph, store, image_id):
        url, _ = store.add(CTX, image_id, upload_of(b"content"))
        self.kept = ceph.images[image_id]
        return url

    def assert_kept(self, store, image):
        with pytest.raises(errors.InUse):
            store.delete(CTX, image)
        assert self.kept.protected == {"snap"}
        assert read(store, image) == b"content"

    def test_with_clones_nothing_is_touched(self, ceph, store, image):
        self.kept.children = 1
        mark = len(ceph.calls)
        self.assert_kept(store, image)
        assert "unprotect_snap" not in ceph.calls[mark:]

    def test_a_clone_made_meanwhile_stops_the_unprotecting(self, ceph, store, image, monkeypatch):
        monkeypatch.setattr(ceph.rbd.Image, "list_children", lambda image: [])
        self.kept.children = 1
        self.assert_kept(store, image)

    def test_a_snapshot_that_cannot_go_is_protected_again(self, ceph, store, image):
        mark = len(ceph.calls)
        store.delete(CTX, image)
        step = ceph.calls[mark:].index("remove_snap")
        url, _ = store.add(CTX, str(uuid.uuid4()), upload_of(b"content"))
        [self.kept] = ceph.images.values()
        ceph.fail(step, RBD_ERRORS["ImageBusy"]("busy"))
        self.assert_kept(store, url)

    @pytest.mark.parametrize("error", ["ImageBusy", "ImageHasSnapshots"])
    def test_an_image_opened_or_cloned_at_the_last_moment_gets_its_snapshot_back(
        self, ceph, store, image, error
    ):
        mark = len(ceph.calls)
        store.delete(CTX, image)
        step = ceph.calls[mark:].index("remove")
        url, _ = store.add(CTX, str(uuid.uuid4()), upload_of(b"content"))
        [self.kept] = ceph.images.values()
        ceph.fail(step, RBD_ERRORS[error]("busy"))
        self.assert_kept(store, url)

    def test_discard_gives_up_on_an_image_that_stays_open(
        self, ceph, store, image, image_id, monkeypatch
    ):
        clock = Clock()
        monkeypatch.setattr(rbd_driver, "time", clock)
        self.kept.watchers = 1
        with pytest.raises(BackendUnavailable):
            store.discard(CTX, image_id)
        assert 30 < clock.now < 60
        self.kept.watchers = 0
        store.discard(CTX, image_id)
        assert not ceph.images


def test_a_create_that_times_out_does_not_cost_an_older_copy(ceph, store, image_id):
    url, _ = store.add(CTX, image_id, upload_of(b"first"))
    ceph.fail(0, RBD_ERRORS["Timeout"]("operation timed out"))
    with pytest.raises(BackendUnavailable):
        store.add(CTX, image_id, upload_of(b"second"))
    assert read(store, url) == b"first"


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (errno.ENOSPC, StorageFull),
        (errno.EDQUOT, StorageFull),
        (errno.EPERM, StorageWriteDenied),
        (errno.EACCES, StorageWriteDenied),
        (errno.EROFS, StorageWriteDenied),
        (errno.ETIMEDOUT, BackendUnavailable),
        (errno.EIO, BackendUnavailable),
        (None, BackendUnavailable),
    ],
)
def test_errors_of_the_libraries_get_the_domains_meaning(ceph, store, image_id, number, expected):
    error = RBD_ERRORS["OSError"]("/secret/path", number)
    ceph.fail(2, error)
    with pytest.raises(expected) as caught:
        store.add(CTX, image_id, upload_of(b"content"))
    assert "secret" not in caught.value.message
    assert not ceph.images


def test_writes_to_a_full_pool_are_to_fail_rather_than_wait(ceph, store, image_id):
    store.add(CTX, image_id, upload_of(b"content"))
    assert ceph.full_tries == ["images"]


class Gate:
    """A lock that knows when so many have come for it."""

    def __init__(self, expected):
        self._expected = expected
        self._lock = threading.Lock()
        self._counting = threading.Lock()
        self.all_are_here = threading.Event()

    def __enter__(self):
        with self._counting:
            self._expected -= 1
            if not self._expected:
                self.all_are_here.set()
        self._lock.acquire()

    def __exit__(self, *_):
        self._lock.release()


class TestConnection:
    def test_is_shared_by_all_operations(self, ceph, store, image_id):
        url, _ = store.add(CTX, image_id, upload_of(b"content"))
        read(store, url)
        store.size(CTX, url)
        assert ceph.connections == 1

    def test_is_not_opened_before_it_is_needed(self, ceph, store):
        store.validate("rbd://fsid/images/image/snap")
        assert ceph.connections == 0

    def test_that_failed_is_replaced_and_ended_by_its_last_user(self, ceph, store, image_id):
        url, _ = store.add(CTX, image_id, upload_of(content_of(10 * MIB)))
        first = ceph.last
        body = store.get(CTX, url)
        ceph.fail(0, RBD_ERRORS["Timeout"]("operation timed out"))
        with pytest.raises(BackendUnavailable):
            store.size(CTX, url)
        assert not first.ended
        assert store.size(CTX, url) == 10 * MIB
        assert ceph.connections == 2
        assert b"".join(body) == content_of(10 * MIB)
        body.close()
        assert first.ended
        assert not ceph.last.ended

    def test_is_not_used_across_a_fork(self, ceph, store, image_id, monkeypatch):
        store.add(CTX, image_id, upload_of(b"content"))
        parents = ceph.last
        monkeypatch.setattr("os.getpid", lambda: -1)
        assert [stored.image_id for stored in store.contents()] == [image_id]
        assert ceph.connections == 2
        # To end it here would end the parent's.
        assert not parents.ended

    def test_those_who_waited_for_a_failed_attempt_fail_with_it(self, ceph, store, monkeypatch):
        """REL-085: eight callers must not wait for eight timeouts one after the other."""
        attempts = []
        gate = Gate(8)
        monkeypatch.setattr(store._cluster, "_connecting", gate)

        def connecting():
            attempts.append(None)
            assert gate.all_are_here.wait(10)

        ceph.connecting, ceph.down = connecting, True
        url = "rbd://fsid/images/image/snap"
        found = outcomes([lambda: store.size(CTX, url)] * 8)
        assert [type(error) for error in found] == [BackendUnavailable] * 8
        assert len(attempts) == 1

    def test_operations_are_bounded_unless_ceph_conf_bounds_them(self, ceph):
        ceph.settings["rados_mon_op_timeout"] = "7.000000"
        store = make_store(rados_connect_timeout=5, rbd_store_operation_timeout=33)
        list(store.contents())
        assert ceph.last.settings == {
            "client_mount_timeout": "5",
            "rados_osd_op_timeout": "33",
            "rados_mon_op_timeout": "7.000000",
        }

    def test_without_a_bound_for_connecting_that_of_operations_holds(self, ceph):
        list(make_store(rbd_store_operation_timeout=33).contents())
        assert ceph.last.settings["client_mount_timeout"] == "33"


class TestConfiguration:
    def test_missing_bindings_are_named(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "rados", None)
        with pytest.raises(BadStoreConfiguration) as caught:
            make_store()
        for word in ("rbd", "python3-rados", "python3-rbd"):
            assert word in str(caught.value)

    @pytest.mark.parametrize("size", [0, -1, 33])
    def test_impossible_chunk_sizes_are_refused(self, ceph, size):
        with pytest.raises(BadStoreConfiguration, match="rbd_store_chunk_size"):
            make_store(rbd_store_chunk_size=size)

    def test_a_pool_is_needed(self, ceph):
        with pytest.raises(BadStoreConfiguration, match="rbd_store_pool"):
            make_store(rbd_store_pool="")

    @pytest.mark.parametrize(("size", "order"), [(1, 20), (8, 23), (12, 23), (32, 25)])
    def test_chunk_size_decides_the_size_of_objects(self, ceph, image_id, size, order):
        make_store(rbd_store_chunk_size=size).add(CTX, image_id, upload_of(b"content"))
        assert ceph.images[image_id].order == order

    def test_options_are_mitakas(self):
        """10.19."""
        defaults = {option.name: option.default for option in RBDStore.options}
        assert (
            defaults.items()
            >= {
                "rbd_store_pool": "images",
                "rbd_store_user": None,
                "rbd_store_ceph_conf": "/etc/ceph/ceph.conf",
                "rbd_store_chunk_size": 8,
                "rados_connect_timeout": 0,
            }.items()
        )


@pytest.mark.parametrize(
    "url",
    [
        "rbd://image",
        "rbd://b3b0a3a2-0000-4000-8000-000000000000/images/image/snap",
        "rbd://fsid/my%20pool/im.age_1/snap",
        "rbd://fsid/pool/%C3%A9t%C3%A9/snap",
        "rbd://fsid/pool/----0123456789abcdef0123456789abcdef/snap",
    ],
)
def test_well_formed_locations(store, url):
    """LP 1075580."""
    store.validate(url)


@pytest.mark.parametrize(
    "image",
    [
        ";touch%20x", "a;b", "`id`", "$(id)", "a|b", "a%0Ab", "a\nb", "-rf", "--help", "a'b",
        'a"b', "a%40b", "a%2Fb", "%2e%2e%2fb", "a%00b", "%FF", "é", "a&b", "a>b", "",
    ],
)  # fmt: skip
def test_hostile_locations_are_bad_and_reach_nothing(ceph, store, image):
    """SEC-042."""
    for url in (f"rbd://{image}", f"rbd://fsid/pool/{image}/snap", f"rbd://fsid/{image}/i/snap"):
        for call in (store.validate, lambda bad: store.get(CTX, bad)):
            with pytest.raises(BadLocation) as caught:
                call(url)
            shown = "".join(traceback.format_exception_only(caught.value))
            assert not image or image not in shown
    assert ceph.connections == 0
