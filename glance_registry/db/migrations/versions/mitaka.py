"""Everything that Mitaka's level 44 has.

On an empty database this builds it. On one made by Glance it adds what is missing since Liberty
(level 42), and nothing to what is there. Running it again after an interruption is harmless:
MySQL commits each statement on its own.
"""

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy import Boolean, Column, ForeignKey, Index, Integer, String, Table, Text
from sqlalchemy.dialects import mysql

revision = "mitaka"
down_revision = None
branch_labels = None
depends_on = None

LEVEL = 44
REPOSITORY = "Glance Migrations"

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


def _table(name: str, *parts: Any) -> Table:
    return Table(name, _metadata, *parts, **_MYSQL)


def _serial() -> Column[Any]:
    return Column("id", Integer, primary_key=True)


def _uuid(name: str = "id") -> Column[Any]:
    return Column(name, String(36), primary_key=True)


def _reference(name: str, target: str, type_: Any) -> Column[Any]:
    return Column(name, type_, ForeignKey(target), nullable=False)


def _times(*, updated_null: bool = True) -> tuple[Column[Any], ...]:
    return (
        Column("created_at", _Moment, nullable=False),
        Column("updated_at", _Moment, nullable=updated_null),
    )


def _soft_delete() -> tuple[Column[Any], ...]:
    return (
        *_times(),
        Column("deleted_at", _Moment),
        Column("deleted", Boolean, nullable=False),
    )


def _image_tables() -> None:
    _table(
        "images",
        _uuid(),
        Column("name", String(255)),
        Column("disk_format", String(20)),
        Column("container_format", String(20)),
        Column("size", _BigInteger),
        Column("virtual_size", _BigInteger),
        Column("status", String(30), nullable=False),
        Column("is_public", Boolean, nullable=False),
        Column("checksum", String(32)),
        *_soft_delete(),
        Column("min_disk", Integer, nullable=False),
        Column("min_ram", Integer, nullable=False),
        Column("owner", String(255)),
        Column("protected", Boolean, nullable=False, server_default=sa.false()),
        Index("checksum_image_idx", "checksum"),
        Index("ix_images_is_public", "is_public"),
        Index("ix_images_deleted", "deleted"),
        Index("owner_image_idx", "owner"),
        Index("created_at_image_idx", "created_at"),
        Index("updated_at_image_idx", "updated_at"),
    )
    _table(
        "image_properties",
        _serial(),
        _reference("image_id", "images.id", String(36)),
        Column("name", String(255), nullable=False),
        Column("value", Text),
        *_soft_delete(),
        Index("ix_image_properties_image_id", "image_id"),
        Index("ix_image_properties_deleted", "deleted"),
        sa.UniqueConstraint("image_id", "name", name="ix_image_properties_image_id_name"),
    )
    _table(
        "image_locations",
        _serial(),
        _reference("image_id", "images.id", String(36)),
        Column("value", Text, nullable=False),
        *_soft_delete(),
        Column("meta_data", Text),
        Column("status", String(30), nullable=False, server_default="active"),
        Index("ix_image_locations_image_id", "image_id"),
        Index("ix_image_locations_deleted", "deleted"),
    )
    _table(
        "image_members",
        _serial(),
        _reference("image_id", "images.id", String(36)),
        Column("member", String(255), nullable=False),
        Column("can_share", Boolean, nullable=False),
        *_soft_delete(),
        Column("status", String(20), nullable=False, server_default="pending"),
        Index("ix_image_members_deleted", "deleted"),
        Index("ix_image_members_image_id", "image_id"),
        Index("ix_image_members_image_id_member", "image_id", "member"),
        sa.UniqueConstraint(
            "image_id", "member", "deleted_at", name="image_members_image_id_member_deleted_at_key"
        ),
    )
    _table(
        "image_tags",
        _serial(),
        _reference("image_id", "images.id", String(36)),
        Column("value", String(255), nullable=False),
        *_soft_delete(),
        Index("ix_image_tags_image_id", "image_id"),
        Index("ix_image_tags_image_id_tag_value", "image_id", "value"),
    )


