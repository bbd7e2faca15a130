"""Fills a registry's database with images of many tenants, in minutes for a million.

    python -m tests.bench.database_generator sqlite:///big.sqlite 1000000

One tenant per hundred images, a few of them large; two properties each; some public, shared,
killed and deleted ones; names, sizes and formats with ties. The same seed gives the same rows.
"""

import random
import sqlite3
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from glance_registry.db import models, sync, usage
from glance_registry.db.engine import Database, DatabaseSettings

_CHUNK = 20_000
_START = datetime(2023, 1, 1)
_FORMATS = (("raw", "bare"), ("qcow2", "bare"), ("vmdk", "ovf"), ("vhd", "ovf"), (None, None))
_NAMES = ("ubuntu", "debian", "fedora", "windows", None)

Row = tuple[Any, ...]
_COLUMNS: dict[str, tuple[str, ...]] = {
    "images": (
        "id", "name", "disk_format", "container_format", "size", "status", "is_public",
        "checksum", "created_at", "updated_at", "deleted_at", "deleted", "min_disk", "min_ram",
        "owner", "protected",
    ),
    "image_properties": (
        "image_id", "name", "value", "created_at", "updated_at", "deleted_at", "deleted",
    ),
    "image_locations": (
        "image_id", "value", "meta_data", "status", "created_at", "updated_at", "deleted_at",
        "deleted",
    ),
    "image_members": (
        "image_id", "member", "can_share", "status", "created_at", "updated_at", "deleted_at",
        "deleted",
    ),
}  # fmt: skip


def fill(database: Database, images: int, seed: int = 1) -> None:
    """Build the schema if needed and add so many images with all that belongs to them."""
    sync.sync(database)
    write = _write_sqlite if database.is_sqlite else _write_mysql
    write(database, _chunks(images, seed))
    database.write(usage.recount)
    with database.migration() as connection:
        if not database.is_sqlite:
            for table in _COLUMNS:
                connection.exec_driver_sql(f"ANALYZE TABLE {table}")


def tenant_count(images: int) -> int:
    return max(10, images // 100)


def tenant_name(number: int) -> str:
    return f"tenant{number:028d}"


def _public_share(images: int) -> float:
    """Two in a hundred, but enough that the smallest database has whole pages of them."""
    return max(0.02, 300 / images)


def _chunks(images: int, seed: int) -> Iterator[dict[str, list[Row]]]:
    """Rows by table, for so many images at a time."""
    chance = random.Random(seed)
    numbers = iter(range(images))
    while part := list(islice(numbers, _CHUNK)):
        rows: dict[str, list[Row]] = {table: [] for table in _COLUMNS}
        for number in part:
            _add_image(rows, chance, number, images)
        yield rows


def _add_image(rows: dict[str, list[Row]], chance: random.Random, number: int, images: int) -> None:
    tenants = tenant_count(images)
    image_id = str(uuid.UUID(int=chance.getrandbits(128), version=4))
    created = _START + timedelta(seconds=chance.randrange(3 * 365 * 86400))
    updated = created + timedelta(seconds=chance.randrange(86400 * 30))
    # A few tenants have most of the images.
    owner = tenant_name(int(tenants * chance.random() ** 2))
    luck = chance.random()
    deleted = luck < 0.1
    status = "deleted" if deleted else "killed" if luck < 0.11 else "active"
    deleted_at = updated if deleted else None
    name = f"image-{number}" if luck < 0.8 else chance.choice(_NAMES)
    disk, container = chance.choice(_FORMATS)
    size = chance.randrange(1000) * 2**20 if luck > 0.15 else None
    public = int(chance.random() < _public_share(images))
    rows["images"].append(
        (
            image_id, name, disk, container, size, status, public,
            f"{chance.getrandbits(128):032x}", created, updated, deleted_at, int(deleted), 0, 0,
            owner, int(luck > 0.999),
        )
    )  # fmt: skip
    times = (created, updated, deleted_at, int(deleted))
    distribution = chance.choice(("ubuntu", "debian", "fedora", "windows"))
    for key, value in (("os_distro", distribution), ("build", str(number // 50))):
        rows["image_properties"].append((image_id, key, value, *times))
    if status != "killed":
        url = f"file:///var/lib/glance/images/{image_id}"
        state = "deleted" if deleted else "active"
        rows["image_locations"].append((image_id, url, "{}", state, *times))
    if chance.random() < 0.05:
        member = tenant_name(chance.randrange(tenants))
        rows["image_members"].append((image_id, member, 0, "pending", *times))


def _write_sqlite(database: Database, chunks: Iterable[dict[str, list[Row]]]) -> None:
    # Indexes are built once at the end; the file is worthless if the machine stops half-way.
    file = database.url.database
    assert file is not None
    database.dispose()
    connection = sqlite3.connect(file, isolation_level=None)
    connection.execute("PRAGMA synchronous = OFF")
    connection.execute("PRAGMA cache_size = -500000")
    indexes = connection.execute(
        "SELECT name, sql FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL"
    ).fetchall()
    for name, _ in indexes:
        connection.execute(f'DROP INDEX "{name}"')
    for rows in chunks:
        connection.execute("BEGIN")
        for table, columns in _COLUMNS.items():
            marks = ", ".join("?" * len(columns))
            connection.executemany(
                f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({marks})",
                map(_as_sqlite, rows[table]),
            )
        connection.execute("COMMIT")
    for _, statement in indexes:
        connection.execute(statement)
    connection.close()


def _as_sqlite(row: Row) -> Row:
    return tuple(
        value.isoformat(" ", "microseconds") if isinstance(value, datetime) else value
        for value in row
    )


def _write_mysql(database: Database, chunks: Iterable[dict[str, list[Row]]]) -> None:
    engine = sa.create_engine(database.url, connect_args={"local_infile": True})
    with engine.connect() as connection, tempfile.TemporaryDirectory() as directory:
        run: Callable[[str], Any] = connection.exec_driver_sql
        run("SET unique_checks = 0")
        run("SET foreign_key_checks = 0")
        for rows in chunks:
            for table, columns in _COLUMNS.items():
                path = Path(directory, table)
                path.write_text("".join(map(_as_line, rows[table])), encoding="utf-8")
                run(f"LOAD DATA LOCAL INFILE '{path}' INTO TABLE {table}"
                    f" CHARACTER SET utf8mb4 ({', '.join(columns)})")  # fmt: skip
            connection.commit()
    engine.dispose()


def _as_line(row: Sequence[Any]) -> str:
    return "\t".join("\\N" if value is None else str(value) for value in row) + "\n"


def main() -> None:
    url, count = sys.argv[1], int(sys.argv[2])
    database = Database(DatabaseSettings(url, sqlite_synchronous=False))
    started = time.monotonic()
    fill(database, count)
    rows = database.read(
        lambda connection: connection.execute(
            sa.select(sa.func.count()).select_from(models.images)
        ).scalar_one()
    )
    print(f"{rows} images in {time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    main()
