"""What `glance-manage db ...` does, apart from its command line (middleware-and-config.md 11.1).

Each command returns what to print. It raises GlanceError, with the text for the operator, before
anything is changed.
"""

from datetime import datetime
from pathlib import Path
from typing import Final

import orjson
from oslo_utils import timeutils

from common import errors
from glance_registry.db import metadefs, sync, unfilled, usage
from glance_registry.db.engine import Database
from glance_registry.db.metadefs import LoadMode
from glance_registry.db.purge import purge as purge_rows

DEFAULT_METADEFS: Final = "/etc/glance/metadefs/"

_EPOCH: Final = datetime(1970, 1, 1)


def version(database: Database) -> str:
    """Mitaka's migration level, which old tools compare."""
    return str(sync.level(database))


def db_sync(
    database: Database, version: int | None = None, current_version: int | None = None
) -> str:
    """Bring the database to the current schema, after declaring its level if that is given."""
    if current_version is not None:
        version_control(database, current_version)
    _require_reachable(sync.level(database), version)
    sync.sync(database)
    return f"Upgraded database to version {sync.level(database)}."


def _require_reachable(found: int, wanted: int | None) -> None:
    """There is one schema to go to: anything else is refused while nothing has changed (M11)."""
    if wanted is None or wanted == sync.LEVEL:
        return
    if wanted < found:
        raise errors.Invalid(f"Downgrading from version {found} to {wanted} is not supported.")
    raise errors.Invalid(f"The only version to upgrade to is {sync.LEVEL}, not {wanted}.")


def downgrade(database: Database, version: int) -> str:
    raise errors.Invalid("Downgrading a database is not supported; nothing has been changed.")


def version_control(database: Database, version: int | None) -> str:
    """Record the level of a database that has none. Raises Conflict if it has another."""
    level = version or 0
    found = sync.level(database)
    if found not in (0, level):
        raise errors.Conflict(f"The database is under version control at version {found}.")
    if found != level or level == 0:
        sync.record_level(database, level)
    return f"The database is under version control at version {level}."


def purge(database: Database, age_in_days: int = 30, max_rows: int = 100) -> str:
    """Remove rows deleted long ago (database.md section 7)."""
    _require_bounds(age_in_days, max_rows)
    removed = purge_rows(database, age_in_days, max_rows)
    return "\n".join(f"{name}: {count} rows removed" for name, count in removed.items())


def delete_unfilled(database: Database, age_in_days: int = 30, max_rows: int = 100) -> str:
    """Delete images that were announced long ago and have no data (SEC-074)."""
    _require_bounds(age_in_days, max_rows)
    count = unfilled.delete_unfilled(database, age_in_days, max_rows)
    return f"{count} images without data deleted."


def _require_bounds(age_in_days: int, max_rows: int) -> None:
    if age_in_days <= 0:
        raise errors.Invalid("Must supply a positive, non-zero value for age.")
    if age_in_days >= (timeutils.utcnow() - _EPOCH).days:
        raise errors.Invalid("Maximal age is count of days since epoch.")
    if max_rows < 1:
        raise errors.Invalid("Minimal rows limit is 1.")


def recount(database: Database, owner: str | None = None) -> str:
    """Rebuild the usage figures of one owner or of all."""
    wrong = database.write(lambda connection: usage.recount(connection, owner))
    return f"{wrong} owners' usage corrected."


def load_metadefs(database: Database, path: str | None, mode: LoadMode) -> str:
    documents = metadefs.read_files(Path(path or DEFAULT_METADEFS))
    database.write(lambda connection: metadefs.load(connection, documents, mode))
    return f"{len(documents)} namespaces read."


def unload_metadefs(database: Database) -> str:
    database.write(metadefs.unload)
    return "All metadata definitions removed."


def export_metadefs(database: Database, path: str | None) -> str:
    directory = Path(path or DEFAULT_METADEFS)
    found = database.read(metadefs.export)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for name, document in found.items():
            _write(directory, name, document)
    except OSError as error:
        raise errors.Invalid(f"{directory} cannot be written: {error.strerror}") from error
    return f"{len(found)} namespaces written."


def _write(directory: Path, namespace: str, document: object) -> None:
    # A namespace may be called anything; a file name may not.
    name = "".join(c if c.isalnum() or c in ".-_" else "-" for c in namespace)
    content = orjson.dumps(document, option=orjson.OPT_INDENT_2)
    (directory / f"{name}.json").write_bytes(content + b"\n")
