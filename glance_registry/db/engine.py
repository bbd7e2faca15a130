"""Connections and transactions: how a piece of database work is run, repeated and given up.

Work is a function of a connection. `Database.read` and `Database.write` run it as one whole
transaction, and run it again from its start when the database says that this is safe; so work
keeps no state outside its result.
"""

import logging
import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Final, TypeVar

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine, make_url
from sqlalchemy.pool import StaticPool

from common import errors
from common.concurrency import offload
from glance_registry.db import failures, postgresql
from glance_registry.db.failures import Failure

LOG = logging.getLogger(__name__)

T = TypeVar("T")
Work = Callable[[Connection], T]

_WRITES: Final = "glance_writes"
# How long SQLite waits for another process's write before it says that it is locked.
_SQLITE_BUSY_SECONDS: Final = 10
# A page of a large list touches a few hundred pages of the file, mostly the same upper ones: with
# 16 MiB a page of 100 among a million images takes 1.2 ms, with SQLite's 2 MiB 2.2 ms.
_SQLITE_CACHE_KIB: Final = 16 * 1024
_STALE_CONNECTION_ATTEMPTS: Final = 3
# A table of Glance's, and one that only `db sync` makes.
_PING: Final = sa.text(
    "SELECT (SELECT id FROM images LIMIT 1), (SELECT id FROM image_leases LIMIT 1)"
)
_NO_HURRY: Final = 7 * 24 * 3600


@dataclass(frozen=True, slots=True)
class DatabaseSettings:
    """The options of section [database] that have an effect here."""

    connection: str = "sqlite://"
    sqlite_synchronous: bool = True
    mysql_sql_mode: str = "TRADITIONAL"
    idle_timeout: int = 3600
    max_pool_size: int | None = None
    max_overflow: int | None = 50
    pool_timeout: int | None = None
    use_db_reconnect: bool = False
    db_retry_interval: float = 1
    db_inc_retry_interval: bool = True
    db_max_retry_interval: float = 10
    db_max_retries: int = 20
    # database.md section 9: a deadlock is tried again at most this often ...
    deadlock_attempts: int = 50
    # ... and nothing is tried for longer: the caller hears 503 while it still listens.
    patience_seconds: float = 20


class Database:
    """One database. The engine is made when first used, in each process that uses it: a pooled
    connection must not be shared across a fork.
    """

    def __init__(self, settings: DatabaseSettings) -> None:
        self.settings = settings
        self.url = make_url(settings.connection)
        self.is_sqlite = self.url.get_backend_name() == "sqlite"
        self._engine: Engine | None = None
        self._writing_engine: Engine | None = None
        self._reader: Connection | None = None
        self._inherited: Connection | None = None
        self._pid = 0
        self._writing, self._reading = threading.Lock(), threading.Lock()

    @property
    def engine(self) -> Engine:
        if self._engine is None or self._pid != os.getpid():
            if self._engine is not None:
                self._engine.dispose(close=False)
                # The parent's; collected here, it would be closed here.
                self._inherited = self._reader
            self._engine = _make_engine(self.settings, self.url)
            self._writing_engine = None
            self._reader = None
            self._writing, self._reading = threading.Lock(), threading.Lock()
            self._pid = os.getpid()
        return self._engine

    @property
    def _writer(self) -> Engine:
        """The same engine, with transactions that begin by taking SQLite's write lock."""
        engine = self.engine
        if self._writing_engine is None:
            self._writing_engine = engine.execution_options(**{_WRITES: True})
        return self._writing_engine

    def read(self, work: Work[T]) -> T:
        """Run work in a transaction that sees one state of the database and changes nothing.

        Raises ServiceUnavailable if the database cannot be reached for long enough.
        """
        return self._persistently(self._read_sqlite if self.is_sqlite else self._read, work)

    def write(self, work: Work[T]) -> T:
        """Run work and commit it, or leave nothing of it.

        On SQLite work runs in a native thread as a whole, because committing waits for the
        disk: it must not touch anything that the event loop owns. Raises ServiceUnavailable if
        the database cannot be reached or stays locked, also when the connection broke while
        committing and the outcome is unknown.
        """
        return self._persistently(self._write_sqlite if self.is_sqlite else self._write, work)

    def ping(self) -> None:
        """Raises ServiceUnavailable if the database does not answer, or has no tables of ours."""
        self.read(lambda connection: connection.execute(_PING).first())

    @contextmanager
    def migration(self) -> Iterator[Connection]:
        """A transaction for changing the schema: it takes its time, and is not tried again."""
        if self.is_sqlite:
            with self._writer.begin() as connection:
                yield connection
            return
        engine = _make_engine(replace(self.settings, patience_seconds=_NO_HURRY), self.url)
        with engine.begin() as connection:
            yield connection
        engine.dispose()

    def dispose(self) -> None:
        """Close all connections; the next use opens new ones."""
        if self._engine is not None and self._pid == os.getpid():
            self._drop_reader()
            self._engine.dispose()

    def _read(self, work: Work[T]) -> T:
        with self.engine.connect() as connection:
            return work(connection)

    def _read_sqlite(self, work: Work[T]) -> T:
        # Reading never waits, so one connection serves all readers of a process in turn: taking
        # one from the pool for each costs as much as showing an image.
        engine = self.engine
        if not self._reading.acquire(blocking=False):
            with engine.connect() as connection:
                return _sqlite_snapshot(connection, work)
        try:
            if self._reader is None:
                self._reader = engine.connect()
            return _sqlite_snapshot(self._reader, work)
        except errors.GlanceError:
            raise
        except BaseException:
            self._drop_reader()
            raise
        finally:
            self._reading.release()

    def _drop_reader(self) -> None:
        reader, self._reader = self._reader, None
        if reader is not None:
            reader.close()

    def _write(self, work: Work[T]) -> T:
        with self._writer.connect() as connection:
            return _transaction(connection, work)

    def _write_sqlite(self, work: Work[T]) -> T:
        # SQLite has one writer at a time; waiting here is cheaper than waiting for its lock. The
        # pool's own locks belong to the event loop, so only the transaction leaves it.
        with self._writing, self._writer.connect() as connection:
            return offload(_transaction, connection, work)

    def _persistently(self, run: Callable[[Work[T]], T], work: Work[T]) -> T:
        started = time.monotonic()
        attempt = 0
        while True:
            attempt += 1
            try:
                return run(work)
            except sa.exc.TimeoutError:
                raise errors.ServiceUnavailable() from None
            except sa.exc.DBAPIError as error:
                delay = self._delay(error, attempt)
                waited = time.monotonic() - started
                if delay is None or waited + delay > self.settings.patience_seconds:
                    raise failures.domain_error(error) from error
            time.sleep(delay)

    def _delay(self, error: sa.exc.DBAPIError, attempt: int) -> float | None:
        """Seconds to wait before the next attempt, or None to give up."""
        settings = self.settings
        match failures.classify(error):
            case Failure.COLLISION if attempt < settings.deadlock_attempts:
                # Half of it at random: two transactions that collided must not meet again.
                return min(0.5, 0.01 * (1 << attempt)) * random.uniform(0.5, 1)
            case Failure.DISCONNECTED if settings.use_db_reconnect:
                if 0 <= settings.db_max_retries < attempt:
                    return None
                growth = 1 << (attempt - 1) if settings.db_inc_retry_interval else 1
                return min(settings.db_max_retry_interval, settings.db_retry_interval * growth)
            case Failure.DISCONNECTED if attempt < _STALE_CONNECTION_ATTEMPTS:
                # A pooled connection that the server has closed since; a new one costs nothing.
                return 0.05 * attempt
        return None


