"""The seam between our code and the event loop.

Our code runs on an event loop where sockets, locks and threads of the standard library are
cooperative. Work that would block the loop (disk, hashing, C libraries) goes through `offload`.
Without a loop, as in tools and unit tests, `offload` simply calls. The server installs the
native-thread version, so nothing else names the loop's library.
"""

from collections.abc import Callable
from typing import ParamSpec, Protocol, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class Offloader(Protocol):
    def __call__(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T: ...


def _call(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    return function(*args, **kwargs)


_offloader: Offloader = _call


def install(offloader: Offloader) -> None:
    """Make `offload` use offloader from now on; called once per process, by the server."""
    global _offloader
    _offloader = offloader


def offload(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Return function(*args, **kwargs), computed where it cannot stall the event loop.

    The function runs in a native thread: it must not touch a socket made by our process's
    cooperative modules. Its exception is raised here.
    """
    return _offloader(function, *args, **kwargs)
