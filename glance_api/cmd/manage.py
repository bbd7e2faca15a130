"""glance-manage: looks after the database (middleware-and-config.md section 11.1).

Each group of actions adds its parsers to the command line; a parser's `action` is what to do, given
the configuration, and returns what to print.
"""

import argparse
import os
import sys
from collections.abc import Callable
from typing import Any

from oslo_config import cfg

from common import config, errors, log
from common.config import Configuration, ConfigurationError
from glance_api.cmd import consistency, locations
from glance_registry.db import commands
from glance_registry.db.engine import Database
from glance_registry.db.metadefs import LoadMode
from glance_registry.db.settings import database_settings
from glance_store.errors import BadStoreConfiguration
from glance_store.loader import option_groups

Action = Callable[[Database, Any], str]


def _version(database: Database, _args: Any) -> str:
    return commands.version(database)


def _sync(database: Database, args: Any) -> str:
    return commands.db_sync(
        database,
        _first(args.version, args.version_at),
        _first(args.current_version, args.current_version_at),
    )


def _upgrade(database: Database, args: Any) -> str:
    return commands.db_sync(database, _first(args.version, args.version_at))


def _downgrade(database: Database, args: Any) -> str:
    print("Warning: downgrading is deprecated.", file=sys.stderr)
    return commands.downgrade(database, _first(args.version, args.version_at))


def _version_control(database: Database, args: Any) -> str:
    return commands.version_control(database, _first(args.version, args.version_at))


def _purge(database: Database, args: Any) -> str:
    return commands.purge(database, *_age_and_rows(args))


def _delete_unfilled(database: Database, args: Any) -> str:
    return commands.delete_unfilled(database, *_age_and_rows(args))


def _age_and_rows(args: Any) -> tuple[int, int]:
    return _first(args.age_in_days, args.age_in_days_at, 30), _first(
        args.max_rows, args.max_rows_at, 100
    )


def _recount(database: Database, args: Any) -> str:
    return commands.recount(database, args.owner)


def _load_metadefs(database: Database, args: Any) -> str:
    mode = LoadMode(
        merge=args.merge or _is_true(args.merge_at),
        prefer_new=args.prefer_new or _is_true(args.prefer_new_at),
        overwrite=args.overwrite or _is_true(args.overwrite_at),
    )
    return commands.load_metadefs(database, _first(args.path, args.path_at), mode)


def _unload_metadefs(database: Database, _args: Any) -> str:
    return commands.unload_metadefs(database)


def _export_metadefs(database: Database, args: Any) -> str:
    return commands.export_metadefs(database, _first(args.path, args.path_at))


def _first(*values: Any) -> Any:
    return next((value for value in values if value is not None), None)


def _is_true(text: str | None) -> bool:
    return (text or "").lower() in ("true", "1", "yes", "on")


# Per action: what it does, its values (each an option and, in this order, positional) and flags.
_VERSION = ("version", int)
_PATH = ("path", str)
_AGE_AND_ROWS: list[tuple[str, type]] = [("age_in_days", int), ("max_rows", int)]
_ACTIONS: dict[str, tuple[Action, list[tuple[str, type]], list[str]]] = {
    "version": (_version, [], []),
    "sync": (_sync, [_VERSION, ("current_version", int)], []),
    "upgrade": (_upgrade, [_VERSION], []),
    "downgrade": (_downgrade, [_VERSION], []),
    "version_control": (_version_control, [_VERSION], []),
    "load_metadefs": (_load_metadefs, [_PATH], ["merge", "prefer_new", "overwrite"]),
    "unload_metadefs": (_unload_metadefs, [], []),
    "export_metadefs": (_export_metadefs, [_PATH], []),
    "purge": (_purge, _AGE_AND_ROWS, []),
    "delete_unfilled": (_delete_unfilled, _AGE_AND_ROWS, []),
    "recount": (_recount, [], []),
}
_HELP: dict[str, str] = {
    "version": "Print the schema's level, as Glance counted them.",
    "sync": "Create the database, or adopt and upgrade one of Glance's. Back up first.",
    "upgrade": "The same as sync.",
    "downgrade": "Refused: restore a backup instead.",
    "version_control": "Say of a database without a level which one it has.",
    "load_metadefs": "Load definitions of metadata from the JSON files of a directory.",
    "unload_metadefs": "Delete all definitions of metadata.",
    "export_metadefs": "Write the definitions of metadata to a directory.",
    "purge": "Remove rows that were deleted so many days ago.",
    "delete_unfilled": "Delete images that were announced so many days ago and have no data.",
    "recount": "Rebuild what each owner has stored from the images.",
}
# What came after Mitaka's older form `db_<action>` has none.
_WITHOUT_LEGACY_FORM = ("purge", "delete_unfilled", "recount")


def _add_parsers(subparsers: Any) -> None:
    actions = subparsers.add_parser("db", help="Look after the database.").add_subparsers(
        dest="db_action", required=True
    )
    for name, (action, values, flags) in _ACTIONS.items():
        parser = actions.add_parser(name, help=_HELP[name], description=_HELP[name])
        for value, kind in values:
            parser.add_argument(f"--{value}", type=kind)
            parser.add_argument(f"{value}_at", metavar=value, type=kind, nargs="?")
        for flag in flags:
            parser.add_argument(f"--{flag}", action="store_true")
            parser.add_argument(f"{flag}_at", nargs="?", help=argparse.SUPPRESS)
        if name == "recount":
            parser.add_argument("--owner", help="Only this owner's figures.")
        parser.set_defaults(action=action)
        if name not in _WITHOUT_LEGACY_FORM:
            _add_legacy_parser(subparsers, name)
    consistency.add_parsers(subparsers)
    locations.add_parsers(subparsers)


def _add_legacy_parser(subparsers: Any, name: str) -> None:
    """`db_<action>`: positional arguments only."""
    action, values, flags = _ACTIONS[name]
    parser = subparsers.add_parser(f"db_{name}")
    for value, kind in values:
        parser.add_argument(f"{value}_at", metavar=value, type=kind, nargs="?")
    for flag in flags:
        parser.add_argument(f"{flag}_at", metavar=flag, nargs="?")
    parser.set_defaults(
        action=action,
        **{value: None for value, _ in values},
        **dict.fromkeys(flags, False),
    )


def _load() -> Configuration:
    command = cfg.SubCommandOpt("command", handler=_add_parsers, help="What to do.")
    return config.load("manage", sys.argv[1:], extra_groups=option_groups(), cli=[command])


def main() -> int:
    # A database made here may be a file.
    os.umask(0o027)
    try:
        conf = _load()
        log.setup(conf, "manage")
        database = Database(database_settings(conf))
    except ConfigurationError as error:
        return _fail(str(error))
    try:
        if getattr(conf.command, "report", None) is not None:
            return _report(conf, database)
        print(conf.command.action(database, conf.command))
    except errors.GlanceError as error:
        return _fail(_explain(error))
    except (ConfigurationError, BadStoreConfiguration) as error:
        return _fail(str(error))
    finally:
        database.dispose()
    return 0


def _report(conf: Configuration, database: Database) -> int:
    """An action that concerns the stores too, and whose exit status says what it found."""
    status, lines = conf.command.report(conf, database, conf.command)
    for line in lines:
        print(line)
    return int(status)


def _explain(error: errors.GlanceError) -> str:
    """The operator at the terminal is told what the database said; a caller never is."""
    cause = getattr(error.__cause__, "orig", None)
    return error.message if cause is None else f"The database cannot be used: {cause}"


def _fail(message: str) -> int:
    print(f"ERROR: {message}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