def _sqlite_snapshot(connection: Connection, work: Work[T]) -> T:
    """Run work on one state of the database, whether or not it goes through SQLAlchemy."""
    driver = connection.connection.dbapi_connection
    assert driver is not None
    cursor = driver.cursor()
    cursor.execute("BEGIN")
    try:
        return work(connection)
    finally:
        if connection.in_transaction():
            connection.rollback()
        else:
            cursor.execute("ROLLBACK")


def _transaction(connection: Connection, work: Work[T]) -> T:
    transaction = connection.begin()
    try:
        result = work(connection)
    except BaseException:
        transaction.rollback()
        raise
    try:
        transaction.commit()
    except sa.exc.DBAPIError as error:
        if failures.classify(error) is Failure.DISCONNECTED:
            raise failures.OutcomeUnknown() from error
        raise
    return result


def _make_engine(settings: DatabaseSettings, url: sa.URL) -> Engine:
    # Parameters hold locations and their credentials: they never reach a log or a traceback.
    options: dict[str, Any] = {"hide_parameters": True, "pool_recycle": settings.idle_timeout}
    if url.get_backend_name() == "sqlite":
        return _make_sqlite_engine(settings, url, options)
    options["pool_use_lifo"] = True
    for option, value in (
        ("pool_size", settings.max_pool_size),
        ("max_overflow", settings.max_overflow),
        ("pool_timeout", settings.pool_timeout),
    ):
        if value is not None:
            options[option] = value
    if url.get_driver_name() == "pymysql":
        # A server that has stopped answering is one that is away.
        limits = ("connect_timeout", "read_timeout", "write_timeout")
        options["connect_args"] = dict.fromkeys(limits, settings.patience_seconds)
    elif url.get_driver_name() == "pg8000":
        options["connect_args"] = {"timeout": settings.patience_seconds}
    engine = sa.create_engine(url, **options)
    if url.get_driver_name() == "pg8000":
        postgresql.translate_socket_errors(engine)
    if url.get_backend_name() in ("mysql", "mariadb") and settings.mysql_sql_mode:
        mode = settings.mysql_sql_mode

        @sa.event.listens_for(engine, "connect")
        def _set_mode(connection: Any, _record: Any) -> None:
            with connection.cursor() as cursor:
                cursor.execute("SET SESSION sql_mode = %s", (mode,))

    return engine


def _make_sqlite_engine(settings: DatabaseSettings, url: sa.URL, options: dict[str, Any]) -> Engine:
    in_memory = url.database in (None, "", ":memory:")
    options["connect_args"] = {"check_same_thread": False, "timeout": _SQLITE_BUSY_SECONDS}
    if in_memory:
        options["poolclass"] = StaticPool
    else:
        options["pool_use_lifo"] = True
    engine = sa.create_engine(url, **options)

    @sa.event.listens_for(engine, "connect")
    def _prepare(connection: Any, _record: Any) -> None:
        # The driver must not begin transactions on its own: `_begin` below decides how.
        connection.isolation_level = None
        if not in_memory:
            connection.execute("PRAGMA journal_mode = WAL")
        synchronous = "FULL" if settings.sqlite_synchronous else "OFF"
        connection.execute(f"PRAGMA synchronous = {synchronous}")
        connection.execute(f"PRAGMA cache_size = -{_SQLITE_CACHE_KIB}")

    @sa.event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        # A transaction that first reads and then writes can only fail when it meets another
        # writer, so a writer takes the lock before it reads.
        driver = connection.connection.dbapi_connection
        assert driver is not None
        if driver.in_transaction:
            return
        writes = connection.get_execution_options().get(_WRITES, False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine
