"""Databases made by Queens or later: `images.visibility` decides, and `is_public` follows it.

The migration adds `is_public` there as a generated column, so reading needs to know nothing of
this; writing sets `visibility` instead.
"""

from collections.abc import Mapping
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from glance_registry.db.models import images

_HAS_VISIBILITY: Final = "glance_has_visibility"
_queens_images: Final = images.to_metadata(sa.MetaData())
_queens_images.append_column(sa.Column("visibility", sa.String(30)))


def images_table(connection: Connection) -> sa.Table:
    """The table to insert into and update: the connection's own shape of `images`."""
    known = connection.info.get(_HAS_VISIBILITY)
    if known is None:
        inspector = sa.inspect(connection)
        if not inspector.has_table("images"):
            # What the caller does next says so, in a way that is understood.
            return images
        names = {column["name"] for column in inspector.get_columns("images")}
        known = connection.info[_HAS_VISIBILITY] = "visibility" in names
    return _queens_images if known else images


def stored_values(table: sa.Table, values: Mapping[str, Any]) -> dict[str, Any]:
    """values as table stores them. An image that stops being public can still be shared."""
    stored = dict(values)
    if table is _queens_images and "is_public" in stored:
        stored["visibility"] = "public" if stored.pop("is_public") else "shared"
    return stored
