"""How the databases carry out each main query: by an index that is in order, or from a few rows.

What a plan is does not show in any answer, only in the time of a large installation; so it is
held here (REL-055, SEC-076).
"""

from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy as sa

from common.context import RequestContext
from common.query import SORT_KEYS, parse_registry
from glance_registry.db import images, listing, members, models
from glance_registry.db.engine import Database, DatabaseSettings
from glance_registry.db.list_statements import order_of
from tests.bench.database_generator import fill, tenant_name
from tests.registry import ADMIN, statements, user
from tests.servers.mariadb import MariaDB

IMAGES = 4000
TENANT = user(tenant_name(3))


@pytest.fixture(scope="module")
def sqlite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    path = tmp_path_factory.mktemp("plans") / "glance.sqlite"
    database = Database(DatabaseSettings(f"sqlite:///{path}", sqlite_synchronous=False))
    fill(database, IMAGES)
    yield database
    database.dispose()


@pytest.fixture(scope="module")
def mariadb_filled(mariadb: MariaDB) -> Iterator[Database]:
    database = Database(DatabaseSettings(mariadb.create()))
    fill(database, IMAGES)
    yield database
    database.dispose()


@pytest.fixture(params=["sqlite", "mariadb"])
def database(request: pytest.FixtureRequest) -> Database:
    name = "sqlite" if request.param == "sqlite" else "mariadb_filled"
    found: Database = request.getfixturevalue(name)
    return found


class Plans:
    """Statements that a piece of work sends, and how each is carried out."""

    def __init__(self, database: Database, work: Any) -> None:
        self.database = database
        with statements(database) as sent:
            database.read(work)
        self.steps = [step for statement in sent for step in self._explain(*statement)]

    def _explain(self, statement: str, parameters: Any) -> list[str]:
        word = "EXPLAIN QUERY PLAN" if self.database.is_sqlite else "EXPLAIN"
        with self.database.engine.connect() as connection:
            rows = connection.exec_driver_sql(f"{word} {statement}", parameters).all()
        if self.database.is_sqlite:
            return [row[3] for row in rows]
        # id, kind, table, access, possible keys, key, key length, ref, rows, extra
        return [f"{row[2]} {row[3]} {row[5]} {row[9]}" for row in rows]

    def on(self, table: str) -> list[str]:
        """The steps that read the table."""
        words = (f"SEARCH {table} ", f"SCAN {table}") if self.database.is_sqlite else (f"{table} ",)
        return [step for step in self.steps if step.startswith(words)]

    def assert_no_scan(self) -> None:
        for step in self.steps:
            if self.database.is_sqlite:
                # What is scanned is the result of another step, never a table.
                assert not any(step.startswith(f"SCAN {name}") for name in models.metadata.tables)
            else:
                table, access, *_ = step.split(" ")
                assert table.startswith("<") or access not in ("ALL", "index"), step
                assert access != "index_merge", step

    def assert_in_order(self) -> None:
        """No run of an index is sorted again; only merged runs and details of a page are."""
        for number, step in enumerate(self.steps):
            if self.database.is_sqlite and "glance_v1_list" in step:
                assert "TEMP B-TREE" not in self.steps[number + 1] or (
                    "anon" in self.steps[number + 1]
                ), self.steps
            elif "glance_v1_list" in step:
                assert "filesort" not in step, step


def page(database: Database, ctx: RequestContext, **params: str) -> Plans:
    query = parse_registry(params, is_admin=ctx.is_admin)
    return Plans(database, lambda c: listing.page(c, ctx, query, 50, brief=False))


def marker(database: Database, key: str, condition: Any, offset: int) -> str:
    order = [models.images.c[name] for name in order_of(key)]
    statement = (
        sa.select(models.images.c.id)
        .where(models.images.c.deleted == sa.false(), models.images.c.is_public == sa.true())
        .where(condition)
        .order_by(*order)
        .limit(1)
        .offset(offset)
    )
    return database.read(lambda c: str(c.execute(statement).scalar_one()))


