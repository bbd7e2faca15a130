"""Removing rows for good: what was deleted long ago, in short transactions.

Children go before their images, and an image only when nothing refers to it any more, so no
foreign key is ever in the way. What still awaits the scrubber stays: its row is all that is known
about those bytes. Every purged id leaves a tombstone (SEC-009).
"""

from collections.abc import Callable, Mapping, Sequence
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
# Rows looked up at a time: to find the oldest, all that are due are read.
_AHEAD: Final = 20_000

_CHILDREN: Final = (image_properties, image_locations, image_members, image_tags)

# Removes rows of one table, by their ids.
Remove = Callable[[Connection, list[Any]], None]


def purge(database: Database, age_in_days: int, max_rows: int) -> Mapping[str, int]:
    """Remove rows deleted more than age_in_days ago, oldest first, at most max_rows per table.

    Returns how many went from each table. Stopped half-way, it goes on when called again.
    """
    before = timeutils.utcnow() - timedelta(days=age_in_days)
    removed = {}
    for table in (*_CHILDREN, images, tasks):
        rows = _Due(table, before)
        removed[table.name] = _remove_in_batches(database, rows, max_rows)
    return removed


class _Due:
    """The rows of one table that are to go."""

    def __init__(self, table: sa.Table, before: datetime) -> None:
        self._id = table.c.id
        self._statement = sa.select(table.c.id).where(
            table.c.deleted == sa.true(), table.c.deleted_at < before, *_CONDITIONS.get(table, ())
        )
        self._order = table.c.deleted_at
        self._remove = _REMOVERS.get(table, partial(_delete, table))

    def oldest(self, count: int, connection: Connection) -> list[Any]:
        return list(connection.scalars(self._statement.order_by(self._order).limit(count)))

    def remove(self, ids: list[Any], connection: Connection) -> int:
        """Remove those that still are to go; how many they were."""
        # Locked: what is revived meanwhile, or gets a child, has to wait and then finds nothing.
        statement = self._statement.where(self._id.in_(ids)).with_for_update()
        found = list(connection.scalars(statement))
        if found:
            self._remove(connection, found)
        return len(found)


def _remove_in_batches(database: Database, rows: _Due, max_rows: int) -> int:
    removed = 0
    while removed < max_rows:
        wanted = min(_AHEAD, max_rows - removed)
        ids = database.read(partial(rows.oldest, wanted))
        batches = (ids[start : start + _BATCH] for start in range(0, len(ids), _BATCH))
        gone = sum(database.write(partial(rows.remove, batch)) for batch in batches)
        removed += gone
        if gone < wanted:
            break
    return removed


def _delete(table: sa.Table, connection: Connection, ids: list[Any]) -> None:
    connection.execute(table.delete().where(table.c.id.in_(ids)))


def _remove_locations(connection: Connection, ids: list[Any]) -> None:
    _release_usage(connection, ids)
    _delete(image_locations, connection, ids)


def _release_usage(connection: Connection, ids: list[Any]) -> None:
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


def _remove_images(connection: Connection, ids: list[Any]) -> None:
    now = timeutils.utcnow()
    connection.execute(
        image_tombstones.insert(), [{"id": image_id, "purged_at": now} for image_id in ids]
    )
    _end_leases(connection, ids)
    _delete(images, connection, ids)


def _end_leases(connection: Connection, ids: list[Any]) -> None:
    of_these = image_leases.c.image_id.in_(ids)
    reserved = sa.select(image_leases.c.owner, image_leases.c.reserved).where(of_these)
    for owner, amount in connection.execute(reserved).all():
        usage.add(connection, owner, reserved=-amount)
    connection.execute(image_leases.delete().where(of_these))


def _remove_tasks(connection: Connection, ids: list[Any]) -> None:
    connection.execute(task_info.delete().where(task_info.c.task_id.in_(ids)))
    _delete(tasks, connection, ids)


_REMOVERS: Final[Mapping[sa.Table, Remove]] = {
    image_locations: _remove_locations,
    images: _remove_images,
    tasks: _remove_tasks,
}
_CONDITIONS: Final[Mapping[sa.Table, Sequence[sa.ColumnElement[bool]]]] = {
    image_locations: (image_locations.c.status != PENDING_DELETE,),
    images: (
        images.c.status != PENDING_DELETE,
        *(~sa.exists().where(child.c.image_id == images.c.id) for child in _CHILDREN),
    ),
}
