"""Outgoing bytes: when a body may still fail in words, and what is left when it ends."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from common import errors
from common.body import FileBody, StreamBody


def failing(pieces: list[bytes]) -> Iterator[bytes]:
    yield from pieces
    raise errors.ServiceUnavailable()


def test_a_source_without_any_bytes_fails_at_the_beginning() -> None:
    """REL-032: where the answer has not begun either."""
    with pytest.raises(errors.ServiceUnavailable):
        StreamBody(failing([]), 10).begin()


def test_a_begun_body_yields_everything_and_counts_it() -> None:
    body = StreamBody(iter([b"one", b"two"]), 6)
    body.begin()
    assert list(body) == [b"one", b"two"]
    assert body.bytes_sent == 6


def test_what_fails_later_fails_later() -> None:
    body = StreamBody(failing([b"one"]), 10)
    body.begin()
    chunks = iter(body)
    assert next(chunks) == b"one"
    with pytest.raises(errors.ServiceUnavailable):
        next(chunks)


def test_an_empty_body_begins_and_ends() -> None:
    body = StreamBody((), 0)
    body.begin()
    assert list(body) == []


def test_a_file_is_begun_by_whoever_sends_it(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"content")
    with open(tmp_path / "file", "rb") as file:
        body = FileBody(file, 3, 4)
        body.begin()
        assert b"".join(body) == b"tent"


def test_whoever_asked_hears_once_how_far_it_came() -> None:
    heard: list[int] = []
    body = StreamBody(failing([b"one"]), 10)
    body.when_closed(lambda closed: heard.append(closed.bytes_sent))
    chunks = iter(body)
    next(chunks)
    with pytest.raises(errors.ServiceUnavailable):
        next(chunks)
    body.close()
    body.close()
    assert heard == [3]
