"""Strict HTTP/1.1 framing of requests (RFC 9112), without any socket.

Two parties that read one request differently let a second request hide in the first
(CVE-2025-58068). So whatever is ambiguous is refused: repeated or signed lengths, a length
beside a transfer coding, folded or bare-LF lines, control characters, loose chunk sizes.
"""

import re
import time
from typing import Final, Protocol

from common import errors

_TOKEN: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+\Z")
_CONTROL: Final = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
_DECIMAL: Final = re.compile(r"[0-9]{1,19}\Z")
_CHUNK_SIZE: Final = re.compile(rb"([0-9A-Fa-f]{1,16})[ \t]*(?:;[^\x00-\x08\x0a-\x1f\x7f]*)?\r\n\Z")
_AUTHORITY: Final = re.compile(r"(?:[\w.~%!$&'()*+,;=-]*|\[[0-9A-Fa-f:.]+\])(?::[0-9]*)?\Z", re.A)

_RATE_WINDOW: Final = 60.0

_MAX_CHUNK_LINE: Final = 4096
_MAX_TRAILER_BYTES: Final = 16 * 1024


class BadFraming(errors.Invalid):
    """The bytes on the connection are not one well-formed request; it must be closed."""

    default = "The request is not framed as HTTP/1.1 requires."


class Reader(Protocol):
    def read(self, size: int, /) -> bytes: ...

    def readline(self, size: int, /) -> bytes: ...


class BufferedReader(Reader, Protocol):
    def read1(self, size: int, /) -> bytes:
        """What is there, at most size bytes; waits only where nothing is."""


class Headers:
    """Header fields in the order they came, with the few look-ups a server needs."""

    def __init__(self, fields: list[tuple[str, str]]) -> None:
        # The server underneath builds the WSGI environment from `_headers`.
        self._headers = fields

    def get(self, name: str, default: str | None = None) -> str | None:
        lowered = name.lower()
        return next((value for key, value in self._headers if key.lower() == lowered), default)

    def get_all(self, name: str) -> list[str]:
        lowered = name.lower()
        return [value for key, value in self._headers if key.lower() == lowered]

    def get_content_type(self) -> str:
        """The WSGI environment's CONTENT_TYPE for a request that names none."""
        return ""


def read_headers(reader: Reader, max_line: int, max_total: int) -> Headers:
    """Read header lines up to and including the empty one. Raises BadFraming."""
    fields: list[tuple[str, str]] = []
    total = 0
    while True:
        line = reader.readline(max_line + 1)
        total += len(line)
        if len(line) > max_line or total > max_total:
            raise BadFraming("A request header line, or all of them together, is too long.")
        if line == b"\r\n":
            break
        fields.append(_parse_field(line))
    headers = Headers(fields)
    _check_body_framing(headers)
    return headers


def _parse_field(line: bytes) -> tuple[str, str]:
    name, colon, value = line.partition(b":")
    if not line.endswith(b"\r\n") or not colon or not _TOKEN.match(name):
        raise BadFraming()
    value = value[:-2]
    if _CONTROL.search(value):
        raise BadFraming()
    return name.decode("ascii"), value.strip(b" \t").decode("latin-1")


def _check_body_framing(headers: Headers) -> None:
    lengths = headers.get_all("content-length")
    codings = headers.get_all("transfer-encoding")
    if len(lengths) > 1 or len(codings) > 1 or (lengths and codings):
        raise BadFraming("Exactly one of Content-Length and Transfer-Encoding may be given.")
    if lengths and (not _DECIMAL.match(lengths[0]) or int(lengths[0]) >= 2**63):
        raise BadFraming("Content-Length is not a decimal number.")
    if codings and codings[0].lower() != "chunked":
        raise BadFraming("The only transfer coding understood is chunked.")
    hosts = headers.get_all("host")
    # Links are built from it (SEC-062).
    if len(hosts) > 1 or (hosts and not _AUTHORITY.match(hosts[0])):
        raise BadFraming("Exactly one well-formed Host may be given.")


class SlowClient(errors.ClientDisconnected):
    default = "The body arrived more slowly than the server allows."


class RatedReader:
    """A reader that gives up on a client slower than rate bytes a second, over a minute."""

    def __init__(self, reader: BufferedReader, rate: int) -> None:
        self._reader = reader
        self._rate = RateWatch(rate)

    def read(self, size: int, /) -> bytes:
        pieces: list[bytes] = []
        while size > 0 and (piece := self._reader.read1(size)):
            pieces.append(piece)
            size -= len(piece)
            if self._rate.is_too_slow(len(piece)):
                raise SlowClient()
        return b"".join(pieces)

    def readline(self, size: int, /) -> bytes:
        return self._reader.readline(size)


class RateWatch:
    """Whether what passes by averages less than rate bytes a second over a minute."""

    def __init__(self, rate: int) -> None:
        self._rate = rate
        self._since = time.monotonic()
        self._passed = 0

    def is_too_slow(self, count: int) -> bool:
        self._passed += count
        elapsed = time.monotonic() - self._since
        if elapsed < _RATE_WINDOW:
            return False
        slow = self._passed < self._rate * elapsed
        self._since, self._passed = time.monotonic(), 0
        return slow


class LengthReader:
    """A body of a declared length. A client that leaves early is an error, not an end."""

    def __init__(self, reader: Reader, length: int) -> None:
        self._reader = reader
        self.left = length

    @property
    def ended(self) -> bool:
        return self.left == 0

    def read(self, size: int) -> bytes:
        """At most size bytes, b"" at the end. Raises ClientDisconnected."""
        wanted = min(size, self.left)
        if not wanted:
            return b""
        content = self._reader.read(wanted)
        self.left -= len(content)
        # The server's reader answers short only at the end of the stream (REL-002).
        if len(content) < wanted:
            raise errors.ClientDisconnected()
        return content


class ChunkedReader:
    """A body in chunks. Trailers are read and thrown away."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._chunk_left = 0
        self.ended = False

    def read(self, size: int) -> bytes:
        """At most size bytes, b"" at the end. Raises BadFraming, ClientDisconnected."""
        pieces: list[bytes] = []
        while size > 0 and not self.ended:
            if not self._chunk_left:
                self._start_chunk()
                continue
            wanted = min(size, self._chunk_left)
            content = self._reader.read(wanted)
            if len(content) < wanted:
                raise errors.ClientDisconnected()
            self._chunk_left -= wanted
            size -= wanted
            pieces.append(content)
            if not self._chunk_left:
                self._expect_line_end()
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _start_chunk(self) -> None:
        line = self._reader.readline(_MAX_CHUNK_LINE)
        if not line:
            raise errors.ClientDisconnected()
        match = _CHUNK_SIZE.match(line)
        if match is None:
            raise BadFraming("A chunk size is malformed.")
        self._chunk_left = int(match[1], 16)
        if not self._chunk_left:
            self._discard_trailers()
            self.ended = True

    def _expect_line_end(self) -> None:
        end = self._reader.read(2)
        if not end:
            raise errors.ClientDisconnected()
        if end != b"\r\n":
            raise BadFraming("A chunk is longer than its size says.")

    def _discard_trailers(self) -> None:
        total = 0
        while (line := self._reader.readline(_MAX_CHUNK_LINE)) != b"\r\n":
            total += len(line)
            if not line:
                raise errors.ClientDisconnected()
            if not line.endswith(b"\r\n") or total > _MAX_TRAILER_BYTES:
                raise BadFraming("The trailers are malformed.")
