"""Large objects of the swift store, over accounts in memory."""

import itertools
import threading
import uuid

import pytest

from common import errors
from common.upload import CHUNK
from glance_store import BackendUnavailable, StorageFull, StorageWriteDenied
from glance_store.drivers import swift_segments as segments
from glance_store.drivers.swift_account import Unreachable
from glance_store.feed import FeedFailed
from glance_store.testing import content_of
from tests.clock import Clock

MIB = 1024 * 1024


class Account:
    """Containers in memory. `faults` maps a name to what its requests raise, in turn."""

    def __init__(self):
        self.objects = {}
        self.headers = {}
        self.log = []
        self.faults = {}

    def _meet_fault(self, verb, name):
        self.log.append((verb, name))
        fault = next(self.faults.get(name, iter(())), None)
        if fault is not None:
            raise fault

    def put_stream(self, container, name, chunks, replace=False):
        import hashlib

        content = b"".join(chunks)
        self._meet_fault("PUT", name)
        self.objects[name] = content
        return hashlib.md5(content).hexdigest()

    def put(self, container, name, content, headers=None):
        self._meet_fault("PUT", name)
        self.objects[name] = content
        self.headers[name] = headers

    def delete(self, container, name):
        self._meet_fault("DELETE", name)
        if self.objects.pop(name, None) is None:
            raise errors.NotFound()

    def list(self, container, prefix=""):
        return [{"name": name} for name in sorted(self.objects) if name.startswith(prefix)]

    def head(self, container, name):
        return {"content-length": str(sum(map(len, self.objects.values())))}


@pytest.fixture
def account():
    return Account()


