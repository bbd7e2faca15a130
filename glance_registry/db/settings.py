"""Section [database] of a configuration as typed settings."""

import logging
from pathlib import Path
from typing import Final

from sqlalchemy import URL
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError

from common.config import Configuration, ConfigurationError
from glance_registry.db.engine import DatabaseSettings

LOG = logging.getLogger(__name__)

# What a URL of Mitaka's days means, even where that driver is installed: a C library that waits
# for a lock stops the whole event loop, and with it whoever holds the lock.
_COOPERATIVE: Final = {
    "mysql": "mysql+pymysql",
    "mysql+mysqldb": "mysql+pymysql",
    "postgresql": "postgresql+pg8000",
    "postgresql+psycopg2": "postgresql+pg8000",
}


def database_settings(conf: Configuration) -> DatabaseSettings:
    """The settings a configuration means; without `connection`, the SQLite file `sqlite_db`.

    Raises ConfigurationError.
    """
    options = conf.database
    if not options.connection:
        LOG.warning(
            "connection in section [database] is not set: the database is %s",
            Path(options.sqlite_db).absolute(),
        )
    return DatabaseSettings(
        connection=_installed_driver(options.connection or f"sqlite:///{options.sqlite_db}"),
        sqlite_synchronous=options.sqlite_synchronous,
        mysql_sql_mode=options.mysql_sql_mode,
        idle_timeout=options.idle_timeout,
        max_pool_size=options.max_pool_size,
        max_overflow=options.max_overflow,
        pool_timeout=options.pool_timeout,
        use_db_reconnect=options.use_db_reconnect,
        db_retry_interval=options.db_retry_interval,
        db_inc_retry_interval=options.db_inc_retry_interval,
        db_max_retry_interval=options.db_max_retry_interval,
        db_max_retries=options.db_max_retries,
    )


def _installed_driver(connection: str) -> str:
    """connection, with a driver that is installed."""
    try:
        url = make_url(connection)
    except (ArgumentError, ValueError):
        # Without a cause, whose text may hold the password.
        raise ConfigurationError(
            "Option connection of section [database] is not a URL of a database"
        ) from None
    url = url.set(drivername=_COOPERATIVE.get(url.drivername, url.drivername))
    if not _is_installed(url):
        raise ConfigurationError(
            "Option connection of section [database] needs a driver that is not installed: "
            f"{url.drivername}"
        )
    return url.render_as_string(hide_password=False)


def _is_installed(url: URL) -> bool:
    try:
        url.get_dialect().import_dbapi()
    except (NoSuchModuleError, ImportError):
        return False
    return True
