"""What the registry's database asks cost among a million images, beside the same among thousands.

Every order, position and scope of a page of 100, the usual filters, and what reads or changes one
image. A row of the table is a group of questions; its ratio is that of the group's worst question,
and the JSON line has them all, in milliseconds by the number of images.
"""

import contextlib
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import sqlalchemy as sa

from common.context import RequestContext
from common.image import Change
from common.query import SORT_KEYS, ListQuery, parse_registry
from glance_registry.db import images, listing, members, models, usage
from glance_registry.db.engine import Database, DatabaseSettings
from glance_registry.db.list_statements import order_of
from tests.bench.database_generator import fill, tenant_count, tenant_name
from tests.bench.measure import Result, ratio_at_most
from tests.servers.mariadb import MariaDB

PAGE = 100
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

Question = Callable[["Subject"], Callable[[], object]]


class Subject:
    """One filled database, and how fast it answers."""

    def __init__(self, url: str, count: int) -> None:
        self.count = count
        self.database = Database(DatabaseSettings(url, sqlite_synchronous=False))
        fill(self.database, count)
        middle = tenant_count(count) // 2
        self.tenant = RequestContext(tenant=tenant_name(middle))
        live = (
            sa.select(models.images.c.id)
            .where(models.images.c.deleted == sa.false(), models.images.c.status == "active")
            .order_by(models.images.c.checksum)
            .limit(200)
        )
        self.ids = iter(self.database.read(lambda c: c.execute(live).scalars().all()))

    def caller(self, name: str) -> RequestContext:
        return ADMIN if name == "admin" else self.tenant

    def page(self, ctx: RequestContext, query: ListQuery) -> Callable[[], object]:
        return lambda: self.database.read(lambda c: listing.page(c, ctx, query, PAGE, brief=False))

    def fastest(self, work: Callable[[], object], runs: int) -> float:
        """Milliseconds. What disturbs a machine only ever makes it slower."""
        work()
        times = []
        for _ in range(runs):
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


def _orders(caller: str, scope: str) -> dict[str, Question]:
    def ask(key: str, direction: str, position: str) -> Question:
        def question(subject: Subject) -> Callable[[], object]:
            query = ListQuery(scope=scope, sort_key=key, sort_dir=direction)
            query.marker = subject.marker(key, direction, position, scope)
            return subject.page(subject.caller(caller), query)

        return question

    return {
        f"{key} {direction} {position}": ask(key, direction, position)
        for key in SORT_KEYS
        for direction in ("asc", "desc")
        for position in ("first", "middle", "last")
    }


def _filters(caller: str) -> dict[str, Question]:
    def ask(text: str) -> Question:
        params = dict(part.split("=") for part in text.split("&"))
        if caller == "admin":
            params["is_public"] = "none"
        query = parse_registry(params, is_admin=caller == "admin")
        return lambda subject: subject.page(subject.caller(caller), query)

    return {text: ask(text) for text in FILTERS}


def _show(subject: Subject) -> Callable[[], object]:
    image_id = next(subject.ids)
    return lambda: subject.database.read(lambda c: images.get(c, ADMIN, image_id))


def _members(subject: Subject) -> Callable[[], object]:
    image_id = next(subject.ids)
    return lambda: subject.database.read(lambda c: members.of_image(c, ADMIN, image_id))


def _shared(subject: Subject) -> Callable[[], object]:
    tenant = subject.tenant.tenant or ""
    return lambda: subject.database.read(lambda c: members.of_member(c, ADMIN, tenant))


def _reserve(subject: Subject) -> Callable[[], object]:
    tenant = subject.tenant.tenant
    return lambda: subject.database.write(lambda c: usage.reserve(c, tenant, 1, 1 << 60))


def _share(subject: Subject) -> Callable[[], object]:
    image_id = next(subject.ids)

    def share() -> None:
        member = uuid.uuid4().hex
        subject.database.write(lambda c: members.put(c, ADMIN, image_id, member, None, 128))

    return share


