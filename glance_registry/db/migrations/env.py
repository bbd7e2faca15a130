"""What Alembic runs for every command; sync.py hands over the connection and its transaction."""

from alembic import context

from glance_registry.db.models import metadata
from glance_registry.db.sync import VERSION_TABLE

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    version_table=VERSION_TABLE,
)
with context.begin_transaction():
    context.run_migrations()
