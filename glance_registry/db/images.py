"""Reading and changing one image; each function is one transaction's work.

A change first locks the image's row, so that what it computes from the image (usage above all)
still holds when it is written.
"""

import uuid
from dataclasses import dataclass, replace
from typing import Any, Final

import sqlalchemy as sa
from oslo_utils import timeutils
from sqlalchemy.engine import Connection

from common import errors
from common.context import RequestContext
from common.image import KILLED, PENDING_DELETE, Change, Image
from glance_registry.db import adopted, leases, rows, usage, visibility
from glance_registry.db.details import Details
from glance_registry.db.models import image_tombstones
from glance_registry.db.owner_limits import NO_LIMITS, OwnerLimits

# What a new image has unless it is said otherwise (registry-v1.md section 5).
_NEW: Final[dict[str, Any]] = {
    "status": "active",
    "is_public": False,
    "protected": False,
    "min_disk": 0,
    "min_ram": 0,
}
_TOMBSTONE: Final = sa.select(image_tombstones.c.id).where(
    image_tombstones.c.id == sa.bindparam("image_id")
)


@dataclass(frozen=True, slots=True)
class Written:
    """An image as it is after a change. refused: its upload did not fit the quota, so it is
    killed and has no lease.
    """

    image: Image
    refused: bool = False


def get(connection: Connection, ctx: RequestContext, image_id: str) -> Image:
    """The image with its live properties and locations. Raises NotFound if there is none that
    ctx may see.
    """
    image = find(connection, ctx, image_id)
    image.properties = rows.load_properties(connection, image_id)
    if visibility.can_see_locations(ctx, image):
        image.locations = rows.load_live_locations(connection, image_id)
    return image


def find(
    connection: Connection, ctx: RequestContext, image_id: str, *, lock: bool = False
) -> Image:
    """The bare image. Raises NotFound if there is none that ctx may see."""
    image = rows.image_row(connection, image_id, lock=lock)
    if image is None or not visibility.is_visible(
        ctx, image, lambda member: rows.is_member(connection, image_id, member)
    ):
        raise visibility.not_found(image_id)
    return image


def create(connection: Connection, change: Change, limits: OwnerLimits = NO_LIMITS) -> Written:
    """Record a new image, and with change.lease the lease of its upload.

    Raises Duplicate for an id that is or ever was in use, LimitExceeded for an owner who has as
    many images as limits allow.
    """
    now = timeutils.utcnow()
    chosen = change.fields.get("id")
    image_id = chosen or str(uuid.uuid4())
    fields = {**_NEW, **change.fields, "id": image_id}
    limits.admit(connection, fields.get("owner"), fields["status"])
    _insert(connection, {**fields, "created_at": now, "updated_at": now, "deleted": False})
    # Only now: a purge that ran until the insert has left its tombstone by then.
    if chosen and connection.execute(_TOMBSTONE, {"image_id": chosen}).first():
        raise errors.Duplicate(f"Image {chosen} existed before.")
    image = _changed(Image(size=None, created_at=now, updated_at=now), fields)
    details = Details(image_id)
    details.change(connection, change, now)
    usage.add(connection, image.owner, usage.contribution(image, details.all_locations))
    created = Written(_complete(image, details))
    if change.lease is None or leases.begin(connection, image_id, change.lease, change.quota):
        return created
    killed = apply(connection, created.image, Change({"status": KILLED}))
    return Written(killed.image, refused=True)


def _insert(connection: Connection, values: dict[str, Any]) -> None:
    table = adopted.images_table(connection)
    try:
        connection.execute(table.insert(), adopted.stored_values(table, values))
    except sa.exc.IntegrityError:
        raise errors.Duplicate(f"Image {values['id']} exists.") from None


def update(connection: Connection, ctx: RequestContext, image_id: str, change: Change) -> Written:
    """Change an image. Raises NotFound, Forbidden, or Conflict if its status is not
    change.from_state; then nothing has changed.
    """
    image = _lock_for_change(connection, ctx, image_id)
    written = apply(connection, image, change)
    if not visibility.can_see_locations(ctx, written.image):
        written.image.locations = []
    return written


def apply(connection: Connection, image: Image, change: Change) -> Written:
    """`update` for an image that is locked, by somebody whose right to it is settled."""
    if change.from_state is not None and image.status != change.from_state:
        raise errors.Conflict("Image operation conflicts")
    now = timeutils.utcnow()
    fields = change.fields
    refused = change.lease is not None and not leases.begin(
        connection, image.id, change.lease, change.quota
    )
    if refused:
        fields = {**fields, "status": KILLED}
    changed = _changed(replace(image, updated_at=now), fields)
    _write(connection, image, {**fields, "updated_at": now}, change.from_state)
    details = Details.load(connection, image.id)
    before = usage.contribution(image, details.all_locations)
    details.change(connection, change, now)
    if fields.get("status") == PENDING_DELETE:
        # Whoever deletes may not be shown the locations; a deactivated image's stay hidden (D30).
        details.await_scrubber(connection, now)
    after = usage.contribution(changed, details.all_locations)
    if change.end_lease is not None:
        leases.end(connection, change.end_lease, image.id)
    usage.move(connection, (image.owner, before), (changed.owner, after))
    return Written(_complete(changed, details), refused)


def _write(
    connection: Connection,
    image: Image,
    values: dict[str, Any],
    from_state: str | None = None,
) -> None:
    table = adopted.images_table(connection)
    if values.get("is_public") == image.is_public:
        # On a table of Queens' this would turn a private image into a shared one.
        values = {name: value for name, value in values.items() if name != "is_public"}
    statement = table.update().where(table.c.id == image.id)
    if from_state is not None:
        statement = statement.where(table.c.status == from_state)
    result = connection.execute(statement.values(**adopted.stored_values(table, values)))
    if result.rowcount == 0:
        raise errors.Conflict("Image operation conflicts")


def delete(
    connection: Connection, ctx: RequestContext, image_id: str, end_lease: str | None = None
) -> Image:
    """Mark the image and all its parts deleted; its status stays as it is. Raises as update."""
    image = _lock_for_change(connection, ctx, image_id)
    if end_lease is not None:
        leases.end(connection, end_lease, image_id)
    return mark_deleted(connection, image)


def mark_deleted(connection: Connection, image: Image) -> Image:
    """`delete` for an image that is locked; the image as it is afterwards."""
    now = timeutils.utcnow()
    gone: dict[str, Any] = {"deleted": True, "deleted_at": now, "updated_at": now}
    _write(connection, image, gone)
    details = Details.load(connection, image.id)
    before = usage.contribution(image, details.all_locations)
    details.remove(connection, now)
    after = usage.contribution(image, details.all_locations)
    usage.add(connection, image.owner, after - before)
    return _complete(replace(image, **gone), details)


def _lock_for_change(connection: Connection, ctx: RequestContext, image_id: str) -> Image:
    image = rows.image_row(connection, image_id, lock=True)
    if image is None:
        raise visibility.not_found(image_id)
    visibility.require_change(ctx, image)
    return image


def _changed(image: Image, fields: dict[str, Any]) -> Image:
    # The second digest is stored beside the image; it is no part of it in v1 (decision 8).
    known = {name: value for name, value in fields.items() if not name.startswith("os_hash_")}
    return replace(image, **known)


def _complete(image: Image, details: Details) -> Image:
    return replace(image, properties=details.properties, locations=details.locations)
