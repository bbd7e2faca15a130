"""The tables, and nothing else: Mitaka's final schema (level 44) plus our additions.

The migrations build what stands here, and a test compares the two. Artifact tables exist for old
tools only; nothing here reads them, so only the first migration names them.
"""

from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    DateTime,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    false,
)
from sqlalchemy.dialects import mysql

metadata = MetaData()

# Microseconds, so that sorting by time is stable on MySQL as well (decision 3).
Moment = DateTime().with_variant(mysql.DATETIME(fsp=6), "mysql", "mariadb")
Bytes = BigInteger().with_variant(Integer(), "sqlite")

# Exact comparison and one sort order on every engine: ids, owners and names are opaque text.
_MYSQL: Final[dict[str, Any]] = {
    "mysql_engine": "InnoDB",
    "mysql_charset": "utf8mb4",
    "mysql_collate": "utf8mb4_bin",
    "mariadb_engine": "InnoDB",
    "mariadb_charset": "utf8mb4",
    "mariadb_collate": "utf8mb4_bin",
}


def _times() -> tuple[Column[Any], ...]:
    return (
        Column("created_at", Moment, nullable=False),
        Column("updated_at", Moment, nullable=True),
    )


def _soft_delete() -> tuple[Column[Any], ...]:
    return (
        *_times(),
        Column("deleted_at", Moment, nullable=True),
        Column("deleted", Boolean, nullable=False),
    )


def _image_id() -> Column[Any]:
    return Column("image_id", String(36), ForeignKey("images.id"), nullable=False)


images = Table(
    "images",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("name", String(255)),
    Column("disk_format", String(20)),
    Column("container_format", String(20)),
    Column("size", Bytes),
    Column("virtual_size", Bytes),
    Column("status", String(30), nullable=False),
    Column("is_public", Boolean, nullable=False),
    Column("checksum", String(32)),
    *_soft_delete(),
    Column("min_disk", Integer, nullable=False),
    Column("min_ram", Integer, nullable=False),
    Column("owner", String(255)),
    Column("protected", Boolean, nullable=False, server_default=false()),
    Column("os_hash_algo", String(64)),
    Column("os_hash_value", String(128)),
    Index("checksum_image_idx", "checksum"),
    Index("ix_images_is_public", "is_public"),
    Index("ix_images_deleted", "deleted"),
    Index("owner_image_idx", "owner"),
    Index("created_at_image_idx", "created_at"),
    Index("updated_at_image_idx", "updated_at"),
    **_MYSQL,
)

# One per sort key, so that any page of any list is a range of an index (db/listing.py). Those
# of status, name and formats serve equality filters under the default order as well.
LISTING_INDEXES: Final = (
    Index("glance_v1_list_created_at", images.c.deleted, images.c.is_public,
          images.c.created_at, images.c.id),
    Index("glance_v1_list_id", images.c.deleted, images.c.is_public, images.c.id),
    *(
        Index(f"glance_v1_list_{key}", images.c.deleted, images.c.is_public, images.c[key],
              images.c.created_at, images.c.id)
        for key in ("name", "status", "container_format", "disk_format", "size", "updated_at")
    ),
    # Filters that may match few of many images (list_statements.py).
    *(Index(f"glance_v1_{key}", images.c[key]) for key in ("min_disk", "min_ram", "protected")),
    Index("glance_v1_owned", images.c.owner, images.c.deleted,
          images.c.created_at, images.c.id),
    # How many images without data an owner has (owner_limits.py).
    Index("glance_v1_owned_status", images.c.owner, images.c.deleted, images.c.status),
)  # fmt: skip

image_properties = Table(
    "image_properties",
    metadata,
    Column("id", Integer, primary_key=True),
    _image_id(),
    Column("name", String(255), nullable=False),
    Column("value", Text),
    *_soft_delete(),
    Index("ix_image_properties_image_id", "image_id"),
    Index("ix_image_properties_deleted", "deleted"),
    UniqueConstraint("image_id", "name", name="ix_image_properties_image_id_name"),
    # MySQL indexes text by prefix only.
    Index("glance_v1_property_value", "name", "value",
          mysql_length={"name": 255, "value": 64}, mariadb_length={"name": 255, "value": 64}),
    **_MYSQL,
)  # fmt: skip

image_locations = Table(
    "image_locations",
    metadata,
    Column("id", Integer, primary_key=True),
    _image_id(),
    Column("value", Text, nullable=False),
    *_soft_delete(),
    Column("meta_data", Text),
    Column("status", String(30), nullable=False, server_default="active"),
    Index("ix_image_locations_image_id", "image_id"),
    Index("ix_image_locations_deleted", "deleted"),
    **_MYSQL,
)

image_members = Table(
    "image_members",
    metadata,
    Column("id", Integer, primary_key=True),
    _image_id(),
    Column("member", String(255), nullable=False),
    Column("can_share", Boolean, nullable=False),
    *_soft_delete(),
    Column("status", String(20), nullable=False, server_default="pending"),
    Index("ix_image_members_deleted", "deleted"),
    Index("ix_image_members_image_id", "image_id"),
    Index("ix_image_members_image_id_member", "image_id", "member"),
    Index("glance_v1_member", "member", "deleted", "image_id"),
    UniqueConstraint(
        "image_id", "member", "deleted_at", name="image_members_image_id_member_deleted_at_key"
    ),
    **_MYSQL,
)

