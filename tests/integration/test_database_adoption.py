"""An operator's database: adopted as it is, served, and usable by what made it (decision 3)."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy.engine import Engine

from glance_registry.db import models, sync, usage
from glance_registry.db.engine import Database, DatabaseSettings
from tests.integration.old_databases import (
    COMMUNITY,
    GONE,
    PRIVATE,
    PUBLIC,
    everything,
    make_mitaka,
    make_queens,
)
from tests.registry import ADMIN, Registry, user

Maker = Callable[[Engine], None]


@pytest.fixture(params=["sqlite", "mariadb"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    """An empty one."""
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path}/glance.sqlite"
    else:
        url = request.getfixturevalue("mariadb").create(charset="utf8")
    found = Database(DatabaseSettings(url, sqlite_synchronous=False))
    yield found
    found.dispose()


def liberty(engine: Engine) -> None:
    make_mitaka(engine, level=42)


def contents(database: Database) -> dict[str, list[dict[str, Any]]]:
    with database.engine.connect() as connection:
        return everything(connection)


def assert_kept(before: dict[str, Any], after: dict[str, Any]) -> None:
    """Every table, column and value of before is in after."""
    for table, rows in before.items():
        if table == "migrate_version":
            continue
        assert len(after[table]) == len(rows)
        for old, new in zip(rows, after[table], strict=True):
            if old.get("name") == "OS::Nova::Instance":
                old = {**old, "name": "OS::Nova::Server"}
            assert {name: new[name] for name in old} == old


@pytest.mark.parametrize("make", [make_mitaka, liberty, make_queens])
def test_adopting_keeps_everything(database: Database, make: Maker) -> None:
    """DB-001, DB-002: and adopting again changes nothing."""
    make(database.engine)
    before = contents(database)
    sync.sync(database)
    after = contents(database)
    assert_kept(before, after)
    assert sync.level(database) == 44
    assert sync.is_current(database)
    sync.sync(database)
    assert contents(database) == after


@pytest.mark.parametrize("make", [make_mitaka, liberty, make_queens])
def test_an_adopted_database_is_served(database: Database, make: Maker) -> None:
    make(database.engine)
    sync.sync(database)
    registry = Registry.over(database)
    public = registry.show(PUBLIC, user("t9"))
    assert (public["is_public"], public["owner"], public["size"]) == (True, "t1", 1000)
    assert public["properties"] == {"os_distro": "ubuntu"}
    assert public["location"] == "file:///var/lib/glance/images/1"
    assert public["created_at"] == "2016-03-01T10:00:00.000000"
    assert registry.ids(ctx=user("t9")) == [PUBLIC]
    assert set(registry.ids(ctx=user("t2"))) == {PUBLIC, PRIVATE}
    pending = "?deleted=True&is_public=none&status=pending_delete"
    (gone,) = registry.call("GET", f"/images/detail{pending}", ctx=ADMIN).json["images"]
    assert gone["location_data"][0]["metadata"] == {"a": 1}
    assert database.write(usage.recount) == 0
    (row,) = registry.rows(models.owner_usage)
    assert (row.owner, row.bytes) == ("t1", 2000)


@pytest.mark.parametrize("make", [make_mitaka, liberty, make_queens])
def test_an_adopted_database_takes_changes(database: Database, make: Maker) -> None:
    make(database.engine)
    sync.sync(database)
    registry = Registry.over(database)
    image = registry.create(name="new", is_public=True, properties={"a": "b"})
    assert registry.show(image["id"]) == image
    assert set(registry.ids(ctx=user("t9"))) == {PUBLIC, image["id"]}
    updated = registry.put(image["id"], image={"is_public": False, "name": "changed"})
    assert updated.json["image"]["is_public"] is False
    assert registry.show(image["id"]) == updated.json["image"]
    assert registry.ids(ctx=user("t9")) == [PUBLIC]
    assert registry.call("PUT", f"/images/{PRIVATE}/members/t9").status_int == 204
    assert registry.call("DELETE", f"/images/{PUBLIC}").status_int == 200
    assert registry.ids(ctx=user("t9")) == [PRIVATE]
    assert database.write(usage.recount) == 0


def test_visibility_of_queens_stays_what_decides(database: Database) -> None:
    make_queens(database.engine)
    sync.sync(database)
    registry = Registry.over(database)
    created = registry.create()["id"]
    published = registry.create(is_public=True)["id"]

    def visibility() -> dict[str, str]:
        with database.engine.connect() as connection:
            return {
                row[0]: row[1]
                for row in connection.exec_driver_sql("SELECT id, visibility FROM images")
            }

    assert (visibility()[created], visibility()[published]) == ("shared", "public")
    for image_id in (PRIVATE, COMMUNITY):
        # An update that does not publish leaves private private and community community.
        assert registry.put(image_id, image={"is_public": False, "name": "x"}).status_int == 200
    assert (visibility()[PRIVATE], visibility()[COMMUNITY]) == ("private", "community")
    registry.put(published, image={"is_public": False})
    registry.put(PRIVATE, image={"is_public": True})
    assert (visibility()[published], visibility()[PRIVATE]) == ("shared", "public")
    # What another release writes is seen at once.
    with database.engine.begin() as connection:
        connection.exec_driver_sql(
            f"UPDATE images SET visibility = 'public' WHERE id = '{created}'"
        )
    assert registry.show(created)["is_public"] is True


def test_old_rows_gain_microseconds_on_mysql(database: Database) -> None:
    """DB-019, decision 3: times made by us sort exactly; old ones end in zeros."""
    make_mitaka(database.engine)
    sync.sync(database)
    registry = Registry.over(database)
    times = {registry.create()["created_at"] for _ in range(5)}
    assert len(times) == 5
    assert registry.show(PUBLIC)["updated_at"].endswith("11:00:00.000000")


def test_old_programs_still_read_and_write(database: Database) -> None:
    """A statement as Mitaka's own code makes it, columns of ours unknown to it."""
    make_mitaka(database.engine)
    sync.sync(database)
    registry = Registry.over(database)
    image_id = "55555555-0000-4000-8000-000000000000"
    with database.engine.begin() as connection:
        connection.exec_driver_sql(
            "INSERT INTO images (id, status, is_public, created_at, updated_at, deleted,"
            " min_disk, min_ram, owner, protected) VALUES"
            f" ('{image_id}', 'queued', 0, '2017-01-01 00:00:00', '2017-01-01 00:00:00', 0,"
            " 0, 0, 't1', 0)"
        )
    assert registry.show(image_id)["status"] == "queued"
    assert image_id in registry.ids()
    registry.call("DELETE", f"/images/{image_id}")
    with database.engine.connect() as connection:
        (deleted,) = connection.exec_driver_sql(
            f"SELECT deleted FROM images WHERE id = '{image_id}'"
        ).one()
    assert deleted == 1


