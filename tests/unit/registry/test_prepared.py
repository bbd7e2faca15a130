"""Prepared statements answer what SQLAlchemy would, and fail as it would."""

from datetime import datetime
from pathlib import Path

import pytest
import sqlalchemy as sa

from common import errors
from glance_registry.db import models
from glance_registry.db.engine import Database
from glance_registry.db.prepared import Prepared, PreparedForIds
from tests.registry import Registry, sqlite_database

IMAGES = models.images.c


@pytest.fixture
def database(tmp_path: Path) -> Database:
    database = sqlite_database(tmp_path / "glance.sqlite")
    registry = Registry.over(database)
    for number in range(5):
        registry.create(name=f"n{number}", is_public=number % 2 == 0, size=None)
    return database


@pytest.mark.parametrize(
    ("statement", "parameters"),
    [
        (sa.select(models.images), {}),
        (sa.select(IMAGES.created_at, IMAGES.deleted_at, IMAGES.is_public), {}),
        (sa.select(IMAGES.id).where(IMAGES.name == sa.bindparam("n")), {"n": "n3"}),
        (sa.select(IMAGES.id).where(IMAGES.name == "n3"), {}),
        (
            sa.select(IMAGES.id).where(IMAGES.created_at > sa.bindparam("t")),
            {"t": datetime(2001, 1, 1)},
        ),
        (
            sa.select(IMAGES.name).where(
                IMAGES.name.in_(sa.bindparam("names", expanding=True)),
                IMAGES.name != sa.bindparam("n"),
                IMAGES.name > sa.bindparam("n"),
            ),
            {"names": ["n1", "n2"], "n": "n1"},
        ),
    ],
)
def test_the_rows_are_the_same(
    database: Database, statement: sa.Select[tuple[object]], parameters: dict[str, object]
) -> None:
    prepared = Prepared(statement)
    for _ in range(2):
        found = database.read(lambda c: prepared.fetch(c, parameters))
        expected = database.read(lambda c: c.execute(statement, parameters).all())
        assert expected
        assert [tuple(row) for row in found] == [tuple(row) for row in expected]


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_a_list_of_any_length_finds_each_once(database: Database, count: int) -> None:
    prepared = PreparedForIds(lambda ids: sa.select(IMAGES.id).where(IMAGES.id.in_(ids)))
    ids = [row.id for row in Registry.over(database).rows(models.images)][:count]
    found = database.read(lambda c: prepared.fetch(c, ids))
    assert sorted(row[0] for row in found) == sorted(ids)


def test_an_error_is_one_that_is_understood(database: Database) -> None:
    missing = sa.table("nowhere", sa.column("a"))
    prepared = Prepared(sa.select(missing.c.a))
    with pytest.raises(errors.ServiceUnavailable):
        database.read(lambda c: prepared.fetch(c, {}))
    assert len(Registry.over(database).ids()) == 5


def test_a_reader_sees_one_state_of_the_database(database: Database) -> None:
    """All statements of one answer, whatever is committed between them."""
    count = Prepared(sa.select(sa.func.count()).select_from(models.images))
    other = Database(database.settings)

    def work(connection: sa.Connection) -> list[int]:
        before = count.fetch(connection, {})[0][0]
        Registry.over(other).create()
        through_sqlalchemy = connection.execute(count.statement).scalar_one()
        return [before, count.fetch(connection, {})[0][0], through_sqlalchemy]

    assert database.read(work) == [5, 5, 5]
    assert database.read(lambda c: count.fetch(c, {})[0][0]) == 6


def test_work_within_work_has_a_connection_of_its_own(database: Database) -> None:
    registry = Registry.over(database)
    assert len(database.read(lambda _: registry.ids())) == 5