def _task_tables() -> None:
    indexed = ("type", "status", "owner", "deleted", "updated_at")
    _table(
        "tasks",
        _uuid(),
        Column("type", String(30), nullable=False),
        Column("status", String(30), nullable=False),
        Column("owner", String(255), nullable=False),
        Column("expires_at", _Moment),
        *_soft_delete(),
        *(Index(f"ix_tasks_{column}", column) for column in indexed),
    )
    _table(
        "task_info",
        Column("task_id", String(36), ForeignKey("tasks.id"), primary_key=True),
        Column("input", Text),
        Column("result", Text),
        Column("message", Text),
    )


def _metadef_tables() -> None:
    _table(
        "metadef_namespaces",
        _serial(),
        Column("namespace", String(80), nullable=False),
        Column("display_name", String(80)),
        Column("description", Text),
        Column("visibility", String(32)),
        Column("protected", Boolean),
        Column("owner", String(255), nullable=False),
        *_times(),
        sa.UniqueConstraint("namespace", name="uq_metadef_namespaces_namespace"),
        Index("ix_metadef_namespaces_owner", "owner"),
    )
    schema = ("json_schema", False)
    definitions: dict[str, tuple[tuple[str, bool], ...]] = {
        "metadef_objects": (("description", True), ("required", True), schema),
        "metadef_properties": (schema,),
        "metadef_tags": (),
    }
    for name, texts in definitions.items():
        _table(
            name,
            _serial(),
            _reference("namespace_id", "metadef_namespaces.id", Integer),
            Column("name", String(80), nullable=False),
            *(Column(text, Text, nullable=nullable) for text, nullable in texts),
            *_times(),
            sa.UniqueConstraint("namespace_id", "name", name=f"uq_{name}_namespace_id_name"),
            Index(f"ix_{name}_name", "name"),
        )
    _table(
        "metadef_resource_types",
        _serial(),
        Column("name", String(80), nullable=False),
        Column("protected", Boolean, nullable=False, server_default=sa.false()),
        *_times(),
        sa.UniqueConstraint("name", name="uq_metadef_resource_types_name"),
    )
    _table(
        "metadef_namespace_resource_types",
        Column(
            "resource_type_id", Integer, ForeignKey("metadef_resource_types.id"), primary_key=True
        ),
        Column("namespace_id", Integer, ForeignKey("metadef_namespaces.id"), primary_key=True),
        Column("properties_target", String(80)),
        Column("prefix", String(80)),
        *_times(),
        Index("ix_metadef_ns_res_types_namespace_id", "namespace_id"),
    )


