"""What a page of 100 costs in databases of growing size: first, middle and last, every order.

    python -m tests.bench.bench_database_pages URL_OF_1000 URL_OF_100000 URL_OF_1000000

The databases are made by database_generator. Prints one JSON line per case with the median
milliseconds in each database and the ratio of the largest to the smallest.
"""

import json
import sys
import time
from collections.abc import Callable, Iterator

import sqlalchemy as sa

from common.context import RequestContext
from common.query import SORT_KEYS, ListQuery, parse_registry
from glance_registry.db import images, listing, members, models
from glance_registry.db.engine import Database, DatabaseSettings
from glance_registry.db.list_statements import order_of
from tests.bench.database_generator import tenant_count, tenant_name

PAGE = 100
RUNS = 15
ADMIN = RequestContext(is_admin=True, tenant="ops")

FILTERS = (
    "status=active",
    "name=ubuntu",
    "name=image-500",
    "disk_format=qcow2",
    "container_format=ovf",
    "size_min=1048576",
    "size_min=500000000&size_max=600000000",
    "property-os_distro=debian",
    "property-build=7",
    "changes-since=2026-01-25T00:00:00",
    "changes-since=2001-01-01T00:00:00",
    "status=active&sort_key=name&sort_dir=asc",
    "name=ubuntu&sort_key=size",
    "property-build=7&sort_key=name",
    "deleted=True",
    "protected=true",
    "status=killed&deleted=False",
)


class Subject:
    """One database, and its answers to one question at a time."""

    def __init__(self, url: str) -> None:
        self.database = Database(DatabaseSettings(url))
        count = sa.select(sa.func.count()).select_from(models.images)
        self.images: int = self.database.read(lambda c: c.execute(count).scalar_one())
        tenants = tenant_count(self.images)
        self.callers = {
            "tenant": RequestContext(tenant=tenant_name(tenants // 2)),
            "admin": ADMIN,
        }

    def time_page(self, caller: str, query: ListQuery) -> float:
        ctx = self.callers[caller]
        return self.median(
            lambda: self.database.read(lambda c: listing.page(c, ctx, query, PAGE, brief=False))
        )

    def median(self, work: Callable[[], object]) -> float:
        work()
        times = []
        for _ in range(RUNS):
            started = time.perf_counter()
            work()
            times.append(time.perf_counter() - started)
        return min(times) * 1000

    def marker(self, key: str, direction: str, position: str, scope: str) -> str | None:
        """The image before the page at position, in this scope's order."""
        if position == "first":
            return None
        columns = [models.images.c[name] for name in order_of(key)]
        order = [c.asc() if direction == "asc" else c.desc() for c in columns]
        condition = models.images.c.deleted == sa.false()
        if scope != "all":
            condition &= models.images.c.is_public == (
                sa.false() if scope == "private" else sa.true()
            )
        found = sa.select(models.images.c.id).where(condition).order_by(*order)
        total = self.database.read(
            lambda c: c.execute(sa.select(sa.func.count()).where(condition)).scalar_one()
        )
        offset = total // 2 if position == "middle" else max(total - PAGE - 20, 0)
        return self.database.read(lambda c: c.execute(found.limit(1).offset(offset)).scalar_one())


def _orders(subjects: list[Subject]) -> Iterator[tuple[str, list[float]]]:
    for caller, scope in (("admin", "all"), ("admin", "private"), ("tenant", "visible")):
        for key in SORT_KEYS:
            for direction in ("asc", "desc"):
                for position in ("first", "middle", "last"):
                    times = []
                    for subject in subjects:
                        query = ListQuery(scope=scope, sort_key=key, sort_dir=direction)
                        query.marker = subject.marker(key, direction, position, scope)
                        times.append(subject.time_page(caller, query))
                    yield f"{caller} {scope} {key} {direction} {position}", times


def _filters(subjects: list[Subject]) -> Iterator[tuple[str, list[float]]]:
    for caller in ("admin", "tenant"):
        for text in FILTERS:
            params = dict(part.split("=") for part in text.split("&"))
            if caller == "admin":
                params["is_public"] = "none"
            query = parse_registry(params, is_admin=caller == "admin")
            yield f"{caller} {text}", [subject.time_page(caller, query) for subject in subjects]


def _others(subjects: list[Subject]) -> Iterator[tuple[str, list[float]]]:
    def show(subject: Subject) -> float:
        found = sa.select(models.images.c.id).limit(1).offset(subject.images // 2)
        image_id = subject.database.read(lambda c: c.execute(found).scalar_one())
        return subject.median(
            lambda: subject.database.read(lambda c: images.get(c, ADMIN, image_id))
        )

    def shared(subject: Subject) -> float:
        ctx = subject.callers["tenant"]
        assert ctx.tenant is not None
        tenant = ctx.tenant
        return subject.median(
            lambda: subject.database.read(lambda c: members.of_member(c, ctx, tenant))
        )

    yield "show", [show(subject) for subject in subjects]
    yield "shared-images", [shared(subject) for subject in subjects]


def main() -> None:
    subjects = [Subject(url) for url in sys.argv[1:]]
    worst: list[tuple[float, str]] = []
    for cases in (_orders, _filters, _others):
        for what, times in cases(subjects):
            ratio = times[-1] / times[0]
            worst.append((ratio, what))
            print(
                json.dumps(
                    {
                        "what": what,
                        "ms": {s.images: round(t, 2) for s, t in zip(subjects, times, strict=True)},
                        "ratio": round(ratio, 2),
                    }
                ),
                flush=True,
            )
    worst.sort(reverse=True)
    print(json.dumps({"worst": [[round(ratio, 2), what] for ratio, what in worst[:10]]}))


if __name__ == "__main__":
    main()
