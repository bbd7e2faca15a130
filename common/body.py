"""Outgoing bytes. Whoever stands between a store and the socket passes a Body on unread."""

import os
from collections.abc import Callable, Iterable, Iterator
from typing import BinaryIO, Protocol, runtime_checkable

from common.concurrency import offload

CHUNK = 512 * 1024


@runtime_checkable
class Body(Protocol):
    """Bytes on their way out, read once.

    `length` is the number of bytes that iteration yields, or None where the source does not
    say. `close` releases what the body holds; it may be called at any time, and twice.
    """

    length: int | None

    def __iter__(self) -> Iterator[bytes]: ...

    def close(self) -> None: ...


class FileBody:
    """A range of an open file; the edge may send it without copying instead of iterating."""

    def __init__(self, file: BinaryIO, offset: int, length: int) -> None:
        self.file = file
        self.offset = offset
        self.length: int | None = length
        self._left = length

    def __iter__(self) -> Iterator[bytes]:
        position = self.offset
        while self._left > 0:
            chunk = offload(os.pread, self.file.fileno(), min(CHUNK, self._left), position)
            if not chunk:
                return
            position += len(chunk)
            self._left -= len(chunk)
            yield chunk

    def close(self) -> None:
        self.file.close()


class StreamBody:
    """Any iterable of bytes, with what to call when done."""

    def __init__(
        self,
        chunks: Iterable[bytes],
        length: int | None,
        close: Callable[[], object] | None = None,
    ) -> None:
        self.length = length
        self._chunks = chunks
        self._close = close

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._chunks)

    def close(self) -> None:
        close, self._close = self._close, None
        if close is not None:
            close()


def empty() -> StreamBody:
    """A body of no bytes."""
    return StreamBody((), 0)
