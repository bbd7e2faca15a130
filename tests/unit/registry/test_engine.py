"""Transactions as a whole: repeated where that is safe, given up in time, never half done."""

import os
import sqlite3
import threading
from pathlib import Path
from typing import Any

import pymysql
import pytest
import sqlalchemy as sa

from common import errors
from glance_registry.db import engine as engine_module
from glance_registry.db import failures, models
from glance_registry.db.engine import Database, DatabaseSettings
from tests.clock import Clock
from tests.registry import Registry, sqlite_database

WRITES = ("INSERT", "UPDATE", "DELETE")


@pytest.fixture
def database(tmp_path: Path) -> Database:
    return sqlite_database(tmp_path / "glance.sqlite")


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Delays are taken down instead of waited for."""
    clock = Clock()
    # Each attempt is as quick as it can be: only their number ends them.
    monkeypatch.setattr(clock, "monotonic", lambda: 0.0)
    monkeypatch.setattr(engine_module, "time", clock)
    return clock.slept


def mysql_error(number: int, *, disconnect: bool = False) -> sa.exc.DBAPIError:
    original = pymysql.err.OperationalError(number, "told by the server")
    return sa.exc.OperationalError("SELECT", {}, original, connection_invalidated=disconnect)


class Failing:
    """Makes the database fail at chosen statements that write."""

    def __init__(self, database: Database, error: Exception, at: int, times: int = 1) -> None:
        self.error = error
        self.at = at
        self.times = times
        self.count = 0
        sa.event.listen(database.engine, "before_cursor_execute", self._fail)

    def _fail(self, _c: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if not statement.startswith(WRITES):
            return
        self.count += 1
        if self.count >= self.at and self.times:
            self.times -= 1
            self.count = 0
            raise self.error


@pytest.mark.parametrize("number", [1213, 1205, 1020, 1047])
@pytest.mark.parametrize("at", range(1, 7))
def test_a_deadlock_anywhere_is_overcome(database: Database, number: int, at: int) -> None:
    """REL-053: create, update, members and delete succeed, and nothing is there twice."""
    registry = Registry.over(database)
    failing = Failing(database, mysql_error(number), at, times=3)
    image = registry.create(properties={"a": "1"}, location="file:///x", size=5)
    path = f"/images/{image['id']}"
    for method, where, body in (
        ("PUT", path, {"image": {"properties": {"b": "2"}, "size": 7}, "from_state": "queued"}),
        ("PUT", f"{path}/members/t2", None),
        ("PUT", f"{path}/members", {"memberships": [{"member_id": "t3"}]}),
        ("DELETE", path, None),
    ):
        failing.times = 3
        assert registry.call(method, where, body).status_int in (200, 204)
    assert len(registry.rows(models.images)) == 1
    assert len(registry.rows(models.image_properties)) == 2
    assert len(registry.rows(models.image_locations)) == 1
    assert len(registry.rows(models.image_members)) == 2
    (usage,) = registry.rows(models.owner_usage)
    assert (usage.bytes, usage.reserved) == (0, 0)


def test_delays_grow_and_differ(database: Database, no_waiting: list[float]) -> None:
    """Two transactions that collided must not meet again and again."""
    Failing(database, mysql_error(1213), at=1, times=20)
    Registry.over(database).create()
    assert len(no_waiting) == 20
    assert no_waiting[0] < 0.05
    assert max(no_waiting) <= 0.5
    assert len(set(no_waiting)) == 20


def test_a_deadlock_that_stays_ends_in_503(database: Database, no_waiting: list[float]) -> None:
    """REL-053: with nothing written."""
    Failing(database, mysql_error(1213), at=1, times=1000)
    registry = Registry.over(database)
    answer = registry.call("POST", "/images", {"image": {}})
    assert answer.status_int == 503
    assert "Retry-After" in answer.headers
    assert registry.rows(models.images) == []
    assert len(no_waiting) < 50


def test_nothing_is_tried_for_longer_than_a_caller_waits(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    monkeypatch.setattr(clock, "sleep", lambda _: Clock.sleep(clock, 6))
    monkeypatch.setattr(engine_module, "time", clock)
    failing = Failing(database, mysql_error(1213), at=1, times=1000)
    assert Registry.over(database).call("POST", "/images", {"image": {}}).status_int == 503
    assert 1000 - failing.times <= 5


def test_a_stale_connection_is_replaced(database: Database) -> None:
    """REL-054"""
    Failing(database, mysql_error(2006, disconnect=True), at=1, times=2)
    registry = Registry.over(database)
    registry.create()
    assert len(registry.rows(models.images)) == 1


def test_reconnecting_follows_its_options(tmp_path: Path, no_waiting: list[float]) -> None:
    path = tmp_path / "glance.sqlite"
    sqlite_database(path).dispose()
    settings = DatabaseSettings(f"sqlite:///{path}", use_db_reconnect=True, db_max_retries=6)
    database = Database(settings)
    Failing(database, mysql_error(2013), at=1, times=1000)
    assert Registry.over(database).call("POST", "/images", {"image": {}}).status_int == 503
    # 16 seconds more would be longer than a caller waits.
    assert no_waiting == [1, 2, 4, 8, 10, 10]


def test_a_commit_whose_outcome_is_unknown_is_not_repeated(database: Database) -> None:
    """Run again, a creation that had succeeded would be told that its id is in use."""
    connection = database.engine.connect()
    calls = []

    class Broken:
        def commit(self) -> None:
            raise mysql_error(2013, disconnect=True)

        def rollback(self) -> None:
            raise AssertionError("not after the work is done")

    class Double:
        def begin(self) -> Broken:
            return Broken()

    with pytest.raises(failures.OutcomeUnknown):
        engine_module._transaction(Double(), calls.append)
    assert len(calls) == 1
    connection.close()
    assert issubclass(failures.OutcomeUnknown, errors.ServiceUnavailable)


def test_a_failed_transaction_leaves_nothing(database: Database) -> None:
    def work(connection: sa.Connection) -> None:
        connection.execute(models.owner_usage.insert(), {"owner": "t1", "bytes": 1, "reserved": 1})
        raise errors.Conflict()

    with pytest.raises(errors.Conflict):
        database.write(work)
    assert Registry.over(database).rows(models.owner_usage) == []


def test_a_database_that_cannot_be_opened_is_away(tmp_path: Path) -> None:
    registry = Registry.over(Database(DatabaseSettings(f"sqlite:///{tmp_path}/no/where.sqlite")))
    assert registry.call("GET", "/images").status_int == 503


def test_a_mistake_of_ours_is_not_taken_for_an_absent_database() -> None:
    original = pymysql.err.ProgrammingError(1064, "You have an error in your SQL syntax")
    error = sa.exc.ProgrammingError("SELEC", {}, original)
    assert failures.domain_error(error) is error


@pytest.mark.parametrize("number", [1264, 1265, 1366, 1406])
def test_a_value_that_does_not_fit_is_the_callers_fault(number: int) -> None:
    """DB-020"""
    original = pymysql.err.DataError(number, "Data too long for column")
    error = failures.domain_error(sa.exc.DataError("INSERT", {}, original))
    assert isinstance(error, errors.Invalid)
    assert "column" not in error.message


def test_errors_never_hold_the_values(database: Database) -> None:
    """SEC-030: a location's credentials would reach the log with them."""

    def work(connection: sa.Connection) -> None:
        connection.execute(sa.text("SELECT * FROM nowhere WHERE a = :secret"), {"secret": "s3cr3t"})

    with pytest.raises(errors.ServiceUnavailable) as caught:
        database.read(work)
    chain = [caught.value, caught.value.__cause__]
    assert "s3cr3t" not in "".join(map(str, chain))


