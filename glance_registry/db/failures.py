"""What a database error means: try again, reconnect, the caller's fault, or the end."""

import enum
import logging
from typing import Any, Final

import sqlalchemy as sa

from common import errors

LOG = logging.getLogger(__name__)


class Failure(enum.Enum):
    COLLISION = "another transaction was in the way; this one has been undone"
    DISCONNECTED = "the connection is gone, and with it the transaction"
    BAD_VALUE = "a value does not fit its column"
    OTHER = "something else"


class OutcomeUnknown(errors.ServiceUnavailable):
    """The connection broke while committing: the change may or may not have been made."""


# MySQL and MariaDB: deadlock, lock wait timeout, "record has changed since last read", and
# Galera's "not ready for use".
_MYSQL_COLLISIONS: Final = frozenset({1213, 1205, 1020, 1047})
_MYSQL_GONE: Final = frozenset(
    {1040, 1053, 1158, 1159, 1160, 1161, 2002, 2003, 2006, 2013, 2014, 2055}
)
_MYSQL_BAD_VALUES: Final = frozenset({1264, 1265, 1292, 1366, 1406})
_POSTGRESQL_COLLISIONS: Final = frozenset({"40001", "40P01", "55P03"})
# Shut down, crashed, starting up, or no room for another connection.
_POSTGRESQL_GONE: Final = frozenset({"57P01", "57P02", "57P03", "53300"})


def classify(error: sa.exc.DBAPIError) -> Failure:
    """Sort a driver's error by what can be done about it."""
    code = _code(error)
    if code in _MYSQL_COLLISIONS or code in _POSTGRESQL_COLLISIONS or _is_sqlite_locked(error):
        return Failure.COLLISION
    if is_duplicate_usage_row(error):
        return Failure.COLLISION
    if error.connection_invalidated or code in _MYSQL_GONE or code in _POSTGRESQL_GONE:
        return Failure.DISCONNECTED
    if isinstance(error, sa.exc.DataError) or code in _MYSQL_BAD_VALUES:
        return Failure.BAD_VALUE
    return Failure.OTHER


def domain_error(error: sa.exc.DBAPIError) -> Exception:
    """What to raise instead of a database error that was not overcome.

    A statement that is wrong in itself stays what it is: that is a defect of ours.
    """
    if classify(error) is Failure.BAD_VALUE:
        return errors.Invalid("A value is too long or out of range.")
    if isinstance(error, sa.exc.IntegrityError):
        return errors.Conflict()
    if _is_missing_table(error):
        LOG.error("The database lacks a table: has `glance-manage db sync` been run on it?")
        return errors.ServiceUnavailable()
    # pg8000 calls it an error of the program that the server is only starting.
    away = classify(error) is Failure.DISCONNECTED
    if isinstance(error, sa.exc.ProgrammingError) and not away:
        return error
    LOG.error("The database failed: %s (%s)", type(error.orig).__name__, _code(error))
    return errors.ServiceUnavailable()


def is_duplicate_usage_row(error: sa.exc.DBAPIError) -> bool:
    """Two transactions gave an owner his first usage row; on the next attempt it is there."""
    return isinstance(error, sa.exc.IntegrityError) and "owner_usage" in str(error.statement)


def _code(error: sa.exc.DBAPIError) -> Any:
    """MySQL's number, SQLite's name or PostgreSQL's state of an error, whichever it has."""
    original = error.orig
    arguments = getattr(original, "args", ())
    if arguments and isinstance(arguments[0], int):
        return arguments[0]
    if arguments and isinstance(arguments[0], dict):
        return arguments[0].get("C")  # as pg8000 has it
    return getattr(original, "sqlite_errorname", None) or getattr(original, "sqlstate", None)


def _is_sqlite_locked(error: sa.exc.DBAPIError) -> bool:
    name = getattr(error.orig, "sqlite_errorname", None) or ""
    return name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED"))


def _is_missing_table(error: sa.exc.DBAPIError) -> bool:
    # SQLite has no code of its own for it.
    return _code(error) in (1146, "42P01") or str(error.orig).startswith("no such table")
