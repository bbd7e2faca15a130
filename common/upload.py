"""Incoming bytes: counted, hashed, bounded and verified while a driver reads them.

A store driver reads an Upload until it returns b"" and then commits. Whatever is wrong with the
bytes (too many, too few, the wrong checksum, unsafe content, a client that left) is raised by
`read`, so that a driver which undoes its work on any error never commits them.
"""

import hashlib
from collections.abc import Callable, Sequence
from typing import Final, Protocol

from common import errors
from common.concurrency import Behind

CHUNK: Final = 512 * 1024

# A chunk below this is hashed where it stands: handing it to a thread costs more.
_INLINE_HASH: Final = 64 * 1024


class Source(Protocol):
    """Where bytes come from. read(n) returns at most n bytes, b"" at the end.

    A source that can tell a broken stream from an ended one raises. `abort` makes a read that
    is under way return soon; it is called from another thread.
    """

    def read(self, size: int, /) -> bytes: ...

    def abort(self) -> None: ...


class Observer(Protocol):
    """Sees every byte once, in order; raises to refuse the upload."""

    def feed(self, chunk: bytes, /) -> None: ...

    def finish(self) -> None: ...


class SizeMismatch(errors.Invalid):
    default = "The number of bytes received differs from the declared size."


class ChecksumMismatch(errors.Invalid):
    default = "The MD5 checksum of the bytes received differs from the declared one."


class Upload:
    """One image's bytes on their way in, read once.

    size: bytes the caller declared, or None; exactly that many must arrive. checksum: the
    declared MD5 in lower-case hex, compared as text. limit: no more than this many bytes are
    read; one more raises limit_error. progress is called with the running total before bytes
    are handed to the driver and may raise, for example when a quota is used up.
    """

    def __init__(
        self,
        source: Source,
        *,
        size: int | None = None,
        checksum: str | None = None,
        limit: int | None = None,
        limit_error: type[errors.LimitExceeded] = errors.ImageSizeLimitExceeded,
        hashing_algorithm: str | None = None,
        observers: Sequence[Observer] = (),
        progress: Callable[[int], None] | None = None,
    ) -> None:
        self.size = size
        self.bytes_read = 0
        self.progress = progress
        self._source = source
        self._declared_checksum = checksum
        self._limit = limit
        self._limit_error = limit_error
        self._observers = observers
        self._md5 = hashlib.md5(usedforsecurity=False)
        self._second = hashlib.new(hashing_algorithm) if hashing_algorithm else None
        # Two deep: hashing takes longest, and must not wait to be told of the next chunk.
        self._hashing = Behind(depth=2)
        self._hashing_second = Behind(depth=2)
        self._abort_error: errors.GlanceError | None = None
        self._ended = False

    @property
    def checksum(self) -> str:
        """The MD5 of all bytes, lower-case hex; meaningful once `read` has returned b""."""
        self._hashing.wait()
        return self._md5.hexdigest()

    @property
    def second_hash(self) -> str | None:
        """The digest under hashing_algorithm, or None where none was asked for."""
        self._hashing_second.wait()
        return self._second.hexdigest() if self._second is not None else None

    def read(self, size: int = CHUNK) -> bytes:
        """Return at most size bytes, b"" at the end and ever after.

        Raises SizeMismatch, ChecksumMismatch, the limit's error, ClientDisconnected, whatever
        an observer or progress raises, or the error given to `abort`.
        """
        if self._ended:
            return b""
        try:
            chunk = self._source.read(self._allowance(size))
        except Exception:
            self._raise_if_aborted()
            raise
        self._raise_if_aborted()
        if not chunk:
            self._verify()
            self._ended = True
            return b""
        self._account(chunk)
        return chunk

    def read_full(self, size: int) -> bytes:
        """Return exactly size bytes, fewer only at the end."""
        chunk = self.read(size)
        if len(chunk) == size or not chunk:
            return chunk
        parts = [chunk]
        left = size - len(chunk)
        while left and (chunk := self.read(left)):
            parts.append(chunk)
            left -= len(chunk)
        return b"".join(parts)

    def abort(self, error: errors.GlanceError) -> None:
        """Make the read under way, or the next one, raise error; called from another thread."""
        self._abort_error = error
        self._source.abort()

    def _raise_if_aborted(self) -> None:
        if self._abort_error is not None:
            raise self._abort_error

    def _allowance(self, size: int) -> int:
        # One byte past a bound is enough to know that it is broken; the rest stays unread
        # (CVE-2014-5356).
        bounds = [bound for bound in (self._limit, self.size) if bound is not None]
        return min([size, *(bound - self.bytes_read + 1 for bound in bounds)])

    def _account(self, chunk: bytes) -> None:
        self.bytes_read += len(chunk)
        if self._limit is not None and self.bytes_read > self._limit:
            raise self._limit_error()
        if self.size is not None and self.bytes_read > self.size:
            raise SizeMismatch()
        if self.progress is not None:
            self.progress(self.bytes_read)
        for observer in self._observers:
            observer.feed(chunk)
        if len(chunk) < _INLINE_HASH:
            self._hashing.wait()
            self._md5.update(chunk)
        else:
            self._hashing.start(self._md5.update, chunk)
        if self._second is not None:
            self._hashing_second.start(self._second.update, chunk)

    def _verify(self) -> None:
        if self.size is not None and self.bytes_read != self.size:
            raise SizeMismatch()
        for observer in self._observers:
            observer.finish()
        if self._declared_checksum is not None and self._declared_checksum != self.checksum:
            raise ChecksumMismatch()


class BytesSource:
    """A source over bytes in memory, for tests and tools."""

    def __init__(self, content: bytes) -> None:
        self._content = memoryview(content)

    def read(self, size: int, /) -> bytes:
        chunk, self._content = self._content[:size], self._content[size:]
        return bytes(chunk)

    def abort(self) -> None:
        self._content = memoryview(b"")
