"""Which names are being written right now, for backends without a conditional write."""

import contextlib
import threading
from collections.abc import Iterator

from common import errors


class Claims:
    """Names held by writers of this process.

    The registry lets one upload per image through; this closes the gap for whoever asks the
    store directly. Other processes are not seen: there the backend's own check decides.
    """

    def __init__(self) -> None:
        self._held: set[str] = set()
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def hold(self, name: str) -> Iterator[None]:
        """Hold name inside the block. Raises Duplicate if somebody else does."""
        with self._lock:
            if name in self._held:
                raise errors.Duplicate()
            self._held.add(name)
        try:
            yield
        finally:
            with self._lock:
                self._held.discard(name)
