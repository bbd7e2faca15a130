"""What each owner stores and has reserved, kept up to date by every transaction that changes it.

One row per owner, so that a quota check costs the same for ten images as for a hundred thousand
(REL-057). `recount` rebuilds the rows from the images.
"""

from collections.abc import Iterable
from typing import Final

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql
from sqlalchemy.engine import Connection

from common.image import DELETED, KILLED, Image, Location
from glance_registry.db.models import image_leases, image_locations, images, owner_usage
from glance_registry.db.rows import is_stored

_ADD: Final = (
    owner_usage.update()
    .where(owner_usage.c.owner == sa.bindparam("whose"))
    .values(
        bytes=owner_usage.c.bytes + sa.bindparam("more_bytes"),
        reserved=owner_usage.c.reserved + sa.bindparam("more_reserved"),
    )
)
_ADD_WITHIN_QUOTA: Final = _ADD.where(
    owner_usage.c.bytes + owner_usage.c.reserved + sa.bindparam("more_reserved")
    <= sa.bindparam("quota")
)
_LOCK: Final = (
    sa.select(owner_usage.c.owner)
    .where(owner_usage.c.owner == sa.bindparam("whose"))
    .with_for_update()
)
_INSERT: Final = (
    owner_usage.insert()
    .prefix_with("OR IGNORE", dialect="sqlite")
    .prefix_with("IGNORE", dialect="mysql")
    .prefix_with("IGNORE", dialect="mariadb")
)
_INSERT_POSTGRESQL: Final = postgresql.insert(owner_usage).on_conflict_do_nothing()


def contribution(image: Image, locations: Iterable[Location]) -> int:
    """The bytes that image adds to its owner's usage (database.md section 10).

    Bytes that await the scrubber still count: they are still stored (SEC-080).
    """
    if image.status in (KILLED, DELETED) or not image.size or image.size < 0:
        return 0
    return image.size * sum(is_stored(location) for location in locations)


def add(connection: Connection, owner: str | None, stored: int = 0, reserved: int = 0) -> None:
    """Change an owner's figures by these amounts; an image without owner is charged to nobody."""
    if owner is None or not (stored or reserved):
        return
    changes = {"whose": owner, "more_bytes": stored, "more_reserved": reserved}
    if connection.execute(_ADD, changes).rowcount == 0:
        _insert(connection, owner)
        connection.execute(_ADD, changes)


def reserve(connection: Connection, owner: str | None, amount: int, quota: int) -> bool:
    """Reserve amount bytes; with a quota (not 0) only if they fit. One statement compares and
    adds, so that uploads at the same time cannot pass together.
    """
    if owner is None or quota <= 0:
        add(connection, owner, reserved=amount)
        return True
    changes = {"whose": owner, "more_bytes": 0, "more_reserved": amount, "quota": quota}
    if connection.execute(_ADD_WITHIN_QUOTA, changes).rowcount:
        return True
    _insert(connection, owner)
    return bool(connection.execute(_ADD_WITHIN_QUOTA, changes).rowcount)


def lock(connection: Connection, owner: str) -> None:
    """Make every transaction that asks for the same owner's lock wait for the end of this one."""
    found = connection.execute(_LOCK, {"whose": owner}).first()
    if found is None:
        _insert(connection, owner)
        connection.execute(_LOCK, {"whose": owner})


def move(
    connection: Connection, before: tuple[str | None, int], after: tuple[str | None, int]
) -> None:
    """Replace one (owner, contribution) of an image by another."""
    if before[0] == after[0]:
        add(connection, after[0], after[1] - before[1])
        return
    # In one order for everybody: two images that change owners crosswise must not deadlock.
    for owner, amount in sorted(((before[0], -before[1]), after), key=lambda item: item[0] or ""):
        add(connection, owner, amount)


def _insert(connection: Connection, owner: str) -> None:
    statement = _INSERT_POSTGRESQL if connection.dialect.name == "postgresql" else _INSERT
    connection.execute(statement, {"owner": owner, "bytes": 0, "reserved": 0})


def recount(connection: Connection, owner: str | None = None) -> int:
    """Rebuild the figures of one owner, or of all, from images and leases.

    Returns how many owners' figures were wrong.
    """
    wrong = differences(connection, owner, lock=True)
    for name, (stored, reserved) in wrong.items():
        add(connection, name, stored, reserved)
    return len(wrong)


def differences(
    connection: Connection, owner: str | None = None, *, lock: bool = False
) -> dict[str, tuple[int, int]]:
    """Per owner whose figures are wrong, what to add to its (bytes, reserved)."""
    condition = sa.true() if owner is None else owner_usage.c.owner == owner
    statement = sa.select(owner_usage).where(condition)
    if lock:
        # First of all: whoever changes an image meanwhile waits here, before its change is
        # visible.
        statement = statement.with_for_update()
    recorded = {row.owner: (row.bytes, row.reserved) for row in connection.execute(statement)}
    stored, reserved = _stored_bytes(connection, owner), _reserved_bytes(connection, owner)
    wrong = {}
    for name in stored.keys() | reserved.keys() | recorded.keys():
        now = recorded.get(name, (0, 0))
        difference = stored.get(name, 0) - now[0], reserved.get(name, 0) - now[1]
        if any(difference):
            wrong[name] = difference
    return wrong


def _stored_bytes(connection: Connection, owner: str | None) -> dict[str, int]:
    places = (
        sa.select(image_locations.c.image_id, sa.func.count().label("copies"))
        .where(image_locations.c.status != DELETED)
        .group_by(image_locations.c.image_id)
        .subquery()
    )
    statement = (
        sa.select(images.c.owner, sa.func.sum(images.c.size * places.c.copies))
        .join(places, places.c.image_id == images.c.id)
        .where(
            images.c.owner == owner if owner is not None else images.c.owner.is_not(None),
            images.c.size > 0,
            images.c.status.not_in((KILLED, DELETED)),
        )
        .group_by(images.c.owner)
    )
    return {name: int(total) for name, total in connection.execute(statement)}


def _reserved_bytes(connection: Connection, owner: str | None) -> dict[str, int]:
    statement = (
        sa.select(image_leases.c.owner, sa.func.sum(image_leases.c.reserved))
        .where(
            image_leases.c.owner == owner
            if owner is not None
            else image_leases.c.owner.is_not(None)
        )
        .group_by(image_leases.c.owner)
    )
    return {name: int(total) for name, total in connection.execute(statement)}
