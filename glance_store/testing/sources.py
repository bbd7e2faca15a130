"""Content, and sources that deliver it in the ways that drivers must bear."""

import random
import threading
from collections.abc import Callable

from common import errors
from common.upload import BytesSource, Upload


def content_of(length: int, seed: int = 1) -> bytes:
    """Bytes that do not repeat, the same for the same arguments."""
    return random.Random(seed).randbytes(length)


def upload_of(content: bytes, size: int | None = None) -> Upload:
    return Upload(BytesSource(content), size=size)


class PiecesSource:
    """Hands out content in pieces of the given sizes, over and over, whatever is asked for."""

    def __init__(self, content: bytes, sizes: tuple[int, ...]) -> None:
        self._left = content
        self._sizes = sizes
        self._turn = 0

    def read(self, size: int, /) -> bytes:
        piece = min(size, self._sizes[self._turn % len(self._sizes)])
        self._turn += 1
        chunk, self._left = self._left[:piece], self._left[piece:]
        return chunk

    def abort(self) -> None:
        self._left = b""


class WatchedSource(BytesSource):
    """Calls watch before each read."""

    def __init__(self, content: bytes, watch: Callable[[], object]) -> None:
        super().__init__(content)
        self._watch = watch

    def read(self, size: int, /) -> bytes:
        self._watch()
        return super().read(size)


class FailingSource(BytesSource):
    """Raises ClientDisconnected where its content ends."""

    def read(self, size: int, /) -> bytes:
        chunk = super().read(size)
        if not chunk:
            raise errors.ClientDisconnected()
        return chunk


class StuckSource(BytesSource):
    """Hands out its content, sets `stuck`, and then waits to be aborted, for a minute at most."""

    def __init__(self, content: bytes) -> None:
        super().__init__(content)
        self.stuck = threading.Event()
        self._aborted = threading.Event()

    def read(self, size: int, /) -> bytes:
        chunk = super().read(size)
        if not chunk:
            self.stuck.set()
            self._aborted.wait(60)
            raise errors.ClientDisconnected()
        return chunk

    def abort(self) -> None:
        self._aborted.set()
