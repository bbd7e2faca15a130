"""Bodies leave whole or visibly broken, files without being copied (REL-030, REL-045)."""

import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from common.body import Body, FileBody, StreamBody
from common.wsgi.connection import PLAIN_SOCKET
from common.wsgi.sendfile import BodyBroken, SendfileFilter

CONTENT = os.urandom(100_000)


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    """A connection that takes everything at once."""
    ours, theirs = socket.socketpair()
    for end in (ours, theirs):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 * len(CONTENT))
    with ours, theirs:
        yield ours, theirs


def file_body(path: Path, offset: int = 0, length: int = len(CONTENT)) -> FileBody:
    path.write_bytes(CONTENT)
    return FileBody(open(path, "rb"), offset, length)


def send(body: Body, plain: socket.socket | None) -> bytes:
    """What comes back to be iterated; headers count for nothing here."""

    def app(environ: dict[str, Any], start_response: Any) -> Any:
        start_response("200 OK", [])
        return body

    answer = SendfileFilter(app, 5)({PLAIN_SOCKET: plain}, lambda *_: lambda data: None)
    try:
        return b"".join(answer)
    finally:
        if isinstance(answer, Body) or hasattr(answer, "close"):
            answer.close()


def test_a_file_goes_to_a_plain_socket_without_being_read(
    tmp_path: Path, ends: tuple[socket.socket, socket.socket]
) -> None:
    """REL-045."""
    ours, theirs = ends
    body = file_body(tmp_path / "file", 1000, 50_000)
    with patch.object(os, "pread", side_effect=AssertionError("it was copied")):
        assert send(body, ours) == b""
    ours.shutdown(socket.SHUT_WR)
    assert theirs.makefile("rb").read() == CONTENT[1000:51_000]
    assert body.bytes_sent == 50_000
    assert body.file.closed


def test_a_file_is_iterated_where_there_is_no_plain_socket(tmp_path: Path) -> None:
    """Behind TLS, and under servers that nobody knows."""
    body = file_body(tmp_path / "file", 1000, 50_000)
    assert send(body, None) == CONTENT[1000:51_000]
    assert body.file.closed


def test_a_file_that_has_become_shorter_breaks_the_answer(
    tmp_path: Path, ends: tuple[socket.socket, socket.socket]
) -> None:
    """REL-030: neither padded nor taken for whole."""
    for plain in (ends[0], None):
        body = file_body(tmp_path / "file", 0, len(CONTENT) + 1)
        with pytest.raises(BodyBroken):
            send(body, plain)
        assert body.file.closed


@pytest.mark.parametrize("content", [b"short", b"much too long"])
def test_a_stream_is_exactly_as_long_as_was_promised(content: bytes) -> None:
    """REL-030."""
    closed: list[int] = []
    body = StreamBody([content], 9, lambda: closed.append(1))
    with pytest.raises(BodyBroken):
        send(body, None)
    assert closed == [1]


def test_other_answers_are_left_alone() -> None:
    answer = [b"document"]
    app = SendfileFilter(lambda environ, start: answer, 5)
    assert app({}, lambda *_: None) is answer
