"""The URLs of all locations, of images long removed too, for a tool that changes them."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Final

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from common.image import DELETED
from glance_registry.db.engine import Database
from glance_registry.db.models import image_locations

_BATCH: Final = 1000


@dataclass(frozen=True, slots=True)
class LocationUrl:
    """One row. The URL may be encrypted."""

    row_id: int
    image_id: str
    status: str
    url: str = field(repr=False)

    @property
    def has_bytes(self) -> bool:
        return self.status != DELETED


def every(database: Database) -> Iterator[LocationUrl]:
    """All rows in their order, a batch in memory at a time."""
    after = 0
    while batch := database.read(partial(_batch, after=after)):
        yield from batch
        after = batch[-1].row_id


def _batch(connection: Connection, after: int) -> list[LocationUrl]:
    columns = image_locations.c
    statement = (
        sa.select(columns.id, columns.image_id, columns.status, columns.value)
        .where(columns.id > after)
        .order_by(columns.id)
        .limit(_BATCH)
    )
    return [LocationUrl(*row) for row in connection.execute(statement)]


def change(connection: Connection, found: LocationUrl, url: str) -> bool:
    """Give a row another URL; False if it has changed since it was found."""
    columns = image_locations.c
    statement = image_locations.update().where(
        columns.id == found.row_id, columns.value == found.url
    )
    return bool(connection.execute(statement.values(value=url)).rowcount)
