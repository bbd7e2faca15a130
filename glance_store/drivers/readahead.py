"""A body over a C library or a device: while one piece is sent, the next ones are being read."""

import contextlib
from collections import deque
from collections.abc import Callable, Iterator
from typing import Final

from common.body import Body
from common.concurrency import Pending, submit

_PIECE: Final = 4 * 1024 * 1024
# Two, so that a backend of several servers can be busy with both.
_AHEAD: Final = 2


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
        self._ahead: deque[Pending[bytes]] = deque()

    def chunks(self) -> Iterator[bytes]:
        self._read_ahead()
        while self._ahead:
            with self._translating():
                chunk = self._ahead[0].wait()
            self._ahead.popleft()
            self._read_ahead()
            if not self._ahead:
                # Whoever has the last byte may delete the image at once.
                self._held.close()
            yield chunk

    def release(self) -> None:
        # Nobody wants the bytes any more, but what they are read from is in use until then.
        while self._ahead:
            with contextlib.suppress(Exception):
                self._ahead.popleft().wait()
        self._held.close()

    def _read_ahead(self) -> None:
        while len(self._ahead) < _AHEAD and self._position < self._end:
            length = min(_PIECE, self._end - self._position)
            self._ahead.append(submit(self._read, self._position, length))
            self._position += length
