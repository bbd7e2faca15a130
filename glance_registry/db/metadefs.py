"""Metadata definitions as JSON files: loaded into, exported from and removed from the database.

v1 never reads them; an installation that is later upgraded does. One file is one namespace, in
the layout of the files that Glance ships.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import orjson
import sqlalchemy as sa
from oslo_utils import timeutils
from sqlalchemy.engine import Connection

from common import errors
from glance_registry.db.models import (
    metadef_namespace_resource_types,
    metadef_namespaces,
    metadef_objects,
    metadef_properties,
    metadef_resource_types,
    metadef_tags,
)

_NAMESPACE_FIELDS: Final = ("display_name", "description", "visibility", "protected", "owner")
_IN_NAMESPACE: Final = (
    metadef_tags,
    metadef_properties,
    metadef_objects,
    metadef_namespace_resource_types,
)


@dataclass(frozen=True, slots=True)
class LoadMode:
    """What to do with a namespace that exists: leave it alone; add what it lacks (merge), also
    replacing what differs (prefer_new); or replace it as a whole (overwrite).
    """

    merge: bool = False
    prefer_new: bool = False
    overwrite: bool = False


def read_files(directory: Path) -> list[dict[str, Any]]:
    """The namespaces in a directory's *.json files. Raises Invalid naming a file that is none."""
    if not directory.is_dir():
        raise errors.Invalid(f"{directory} is not a directory.")
    return [_read(file) for file in sorted(directory.glob("*.json"))]


def _read(file: Path) -> dict[str, Any]:
    try:
        document = orjson.loads(file.read_bytes())
    except (OSError, orjson.JSONDecodeError) as error:
        raise errors.Invalid(f"{file} cannot be read: {error}") from error
    if not isinstance(document, dict) or not isinstance(document.get("namespace"), str):
        raise errors.Invalid(f"{file} does not define a namespace.")
    return document


def load(connection: Connection, documents: Iterable[Mapping[str, Any]], mode: LoadMode) -> None:
    """Store namespaces with everything in them, all or none."""
    for document in documents:
        existing = _namespace_id(connection, document["namespace"])
        if existing is not None and mode.overwrite:
            _remove_namespace(connection, existing)
            existing = None
        if existing is None:
            _Loader(connection, _add_namespace(connection, document), replace=True).load(document)
        elif mode.merge:
            _Loader(connection, existing, replace=mode.prefer_new).load(document)


def unload(connection: Connection) -> None:
    """Remove every definition."""
    for table in (*_IN_NAMESPACE, metadef_namespaces, metadef_resource_types):
        connection.execute(table.delete())


def export(connection: Connection) -> dict[str, dict[str, Any]]:
    """Every namespace by name, as `load` takes it."""
    found = connection.execute(sa.select(metadef_namespaces)).mappings().all()
    return {row["namespace"]: _export_namespace(connection, row) for row in found}


def _namespace_id(connection: Connection, name: str) -> int | None:
    statement = sa.select(metadef_namespaces.c.id).where(metadef_namespaces.c.namespace == name)
    found: int | None = connection.execute(statement).scalar()
    return found


def _remove_namespace(connection: Connection, namespace_id: int) -> None:
    for table in _IN_NAMESPACE:
        connection.execute(table.delete().where(table.c.namespace_id == namespace_id))
    connection.execute(metadef_namespaces.delete().where(metadef_namespaces.c.id == namespace_id))


def _add_namespace(connection: Connection, document: Mapping[str, Any]) -> int:
    values = {field: document.get(field) for field in _NAMESPACE_FIELDS}
    values["owner"] = values["owner"] or "admin"
    return _insert(connection, metadef_namespaces, namespace=document["namespace"], **values)


def _insert(connection: Connection, table: sa.Table, **values: Any) -> int:
    now = timeutils.utcnow()
    key = connection.execute(
        table.insert(), {**values, "created_at": now, "updated_at": now}
    ).inserted_primary_key
    assert key is not None
    return int(key[0])


