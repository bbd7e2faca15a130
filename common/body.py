"""Outgoing bytes. Whoever stands between a store and the socket passes a Body on unread."""

import abc
import contextlib
import itertools
import os
from collections.abc import Callable, Iterable, Iterator
from typing import BinaryIO

from common.concurrency import offload

CHUNK = 512 * 1024


class Body(abc.ABC):
    """Bytes on their way out, read once.

    `length` is the number of bytes that iteration yields, or None where the source does not
    say. `bytes_sent` grows as they leave, so that whoever asked with `when_closed` learns how
    far a broken download came.
    """

    def __init__(self, length: int | None) -> None:
        self.length = length
        self.bytes_sent = 0
        self._closed = False
        self._when_closed: list[Callable[[Body], object]] = []
        self._begun: Iterator[bytes] | None = None

    @abc.abstractmethod
    def chunks(self) -> Iterator[bytes]:
        """The bytes, in pieces of the body's choosing."""

    def begin(self) -> None:
        """Wait for the first chunk, so that a source without any fails before its answer has
        begun and can still be told in words.
        """
        chunks = self.chunks()
        first = next(chunks, None)
        self._begun = chunks if first is None else itertools.chain((first,), chunks)

    def release(self) -> None:
        """Free what the body holds; called once."""
        return None

    def interrupt(self) -> None:
        """Make a chunk that another thread waits for end soon, in an error; may do nothing.

        The body is still that thread's to close.
        """
        return None

    def when_closed(self, callback: Callable[["Body"], object]) -> None:
        """Call callback(body) once, after the body has been closed."""
        self._when_closed.append(callback)

    def __iter__(self) -> Iterator[bytes]:
        for chunk in self._begun if self._begun is not None else self.chunks():
            yield chunk
            self.bytes_sent += len(chunk)

    def close(self) -> None:
        """Release everything; may be called at any time, and twice."""
        if self._closed:
            return
        self._closed = True
        try:
            self.release()
        finally:
            for callback in self._when_closed:
                callback(self)


class FileBody(Body):
    """A range of an open file; the edge may send it without copying instead of iterating.

    Iteration yields at most `chunk` bytes at a time.
    """

    length: int

    def __init__(self, file: BinaryIO, offset: int, length: int, chunk: int = CHUNK) -> None:
        super().__init__(length)
        self.chunk = chunk
        self.file = file
        self.offset = offset

    def begin(self) -> None:
        """Nothing: an open file has its bytes, and the edge may want them untouched."""

    def chunks(self) -> Iterator[bytes]:
        position, end = self.offset, self.offset + self.length
        while position < end:
            chunk = offload(os.pread, self.file.fileno(), min(self.chunk, end - position), position)
            if not chunk:
                return
            position += len(chunk)
            yield chunk

    def release(self) -> None:
        # A network filesystem that is gone says so here once more.
        with contextlib.suppress(OSError):
            self.file.close()


class StreamBody(Body):
    """Any iterable of bytes, with what to call when done."""

    def __init__(
        self,
        chunks: Iterable[bytes],
        length: int | None,
        close: Callable[[], object] | None = None,
    ) -> None:
        super().__init__(length)
        self._chunks = chunks
        self._close = close

    def chunks(self) -> Iterator[bytes]:
        return iter(self._chunks)

    def release(self) -> None:
        if self._close is not None:
            self._close()


def empty() -> StreamBody:
    """A body of no bytes."""
    return StreamBody((), 0)
