"""The seam between our code and the event loop.

Our code runs on an event loop where the standard library's sockets, locks and threads are
cooperative. Work that would block the loop (disk, hashing, C libraries) goes through `offload`
or `submit`. Without a loop, as in tools and unit tests, both simply call. The server installs
versions that use native threads, so nothing else names the loop's library.
"""

from collections.abc import Callable
from typing import Any, Generic, ParamSpec, Protocol, TypeVar

P = ParamSpec("P")
T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class Pending(Protocol[T_co]):
    """Work under way; `wait` returns its result or raises its exception."""

    def wait(self) -> T_co: ...


class Lane(Protocol):
    """Pieces of work done in order, one at a time; belongs to one caller.

    `put` waits until fewer pieces than the lane is deep are unfinished, `flush` until none is.
    Either raises the error of a piece that failed, once; pieces behind that one are dropped.
    """

    def put(self, function: Callable[..., object], *args: Any) -> None: ...

    def flush(self) -> None: ...


class EventLoop(Protocol):
    """What the server provides: see `offload`, `submit` and `Behind` for what is promised."""

    def offload(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any: ...

    def submit(self, function: Callable[..., Any], *args: Any) -> Pending[Any]: ...

    def lane(self, depth: int) -> Lane: ...


class _Done(Generic[T]):
    def __init__(self, function: Callable[..., T], args: tuple[Any, ...]) -> None:
        self._error: Exception | None = None
        try:
            self._result = function(*args)
        except Exception as error:
            self._error = error

    def wait(self) -> T:
        if self._error is not None:
            raise self._error
        return self._result


class _InlineLane:
    def __init__(self) -> None:
        self._error: Exception | None = None

    def put(self, function: Callable[..., object], *args: Any) -> None:
        self.flush()
        try:
            function(*args)
        except Exception as error:
            self._error = error

    def flush(self) -> None:
        error, self._error = self._error, None
        if error is not None:
            raise error


class _NoLoop:
    def offload(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    def submit(self, function: Callable[..., Any], *args: Any) -> Pending[Any]:
        return _Done(function, args)

    def lane(self, depth: int) -> Lane:
        return _InlineLane()


_loop: EventLoop = _NoLoop()


def install(loop: EventLoop) -> None:
    """Use loop from now on; called once per process, by the server."""
    global _loop
    _loop = loop


def offload(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Return function(*args, **kwargs), computed where it cannot stall the event loop.

    The function runs in a native thread: it must not touch a socket, lock or thread made by
    the cooperative standard library. Its exception is raised here.
    """
    result: T = _loop.offload(function, *args, **kwargs)
    return result


def submit(function: Callable[..., T], *args: Any) -> Pending[T]:
    """Start function(*args) as `offload` would and return at once.

    The caller waits for it before it frees anything that the function uses.
    """
    return _loop.submit(function, *args)


class Behind:
    """Blocking work that overlaps with what its owner does, in order and one piece at a time.

    Used to write one chunk while the next is being received. At most `depth` pieces are under
    way or waiting; `start` waits for room. An error of the work is raised by the following
    `start` or by `wait`, whichever comes first.
    """

    def __init__(self, depth: int = 1) -> None:
        self._lane = _loop.lane(depth)

    def start(self, function: Callable[..., object], *args: Any) -> None:
        self._lane.put(function, *args)

    def wait(self) -> None:
        self._lane.flush()