def test_an_interrupted_adoption_is_completed(database: Database) -> None:
    """REL-064: MySQL keeps what each statement has done."""
    make_mitaka(database.engine)
    before = contents(database)
    for stop_after in (1, 4, 9, 14):
        left = stop_after

        def interrupt(_c: Any, _cursor: Any, statement: str, *_: Any) -> None:
            nonlocal left
            if statement.lstrip().startswith(("CREATE", "ALTER")):
                left -= 1
            if left < 0:
                raise KeyboardInterrupt

        sa.event.listen(Engine, "before_cursor_execute", interrupt)
        try:
            with pytest.raises(KeyboardInterrupt):
                sync.sync(database)
        finally:
            sa.event.remove(Engine, "before_cursor_execute", interrupt)
    sync.sync(database)
    assert sync.is_current(database)
    assert_kept(before, contents(database))
    assert Registry.over(database).show(PUBLIC)["name"] == "public"


@pytest.mark.parametrize("make", [None, make_mitaka, liberty])
def test_the_schema_is_what_the_models_say(database: Database, make: Maker | None) -> None:
    if make is not None:
        make(database.engine)
    sync.sync(database)
    with database.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": make is None})
        found = [
            difference
            for difference in compare_metadata(context, models.metadata)
            if not _is_older_than_us(difference)
        ]
    if make is None:
        assert found == []
    # What Glance made in its own way (names of indexes of v2's tables) stays as it is.
    ours = {"images", "image_properties", "image_locations", "image_members", "image_tags"}
    assert [d for d in found if d[0] == "add_index" and d[1].table.name in ours] == []
    assert [d for d in found if d[0] in ("add_table", "add_column")] == []


def _is_older_than_us(difference: Any) -> bool:
    """Tables and indexes that the models leave out on purpose."""
    if not isinstance(difference, tuple):
        return False
    table = difference[1] if difference[0] == "remove_table" else getattr(
        difference[1], "table", None
    )  # fmt: skip
    return table is not None and (
        table.name.startswith("artifact") or table.name in ("migrate_version", sync.VERSION_TABLE)
    )


@pytest.mark.parametrize("level", [1, 30, 41])
def test_a_database_too_old_is_refused_untouched(database: Database, level: int) -> None:
    make_mitaka(database.engine, level)
    before = contents(database)
    with pytest.raises(sync.Unsupported, match=str(level)):
        sync.sync(database)
    assert contents(database) == before


def test_images_without_a_version_are_refused_until_it_is_declared(database: Database) -> None:
    make_mitaka(database.engine)
    with database.engine.begin() as connection:
        connection.exec_driver_sql("DROP TABLE migrate_version")
    with pytest.raises(sync.Unsupported):
        sync.sync(database)
    sync.record_level(database, 44)
    sync.sync(database)
    assert sync.is_current(database)


def test_services_on_an_empty_database_fail_and_create_nothing(database: Database) -> None:
    """DB-003"""
    registry = Registry.over(database)
    assert registry.call("GET", "/images").status_int == 503
    assert registry.call("POST", "/images", {"image": {}}).status_int == 503
    assert contents(database) == {}


def test_a_row_is_listed_in_the_right_place_after_adoption(database: Database) -> None:
    make_mitaka(database.engine)
    sync.sync(database)
    registry = Registry.over(database)
    new = registry.create(name="zz", is_public=True)["id"]
    assert registry.ids("?is_public=none", ADMIN) == [new, PRIVATE, PUBLIC]
    assert registry.names("?sort_key=name&sort_dir=asc&is_public=none", ADMIN) == [
        "private", "public", "zz"
    ]  # fmt: skip
    assert GONE not in registry.ids("?is_public=none", ADMIN)
