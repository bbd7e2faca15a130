"""Section [database] of a configuration as typed settings."""

from common.config import Configuration
from glance_registry.db.engine import DatabaseSettings


def database_settings(conf: Configuration) -> DatabaseSettings:
    """The settings a configuration means; without `connection`, the SQLite file `sqlite_db`."""
    options = conf.database
    return DatabaseSettings(
        connection=options.connection or f"sqlite:///{options.sqlite_db}",
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
