"""From whatever database there is to the current schema; nothing is ever dropped (decision 3).

An empty database is built. One made by Glance, Liberty to Queens and later, is adopted: what is
missing is added beside what is there. `migrate_version` keeps Mitaka's level for old tools; our
own progress is in a version table of its own, so that it never meets Glance's.
"""

from typing import Final

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy.engine import Connection

from common import errors
from glance_registry.db.engine import Database

VERSION_TABLE: Final = "glance_v1_version"
LEVEL: Final = 44
OLDEST_LEVEL: Final = 42

_REPOSITORY: Final = "Glance Migrations"
_MIGRATE_VERSION: Final = sa.Table(
    "migrate_version",
    sa.MetaData(),
    sa.Column("repository_id", sa.String(250), primary_key=True),
    sa.Column("repository_path", sa.Text),
    sa.Column("version", sa.Integer),
)
_LEVEL_OF: Final = sa.select(_MIGRATE_VERSION.c.version).where(
    _MIGRATE_VERSION.c.repository_id == _REPOSITORY
)


class Unsupported(errors.Invalid):
    """The database is not one that can be brought to the current schema."""


def level(database: Database) -> int:
    """Mitaka's migration level as the database records it; 0 for one that has none."""
    return database.read(_level) or 0


def sync(database: Database) -> None:
    """Build or adopt the schema, or do nothing if it is current. Running it again after an
    interruption completes it. Raises Unsupported before anything is changed.
    """
    with database.engine.connect() as connection:
        _require_supported(connection)
    with database.migration() as connection:
        command.upgrade(_alembic(connection), "head")


def record_level(database: Database, level: int) -> None:
    """Put a database under version control at level, as its maker would have."""
    with database.migration() as connection:
        if not sa.inspect(connection).has_table(_MIGRATE_VERSION.name):
            _MIGRATE_VERSION.create(connection)
        repository = _MIGRATE_VERSION.c.repository_id == _REPOSITORY
        if _level(connection) is None:
            values = {"repository_id": _REPOSITORY, "repository_path": "", "version": level}
            connection.execute(_MIGRATE_VERSION.insert(), values)
        else:
            connection.execute(_MIGRATE_VERSION.update().where(repository).values(version=level))


def is_current(database: Database) -> bool:
    """Whether the schema is complete, for a program that wants to say so at start."""
    return database.read(_is_current)


def _is_current(connection: Connection) -> bool:
    script = ScriptDirectory.from_config(_alembic(connection))
    context = MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE})
    return set(context.get_current_heads()) == set(script.get_heads())


def _alembic(connection: Connection) -> Config:
    config = Config()
    config.set_main_option("script_location", "glance_registry.db:migrations")
    config.attributes["connection"] = connection
    return config


def _level(connection: Connection) -> int | None:
    if not sa.inspect(connection).has_table("migrate_version"):
        return None
    found: int | None = connection.execute(_LEVEL_OF).scalar()
    return found


def _require_supported(connection: Connection) -> None:
    tables = set(sa.inspect(connection).get_table_names())
    if "images" not in tables or VERSION_TABLE in tables or "alembic_version" in tables:
        return
    found = _level(connection)
    if found is None:
        raise Unsupported("The database has images but no version: see 'db version_control'.")
    if found < OLDEST_LEVEL:
        raise Unsupported(
            f"The database is at level {found}. Bring it to level {OLDEST_LEVEL} or later with"
            " the release of Glance that made it."
        )
