"""Removing rows for good: what was deleted long ago, in short transactions.

Children go before their images, and an image only when nothing refers to it any more, so no
foreign key is ever in the way. What still awaits the scrubber stays: its row is all that is known
about those bytes. Every purged id leaves a tombstone (SEC-009).
"""

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Final

import sqlalchemy as sa
from oslo_utils import timeutils
from sqlalchemy.engine import Connection

from common.image import DELETED, KILLED, PENDING_DELETE
from glance_registry.db import usage
from glance_registry.db.engine import Database
from glance_registry.db.models import (
    image_leases,
    image_locations,
    image_members,
    image_properties,
    image_tags,
    image_tombstones,
    images,
    task_info,
    tasks,
)

# Rows per transaction: nobody waits long for a lock that a purge holds (SEC-083).
_BATCH: Final = 200

_CHILDREN: Final = (image_properties, image_locations, image_members, image_tags)

# Removes up to so many rows that were deleted before a time; returns how many there were.
Step = Callable[[Connection, datetime, int], int]


def purge(database: Database, age_in_days: int, max_rows: int) -> Mapping[str, int]:
    """Remove rows deleted more than age_in_days ago, oldest first, at most max_rows per table.

    Returns how many went from each table. Stopped half-way, it goes on when called again.
    """
    before = timeutils.utcnow() - timedelta(days=age_in_days)
    steps: list[tuple[str, Step]] = [(table.name, _child_step(table)) for table in _CHILDREN]
    steps += [("images", _purge_images), ("tasks", _purge_tasks)]
    return {name: _repeat(database, step, before, max_rows) for name, step in steps}


def _repeat(database: Database, step: Step, before: datetime, max_rows: int) -> int:
    removed = 0
    while removed < max_rows:
        size = min(_BATCH, max_rows - removed)
        gone = database.write(partial(_run, step, before, size))
        removed += gone
        if gone < size:
            break
    return removed


def _run(step: Step, before: datetime, size: int, connection: Connection) -> int:
    return step(connection, before, size)


def _child_step(table: sa.Table) -> Step:
    def step(connection: Connection, before: datetime, size: int) -> int:
        statement = _due(table, before).limit(size)
        if table is image_locations:
            statement = statement.where(table.c.status != PENDING_DELETE)
        ids = list(connection.scalars(statement))
        if ids and table is image_locations:
            _release_usage(connection, ids)
        _remove(connection, table, ids)
        return len(ids)

    return step


def _due(table: sa.Table, before: datetime) -> sa.Select[Any]:
    return (
        sa.select(table.c.id)
        .where(table.c.deleted == sa.true(), table.c.deleted_at < before)
        .order_by(table.c.deleted_at)
    )


def _remove(connection: Connection, table: sa.Table, ids: list[str]) -> None:
    if ids:
        connection.execute(table.delete().where(table.c.id.in_(ids)))


def _release_usage(connection: Connection, ids: list[str]) -> None:
    """Some rows of old releases are removed but not said to be `deleted`, and so are counted."""
    counted = (
        sa.select(images.c.owner, sa.func.sum(images.c.size))
        .join(image_locations, image_locations.c.image_id == images.c.id)
        .where(
            image_locations.c.id.in_(ids),
            image_locations.c.status != DELETED,
            images.c.size > 0,
            images.c.status.not_in((KILLED, DELETED)),
        )
        .group_by(images.c.owner)
    )
    for owner, total in connection.execute(counted).all():
        usage.add(connection, owner, -int(total))


def _purge_images(connection: Connection, before: datetime, size: int) -> int:
    childless = [sa.not_(sa.exists().where(child.c.image_id == images.c.id)) for child in _CHILDREN]
    due = (
        _due(images, before)
        .where(images.c.status != PENDING_DELETE, *childless)
        .limit(size)
        # Whoever adds a child meanwhile has to wait, and then finds no image.
        .with_for_update()
    )
    ids = list(connection.scalars(due))
    if ids:
        now = timeutils.utcnow()
        connection.execute(
            image_tombstones.insert(), [{"id": image_id, "purged_at": now} for image_id in ids]
        )
        _end_leases(connection, ids)
    _remove(connection, images, ids)
    return len(ids)


def _end_leases(connection: Connection, ids: list[str]) -> None:
    of_these = image_leases.c.image_id.in_(ids)
    reserved = sa.select(image_leases.c.owner, image_leases.c.reserved).where(of_these)
    for owner, amount in connection.execute(reserved).all():
        usage.add(connection, owner, reserved=-amount)
    connection.execute(image_leases.delete().where(of_these))


def _purge_tasks(connection: Connection, before: datetime, size: int) -> int:
    ids = list(connection.scalars(_due(tasks, before).limit(size)))
    if ids:
        connection.execute(task_info.delete().where(task_info.c.task_id.in_(ids)))
    _remove(connection, tasks, ids)
    return len(ids)