def test_sqlite_is_in_wal_and_writers_lock_before_they_read(tmp_path: Path) -> None:
    path = tmp_path / "glance.sqlite"
    database = sqlite_database(path)
    other = sqlite3.connect(path, timeout=0)

    def work(connection: sa.Connection) -> str:
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            other.execute("DELETE FROM images")
        # Readers are not in its way.
        other.execute("SELECT * FROM images").fetchall()
        return str(connection.exec_driver_sql("PRAGMA journal_mode").scalar())

    assert database.write(work) == "wal"
    other.close()


@pytest.mark.parametrize(("wanted", "level"), [(True, 2), (False, 0)])
def test_sqlite_waits_for_the_disk_if_told(tmp_path: Path, wanted: bool, level: int) -> None:
    """middleware-and-config.md section 10.14: sqlite_synchronous"""
    settings = DatabaseSettings(f"sqlite:///{tmp_path}/x.sqlite", sqlite_synchronous=wanted)
    found = Database(settings).read(
        lambda connection: connection.exec_driver_sql("PRAGMA synchronous").scalar()
    )
    assert found == level


def test_a_locked_sqlite_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_waiting: list[float]
) -> None:
    """No "database is locked" reaches a caller while there is hope."""
    monkeypatch.setattr(engine_module, "_SQLITE_BUSY_SECONDS", 0)
    path = tmp_path / "glance.sqlite"
    database = sqlite_database(path)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    monkeypatch.setattr(engine_module, "time", Clock(lambda _: other.execute("ROLLBACK")))
    Registry.over(database).create()
    other.close()


def test_each_process_has_connections_of_its_own(database: Database) -> None:
    """Workers are forked from a parent that may have used the database."""
    registry = Registry.over(database)
    image_id = registry.create()["id"]
    before = database.engine
    child = os.fork()
    if child == 0:
        status = 1
        try:
            made = Registry.over(database).create()["id"]
            status = 0 if database.engine is not before and made else 2
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert database.engine is before
    assert len(registry.ids()) == 2
    assert image_id in registry.ids()


def test_writers_of_one_process_take_turns(database: Database) -> None:
    registry = Registry.over(database)
    threads = [threading.Thread(target=registry.create) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(registry.ids()) == 8


def test_a_database_of_glances_is_not_ready_before_it_is_synced(
    tmp_path: Path, database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    """Images can be read there, and no upload begun. The log says what to run."""
    database.ping()
    glances = Database(DatabaseSettings(f"sqlite:///{tmp_path}/glances.sqlite"))
    with glances.migration() as connection:
        models.images.create(connection)
    with pytest.raises(errors.ServiceUnavailable):
        glances.ping()
    assert "glance-manage db sync" in caplog.text


def test_a_table_that_is_missing_on_a_server_is_told_alike(
    caplog: pytest.LogCaptureFixture,
) -> None:
    original = pymysql.err.ProgrammingError(1146, "Table 'glance.images' doesn't exist")
    told = failures.domain_error(sa.exc.ProgrammingError("SELECT", {}, original))
    assert isinstance(told, errors.ServiceUnavailable)
    assert "glance-manage db sync" in caplog.text
