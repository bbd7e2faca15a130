"""Section [database] of a configuration as typed settings."""

import importlib.util

from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from common.config import Configuration, ConfigurationError
from glance_registry.db.engine import DatabaseSettings


def database_settings(conf: Configuration) -> DatabaseSettings:
    """The settings a configuration means; without `connection`, the SQLite file `sqlite_db`."""
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
    """connection with PyMySQL for MySQL-Python, which a URL of Mitaka's days means."""
    try:
        url = make_url(connection)
    except (ArgumentError, ValueError):
        # Without a cause, whose text may hold the password.
        raise ConfigurationError(
            "Option connection of section [database] is not a URL of a database"
        ) from None
    if url.drivername in ("mysql", "mysql+mysqldb") and not importlib.util.find_spec("MySQLdb"):
        url = url.set(drivername="mysql+pymysql")
    return url.render_as_string(hide_password=False)
