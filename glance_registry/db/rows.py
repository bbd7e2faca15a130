"""Rows of the image tables as the domain's values, and the few reads that everything shares."""

from collections.abc import Iterable, Sequence
from typing import Any, Final

import orjson
import sqlalchemy as sa
from sqlalchemy.engine import Connection
from sqlalchemy.sql import ColumnElement

from common.image import CORE_FIELDS, DELETED, Image, Location
from glance_registry.db.models import image_locations, image_members, image_properties, images
from glance_registry.db.prepared import Prepared, PreparedForIds, Rows

# In the order of Image's own fields, so that a row is its argument list.
IMAGE_COLUMNS: Final = tuple(images.c[name] for name in CORE_FIELDS)


def unindexed(column: ColumnElement[Any]) -> ColumnElement[Any]:
    """The column's value, in a form that no index answers, so that another one is chosen."""
    return sa.func.coalesce(column, sa.null(), type_=column.type)


def is_live(table: sa.Table) -> ColumnElement[bool]:
    """Not removed: asked of rows found by something better, never a way to find them."""
    return unindexed(table.c.deleted) == sa.false()


_IMAGE: Final = sa.select(*IMAGE_COLUMNS).where(images.c.id == sa.bindparam("image_id"))
_ONE_IMAGE: Final = Prepared(_IMAGE)
_ONE_IMAGE_LOCKED: Final = _IMAGE.with_for_update()

_PROPERTIES: Final = Prepared(
    sa.select(image_properties.c.name, image_properties.c.value).where(
        image_properties.c.image_id == sa.bindparam("image_id"), is_live(image_properties)
    )
)
_PROPERTIES_OF: Final = PreparedForIds(
    lambda ids: sa.select(
        image_properties.c.image_id, image_properties.c.name, image_properties.c.value
    ).where(image_properties.c.image_id.in_(ids), is_live(image_properties))
)

LOCATION_COLUMNS: Final = (
    image_locations.c.value,
    image_locations.c.meta_data,
    image_locations.c.status,
    image_locations.c.id,
)
_LIVE_LOCATIONS: Final = Prepared(
    sa.select(*LOCATION_COLUMNS)
    .where(image_locations.c.image_id == sa.bindparam("image_id"), is_live(image_locations))
    .order_by(image_locations.c.id)
)


def _locations_of(ids: Sequence[sa.BindParameter[str]]) -> sa.Select[Any]:
    return (
        sa.select(image_locations.c.image_id, image_locations.c.deleted, *LOCATION_COLUMNS)
        .where(image_locations.c.image_id.in_(ids))
        .order_by(image_locations.c.id)
    )


_LOCATIONS_OF: Final = PreparedForIds(_locations_of)
_LIVE_LOCATIONS_OF: Final = PreparedForIds(
    lambda ids: _locations_of(ids).where(is_live(image_locations))
)

_IS_MEMBER: Final = Prepared(
    sa.select(image_members.c.id)
    .where(
        image_members.c.image_id == sa.bindparam("image_id"),
        image_members.c.member == sa.bindparam("member"),
        is_live(image_members),
    )
    .limit(1)
)


def image_row(connection: Connection, image_id: str, *, lock: bool = False) -> Image | None:
    """The image without properties and locations; with lock, nobody else changes it until the
    transaction ends.
    """
    parameters = {"image_id": image_id}
    if lock:
        found: Rows = connection.execute(_ONE_IMAGE_LOCKED, parameters).all()
    else:
        found = _ONE_IMAGE.fetch(connection, parameters)
    # Ids are compared byte for byte; MySQL also finds them with blanks at the end.
    return Image(*found[0]) if found and found[0][0] == image_id else None


def is_member(connection: Connection, image_id: str, member: str) -> bool:
    return bool(_IS_MEMBER.fetch(connection, {"image_id": image_id, "member": member}))


def load_properties(connection: Connection, image_id: str) -> dict[str, str | None]:
    rows = _PROPERTIES.fetch(connection, {"image_id": image_id})
    return {row[0]: row[1] for row in rows}


def load_live_locations(connection: Connection, image_id: str) -> list[Location]:
    rows = _LIVE_LOCATIONS.fetch(connection, {"image_id": image_id})
    return [location_from(row) for row in rows]


def attach_details(connection: Connection, page: Sequence[Image], *, removed: bool) -> None:
    """Fill in properties and locations of a page, in two statements whatever its length.

    removed: a deleted image shows its removed locations too (registry-v1.md section 3).
    """
    if not page:
        return
    by_id = {image.id: image for image in page}
    ids = list(by_id)
    for image_id, name, value in _PROPERTIES_OF.fetch(connection, ids):
        by_id[image_id].properties[name] = value
    locations = (_LOCATIONS_OF if removed else _LIVE_LOCATIONS_OF).fetch(connection, ids)
    for image_id, gone, *columns in locations:
        image = by_id[image_id]
        if not gone or image.deleted:
            image.locations.append(location_from(columns))


def location_from(columns: Iterable[Any]) -> Location:
    url, metadata, status, location_id = columns
    return Location(url, orjson.loads(metadata) if metadata else {}, status, location_id)


def is_stored(location: Location) -> bool:
    """Whether the location's bytes still exist, as far as the registry knows."""
    return location.status != DELETED
