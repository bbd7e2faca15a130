"""Section [database] of a configuration as typed settings."""

from typing import Final

from sqlalchemy import URL
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError

from common.config import Configuration, ConfigurationError
from glance_registry.db.engine import DatabaseSettings

# What a URL of Mitaka's days means where that driver is not installed.
_STAND_INS: Final = {
    "mysql": "mysql+pymysql",
    "mysql+mysqldb": "mysql+pymysql",
    "postgresql": "postgresql+psycopg2",
}


def database_settings(conf: Configuration) -> DatabaseSettings:
    """The settings a configuration means; without `connection`, the SQLite file `sqlite_db`.

    Raises ConfigurationError.
    """
    options = conf.database
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
    candidates = (url, url.set(drivername=_STAND_INS.get(url.drivername, url.drivername)))
    found = next(filter(_is_installed, candidates), None)
    if found is None:
        raise ConfigurationError(
            "Option connection of section [database] needs a driver that is not installed: "
            f"{url.drivername}"
        )
    return found.render_as_string(hide_password=False)


def _is_installed(url: URL) -> bool:
    try:
        url.get_dialect().import_dbapi()
    except (NoSuchModuleError, ImportError):
        return False
    return True
