"""The body of a request, read from its connection and not a byte beyond it."""

import re
import time
from typing import Final, Protocol

from common import errors
from common.wsgi.framing import BadFraming

_CHUNK_SIZE: Final = re.compile(rb"([0-9A-Fa-f]{1,16})[ \t]*(?:;[^\x00-\x08\x0a-\x1f\x7f]*)?\r\n\Z")

_RATE_WINDOW: Final = 60.0

_MAX_CHUNK_LINE: Final = 4096
_MAX_TRAILER_BYTES: Final = 16 * 1024


class Reader(Protocol):
    def read(self, size: int, /) -> bytes: ...

    def readline(self, size: int, /) -> bytes: ...


class BufferedReader(Reader, Protocol):
    def read1(self, size: int, /) -> bytes:
        """What is there, at most size bytes; waits only where nothing is."""


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
