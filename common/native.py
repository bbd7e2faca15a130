"""Native threads for blocking work, beside an event loop that is one thread itself.

Nothing here names a loop. It is given the threading and queue modules as they were before the
loop replaced them, and the loop's way to wait for a file descriptor; plain threads will do too.
"""

import os
from collections import deque
from collections.abc import Callable
from types import ModuleType
from typing import Any, Final

# Most of them wait for a disk; hashing keeps no more busy than there are processors.
THREADS: Final = 20


class NativeThreads:
    """What `common.concurrency.EventLoop` asks for, on threads of the operating system.

    They start when first needed and stay, at most `limit` of them. wait_readable(descriptor)
    lets the event loop go on until the descriptor can be read.
    """

    def __init__(
        self,
        threading: ModuleType,
        queue: ModuleType,
        wait_readable: Callable[[int], object],
        limit: int = THREADS,
    ) -> None:
        self.wait_readable = wait_readable
        self.new_lock = threading.Lock
        self._new_thread = threading.Thread
        self._works = queue.SimpleQueue()
        self._lock = self.new_lock()
        self._limit = limit
        self._threads = 0
        self._unfinished = 0

    def offload(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        return _Result(self, lambda: function(*args, **kwargs)).wait()

    def submit(self, function: Callable[..., Any], *args: Any) -> "_Result":
        return _Result(self, lambda: function(*args))

    def lane(self, depth: int) -> "NativeLane":
        return NativeLane(self, depth)

    def run(self, work: Callable[[], object]) -> None:
        """Start work in a thread, or as soon as one is free; it must not raise."""
        with self._lock:
            self._unfinished += 1
            another = self._threads < min(self._unfinished, self._limit)
            self._threads += another
        self._works.put(work)
        if another:
            self._new_thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            self._works.get()()
            with self._lock:
                self._unfinished -= 1


class NativeLane:
    """See `common.concurrency.Lane`.

    With a depth of two the next piece of work is there when one ends, so the native thread need
    not idle until the event loop has heard of it.
    """

    def __init__(self, threads: NativeThreads, depth: int) -> None:
        self._threads = threads
        self._depth = depth
        self._lock = threads.new_lock()
        self._works: deque[Callable[[], object]] = deque()
        self._unfinished = 0
        self._running = False
        self._error: BaseException | None = None
        # Rung, while the loop waits, whenever a piece of work is finished.
        self._bell: int | None = None

    def put(self, function: Callable[..., object], *args: Any) -> None:
        self._wait_for_fewer_than(self._depth)
        with self._lock:
            self._works.append(lambda: function(*args))
            self._unfinished += 1
            start, self._running = not self._running, True
        if start:
            self._threads.run(self._run)

    def flush(self) -> None:
        self._wait_for_fewer_than(1)

    def _wait_for_fewer_than(self, count: int) -> None:
        while True:
            with self._lock:
                if self._unfinished < count:
                    error, self._error = self._error, None
                    break
                self._bell = bell = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
            try:
                self._threads.wait_readable(bell)
            finally:
                with self._lock:
                    self._bell = None
                os.close(bell)
        if error is not None:
            raise error

    def _run(self) -> None:
        """In a native thread: all there is to do, and what comes meanwhile."""
        while True:
            with self._lock:
                if not self._works:
                    self._running = False
                    return
                work = self._works.popleft()
            try:
                # What follows a failure was meant to build on what failed.
                if self._error is None:
                    work()
            except BaseException as error:
                self._error = error
            # Work holds its chunk of bytes, and the next piece may be long in coming.
            del work
            with self._lock:
                self._unfinished -= 1
                if self._bell is not None:
                    os.eventfd_write(self._bell, 1)


class _Result:
    """One piece of work under way, and what became of it."""

    def __init__(self, threads: NativeThreads, work: Callable[[], Any]) -> None:
        self._value: Any = None
        self._error: BaseException | None = None
        self._lane = NativeLane(threads, 1)
        self._lane.put(self._keep, work)

    def wait(self) -> Any:
        self._lane.flush()
        if self._error is not None:
            raise self._error
        return self._value

    def _keep(self, work: Callable[[], Any]) -> None:
        try:
            self._value = work()
        except BaseException as error:
            self._error = error
