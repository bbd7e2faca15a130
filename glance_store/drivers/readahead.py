"""A body over a C library or a device: while one piece is sent, the next one is being read."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Final

from common.body import Body
from common.concurrency import Pending, submit

_PIECE: Final = 4 * 1024 * 1024


class ReadAheadBody(Body):
    """length bytes from offset.

    read(offset, length) blocks natively; translating() gives a block in which its errors become
    the domain's; held is what to let go of when the body is closed.
    """

    def __init__(
        self,
        read: Callable[[int, int], bytes],
        offset: int,
        length: int,
        translating: Callable[[], contextlib.AbstractContextManager[object]],
        held: contextlib.ExitStack,
    ) -> None:
        super().__init__(length)
        self._read = read
        self._position = offset
        self._end = offset + length
        self._translating = translating
        self._held = held
        self._ahead: Pending[bytes] | None = None

    def chunks(self) -> Iterator[bytes]:
        self._read_ahead()
        while (ahead := self._ahead) is not None:
            with self._translating():
                chunk = ahead.wait()
            self._ahead = None
            self._read_ahead()
            yield chunk

    def release(self) -> None:
        ahead, self._ahead = self._ahead, None
        if ahead is not None:
            # Nobody wants the bytes any more, but what they are read from is in use until then.
            with contextlib.suppress(Exception):
                ahead.wait()
        self._held.close()

    def _read_ahead(self) -> None:
        length = min(_PIECE, self._end - self._position)
        if length > 0:
            self._ahead = submit(self._read, self._position, length)
            self._position += length
