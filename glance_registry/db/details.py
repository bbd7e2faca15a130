"""An image's properties and locations: written with it, and removed with its members and tags.

Rows are flagged rather than deleted and come back when the same name does (database.md section
7). What is stored is read once; only what differs is written.
"""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

import orjson
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from common import errors
from common.image import DELETED, PENDING_DELETE, Change, Location
from glance_registry.db import rows
from glance_registry.db.models import image_locations, image_members, image_properties, image_tags

_PROPERTIES: Final = sa.select(
    image_properties.c.name,
    image_properties.c.id,
    image_properties.c.value,
    image_properties.c.deleted,
).where(image_properties.c.image_id == sa.bindparam("image_id"))
_SET_PROPERTY: Final = (
    image_properties.update()
    .where(image_properties.c.id == sa.bindparam("row_id"))
    .values(
        value=sa.bindparam("new_value"),
        updated_at=sa.bindparam("now"),
        deleted=False,
        deleted_at=None,
    )
)
_LOCATIONS: Final = (
    sa.select(*rows.LOCATION_COLUMNS, image_locations.c.deleted)
    .where(image_locations.c.image_id == sa.bindparam("image_id"))
    .order_by(image_locations.c.id)
)


@dataclass(slots=True)
class _Property:
    row_id: int | None
    value: str | None
    deleted: bool


@dataclass(slots=True)
class Details:
    """What is stored beside one image, kept in step with the rows as they change.

    A new image starts with `Details(image_id)`; anything else with `load`.
    """

    image_id: str
    _properties: dict[str, _Property] = field(default_factory=dict)
    _locations: dict[int, tuple[Location, bool]] = field(default_factory=dict)

    @classmethod
    def load(cls, connection: Connection, image_id: str) -> "Details":
        parameters = {"image_id": image_id}
        return cls(
            image_id,
            {
                row.name: _Property(row.id, row.value, row.deleted)
                for row in connection.execute(_PROPERTIES, parameters)
            },
            {
                row.id: (rows.location_from(row[:4]), row.deleted)
                for row in connection.execute(_LOCATIONS, parameters)
            },
        )

    @property
    def properties(self) -> dict[str, str | None]:
        return {name: found.value for name, found in self._properties.items() if not found.deleted}

    @property
    def locations(self) -> list[Location]:
        return [location for location, deleted in self._locations.values() if not deleted]

    @property
    def all_locations(self) -> list[Location]:
        """Removed ones too: bytes that still await the scrubber count as stored."""
        return [location for location, _ in self._locations.values()]

    @property
    def stored_locations(self) -> list[Location]:
        """Those whose bytes still exist as far as anybody recorded, removed or not."""
        return [location for location in self.all_locations if rows.is_stored(location)]

    def change(self, connection: Connection, change: Change, now: datetime) -> None:
        """Write what change says about properties and locations.

        Raises NotFound for a location id that the image does not have.
        """
        sent = change.properties or {}
        self._add_properties(connection, sent, now)
        self._set_properties(connection, sent, now)
        if change.purge:
            self._drop_properties(connection, set(sent), now)
        # An empty list changes nothing: an image never loses its bytes by an update (R06).
        if change.locations:
            self._set_locations(connection, change.locations, now)

    def _add_properties(
        self, connection: Connection, sent: dict[str, str | None], now: datetime
    ) -> None:
        new = {name: value for name, value in sent.items() if name not in self._properties}
        if not new:
            return
        row = {"image_id": self.image_id, "created_at": now, "updated_at": now, "deleted": False}
        connection.execute(
            image_properties.insert(),
            [{**row, "name": name, "value": value} for name, value in new.items()],
        )
        for name, value in new.items():
            self._properties[name] = _Property(None, value, False)

    def _set_properties(
        self, connection: Connection, sent: dict[str, str | None], now: datetime
    ) -> None:
        changes = []
        for name, value in sent.items():
            found = self._properties[name]
            if found.deleted or found.value != value:
                changes.append({"row_id": found.row_id, "new_value": value, "now": now})
                self._properties[name] = _Property(found.row_id, value, False)
        if changes:
            connection.execute(_SET_PROPERTY, changes)

    def _drop_properties(self, connection: Connection, kept: set[str], now: datetime) -> None:
        dropped = [
            found
            for name, found in self._properties.items()
            if not found.deleted and name not in kept
        ]
        if not dropped:
            return
        connection.execute(
            image_properties.update()
            .where(image_properties.c.id.in_([found.row_id for found in dropped]))
            .values(**_gone(now))
        )
        for found in dropped:
            found.deleted = True

    def _set_locations(
        self, connection: Connection, locations: list[Location], now: datetime
    ) -> None:
        named = {location.id for location in locations if location.id is not None}
        if named - self._locations.keys():
            raise errors.NotFound("The image has no such location.")
        self._remove_locations(connection, named, now, DELETED)
        for location in locations:
            self._write_location(connection, location, now)

    def _remove_locations(
        self, connection: Connection, kept: set[int], now: datetime, status: str
    ) -> None:
        removed = [
            row_id
            for row_id, (_, deleted) in self._locations.items()
            if not deleted and row_id not in kept
        ]
        if not removed:
            return
        connection.execute(
            image_locations.update()
            .where(image_locations.c.id.in_(removed))
            .values(**_gone(now), status=status)
        )
        for row_id in removed:
            location = self._locations[row_id][0]
            location.status = status
            self._locations[row_id] = (location, True)

    def _write_location(self, connection: Connection, location: Location, now: datetime) -> None:
        # Bytes that are gone or on their way out always go with the flag (database.md section 2).
        removed = location.status in (DELETED, PENDING_DELETE)
        values: dict[str, Any] = {
            "value": location.url,
            "meta_data": orjson.dumps(location.metadata).decode(),
            "status": location.status,
            "updated_at": now,
            "deleted": removed,
            "deleted_at": now if removed else None,
        }
        row_id = location.id
        if row_id is None:
            values |= {"image_id": self.image_id, "created_at": now}
            key = connection.execute(image_locations.insert(), values).inserted_primary_key
            assert key is not None
            row_id = int(key[0])
        else:
            statement = image_locations.update().where(image_locations.c.id == row_id)
            connection.execute(statement.values(**values))
        written = Location(location.url, location.metadata, location.status, row_id)
        self._locations[row_id] = (written, removed)

    def remove(self, connection: Connection, now: datetime) -> None:
        """Flag every live part of the image, members and tags too, with the same time.

        A location that awaits the scrubber keeps its status.
        """
        for table in (image_properties, image_members, image_tags):
            connection.execute(
                table.update()
                .where(table.c.image_id == self.image_id, rows.is_live(table))
                .values(**_gone(now))
            )
        self._properties.clear()
        self._remove_locations(connection, set(), now, DELETED)

    def await_scrubber(self, connection: Connection, now: datetime) -> None:
        """Mark every live location as one whose bytes the scrubber is to remove."""
        self._remove_locations(connection, set(), now, PENDING_DELETE)


def _gone(now: datetime) -> dict[str, Any]:
    return {"deleted": True, "deleted_at": now, "updated_at": now}