def _artifact_tables() -> None:
    """The experimental "glare" tables; nothing reads them, but old tools expect them."""
    _table(
        "artifacts",
        _uuid(),
        Column("name", String(255), nullable=False),
        Column("type_name", String(255), nullable=False),
        Column("type_version_prefix", sa.BigInteger, nullable=False),
        Column("type_version_suffix", String(255)),
        Column("type_version_meta", String(255)),
        Column("version_prefix", sa.BigInteger, nullable=False),
        Column("version_suffix", String(255)),
        Column("version_meta", String(255)),
        Column("description", Text),
        Column("visibility", String(32), nullable=False),
        Column("state", String(32), nullable=False),
        Column("owner", String(255), nullable=False),
        *_times(updated_null=False),
        Column("deleted_at", _Moment),
        Column("published_at", _Moment),
        Index(
            "ix_artifact_name_and_version",
            "name",
            "version_prefix",
            "version_suffix",
        ),
        Index(
            "ix_artifact_type",
            "type_name",
            "type_version_prefix",
            "type_version_suffix",
        ),
        Index("ix_artifact_state", "state"),
        Index("ix_artifact_owner", "owner"),
        Index("ix_artifact_visibility", "visibility"),
    )
    _table(
        "artifact_tags",
        _uuid(),
        _reference("artifact_id", "artifacts.id", String(36)),
        Column("value", String(255), nullable=False),
        *_times(updated_null=False),
        Index("ix_artifact_tags_artifact_id", "artifact_id"),
        Index("ix_artifact_tags_artifact_id_tag_value", "artifact_id", "value"),
    )
    _table(
        "artifact_properties",
        _uuid(),
        _reference("artifact_id", "artifacts.id", String(36)),
        Column("name", String(255), nullable=False),
        Column("string_value", String(255)),
        Column("int_value", Integer),
        Column("numeric_value", sa.Numeric),
        Column("bool_value", Boolean),
        Column("text_value", Text),
        *_times(updated_null=False),
        Column("position", Integer),
        Index("ix_artifact_properties_artifact_id", "artifact_id"),
        Index("ix_artifact_properties_name", "name"),
    )
    _table(
        "artifact_blobs",
        _uuid(),
        _reference("artifact_id", "artifacts.id", String(36)),
        Column("size", sa.BigInteger, nullable=False),
        Column("checksum", String(32)),
        Column("name", String(255), nullable=False),
        Column("item_key", String(329)),
        Column("position", Integer),
        *_times(updated_null=False),
        Index("ix_artifact_blobs_artifact_id", "artifact_id"),
        Index("ix_artifact_blobs_name", "name"),
    )
    _table(
        "artifact_blob_locations",
        _uuid(),
        _reference("blob_id", "artifact_blobs.id", String(36)),
        Column("value", Text, nullable=False),
        *_times(updated_null=False),
        Column("position", Integer),
        Column("status", String(36)),
        Index("ix_artifact_blob_locations_blob_id", "blob_id"),
    )
    _table(
        "artifact_dependencies",
        _uuid(),
        _reference("artifact_source", "artifacts.id", String(36)),
        _reference("artifact_dest", "artifacts.id", String(36)),
        _reference("artifact_origin", "artifacts.id", String(36)),
        Column("is_direct", Boolean, nullable=False),
        Column("position", Integer),
        Column("name", String(36)),
        *_times(updated_null=False),
        Index("ix_artifact_dependencies_source_id", "artifact_source"),
        Index("ix_artifact_dependencies_dest_id", "artifact_dest"),
        Index("ix_artifact_dependencies_origin_id", "artifact_origin"),
        Index("ix_artifact_dependencies_direct_dependencies", "artifact_source", "is_direct"),
    )


_migrate_version = Table(
    "migrate_version",
    sa.MetaData(),
    Column("repository_id", String(250), primary_key=True),
    Column("repository_path", Text),
    Column("version", Integer),
    **_MYSQL,
)


def upgrade() -> None:
    connection = op.get_bind()
    existing = sa.inspect(connection)
    # Ocata dropped the artifact tables; a database of its time goes without them.
    without_artifacts = existing.has_table("alembic_version")
    for define in (_image_tables, _task_tables, _metadef_tables):
        define()
    if not without_artifacts:
        _artifact_tables()
    _metadata.create_all(connection)
    _add_time_indexes(connection)
    _rename_resource_type(connection)
    _record_level(connection)


def _add_time_indexes(connection: sa.Connection) -> None:
    """Level 43."""
    present = {index["name"] for index in sa.inspect(connection).get_indexes("images")}
    for column in ("created_at", "updated_at"):
        if f"{column}_image_idx" not in present:
            op.create_index(f"{column}_image_idx", "images", [column])


def _rename_resource_type(connection: sa.Connection) -> None:
    """Level 44."""
    types = _metadata.tables["metadef_resource_types"]
    names = set(connection.scalars(sa.select(types.c.name)))
    if "OS::Nova::Instance" in names and "OS::Nova::Server" not in names:
        connection.execute(
            types.update()
            .where(types.c.name == "OS::Nova::Instance")
            .values(name="OS::Nova::Server")
        )


def _record_level(connection: sa.Connection) -> None:
    """Old tools ask for it; a later release's own level stays."""
    _migrate_version.create(connection, checkfirst=True)
    columns = _migrate_version.c
    recorded = connection.execute(
        sa.select(columns.version).where(columns.repository_id == REPOSITORY)
    ).scalar()
    if recorded is None:
        values = {"repository_id": REPOSITORY, "repository_path": "", "version": LEVEL}
        connection.execute(_migrate_version.insert(), values)
    elif recorded < LEVEL:
        connection.execute(
            _migrate_version.update()
            .where(columns.repository_id == REPOSITORY)
            .values(version=LEVEL)
        )
