"""Uploads as request bodies, claims on names, and downloads that are taken up again."""

import pytest

from common import errors
from common.upload import CHUNK, BytesSource, SizeMismatch, Upload
from glance_store import BackendUnavailable
from glance_store.claims import Claims
from glance_store.feed import Feed, FeedFailed
from glance_store.remote import RemoteBody
from glance_store.testing import FailingSource, content_of, upload_of


def test_a_feed_yields_the_upload():
    content = content_of(3 * CHUNK + 5)
    feed = Feed(upload_of(content, len(content)), len(content))
    assert len(feed) == len(content)
    assert b"".join(feed) == content
    feed.raise_error()


@pytest.mark.parametrize("extra", [-1, 1], ids=["long", "short"])
def test_the_last_chunk_is_held_back_until_all_is_verified(extra):
    """SEC-070: a server commits when it has Content-Length bytes."""
    content = content_of(2 * CHUNK)
    declared = len(content) + extra
    feed = Feed(upload_of(content, declared), declared)
    chunks = iter(feed)
    sent = []
    with pytest.raises(FeedFailed):
        sent.extend(chunks)
    assert len(sent) < 2
    with pytest.raises(SizeMismatch):
        feed.raise_error()


def test_an_error_of_the_source_is_kept_and_cannot_be_taken_for_the_servers():
    class Broken(BytesSource):
        def read(self, size, /):
            raise BrokenPipeError("the client's")

    feed = Feed(Upload(Broken(b"")), 10)
    with pytest.raises(FeedFailed):
        list(feed)
    with pytest.raises(BrokenPipeError):
        feed.raise_error()


def test_a_claimed_name_cannot_be_claimed_again_until_it_is_free():
    claims = Claims()
    with claims.hold("image"):
        with claims.hold("other"), pytest.raises(errors.Duplicate), claims.hold("image"):
            pass
        with pytest.raises(errors.Duplicate), claims.hold("image"):
            pass
    with claims.hold("image"):
        pass


class Stream:
    def __init__(self, content, breaks_after=None):
        self.content = content
        self.breaks_after = breaks_after
        self.closed = False

    def read(self, size):
        if self.breaks_after is not None:
            size = min(size, self.breaks_after)
            self.breaks_after -= size
        chunk, self.content = self.content[:size], self.content[size:]
        if not chunk and self.breaks_after == 0:
            raise BackendUnavailable()
        return chunk

    def close(self):
        self.closed = True


def never(position):
    raise AssertionError("nothing broke")


def test_a_whole_response_is_not_reopened():
    stream = Stream(b"content")
    body = RemoteBody(stream, 7, never, retries=3)
    assert b"".join(body) == b"content"
    body.close()
    body.close()
    assert stream.closed


def test_a_broken_response_goes_on_where_it_stopped():
    """REL-095."""
    content = content_of(CHUNK + 100)
    asked = []
    first = Stream(content, breaks_after=33)

    def reopen(position):
        asked.append(position)
        return Stream(content[position:], breaks_after=50 if len(asked) == 1 else None)

    body = RemoteBody(first, len(content), reopen, retries=2)
    assert b"".join(body) == content
    assert asked == [33, 83]
    assert first.closed


def test_retries_are_counted():
    def reopen(position):
        return Stream(b"x" * 100, breaks_after=1)

    body = RemoteBody(Stream(b"x" * 100, breaks_after=1), 100, reopen, retries=4)
    with pytest.raises(BackendUnavailable):
        list(body)
    assert body.bytes_sent == 5


def test_a_response_that_ends_early_without_an_error_is_broken_too():
    body = RemoteBody(Stream(b"short"), 10, never, retries=0)
    with pytest.raises(BackendUnavailable):
        list(body)


def test_a_response_of_unknown_length_ends_where_it_ends():
    assert list(RemoteBody(Stream(b"content"), None, never, retries=1)) == [b"content"]


def test_failing_sources_end_a_feed_early():
    feed = Feed(Upload(FailingSource(content_of(CHUNK)), size=2 * CHUNK), 2 * CHUNK)
    with pytest.raises(FeedFailed):
        list(feed)
    with pytest.raises(errors.ClientDisconnected):
        feed.raise_error()
