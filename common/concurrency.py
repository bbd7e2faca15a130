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


class EventLoop(Protocol):
    """What the server provides: see `offload` and `submit` for what is promised."""

    def offload(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any: ...

    def submit(self, function: Callable[..., Any], *args: Any) -> Pending[Any]: ...


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


class _NoLoop:
    def offload(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    def submit(self, function: Callable[..., Any], *args: Any) -> Pending[Any]:
        return _Done(function, args)


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
    """At most one piece of blocking work under way, overlapping with what its owner does.

    Used to write one chunk while the next is being received. An error of the work is raised by
    the following `start` or by `wait`, whichever comes first.
    """

    def __init__(self) -> None:
        self._pending: Pending[object] | None = None

    def start(self, function: Callable[..., object], *args: Any) -> None:
        self.wait()
        self._pending = submit(function, *args)

    def wait(self) -> None:
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.wait()
