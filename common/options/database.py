"""The registry's database, and lock files."""

from typing import Final

from oslo_config import cfg

from common.options.area import Area


def _old(*names: str) -> list[cfg.DeprecatedOpt]:
    """Former names: `name` in [DEFAULT], or `section.name`."""
    pairs = (name.rpartition(".") for name in names)
    return [cfg.DeprecatedOpt(name, group=section or "DEFAULT") for section, _, name in pairs]


CONNECTION: Final = (
    cfg.StrOpt(
        "connection",
        secret=True,
        deprecated_opts=_old("sql_connection", "DATABASE.sql_connection", "sql.connection"),
        help="SQLAlchemy URL of the database, such as mysql+pymysql://user:password@host/glance or "
        "sqlite:////var/lib/glance/glance.sqlite.",
    ),
    cfg.StrOpt(
        "slave_connection",
        secret=True,
        help="Accepted and ignored: whoever has written reads what he wrote, so there is no "
        "reading from a replica.",
    ),
    cfg.StrOpt(
        "sqlite_db",
        default="oslo.sqlite",
        deprecated_opts=_old("sqlite_db"),
        help="SQLite file used when there is no connection.",
    ),
    cfg.BoolOpt(
        "sqlite_synchronous",
        default=True,
        deprecated_opts=_old("sqlite_synchronous"),
        help="SQLite waits until the disk has a transaction.",
    ),
    cfg.StrOpt(
        "backend",
        default="sqlalchemy",
        deprecated_opts=_old("db_backend"),
        help="Accepted and ignored: there is one.",
    ),
    cfg.StrOpt(
        "mysql_sql_mode", default="TRADITIONAL", help="SQL mode of a session; empty: the server's."
    ),
)

POOL: Final = (
    cfg.IntOpt(
        "idle_timeout",
        default=3600,
        deprecated_opts=_old("sql_idle_timeout", "DATABASE.sql_idle_timeout", "sql.idle_timeout"),
        help="Seconds after which a pooled connection is replaced.",
    ),
    cfg.IntOpt(
        "min_pool_size",
        default=1,
        deprecated_opts=_old("sql_min_pool_size", "DATABASE.sql_min_pool_size"),
        help="Accepted and ignored: connections are opened when they are needed.",
    ),
    cfg.IntOpt(
        "max_pool_size",
        deprecated_opts=_old("sql_max_pool_size", "DATABASE.sql_max_pool_size"),
        help="Connections kept open at most.",
    ),
    cfg.IntOpt(
        "max_overflow",
        default=50,
        deprecated_opts=_old("sql_max_overflow", "DATABASE.sqlalchemy_max_overflow"),
        help="Further connections opened when all are busy.",
    ),
    cfg.IntOpt(
        "pool_timeout",
        deprecated_opts=_old("DATABASE.sqlalchemy_pool_timeout"),
        help="Seconds to wait for a connection.",
    ),
)

RETRIES: Final = (
    cfg.IntOpt(
        "max_retries",
        default=10,
        min=-1,
        deprecated_opts=_old("sql_max_retries", "DATABASE.sql_max_retries"),
        help="Accepted and ignored: the registry starts without its database, and answers 503 "
        "until it is there.",
    ),
    cfg.IntOpt(
        "retry_interval",
        default=10,
        deprecated_opts=_old("sql_retry_interval", "DATABASE.reconnect_interval"),
        help="Accepted and ignored, as max_retries is.",
    ),
    cfg.BoolOpt(
        "use_db_reconnect", default=False, help="Repeat a statement after a lost connection."
    ),
    cfg.IntOpt("db_retry_interval", default=1, help="Seconds before it is repeated."),
    cfg.BoolOpt("db_inc_retry_interval", default=True, help="Double that time at each attempt."),
    cfg.IntOpt("db_max_retry_interval", default=10, help="Seconds between attempts at most."),
    cfg.IntOpt("db_max_retries", default=20, min=-1, help="Attempts; -1 means for ever."),
)

DEBUGGING: Final = (
    cfg.IntOpt(
        "connection_debug",
        default=0,
        min=0,
        max=100,
        deprecated_opts=_old("sql_connection_debug"),
        help="Accepted and ignored: SQL is not logged.",
    ),
    cfg.BoolOpt(
        "connection_trace",
        default=False,
        deprecated_opts=_old("sql_connection_trace"),
        help="Accepted and ignored.",
    ),
    cfg.BoolOpt(
        "use_tpool",
        default=False,
        deprecated_opts=_old("dbapi_use_tpool"),
        help="Accepted and ignored: the database that needs threads has them.",
    ),
)

LOCKS: Final = (
    cfg.BoolOpt(
        "disable_process_locking",
        default=False,
        deprecated_group="DEFAULT",
        help="Accepted and ignored.",
    ),
    cfg.StrOpt("lock_path", deprecated_group="DEFAULT", help="Directory for lock files."),
)

AREAS: Final = (
    Area("database", "ARSM", CONNECTION),
    Area("database", "ARSM", POOL),
    Area("database", "ARSM", RETRIES),
    Area("database", "ARSM", DEBUGGING),
    Area("oslo_concurrency", "AS", LOCKS),
)
