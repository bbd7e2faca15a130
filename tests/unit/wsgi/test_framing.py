"""Requests are framed one way or not at all (SEC-061, REL-002, REL-003, REL-004)."""

import io
from typing import Any

import pytest

from common import errors
from common.wsgi.bodies import ChunkedReader, LengthReader
from common.wsgi.framing import BadFraming, RequestHead, RequestLineTooLong, read_head


class Dripping(io.RawIOBase):
    """A client whose bytes come in pieces of one size."""

    def __init__(self, content: bytes, size: int) -> None:
        self._content = io.BytesIO(content)
        self._size = size

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        piece = self._content.read(min(self._size, len(buffer)))
        buffer[: len(piece)] = piece
        return len(piece)


def stream(content: bytes, size: int = 1 << 20) -> io.BufferedReader:
    return io.BufferedReader(Dripping(content, size))


def request(text: bytes, size: int = 1 << 20) -> RequestHead:
    return read_head(stream(text, size), 1000)


def headers(text: bytes) -> list[tuple[str, str]]:
    return list(request(b"GET / HTTP/1.1\r\n" + text + b"\r\n").fields)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_a_request_is_taken_to_its_last_byte_however_it_arrives(size: int) -> None:
    incoming = stream(b"PUT /a?b HTTP/1.1\r\nContent-Length: 2\r\n\r\nokGET ", size)
    head = read_head(incoming, 1000)
    assert (head.method, head.target, head.length) == ("PUT", "/a?b", 2)
    assert incoming.read() == b"okGET "


def test_whoever_waits_for_the_rest_of_a_request_is_asked_before_each_wait() -> None:
    waits: list[None] = []
    text = b"GET / HTTP/1.1\r\n\r\n"
    read_head(stream(text, 10), 1000, lambda: waits.append(None))
    assert len(waits) == 1


def test_a_connection_stays_as_its_version_and_header_say() -> None:
    asked = {
        b"HTTP/1.1\r\n": True,
        b"HTTP/1.1\r\nConnection: close\r\n": False,
        b"HTTP/1.1\r\nConnection: TE, close\r\n": False,
        b"HTTP/1.0\r\n": False,
        b"HTTP/1.0\r\nConnection: Keep-Alive\r\n": True,
    }
    found = {text: request(b"GET / " + text + b"\r\n").keeps_alive for text in asked}
    assert found == asked


@pytest.mark.parametrize(
    "line",
    [
        b"GET /\r\n\r\n",
        b"GET  / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/2.0\r\n\r\n",
        b"GET /\x00 HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1 \r\n\r\n",
        b"GET / HTTP/1.1\n",
        b"GET / HTTP/1.1\r\nA: b\n",
        b"\n",
    ],
)
@pytest.mark.parametrize("size", [1, 1000])
def test_a_malformed_request_is_refused_as_soon_as_it_shows(line: bytes, size: int) -> None:
    with pytest.raises(BadFraming):
        request(line + b"X" * 5, size)


def test_names_with_underscores_and_values_with_blanks_are_kept_as_they_came() -> None:
    """SEC-060: v1's own header names have underscores."""
    found = headers(b"x-image-meta-disk_format:  raw \r\nA: b: c\r\n")
    assert found == [("x-image-meta-disk_format", "raw"), ("A", "b: c")]


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", id="both"),
        pytest.param(b"Content-Length: 5\r\nContent-Length: 5\r\n", id="length twice"),
        pytest.param(b"Content-Length: 5, 5\r\n", id="list of lengths"),
        pytest.param(b"Content-Length: +5\r\n", id="signed"),
        pytest.param(b"Content-Length: 5_0\r\n", id="underscore"),
        pytest.param(b"Content-Length: 9223372036854775808\r\n", id="2^63"),
        pytest.param(b"Transfer-Encoding: gzip\r\n", id="unknown coding"),
        pytest.param(
            b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", id="coding 2x"
        ),
        pytest.param(b"Host: a\r\nHost: b\r\n", id="two hosts"),
        pytest.param(b"A: b\r\n c\r\n", id="folded line"),
        pytest.param(b"A: b\n", id="bare line feed"),
        pytest.param(b"A: b\x00c\r\n", id="NUL"),
        pytest.param(b"A: b\rc\r\n", id="bare carriage return"),
        pytest.param(b"A : b\r\n", id="blank before the colon"),
        pytest.param(b"no colon\r\n", id="no colon"),
        pytest.param(b": b\r\n", id="no name"),
    ],
)
def test_ambiguous_headers_are_refused(text: bytes) -> None:
    with pytest.raises(BadFraming):
        headers(text)


def test_a_header_line_and_all_of_them_together_are_bounded() -> None:
    with pytest.raises(BadFraming, match="too long"):
        headers(b"A: " + b"x" * 1000 + b"\r\n")
    with pytest.raises(BadFraming, match="too long"):
        read_head(stream(b"GET / HTTP/1.1\r\n" + b"A: xxxxx\r\n" * 30_000), 1000)
    with pytest.raises(BadFraming, match="too long"):
        request(b"GET / HTTP/1.1\r\nA: " + b"x" * 1000, 50)
    with pytest.raises(RequestLineTooLong):
        request(b"GET /" + b"x" * 17000, 50)
    with pytest.raises(RequestLineTooLong):
        request(b"GET /" + b"x" * 17000 + b" HTTP/1.1\r\n\r\n")


def test_headers_cut_off_by_the_end_of_the_stream_are_refused() -> None:
    with pytest.raises(BadFraming):
        request(b"GET / HTTP/1.1\r\nA: b\r\n")


def test_a_body_of_a_declared_length_ends_there() -> None:
    stream = io.BytesIO(b"hello, next request")
    reader = LengthReader(stream, 5)
    assert [reader.read(3), reader.read(3), reader.read(3)] == [b"hel", b"lo", b""]
    assert reader.ended
    assert stream.read() == b", next request"


def test_a_body_shorter_than_its_length_is_an_error_not_an_end() -> None:
    reader = LengthReader(io.BytesIO(b"hel"), 5)
    with pytest.raises(errors.ClientDisconnected):
        reader.read(5)


@pytest.mark.parametrize("size", [1, 2, 7, 100])
def test_chunks_are_joined_whatever_size_is_asked_for(size: int) -> None:
    stream = io.BytesIO(b"5;name=value\r\nhello\r\nA\r\n, chunked!\r\n0\r\nTrailer: x\r\n\r\nrest")
    reader = ChunkedReader(stream)
    pieces = []
    while piece := reader.read(size):
        assert len(piece) <= size
        pieces.append(piece)
    assert b"".join(pieces) == b"hello, chunked!"
    assert reader.ended
    assert stream.read() == b"rest"


@pytest.mark.parametrize("text", [b"", b"5\r\n", b"5\r\nhel", b"5\r\nhello", b"5\r\nhello\r\n"])
def test_a_chunked_body_that_is_cut_off_is_an_error(text: bytes) -> None:
    reader = ChunkedReader(io.BytesIO(text))
    with pytest.raises(errors.ClientDisconnected):
        reader.read(100)


@pytest.mark.parametrize(
    "text",
    [
        b"-5\r\nhello\r\n",
        b"0x5\r\nhello\r\n",
        b" 5\r\nhello\r\n",
        b"5\nhello\r\n",
        b"\r\n",
        b"5\r\nhello!!\r\n",
        b"11111111111111111\r\n",
    ],
)
def test_loose_chunk_framing_is_refused(text: bytes) -> None:
    with pytest.raises(BadFraming):
        ChunkedReader(io.BytesIO(text)).read(100)
