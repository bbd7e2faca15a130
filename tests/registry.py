"""The real registry over a real database, called without a socket."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import orjson
import sqlalchemy as sa
import webob

from common.context import RequestContext
from common.wsgi.faults import Application
from common.wsgi.resource import CONTEXT
from glance_registry.app import application
from glance_registry.db import models, prepared, sync
from glance_registry.db.engine import Database, DatabaseSettings
from glance_registry.images import ListSettings

UNKNOWN_ID = "00000000-0000-4000-8000-000000000000"


@contextmanager
def statements(database: Database) -> Iterator[list[tuple[str, Any]]]:
    """Every SELECT, INSERT, UPDATE and DELETE sent meanwhile, with its parameters."""
    sent: list[tuple[str, Any]] = []

    def note(_c: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        if statement.split(None, 1)[0] in ("SELECT", "INSERT", "UPDATE", "DELETE"):
            sent.append((statement, parameters))

    sa.event.listen(database.engine, "before_cursor_execute", note)
    # Prepared statements do not pass by; told that they cannot be used, they do.
    with patch.object(prepared._Plan, "run", side_effect=NotImplementedError):
        try:
            yield sent
        finally:
            sa.event.remove(database.engine, "before_cursor_execute", note)


def user(tenant: str | None = "t1", **rights: Any) -> RequestContext:
    return RequestContext(user="u", tenant=tenant, roles=("member",), **rights)


ADMIN = RequestContext(user="root", tenant="ops", roles=("admin",), is_admin=True)
ANONYMOUS = RequestContext(read_only=True, authenticated=False)


def sqlite_database(path: Path, template: Path | None = None) -> Database:
    """A database in a file, with the current schema; copied where a template is at hand."""
    if template is not None:
        shutil.copy(template, path)
    database = Database(DatabaseSettings(f"sqlite:///{path}", sqlite_synchronous=False))
    if template is None:
        sync.sync(database)
    return database


def empty_tables(database: Database) -> None:
    """Remove every row, children first."""
    with database.engine.begin() as connection:
        for table in reversed(models.metadata.sorted_tables):
            connection.execute(table.delete())


@dataclass
class Registry:
    """Calls the routes as some caller; answers are WebOb's responses."""

    app: Application
    database: Database

    @classmethod
    def over(
        cls, database: Database, *, quota: int = 128, lists: ListSettings | None = None
    ) -> "Registry":
        return cls(application(database, lists or ListSettings(), quota), database)

    def call(
        self,
        method: str,
        path: str,
        body: Any = None,
        ctx: RequestContext | None = None,
        **headers: str,
    ) -> webob.Response:
        """headers are named with `_` for `-`; body is sent as JSON unless it is bytes."""
        request = webob.Request.blank(path, method=method, accept="application/json")
        if body is not None:
            request.body = body if isinstance(body, bytes) else orjson.dumps(body)
        for name, value in headers.items():
            request.headers[name.replace("_", "-")] = value
        request.environ[CONTEXT] = ctx if ctx is not None else user()
        response = request.get_response(self.app)
        assert response.status_int != 500, response.text
        return response

    def create(self, ctx: RequestContext | None = None, **fields: Any) -> dict[str, Any]:
        response = self.call("POST", "/images", {"image": {"status": "queued", **fields}}, ctx)
        assert response.status_int == 200, response.text
        image: dict[str, Any] = response.json["image"]
        return image

    def show(self, image_id: str, ctx: RequestContext = ADMIN) -> dict[str, Any]:
        image: dict[str, Any] = self.call("GET", f"/images/{image_id}", ctx=ctx).json["image"]
        return image

    def put(self, image_id: str, ctx: RequestContext | None = None, **body: Any) -> webob.Response:
        return self.call("PUT", f"/images/{image_id}", body, ctx)

    def ids(self, query: str = "", ctx: RequestContext | None = None) -> list[str]:
        response = self.call("GET", f"/images{query}", ctx=ctx)
        assert response.status_int == 200, response.text
        return [image["id"] for image in response.json["images"]]

    def names(self, query: str = "", ctx: RequestContext | None = None) -> list[str]:
        response = self.call("GET", f"/images{query}", ctx=ctx)
        assert response.status_int == 200, response.text
        return [image["name"] for image in response.json["images"]]

    def rows(self, table: sa.Table, **equal: Any) -> list[sa.Row[Any]]:
        statement = sa.select(table).filter_by(**equal)
        return self.database.read(lambda connection: list(connection.execute(statement)))
