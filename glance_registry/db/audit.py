"""What the database says of images' bytes, for comparing it with what the stores hold.

Everything is read in batches, so that a million images need no more memory than a thousand.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from typing import Final

import sqlalchemy as sa
from oslo_utils import timeutils
from sqlalchemy.engine import Connection

from common.image import ACTIVE, DELETED, PENDING_DELETE, SAVING
from glance_registry.db import usage
from glance_registry.db.engine import Database
from glance_registry.db.models import image_leases, image_locations, images

_BATCH: Final = 1000

# Bytes behind a location in one of these states should exist.
_STORED: Final = (ACTIVE, PENDING_DELETE)

_HAS_LEASE: Final = sa.exists().where(image_leases.c.image_id == images.c.id)


@dataclass(frozen=True, slots=True)
class RecordedLocation:
    """Bytes that the database knows of. `size` is the image's; the URL may be encrypted."""

    image_id: str
    url: str = field(repr=False)
    size: int | None


@dataclass(frozen=True, slots=True)
class Standing:
    """One image now: whether it has a row, whether work on it is under way, and its bytes."""

    exists: bool
    status: str | None
    deleted: bool
    has_lease: bool
    urls: tuple[str, ...] = field(repr=False)


def recorded_locations(database: Database) -> Iterator[RecordedLocation]:
    """Every location whose bytes should exist, in the order of their rows."""
    after = 0
    while batch := database.read(partial(_batch, after=after)):
        for _, location in batch:
            yield location
        after = batch[-1][0]


def _batch(connection: Connection, after: int) -> list[tuple[int, RecordedLocation]]:
    statement = (
        sa.select(
            image_locations.c.id, image_locations.c.image_id, image_locations.c.value, images.c.size
        )
        .join(images, images.c.id == image_locations.c.image_id)
        .where(image_locations.c.id > after, image_locations.c.status.in_(_STORED))
        .order_by(image_locations.c.id)
        .limit(_BATCH)
    )
    rows = connection.execute(statement).all()
    return [(row.id, RecordedLocation(row.image_id, row.value, row.size)) for row in rows]


def standing(connection: Connection, image_id: str) -> Standing:
    row = connection.execute(
        sa.select(images.c.status, images.c.deleted, _HAS_LEASE.label("leased")).where(
            images.c.id == image_id
        )
    ).first()
    if row is None:
        return Standing(False, None, False, False, ())
    urls = connection.scalars(
        sa.select(image_locations.c.value).where(
            image_locations.c.image_id == image_id, image_locations.c.status.in_(_STORED)
        )
    ).all()
    return Standing(True, row.status, row.deleted, bool(row.leased), tuple(urls))


def unsettled(connection: Connection, older_than: int) -> list[tuple[str, str]]:
    """(image id, status) of images that wait for work which nobody holds a lease for.

    older_than: seconds since the last change, so that a change of this moment does not count.
    """
    then = timeutils.utcnow() - timedelta(seconds=older_than)
    statement = sa.select(images.c.id, images.c.status).where(
        images.c.status.in_((SAVING, DELETED)),
        images.c.deleted == sa.false(),
        images.c.updated_at < then,
        ~_HAS_LEASE,
    )
    return [(row.id, row.status) for row in connection.execute(statement)]


def miscounted(connection: Connection) -> list[str]:
    """Owners whose usage figures differ from a recount."""
    return sorted(usage.differences(connection))
