"""Many callers at the same time."""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


def together(calls: Iterable[Callable[[], T]]) -> list[T]:
    """What each call returns, in their order; all of them run at once."""
    wanted = list(calls)
    with ThreadPoolExecutor(len(wanted)) as pool:
        return [future.result() for future in [pool.submit(call) for call in wanted]]
