"""Deleting images that were announced long ago and have never got any data (SEC-074)."""

from datetime import timedelta
from functools import partial
from typing import Final

import sqlalchemy as sa
from oslo_utils import timeutils
from sqlalchemy.engine import Connection

from common.image import DELETED, QUEUED, Change
from glance_registry.db import images as changes
from glance_registry.db import rows
from glance_registry.db.engine import Database
from glance_registry.db.models import image_leases, images

# A protected image is its owner's to keep; one with a lease waits for its turn to be copied.
_UNFILLED: Final = (
    sa.select(images.c.id)
    .where(
        images.c.deleted == sa.false(),
        images.c.status == QUEUED,
        images.c.protected == sa.false(),
        ~sa.exists().where(image_leases.c.image_id == images.c.id),
    )
    .order_by(images.c.created_at)
)


def delete_unfilled(database: Database, age_in_days: int, max_rows: int) -> int:
    """Mark queued images deleted that are older than that, at most max_rows of them, the oldest
    first; how many. Stopped half-way, it goes on when called again.
    """
    before = timeutils.utcnow() - timedelta(days=age_in_days)
    due = _UNFILLED.where(images.c.created_at < before).limit(max_rows)
    found = database.read(lambda connection: list(connection.scalars(due)))
    return sum(database.write(partial(_delete, image_id)) for image_id in found)


def _delete(image_id: str, connection: Connection) -> bool:
    image = rows.image_row(connection, image_id, lock=True)
    # Locked, it can no longer become anything else; until now it could.
    if image is None or not connection.scalar(_UNFILLED.where(images.c.id == image_id)):
        return False
    change = Change({"status": DELETED}, from_state=QUEUED)
    changes.mark_deleted(connection, changes.apply(connection, image, change).image)
    return True