@pytest.fixture(autouse=True)
def pauses(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(segments, "time", clock)
    return clock.slept


def reader(content, piece=100_000):
    left = [content]

    def read(size):
        chunk, left[0] = left[0][: min(size, piece)], left[0][min(size, piece) :]
        return chunk

    return read


def upload(account, concurrency=3):
    return segments.SegmentedUpload(account, "glance", "image", MIB, concurrency)


@pytest.mark.parametrize("length", [1, MIB - 1, MIB, MIB + 1, 7 * MIB, 7 * MIB + 3])
@pytest.mark.parametrize("known", [True, False], ids=["size known", "size unknown"])
def test_segments_add_up_at_every_boundary(account, length, known):
    """REL-013, REL-014, REL-095: and none is empty."""
    content = content_of(length)
    upload(account).run(reader(content), length if known else None)
    manifest = account.objects.pop("image")
    stored = [account.objects[name] for name in sorted(account.objects)]
    assert manifest == b""
    assert account.headers["image"] == {"X-Object-Manifest": "glance/image-"}
    assert b"".join(stored) == content
    assert [len(segment) for segment in stored[:-1]] == [MIB] * (len(stored) - 1)
    assert stored[-1]


def test_the_manifest_is_written_last(account):
    upload(account).run(reader(content_of(5 * MIB)), None)
    assert account.log[-1] == ("PUT", "image")


def test_segments_stay_few_enough_to_sort(account, monkeypatch):
    """REL-014: by name, 100000 comes before 99999."""
    monkeypatch.setattr(segments, "MOST_SEGMENTS", 3)
    content = content_of(7 * MIB)
    upload(account).run(reader(content), len(content))
    del account.objects["image"]
    assert len(account.objects) == 3
    assert b"".join(account.objects[name] for name in sorted(account.objects)) == content
    with pytest.raises(StorageFull):
        upload(account).run(reader(content), None)


def test_a_failed_segment_ends_the_upload_without_a_manifest(account):
    account.faults["image-00002"] = itertools.repeat(BackendUnavailable("gone"))
    parts = upload(account)
    with pytest.raises(BackendUnavailable, match="gone"):
        parts.run(reader(content_of(40 * MIB)), 40 * MIB)
    assert "image" not in account.objects
    assert parts.number < 40
    account.faults.clear()
    parts.remove(account)
    assert not account.objects


def test_a_failed_read_ends_every_segment_and_is_what_is_raised(account):
    content = reader(content_of(3 * MIB))

    def read(size):
        chunk = content(size)
        if not chunk:
            raise errors.ClientDisconnected()
        return chunk

    parts = upload(account)
    with pytest.raises(errors.ClientDisconnected):
        parts.run(read, 9 * MIB)
    parts.remove(account)
    assert not account.objects


def test_bytes_that_changed_on_the_way_are_noticed(account):
    account.put_stream = lambda container, name, chunks, replace: (list(chunks), "wrong")[1]
    with pytest.raises(BackendUnavailable):
        upload(account).run(reader(content_of(MIB)), None)


@pytest.mark.parametrize("segment", [MIB, 8 * MIB], ids=["small segments", "large segments"])
def test_memory_is_bounded_while_the_server_stalls(account, segment):
    stalled, resumed = threading.Event(), threading.Event()
    taken = [0]
    content = reader(content_of(12 * MIB), piece=CHUNK)

    def read(size):
        # Asked for another chunk while two segments are full, or two pipes: time to go on.
        taken[0] += 1
        if taken[0] == expected:
            stalled.set()
        return content(size)

    def put_stream(container, name, chunks, replace):
        resumed.wait(30)
        return Account.put_stream(account, container, name, chunks)

    account.put_stream = put_stream
    # Two segments of two chunks and the beginning of a third; or one pipe of eight and a chunk.
    expected = 5 if segment == MIB else 9
    parts = segments.SegmentedUpload(account, "glance", "image", segment, 2)
    thread = threading.Thread(target=parts.run, args=(read, None))
    thread.start()
    assert stalled.wait(30)
    thread.join(0.2)
    assert taken[0] == expected
    resumed.set()
    thread.join(30)
    stored = [account.objects[name] for name in sorted(account.objects)]
    assert b"".join(stored) == content_of(12 * MIB)


def test_deletes_come_back_to_failures_and_go_on_past_them(account, pauses):
    """REL-071: delete of #5 fails twice."""
    names = [segments.segment_name("image", number) for number in range(1, 11)]
    account.objects = dict.fromkeys(names, b"content")
    account.faults[names[4]] = iter([BackendUnavailable(), BackendUnavailable()])
    segments.delete_all(account, [("glance", name) for name in names])
    assert not account.objects
    assert sum(pauses) < 3


def test_deletes_of_missing_segments_are_done(account):
    segments.delete_all(account, [("glance", "missing")])


def test_deletes_that_keep_failing_raise_and_have_removed_the_rest(account):
    account.objects = dict.fromkeys("abc", b"content")
    account.faults["b"] = itertools.repeat(BackendUnavailable("stuck"))
    with pytest.raises(BackendUnavailable, match="stuck"):
        segments.delete_all(account, [("glance", name) for name in "abc"])
    assert set(account.objects) == {"b"}


@pytest.mark.parametrize("error", [StorageWriteDenied, Unreachable])
def test_deletes_do_not_insist_where_it_is_pointless(account, error):
    names = [str(number) for number in range(100)]
    account.faults = dict.fromkeys(names, itertools.repeat(error()))
    with pytest.raises(error):
        segments.delete_all(account, [("glance", name) for name in names])
    assert len(account.log) <= 100


def test_a_manifest_is_awaited_while_the_listing_lags(account, pauses):
    shown = iter([0, 7, 10])
    account.head = lambda *_: {"content-length": str(next(shown))}
    segments.await_size(account, "glance", "image", 10)
    assert len(pauses) == 2
    account.head = lambda *_: {"content-length": "9"}
    with pytest.raises(BackendUnavailable):
        segments.await_size(account, "glance", "image", 10)


def test_a_manifest_without_a_prefix_names_no_segments(account):
    """Or deleting it would empty the container."""
    account.objects = {"somebody-elses": b"content"}
    for value in ("glance/", "glance", ""):
        headers = {"x-object-manifest": value}
        assert segments.segments_of(account, "glance", "image", headers) == []


def test_leftovers_include_segments_that_the_listing_does_not_show(account):
    image_id = str(uuid.uuid4())
    for name in (f"{image_id}-00003", f"{image_id}-more", f"{uuid.uuid4()}-00009"):
        account.objects[name] = b"content"
    found = segments.leftovers(account, "glance", image_id, ahead=2)
    assert found == [("glance", f"{image_id}-0000{number}") for number in (1, 2, 3, 4, 5)]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("ab5f5042-9c9e-4c3b-8c9e-1f3f5d2c7a11", ("ab5f5042-9c9e-4c3b-8c9e-1f3f5d2c7a11", False)),
        ("12345678-1234-1234-1234-123456789012", ("12345678-1234-1234-1234-123456789012", False)),
        (
            "12345678-1234-1234-1234-123456789012-00001",
            ("12345678-1234-1234-1234-123456789012", True),
        ),
        ("12345678123412341234123456789012-12345", ("12345678123412341234123456789012", True)),
        ("holiday-00001", (None, False)),
        ("ab5f5042-9c9e-4c3b-8c9e-1f3f5d2c7a11-1", (None, False)),
    ],
)
def test_segments_are_told_from_images(name, expected):
    assert segments.image_of(name) == expected


def test_a_pipe_passes_chunks_on_and_ends():
    pipe = segments.Pipe()
    assert pipe.write(b"a")
    assert pipe.write(b"b")
    pipe.end()
    assert list(pipe) == [b"a", b"b"]


def test_an_aborted_pipe_raises_in_its_reader():
    pipe = segments.Pipe()
    pipe.write(b"a")
    pipe.end(aborted=True)
    with pytest.raises(FeedFailed):
        list(pipe)


def test_an_abandoned_pipe_does_not_hold_its_writer():
    pipe = segments.Pipe()
    pipe.abandon()
    assert not any(pipe.write(b"chunk") for _ in range(100))
