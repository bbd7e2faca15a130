"""What is ours: leases, usage, tombstones, a second digest, microseconds, and list indexes.

Every step looks whether it has been done, because MySQL commits each on its own and the run may
have been interrupted.
"""

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy import Column, Index, Integer, String, Table
from sqlalchemy.dialects import mysql

revision = "additions"
down_revision = "mitaka"
branch_labels = None
depends_on = None

_metadata = sa.MetaData()
_Moment = sa.DateTime().with_variant(mysql.DATETIME(fsp=6), "mysql", "mariadb")
_BigInteger = sa.BigInteger().with_variant(Integer(), "sqlite")
_MYSQL: dict[str, Any] = {
    f"{dialect}_{option}": value
    for dialect in ("mysql", "mariadb")
    for option, value in (
        ("engine", "InnoDB"),
        ("charset", "utf8mb4"),
        ("collate", "utf8mb4_bin"),
    )
}

Table(
    "image_leases",
    _metadata,
    Column("id", Integer, primary_key=True),
    Column("token", String(64), nullable=False),
    Column("image_id", String(36), nullable=False),
    Column("kind", String(16), nullable=False),
    Column("store", String(64), nullable=False),
    Column("worker", String(255), nullable=False),
    Column("owner", String(255)),
    Column("reserved", _BigInteger, nullable=False),
    Column("previous", String(30)),
    Column("created_at", _Moment, nullable=False),
    Column("expires_at", _Moment, nullable=False),
    sa.UniqueConstraint("token", name="image_leases_token_key"),
    Index("image_leases_expires_at_idx", "expires_at"),
    Index("image_leases_image_id_idx", "image_id"),
    **_MYSQL,
)
Table(
    "owner_usage",
    _metadata,
    Column("owner", String(255), primary_key=True),
    Column("bytes", _BigInteger, nullable=False),
    Column("reserved", _BigInteger, nullable=False),
    **_MYSQL,
)
Table(
    "image_tombstones",
    _metadata,
    Column("id", String(36), primary_key=True),
    Column("purged_at", _Moment, nullable=False),
    **_MYSQL,
)

_LIST_KEYS = ("name", "status", "container_format", "disk_format", "size", "updated_at")
_NULLABLE = {"name", "container_format", "disk_format", "size", "updated_at"}
_INDEXES: dict[str, tuple[str, list[str]]] = {
    "glance_v1_list_created_at": ("images", ["deleted", "is_public", "created_at", "id"]),
    "glance_v1_list_id": ("images", ["deleted", "is_public", "id"]),
    **{
        f"glance_v1_list_{key}": ("images", ["deleted", "is_public", key, "created_at", "id"])
        for key in _LIST_KEYS
    },
    **{f"glance_v1_{key}": ("images", [key]) for key in ("min_disk", "min_ram", "protected")},
    "glance_v1_owned": ("images", ["owner", "deleted", "created_at", "id"]),
    "glance_v1_owned_status": ("images", ["owner", "deleted", "status"]),
    "glance_v1_member": ("image_members", ["member", "deleted", "image_id"]),
    "glance_v1_property_value": ("image_properties", ["name", "value"]),
}
_SOFT_DELETED = (
    "images",
    "image_properties",
    "image_locations",
    "image_members",
    "image_tags",
)

# database.md section 10.
_COUNT_USAGE = """
    INSERT INTO owner_usage (owner, bytes, reserved)
    SELECT images.owner, SUM(images.size * places.copies), 0
    FROM images
    JOIN (
        SELECT image_id, COUNT(*) AS copies FROM image_locations
        WHERE status <> 'deleted' GROUP BY image_id
    ) places ON places.image_id = images.id
    WHERE images.owner IS NOT NULL AND images.size > 0
        AND images.status NOT IN ('killed', 'deleted')
    GROUP BY images.owner
"""


def upgrade() -> None:
    connection = op.get_bind()
    _metadata.create_all(connection)
    _add_columns(connection)
    if connection.dialect.name in ("mysql", "mariadb"):
        _keep_microseconds(connection)
    _add_indexes(connection)
    if connection.execute(sa.text("SELECT COUNT(*) FROM owner_usage")).scalar() == 0:
        connection.execute(sa.text(_COUNT_USAGE))


def _add_columns(connection: sa.Connection) -> None:
    present = {column["name"] for column in sa.inspect(connection).get_columns("images")}
    for column in (Column("os_hash_algo", String(64)), Column("os_hash_value", String(128))):
        if column.name not in present:
            op.add_column("images", column)
    if "is_public" not in present:
        # Made by Queens or later: `visibility` stays what decides.
        stored = connection.dialect.name == "postgresql"
        op.execute(
            "ALTER TABLE images ADD COLUMN is_public BOOLEAN GENERATED ALWAYS AS"
            f" (visibility = 'public') {'STORED' if stored else 'VIRTUAL'}"
        )


def _keep_microseconds(connection: sa.Connection) -> None:
    for table in _SOFT_DELETED:
        changes = []
        for column in sa.inspect(connection).get_columns(table):
            kind = column["type"]
            if isinstance(kind, mysql.DATETIME) and not kind.fsp:
                null = "NULL" if column["nullable"] else "NOT NULL"
                changes.append(f"MODIFY {column['name']} DATETIME(6) {null}")
        if changes:
            op.execute(f"ALTER TABLE {table} {', '.join(changes)}")


def _add_indexes(connection: sa.Connection) -> None:
    for name, (table, columns) in _INDEXES.items():
        present = {index["name"] for index in sa.inspect(connection).get_indexes(table)}
        if name in present:
            continue
        options: dict[str, Any] = {}
        if name == "glance_v1_property_value":
            # MySQL indexes text by prefix only.
            length = {"name": 255, "value": 64}
            options = {"mysql_length": length, "mariadb_length": length}
        in_order: list[Any] = list(columns)
        if connection.dialect.name == "postgresql" and name.startswith("glance_v1_list_"):
            # Where the others have them; an index in another order serves no list.
            in_order = [
                sa.text(f"{column} NULLS FIRST") if column in _NULLABLE else column
                for column in columns
            ]
        op.create_index(name, table, in_order, **options)