NULLABLE = ("name", "size", "disk_format", "container_format")
PLACES = [(key, position) for key in SORT_KEYS for position in ("first", "later")]
PLACES += [(key, "after null") for key in NULLABLE]


@pytest.mark.parametrize("direction", ["asc", "desc"])
@pytest.mark.parametrize(("key", "position"), PLACES)
def test_a_page_follows_the_index_of_its_order(
    database: Database, key: str, direction: str, position: str
) -> None:
    params = {"sort_key": key, "sort_dir": direction}
    column = models.images.c[key]
    if position == "after null":
        params["marker"] = marker(database, key, column.is_(None), 1)
    elif position == "later":
        params["marker"] = marker(database, key, column.is_not(None), 20)
    for ctx, scope in ((ADMIN, "none"), (ADMIN, "False"), (TENANT, "")):
        plans = page(database, ctx, **params, **({"is_public": scope} if scope else {}))
        plans.assert_no_scan()
        plans.assert_in_order()
        used = " ".join(plans.on("images"))
        assert f"glance_v1_list_{key}" in used
        if ctx is TENANT:
            assert "glance_v1_owned" in used
            assert "glance_v1_member" in " ".join(plans.on("image_members"))


@pytest.mark.parametrize("field", ["name", "status", "disk_format", "container_format"])
def test_equality_under_the_default_order_follows_the_index_of_its_field(
    database: Database, field: str
) -> None:
    value = {"name": "ubuntu", "status": "active", "disk_format": "raw"}.get(field, "bare")
    plans = page(database, ADMIN, is_public="none", **{field: value})
    plans.assert_no_scan()
    plans.assert_in_order()
    assert f"glance_v1_list_{field}" in " ".join(plans.on("images"))


@pytest.mark.parametrize(
    ("params", "table", "index"),
    [
        ({"property-build": "3"}, "image_properties", "glance_v1_property_value"),
        ({"changes-since": "2026-01-25T00:00:00"}, "images", "updated_at_image_idx"),
        ({"protected": "true"}, "images", "glance_v1_protected"),
        ({"min_ram": "5"}, "images", "glance_v1_min_ram"),
        ({"min_disk": "5"}, "images", "glance_v1_min_disk"),
        ({"size_min": "1048000000"}, "images", "glance_v1_list_size"),
        ({"name": "image-7", "sort_key": "size"}, "images", "glance_v1_list_name"),
    ],
)
@pytest.mark.parametrize("ctx", [ADMIN, TENANT], ids=["admin", "tenant"])
def test_a_filter_that_matches_few_is_where_the_search_starts(
    database: Database, params: dict[str, str], table: str, index: str, ctx: RequestContext
) -> None:
    plans = page(database, ctx, **params, **({"is_public": "none"} if ctx.is_admin else {}))
    plans.assert_no_scan()
    assert any(index in step for step in plans.on(table))


def test_a_filter_that_matches_many_follows_the_order(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listing, "_FEW", 20)
    for params in ({"property-os_distro": "debian"}, {"size_min": "0"}, {"protected": "false"}):
        plans = page(database, ADMIN, is_public="none", **params)
        plans.assert_no_scan()
        assert any("glance_v1_list_created_at" in step for step in plans.on("images"))
        by_image = "(image_id=?" if database.is_sqlite else "ix_image_properties_image_id"
        candidates = "glance_v1_property_value"
        for step in plans.on("image_properties"):
            assert by_image in step or candidates in step


def test_one_image_is_found_by_its_keys(database: Database) -> None:
    image_id = marker(database, "id", sa.true(), 0)
    work = [
        lambda c: images.get(c, TENANT, image_id),
        lambda c: members.of_image(c, ADMIN, image_id),
        lambda c: members.of_member(c, TENANT, str(TENANT.tenant)),
        lambda c: members.of_member(c, TENANT, tenant_name(5)),
    ]
    for piece in work:
        plans = Plans(database, piece)
        plans.assert_no_scan()
        assert not any("_deleted" in step and "glance" not in step for step in plans.steps), (
            plans.steps
        )