image_tags = Table(
    "image_tags",
    metadata,
    Column("id", Integer, primary_key=True),
    _image_id(),
    Column("value", String(255), nullable=False),
    *_soft_delete(),
    Index("ix_image_tags_image_id", "image_id"),
    Index("ix_image_tags_image_id_tag_value", "image_id", "value"),
    **_MYSQL,
)

# Work on an image's bytes (common/lease.py). No foreign key: a lease may outlive its image's row.
image_leases = Table(
    "image_leases",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("token", String(64), nullable=False),
    Column("image_id", String(36), nullable=False),
    Column("kind", String(16), nullable=False),
    Column("store", String(64), nullable=False),
    Column("worker", String(255), nullable=False),
    Column("owner", String(255)),
    Column("reserved", Bytes, nullable=False),
    Column("previous", String(30)),
    Column("created_at", Moment, nullable=False),
    Column("expires_at", Moment, nullable=False),
    UniqueConstraint("token", name="image_leases_token_key"),
    Index("image_leases_expires_at_idx", "expires_at"),
    Index("image_leases_image_id_idx", "image_id"),
    **_MYSQL,
)

# What each owner stores (database.md section 10) and has reserved by leases: a quota check reads
# one row (REL-057).
owner_usage = Table(
    "owner_usage",
    metadata,
    Column("owner", String(255), primary_key=True),
    Column("bytes", Bytes, nullable=False),
    Column("reserved", Bytes, nullable=False),
    **_MYSQL,
)

# Every purged id, for ever: an id is never given to other content (SEC-009).
image_tombstones = Table(
    "image_tombstones",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("purged_at", Moment, nullable=False),
    **_MYSQL,
)

tasks = Table(
    "tasks",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("type", String(30), nullable=False),
    Column("status", String(30), nullable=False),
    Column("owner", String(255), nullable=False),
    Column("expires_at", Moment),
    *_soft_delete(),
    Index("ix_tasks_type", "type"),
    Index("ix_tasks_status", "status"),
    Index("ix_tasks_owner", "owner"),
    Index("ix_tasks_deleted", "deleted"),
    Index("ix_tasks_updated_at", "updated_at"),
    **_MYSQL,
)

task_info = Table(
    "task_info",
    metadata,
    Column("task_id", String(36), ForeignKey("tasks.id"), primary_key=True),
    Column("input", Text),
    Column("result", Text),
    Column("message", Text),
    **_MYSQL,
)


def _namespace_id() -> Column[Any]:
    return Column("namespace_id", Integer, ForeignKey("metadef_namespaces.id"), nullable=False)


def _named_in_namespace(table: str, *columns: Column[Any]) -> Table:
    """A metadata definition: unique by name within its namespace."""
    return Table(
        table,
        metadata,
        Column("id", Integer, primary_key=True),
        _namespace_id(),
        Column("name", String(80), nullable=False),
        *columns,
        *_times(),
        UniqueConstraint("namespace_id", "name", name=f"uq_{table}_namespace_id_name"),
        Index(f"ix_{table}_name", "name"),
        **_MYSQL,
    )


metadef_namespaces = Table(
    "metadef_namespaces",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("namespace", String(80), nullable=False),
    Column("display_name", String(80)),
    Column("description", Text),
    Column("visibility", String(32)),
    Column("protected", Boolean),
    Column("owner", String(255), nullable=False),
    *_times(),
    UniqueConstraint("namespace", name="uq_metadef_namespaces_namespace"),
    Index("ix_metadef_namespaces_owner", "owner"),
    **_MYSQL,
)

metadef_objects = _named_in_namespace(
    "metadef_objects",
    Column("description", Text),
    Column("required", Text),
    Column("json_schema", Text, nullable=False),
)

metadef_properties = _named_in_namespace(
    "metadef_properties", Column("json_schema", Text, nullable=False)
)

metadef_tags = _named_in_namespace("metadef_tags")

metadef_resource_types = Table(
    "metadef_resource_types",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("name", String(80), nullable=False),
    Column("protected", Boolean, nullable=False, server_default=false()),
    *_times(),
    UniqueConstraint("name", name="uq_metadef_resource_types_name"),
    **_MYSQL,
)

metadef_namespace_resource_types = Table(
    "metadef_namespace_resource_types",
    metadata,
    Column("resource_type_id", Integer, ForeignKey("metadef_resource_types.id"), primary_key=True),
    Column("namespace_id", Integer, ForeignKey("metadef_namespaces.id"), primary_key=True),
    Column("properties_target", String(80)),
    Column("prefix", String(80)),
    *_times(),
    Index("ix_metadef_ns_res_types_namespace_id", "namespace_id"),
    **_MYSQL,
)
