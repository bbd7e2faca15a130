"""Databases as releases of Glance left them, with a little of everything in them.

The statements are written from the schema's description, not by our migrations: adopting is only
proven on tables that somebody else made.
"""

from typing import Final

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine

SQLITE: Final = {"serial": "INTEGER PRIMARY KEY AUTOINCREMENT", "bool": "BOOLEAN", "end": ""}
MYSQL: Final = {
    "serial": "INTEGER AUTO_INCREMENT PRIMARY KEY",
    "bool": "TINYINT(1)",
    "end": "ENGINE=InnoDB DEFAULT CHARSET=utf8",
}

_TIMES = """created_at DATETIME NOT NULL, updated_at DATETIME, deleted_at DATETIME,
    deleted {bool} NOT NULL"""

_IMAGES = """CREATE TABLE images (
    id VARCHAR(36) NOT NULL PRIMARY KEY, name VARCHAR(255), size BIGINT,
    status VARCHAR(30) NOT NULL, VISIBILITY,
    created_at DATETIME NOT NULL, updated_at DATETIME, deleted_at DATETIME,
    deleted {bool} NOT NULL, checksum VARCHAR(32), owner VARCHAR(255),
    disk_format VARCHAR(20), container_format VARCHAR(20), min_disk INTEGER NOT NULL,
    min_ram INTEGER NOT NULL, protected {bool} NOT NULL DEFAULT 0, virtual_size BIGINT
    ) {end}"""

_IMAGE_PARTS = (
    f"""CREATE TABLE image_properties (
    id {{serial}}, image_id VARCHAR(36) NOT NULL, name VARCHAR(255) NOT NULL, value TEXT,
    {_TIMES}, FOREIGN KEY (image_id) REFERENCES images (id)) {{end}}""",
    f"""CREATE TABLE image_locations (
    id {{serial}}, image_id VARCHAR(36) NOT NULL, value TEXT NOT NULL, {_TIMES},
    meta_data TEXT, status VARCHAR(30) DEFAULT 'active' NOT NULL,
    FOREIGN KEY (image_id) REFERENCES images (id)) {{end}}""",
    f"""CREATE TABLE image_members (
    id {{serial}}, image_id VARCHAR(36) NOT NULL, member VARCHAR(255) NOT NULL,
    can_share {{bool}} NOT NULL, {_TIMES}, status VARCHAR(20) NOT NULL DEFAULT 'pending',
    CONSTRAINT image_members_image_id_member_deleted_at_key
        UNIQUE (image_id, member, deleted_at),
    FOREIGN KEY (image_id) REFERENCES images (id)) {{end}}""",
    f"""CREATE TABLE image_tags (
    id {{serial}}, image_id VARCHAR(36) NOT NULL, value VARCHAR(255) NOT NULL, {_TIMES},
    FOREIGN KEY (image_id) REFERENCES images (id)) {{end}}""",
    "CREATE INDEX ix_images_deleted ON images (deleted)",
    "CREATE INDEX owner_image_idx ON images (owner)",
    "CREATE INDEX checksum_image_idx ON images (checksum)",
    "CREATE INDEX ix_image_properties_image_id ON image_properties (image_id)",
    "CREATE INDEX ix_image_properties_deleted ON image_properties (deleted)",
    "CREATE UNIQUE INDEX ix_image_properties_image_id_name ON image_properties (image_id, name)",
    "CREATE INDEX ix_image_locations_image_id ON image_locations (image_id)",
    "CREATE INDEX ix_image_locations_deleted ON image_locations (deleted)",
    "CREATE INDEX ix_image_members_image_id ON image_members (image_id)",
    "CREATE INDEX ix_image_members_deleted ON image_members (deleted)",
    "CREATE INDEX ix_image_members_image_id_member ON image_members (image_id, member)",
    "CREATE INDEX ix_image_tags_image_id ON image_tags (image_id)",
    "CREATE INDEX ix_image_tags_image_id_tag_value ON image_tags (image_id, value)",
)