@dataclass(slots=True)
class _Loader:
    """Puts one document into its namespace; replace decides about what is there already."""

    connection: Connection
    namespace_id: int
    replace: bool

    def load(self, document: Mapping[str, Any]) -> None:
        for name, schema in (document.get("properties") or {}).items():
            self._put(metadef_properties, name, json_schema=_text(schema))
        for item in document.get("objects") or ():
            self._put(
                metadef_objects,
                item["name"],
                description=item.get("description"),
                required=",".join(item.get("required") or ()) or None,
                json_schema=_text(item.get("properties") or {}),
            )
        for item in document.get("tags") or ():
            self._put(metadef_tags, item["name"])
        for item in document.get("resource_type_associations") or ():
            self._associate(item)

    def _put(self, table: sa.Table, name: str, **values: Any) -> None:
        same = sa.and_(table.c.namespace_id == self.namespace_id, table.c.name == name)
        if self.connection.execute(sa.select(table.c.id).where(same)).first() is None:
            _insert(self.connection, table, namespace_id=self.namespace_id, name=name, **values)
        elif self.replace:
            self.connection.execute(
                table.update().where(same).values(**values, updated_at=timeutils.utcnow())
            )

    def _associate(self, item: Mapping[str, Any]) -> None:
        table = metadef_namespace_resource_types
        type_id = self._resource_type(item["name"])
        same = sa.and_(
            table.c.namespace_id == self.namespace_id, table.c.resource_type_id == type_id
        )
        values = {field: item.get(field) for field in ("prefix", "properties_target")}
        if self.connection.execute(sa.select(table.c.namespace_id).where(same)).first() is None:
            ids = {"namespace_id": self.namespace_id, "resource_type_id": type_id}
            now = timeutils.utcnow()
            self.connection.execute(
                table.insert(), {**ids, **values, "created_at": now, "updated_at": now}
            )
        elif self.replace:
            self.connection.execute(table.update().where(same).values(**values))

    def _resource_type(self, name: str) -> int:
        table = metadef_resource_types
        found = self.connection.execute(sa.select(table.c.id).where(table.c.name == name)).scalar()
        return found or _insert(self.connection, table, name=name, protected=True)


def _text(schema: Any) -> str:
    return orjson.dumps(schema).decode()


def _export_namespace(connection: Connection, row: sa.RowMapping) -> dict[str, Any]:
    document: dict[str, Any] = {"namespace": row["namespace"]}
    document |= {field: row[field] for field in _NAMESPACE_FIELDS}
    document["properties"] = {
        item["name"]: orjson.loads(item["json_schema"])
        for item in _within(connection, metadef_properties, row)
    }
    document["objects"] = [
        {
            "name": item["name"],
            "description": item["description"],
            "required": item["required"].split(",") if item["required"] else [],
            "properties": orjson.loads(item["json_schema"]),
        }
        for item in _within(connection, metadef_objects, row)
    ]
    document["tags"] = [{"name": item["name"]} for item in _within(connection, metadef_tags, row)]
    document["resource_type_associations"] = _associations(connection, row)
    return document


def _within(connection: Connection, table: sa.Table, row: sa.RowMapping) -> Iterable[sa.RowMapping]:
    statement = sa.select(table).where(table.c.namespace_id == row["id"]).order_by(table.c.name)
    return connection.execute(statement).mappings()


def _associations(connection: Connection, row: sa.RowMapping) -> list[dict[str, Any]]:
    link, kind = metadef_namespace_resource_types, metadef_resource_types
    statement = (
        sa.select(kind.c.name, link.c.prefix, link.c.properties_target)
        .join(kind, kind.c.id == link.c.resource_type_id)
        .where(link.c.namespace_id == row["id"])
        .order_by(kind.c.name)
    )
    return [
        {"name": name, "prefix": prefix, "properties_target": target}
        for name, prefix, target in connection.execute(statement)
    ]
