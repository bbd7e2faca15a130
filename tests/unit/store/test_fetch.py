"""A stored image as the source of an upload."""

import pytest

from common import errors
from common.body import StreamBody
from common.upload import Upload
from glance_store import fetch
from glance_store.fetch import OpenedSource, TooSlow
from glance_store.outbound import OutboundRules


def read_all(source):
    while source.read(1 << 20):
        pass


class Clock:
    def __init__(self):
        self.now = 1000.0

    def monotonic(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(fetch, "time", clock)
    return clock


def opened(chunks, rules=None, close=None):
    return OpenedSource(StreamBody(chunks, None, close), rules or OutboundRules())


def test_bytes_come_out_as_they_went_in():
    source = opened([b"abc", b"defgh", b"i"])
    assert [source.read(2), source.read(2), source.read(100), source.read(4)] == [
        b"ab",
        b"c",
        b"defgh",
        b"i",
    ]
    assert source.read(1) == b""


def test_whole_chunks_are_not_copied():
    chunk = bytes(1000)
    assert opened([chunk]).read(1000) is chunk


def test_length_is_the_bodys():
    assert OpenedSource(StreamBody([b"abc"], 3), OutboundRules()).length == 3


def trickling(clock, seconds, size, count):
    for _ in range(count):
        clock.now += seconds
        yield b"x" * size


def test_trickling_source_is_given_up(clock):
    """SEC-045: a minimum rate."""
    rules = OutboundRules(idle_timeout=60, minimum_rate=1024)
    source = opened(trickling(clock, seconds=10, size=100, count=1000), rules)
    with pytest.raises(TooSlow):
        read_all(source)
    assert clock.now <= 1000 + 80


def test_slow_but_steady_source_is_waited_for(clock):
    rules = OutboundRules(idle_timeout=60, minimum_rate=1024)
    source = opened(trickling(clock, seconds=10, size=20_000, count=100), rules)
    read_all(source)


def test_slow_store_is_not_held_against_the_source(clock):
    """REL-020."""
    source = opened([b"x"] * 100, OutboundRules(idle_timeout=60, minimum_rate=1024))
    while source.read(1024):
        clock.now += 100


def test_endless_source_ends_with_the_total_time(clock):
    """SEC-045: a total time."""
    rules = OutboundRules(total_timeout=3600, minimum_rate=0)
    source = opened(trickling(clock, seconds=100, size=1, count=1000), rules)
    with pytest.raises(TooSlow):
        read_all(source)
    assert clock.now <= 1000 + 3700


def test_abort_ends_the_upload_and_leaves_closing_to_the_reader():
    """SEC-072: closed from another thread, a body would break under the read that waits."""
    closed = []
    with opened([b"abc"] * 3, close=lambda: closed.append(1)) as source:
        upload = Upload(source)
        assert upload.read(10) == b"abc"
        upload.abort(errors.ImageDeleted())
        assert not closed
        with pytest.raises(errors.ImageDeleted):
            upload.read(10)
    assert closed == [1]


def test_leaving_the_block_closes_the_body():
    closed = []
    with opened([b"abc"], close=lambda: closed.append(1)):
        pass
    assert closed == [1]