_TASKS = (
    f"""CREATE TABLE tasks (id VARCHAR(36) NOT NULL PRIMARY KEY, type VARCHAR(30) NOT NULL,
    status VARCHAR(30) NOT NULL, owner VARCHAR(255) NOT NULL, expires_at DATETIME, {_TIMES})
    {{end}}""",
    """CREATE TABLE task_info (task_id VARCHAR(36) NOT NULL PRIMARY KEY, input TEXT,
    result TEXT, message TEXT, FOREIGN KEY (task_id) REFERENCES tasks (id)) {end}""",
)

_METADEF_TIMES = "created_at DATETIME NOT NULL, updated_at DATETIME"
_METADEFS = (
    f"""CREATE TABLE metadef_namespaces (id {{serial}}, namespace VARCHAR(80) NOT NULL,
    display_name VARCHAR(80), description TEXT, visibility VARCHAR(32), protected {{bool}},
    owner VARCHAR(255) NOT NULL, {_METADEF_TIMES},
    CONSTRAINT uq_metadef_namespaces_namespace UNIQUE (namespace)) {{end}}""",
    f"""CREATE TABLE metadef_resource_types (id {{serial}}, name VARCHAR(80) NOT NULL,
    protected {{bool}} NOT NULL DEFAULT 0, {_METADEF_TIMES},
    CONSTRAINT uq_metadef_resource_types_name UNIQUE (name)) {{end}}""",
    *(
        f"""CREATE TABLE {table} (id {{serial}}, namespace_id INTEGER NOT NULL,
    name VARCHAR(80) NOT NULL, {columns} {_METADEF_TIMES},
    CONSTRAINT uq_{table}_namespace_id_name UNIQUE (namespace_id, name),
    FOREIGN KEY (namespace_id) REFERENCES metadef_namespaces (id)) {{end}}"""
        for table, columns in (
            ("metadef_objects", "description TEXT, required TEXT, json_schema TEXT NOT NULL,"),
            ("metadef_properties", "json_schema TEXT NOT NULL,"),
            ("metadef_tags", ""),
        )
    ),
    f"""CREATE TABLE metadef_namespace_resource_types (resource_type_id INTEGER NOT NULL,
    namespace_id INTEGER NOT NULL, properties_target VARCHAR(80), prefix VARCHAR(80),
    {_METADEF_TIMES}, PRIMARY KEY (resource_type_id, namespace_id),
    FOREIGN KEY (resource_type_id) REFERENCES metadef_resource_types (id),
    FOREIGN KEY (namespace_id) REFERENCES metadef_namespaces (id)) {{end}}""",
)

_MIGRATE_VERSION = (
    """CREATE TABLE migrate_version (repository_id VARCHAR(250) NOT NULL PRIMARY KEY,
    repository_path TEXT, version INTEGER) {end}""",
    """INSERT INTO migrate_version VALUES ('Glance Migrations',
    '/usr/lib/python2.7/dist-packages/glance/db/sqlalchemy/migrate_repo', LEVEL)""",
)

PUBLIC = "11111111-0000-4000-8000-000000000000"
PRIVATE = "22222222-0000-4000-8000-000000000000"
GONE = "33333333-0000-4000-8000-000000000000"
COMMUNITY = "44444444-0000-4000-8000-000000000000"

_OLD = "'2016-03-01 10:00:00', '2016-03-02 11:00:00'"
_ROWS = (
    f"""INSERT INTO image_properties (image_id, name, value, created_at, updated_at, deleted)
    VALUES ('{PUBLIC}', 'os_distro', 'ubuntu', {_OLD}, 0)""",
    f"""INSERT INTO image_locations
    (image_id, value, meta_data, status, created_at, updated_at, deleted)
    VALUES ('{PUBLIC}', 'file:///var/lib/glance/images/1', '{{{{}}}}', 'active', {_OLD}, 0)""",
    f"""INSERT INTO image_locations
    (image_id, value, meta_data, status, created_at, updated_at, deleted_at, deleted)
    VALUES ('{GONE}', 'rbd://f/p/i/s', '{{{{"a": 1}}}}', 'pending_delete', {_OLD},
    '2016-03-02 11:00:00', 1)""",
    f"""INSERT INTO image_members
    (image_id, member, can_share, status, created_at, updated_at, deleted)
    VALUES ('{PRIVATE}', 't2', 1, 'pending', {_OLD}, 0)""",
    f"""INSERT INTO image_tags (image_id, value, created_at, updated_at, deleted)
    VALUES ('{PUBLIC}', 'lts', {_OLD}, 0)""",
    f"""INSERT INTO metadef_resource_types (name, protected, created_at, updated_at)
    VALUES ('RESOURCE', 1, {_OLD})""",
)