def _create(subject: Subject) -> Callable[[], object]:
    fields = {"name": "new", "status": "queued", "owner": subject.tenant.tenant}
    return lambda: subject.database.write(
        lambda c: images.create(c, Change(dict(fields), properties={"os_distro": "debian"}))
    )


def _update(subject: Subject) -> Callable[[], object]:
    image_id = next(subject.ids)

    def update() -> None:
        change = Change({"name": uuid.uuid4().hex}, properties={"build": uuid.uuid4().hex})
        subject.database.write(lambda c: images.update(c, ADMIN, image_id, change))

    return update


def _delete(subject: Subject) -> Callable[[], object]:
    return lambda: subject.database.write(lambda c: images.delete(c, ADMIN, next(subject.ids)))


_GROUPS: dict[str, dict[str, Question]] = {
    "page of 100, all images": _orders("admin", "all"),
    "page of 100, private images": _orders("admin", "private"),
    "page of 100, what a tenant may see": _orders("tenant", "visible"),
    "filtered page of 100, all images": _filters("admin"),
    "filtered page of 100, what a tenant may see": _filters("tenant"),
    "one image, its members, a tenant's shared images": {
        "show": _show,
        "members": _members,
        "shared images": _shared,
    },
    "create, update, share, delete, check of a quota": {
        "create": _create,
        "update": _update,
        "share": _share,
        "delete": _delete,
        "quota": _reserve,
    },
}


def _group(
    where: str, what: str, questions: dict[str, Question], subjects: list[Subject], runs: int
) -> Result:
    found: dict[str, dict[str, float]] = {}
    big, small, ratios = [], [], {}
    for name, question in questions.items():
        asked = [question(subject) for subject in subjects]
        pages = [work() for work in asked] if "page" in what else []
        times = [s.fastest(work, runs) for s, work in zip(subjects, asked, strict=True)]
        found[name] = {str(s.count): round(t, 3) for s, t in zip(subjects, times, strict=True)}
        if pages and _length(pages[0]) != _length(pages[-1]):
            # Few images match among few: not the same page. Its length still stands beside it.
            found[name]["images"] = _length(pages[-1])
            found[name]["images in the smallest"] = _length(pages[0])
            continue
        big.append(times[-1])
        small.append(times[0])
        ratios[name] = times[-1] / times[0]
    worst = max(ratios, key=lambda name: ratios[name])
    return Result(
        "pages",
        f"{where}: {what} of {subjects[-1].count:,}",
        "ms",
        big,
        yardstick=f"of {subjects[0].count:,}",
        yardstick_values=small,
        ratio=ratios[worst],
        aim=ratio_at_most(1.5),
        details={"worst": worst, "milliseconds": found},
    )


def _length(page: object) -> int:
    assert isinstance(page, list)
    return len(page)


@contextlib.contextmanager
def _sqlite() -> Iterator[Callable[[], str]]:
    with tempfile.TemporaryDirectory(prefix="glance-bench-") as home:
        yield lambda: f"sqlite:///{Path(home, uuid.uuid4().hex)}.sqlite"


@contextlib.contextmanager
def _mariadb() -> Iterator[Callable[[], str]]:
    # What a database of that size is given; the default would measure its disk.
    with MariaDB(buffer_pool_mib=4096) as server:
        yield server.create


def pages(quick: bool) -> Iterator[Result]:
    """The registry's questions to SQLite and MariaDB, in tables of growing size."""
    sizes, runs = ((1_000, 20_000), 5) if quick else ((1_000, 100_000, 1_000_000), 15)
    for where, server in (("SQLite", _sqlite), ("MariaDB", _mariadb)):
        with server() as new_url:
            subjects = [Subject(new_url(), size) for size in sizes]
            for what, questions in _GROUPS.items():
                yield _group(where, what, questions, subjects, runs)
            for subject in subjects:
                subject.database.dispose()
