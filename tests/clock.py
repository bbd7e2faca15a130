"""Time as one module under test sees it: `monkeypatch.setattr(module, "time", Clock())`.

Never patch `time.sleep` itself: background threads of other tests would spin.
"""

import time
from collections.abc import Callable


class Clock:
    """Stands still until somebody sleeps; keeps how long each sleep was."""

    def __init__(self, on_sleep: Callable[[float], object] | None = None) -> None:
        self.now = 0.0
        self.slept: list[float] = []
        self._on_sleep = on_sleep
        self.time = time.time
        self.perf_counter = time.perf_counter

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.slept.append(seconds)
        if self._on_sleep is not None:
            self._on_sleep(seconds)
