"""Reading an object over HTTP, and going on where a broken read stopped."""

from collections.abc import Callable, Iterator
from typing import Protocol

from common.body import CHUNK, Body
from glance_store.errors import BackendUnavailable


class RemoteStream(Protocol):
    """Bytes of one response. read raises BackendUnavailable if the connection broke."""

    def read(self, size: int, /) -> bytes: ...

    def close(self) -> None: ...


class RemoteBody(Body):
    """A response on its way out.

    If it ends early, `reopen` is asked, at most `retries` times, for another one that starts so
    many bytes further on; then BackendUnavailable is raised.
    """

    def __init__(
        self,
        stream: RemoteStream,
        length: int | None,
        reopen: Callable[[int], RemoteStream],
        retries: int,
    ) -> None:
        super().__init__(length)
        self._stream = stream
        self._reopen = reopen
        self._retries = retries

    def chunks(self) -> Iterator[bytes]:
        position = 0
        while not self._closed:
            try:
                chunk = self._stream.read(CHUNK)
                if not chunk:
                    self._check_end(position)
                    return
            except BackendUnavailable:
                if self._retries <= 0 or self.length is None:
                    raise
                self._retries -= 1
                self._stream.close()
                self._stream = self._reopen(position)
                continue
            position += len(chunk)
            yield chunk

    def release(self) -> None:
        self._stream.close()

    def _check_end(self, position: int) -> None:
        if self.length is not None and position != self.length:
            raise BackendUnavailable("The store broke off in the middle of the image.")
