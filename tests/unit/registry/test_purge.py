"""Rows removed for good: database.md section 7, SEC-009, SEC-083."""

from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from oslo_utils import timeutils

from common import errors
from glance_registry.db import commands, models, purge, usage
from tests.registry import ADMIN, Registry, sqlite_database, user

OLD = timeutils.utcnow() - timedelta(days=90)


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    registry = Registry.over(sqlite_database(tmp_path / "glance.sqlite"))

    # As strict as the engines that Glance's operators use.
    @sa.event.listens_for(registry.database.engine, "connect")
    def _strict(connection: Any, _record: Any) -> None:
        connection.execute("PRAGMA foreign_keys = ON")

    registry.database.dispose()
    return registry


def deleted(registry: Registry, when: datetime = OLD, **fields: Any) -> str:
    """An image with parts, deleted at some time."""
    image = {"location": "file:///x", "properties": {"a": "b"}, "size": 5, **fields}
    image_id: str = registry.create(**image)["id"]
    registry.call("PUT", f"/images/{image_id}/members/t2")
    registry.call("DELETE", f"/images/{image_id}")
    age(registry, image_id, when)
    return image_id


def age(registry: Registry, image_id: str, when: datetime) -> None:
    with registry.database.migration() as connection:
        for table in (
            models.image_properties,
            models.image_locations,
            models.image_members,
        ):
            connection.execute(
                table.update().where(table.c.image_id == image_id).values(deleted_at=when)
            )
        images = models.images
        connection.execute(images.update().where(images.c.id == image_id).values(deleted_at=when))


def everything(registry: Registry) -> dict[str, int]:
    tables = (
        models.images,
        models.image_properties,
        models.image_locations,
        models.image_members,
    )
    return {table.name: len(registry.rows(table)) for table in tables}


def test_what_was_deleted_long_ago_goes_and_the_rest_stays(registry: Registry) -> None:
    """DB-014: thirty days, a hundred rows."""
    for _ in range(3):
        deleted(registry)
    recent = deleted(registry, timeutils.utcnow())
    live = registry.create(properties={"a": "b"})
    printed = commands.purge(registry.database)
    assert "images: 3 rows removed" in printed
    assert {row.id for row in registry.rows(models.images)} == {recent, live["id"]}
    assert registry.show(live["id"]) == live
    assert everything(registry) == {
        "images": 2, "image_properties": 2, "image_locations": 1, "image_members": 1
    }  # fmt: skip


def test_at_most_so_many_rows_of_each_table_oldest_first(registry: Registry) -> None:
    """DB-015"""
    ids = [deleted(registry, OLD - timedelta(days=number)) for number in range(8)]
    commands.purge(registry.database, 1, 5)
    assert {row.id for row in registry.rows(models.images)} == set(ids[:3])
    assert set(everything(registry).values()) == {3}


@pytest.mark.parametrize("table", [models.image_members, models.image_properties])
def test_an_image_with_a_fresh_part_stays_without_failure(
    registry: Registry, table: sa.Table
) -> None:
    """DB-016"""
    image_id = deleted(registry)
    now = timeutils.utcnow()
    with registry.database.migration() as connection:
        connection.execute(table.update().values(deleted_at=now))
    commands.purge(registry.database)
    assert [row.id for row in registry.rows(models.images)] == [image_id]
    with registry.database.migration() as connection:
        connection.execute(table.update().values(deleted_at=OLD))
    commands.purge(registry.database)
    assert set(everything(registry).values()) == {0}


def test_more_parts_than_rows_are_purged_in_several_runs(registry: Registry) -> None:
    deleted(registry, properties={str(number): "x" for number in range(12)})
    for left in (7, 2, 0):
        commands.purge(registry.database, 1, 5)
        assert len(registry.rows(models.image_properties)) == left
        assert len(registry.rows(models.images)) == (1 if left else 0)