def _image(image_id: str, name: str, visibility: str, owner: str, status: str = "active") -> str:
    gone = "'2016-03-02 11:00:00', 1" if status == "pending_delete" else "NULL, 0"
    return (
        "INSERT INTO images (id, name, size, status, VISIBLE, created_at, updated_at, deleted_at,"
        " deleted, owner, disk_format, container_format, min_disk, min_ram, protected)"
        f" VALUES ('{image_id}', '{name}', 1000, '{status}', {visibility}, {_OLD}, {gone},"
        f" '{owner}', 'raw', 'bare', 0, 0, 0)"
    )


def make_mitaka(engine: Engine, level: int = 44) -> None:
    """Mitaka's last schema, or with level 42 Liberty's, and some images."""
    images = _IMAGES.replace("VISIBILITY", "is_public {bool} NOT NULL")
    indexes = ["CREATE INDEX ix_images_is_public ON images (is_public)"]
    if level >= 43:
        indexes += [
            "CREATE INDEX created_at_image_idx ON images (created_at)",
            "CREATE INDEX updated_at_image_idx ON images (updated_at)",
        ]
    rows = [
        _image(PUBLIC, "public", "1", "t1"),
        _image(PRIVATE, "private", "0", "t1"),
        _image(GONE, "gone", "0", "t1", "pending_delete"),
    ]
    resource = "OS::Nova::Server" if level >= 44 else "OS::Nova::Instance"
    statements = [
        images, *_IMAGE_PARTS, *indexes, *_TASKS, *_METADEFS, *_MIGRATE_VERSION, *rows, *_ROWS,
    ]  # fmt: skip
    _run(engine, statements, VISIBLE="is_public", LEVEL=str(level), RESOURCE=resource)


def make_queens(engine: Engine) -> None:
    """What Queens' Alembic migrations end with; the artifact tables are gone by then."""
    kind = (
        "ENUM('private','public','shared','community')"
        if engine.dialect.name == "mysql"
        else "VARCHAR(9) CHECK (visibility IN ('private','public','shared','community'))"
    )
    images = _IMAGES.replace("VISIBILITY", f"visibility {kind} NOT NULL DEFAULT 'shared'")
    rows = [
        _image(PUBLIC, "public", "'public'", "t1"),
        _image(PRIVATE, "private", "'private'", "t1"),
        _image(GONE, "gone", "'shared'", "t1", "pending_delete"),
        _image(COMMUNITY, "community", "'community'", "t1"),
    ]
    statements = [
        images, *_IMAGE_PARTS, "CREATE INDEX visibility_image_idx ON images (visibility)",
        "CREATE INDEX created_at_image_idx ON images (created_at)",
        "CREATE INDEX updated_at_image_idx ON images (updated_at)", *_TASKS, *_METADEFS,
        "CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL PRIMARY KEY) {end}",
        "INSERT INTO alembic_version VALUES ('queens_contract01')", *rows, *_ROWS,
    ]  # fmt: skip
    _run(engine, statements, VISIBLE="visibility", RESOURCE="OS::Nova::Server")


def _run(engine: Engine, statements: list[str], **words: str) -> None:
    types = SQLITE if engine.dialect.name == "sqlite" else MYSQL
    with engine.begin() as connection:
        for statement in statements:
            for word, meant in words.items():
                statement = statement.replace(word, meant)
            connection.exec_driver_sql(statement.format(**types))


def everything(connection: Connection) -> dict[str, list[dict[str, object]]]:
    """Every row of every table, by column, to see that nothing of it is lost."""
    tables = sa.MetaData()
    tables.reflect(connection)
    return {
        name: [dict(row) for row in connection.execute(sa.select(table)).mappings()]
        for name, table in tables.tables.items()
    }
