"""How long after they are started both daemons answer."""

from collections.abc import Iterator

from tests.bench.measure import Result, at_most, seconds_of
from tests.bench.subjects import running_glance


def start(quick: bool) -> Iterator[Result]:
    """Seconds from starting both daemons to the answers of both."""
    values = []
    with running_glance() as glance:
        for _ in range(2 if quick else 7):
            glance.service.stop()
            values.append(seconds_of(glance.service.start))
    yield Result("start", "both daemons answer after", "s", values, aim=at_most(2))