def test_an_id_is_never_given_again(registry: Registry) -> None:
    """SEC-009"""
    image_id = deleted(registry)
    commands.purge(registry.database)
    assert registry.rows(models.images) == []
    for ctx in (user("t1"), user("t2"), ADMIN):
        answer = registry.call("POST", "/images", {"image": {"id": image_id}}, ctx)
        assert answer.status_int == 409
    assert registry.rows(models.images) == []


def test_what_awaits_the_scrubber_stays(registry: Registry) -> None:
    """SEC-072: the row is all that is known about those bytes."""
    image = registry.create(location="file:///x", size=5)
    (entry,) = image["location_data"]
    waiting = [{**entry, "status": "pending_delete"}]
    registry.put(image["id"], image={"status": "pending_delete", "location_data": waiting})
    registry.call("DELETE", f"/images/{image['id']}")
    age(registry, image["id"], OLD)
    commands.purge(registry.database)
    assert len(registry.rows(models.image_locations)) == 1
    done = [{**entry, "status": "deleted"}]
    registry.put(image["id"], ADMIN, image={"status": "deleted", "location_data": done})
    age(registry, image["id"], OLD)
    commands.purge(registry.database)
    assert registry.rows(models.images) == []


def test_leases_and_usage_go_with_the_image(registry: Registry) -> None:
    """I-7"""
    image_id = deleted(registry)
    now = timeutils.utcnow()
    with registry.database.migration() as connection:
        connection.execute(
            models.image_leases.insert(),
            {"token": "x", "image_id": image_id, "kind": "delete", "store": "file",
             "worker": "w", "owner": "t1", "reserved": 7, "created_at": now, "expires_at": now},
        )  # fmt: skip
        # As releases before Juno left them: removed, but not said to be.
        connection.execute(models.image_locations.update().values(status="active"))
    registry.database.write(usage.recount)
    assert registry.rows(models.owner_usage)[0].bytes == 5
    commands.purge(registry.database)
    (row,) = registry.rows(models.owner_usage)
    assert (row.bytes, row.reserved) == (0, 0)
    assert registry.rows(models.image_leases) == []


def test_tasks_go_with_their_details(registry: Registry) -> None:
    """database.md section 7: Mitaka forgets task_info and fails on the foreign key."""
    with registry.database.migration() as connection:
        for number, when in enumerate((OLD, timeutils.utcnow(), None)):
            task = {"id": str(number), "type": "import", "status": "success", "owner": "t1",
                    "created_at": OLD, "deleted_at": when, "deleted": when is not None}  # fmt: skip
            connection.execute(models.tasks.insert(), task)
            connection.execute(models.task_info.insert(), {"task_id": str(number)})
    commands.purge(registry.database)
    assert [row.id for row in registry.rows(models.tasks)] == ["1", "2"]
    assert [row.task_id for row in registry.rows(models.task_info)] == ["1", "2"]


def test_it_goes_in_short_transactions(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    """SEC-083: nobody waits long for a lock of a purge's."""
    monkeypatch.setattr(purge, "_BATCH", 2)
    for _ in range(5):
        deleted(registry)
    sizes: list[int] = []

    def committed(_connection: Any) -> None:
        sizes.append(len(registry.rows(models.images)))

    sa.event.listen(registry.database.engine, "commit", committed)
    commands.purge(registry.database)
    assert sorted(set(sizes), reverse=True)[:3] == [5, 3, 1]
    assert registry.rows(models.images) == []


@pytest.mark.parametrize(
    ("age_in_days", "max_rows"), [(0, 100), (-1, 100), (40_000, 100), (30, 0), (30, -1)]
)
def test_unusable_numbers_are_refused(registry: Registry, age_in_days: int, max_rows: int) -> None:
    """DB-011, DB-012, DB-013"""
    deleted(registry)
    with pytest.raises(errors.Invalid):
        commands.purge(registry.database, age_in_days, max_rows)
    assert len(registry.rows(models.images)) == 1
