"""One registry per test, over every database that it supports."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from glance_registry.db import sync
from glance_registry.db.engine import Database, DatabaseSettings
from tests.registry import Registry, empty_tables, sqlite_database
from tests.servers.mariadb import MariaDB
from tests.servers.postgresql import PostgreSQL


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("registry") / "template.sqlite"
    # Closing it moves everything into the file itself, so that a copy of the file is whole.
    sqlite_database(path).dispose()
    return path


@pytest.fixture(scope="session")
def mariadb_database(mariadb: MariaDB) -> Iterator[Database]:
    database = Database(DatabaseSettings(mariadb.create()))
    sync.sync(database)
    yield database
    database.dispose()


@pytest.fixture(scope="session")
def postgresql_database(postgresql: PostgreSQL) -> Iterator[Database]:
    database = Database(DatabaseSettings(postgresql.create()))
    sync.sync(database)
    yield database
    database.dispose()


@pytest.fixture(params=["sqlite", "mariadb", "postgresql"])
def database(
    request: pytest.FixtureRequest, tmp_path: Path, sqlite_template: Path
) -> Iterator[Database]:
    if request.param == "sqlite":
        found = sqlite_database(tmp_path / "glance.sqlite", sqlite_template)
        yield found
        found.dispose()
        return
    found = request.getfixturevalue(f"{request.param}_database")
    empty_tables(found)
    yield found


@pytest.fixture
def registry(database: Database) -> Registry:
    return Registry.over(database)
