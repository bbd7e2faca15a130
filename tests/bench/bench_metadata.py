"""Requests that move no bytes, against two bare servers that answer the same."""

from collections.abc import Iterator

from tests.bench.measure import Result, alternate, ratio_at_least
from tests.bench.subjects import floor_servers, running_glance, wrk

_IMAGES = 100
_FLOOR = "two bare eventlet servers"


def metadata(quick: bool) -> Iterator[Result]:
    """HEAD of one image and a detail list of 100, eight kept-alive clients."""
    runs, seconds = (3, 1.0) if quick else (7, 4.0)
    with running_glance() as glance, floor_servers() as (floor, _):
        image_id = glance.create_records(_IMAGES)
        cases = (
            ("HEAD of one image, 8 clients", "HEAD", f"/v1/images/{image_id}"),
            (
                "detail list of 100 images with 2 properties, 8 clients",
                "GET",
                f"/v1/images/detail?limit={_IMAGES}",
            ),
        )
        for what, method, path in cases:

            def ours(path: str = path, method: str = method) -> float:
                return wrk(glance.port, path, method=method, seconds=seconds)["rate"]

            def yardstick(path: str = path, method: str = method) -> float:
                bare = path.partition("?")[0]
                return wrk(floor, bare, method=method, seconds=seconds)["rate"]

            measured = alternate(runs, ours, yardstick, glance.processes)
            yield Result(
                "metadata",
                what,
                "requests/s",
                yardstick=_FLOOR,
                aim=ratio_at_least(0.5),
                **measured,
            )
