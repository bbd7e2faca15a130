"""What pg8000, PostgreSQL's driver, leaves to its users: errors of its socket come through as such.

Whoever has met one is told by SQLAlchemy what it tells of other drivers: the connection is gone.
"""

from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Dialect, Engine, ExceptionContext


def translate_socket_errors(engine: Engine) -> None:
    sa.event.listen(engine, "do_connect", _connect)
    sa.event.listen(engine, "handle_error", _handle)


def _connect(dialect: Dialect, _record: Any, args: Any, options: Any) -> Any:
    try:
        return dialect.connect(*args, **options)
    except OSError as error:
        raise dialect.loaded_dbapi.InterfaceError("network error") from error


def _handle(context: ExceptionContext) -> None:
    error = context.original_exception
    if isinstance(error, OSError):
        context.is_disconnect = True
        raise sa.exc.OperationalError(
            context.statement, None, error, hide_parameters=True, connection_invalidated=True
        ) from error
