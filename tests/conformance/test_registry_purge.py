"""glance-manage db purge on every database; its rules are in unit/registry/test_purge.py."""

from datetime import datetime

import pytest
import sqlalchemy as sa

from glance_registry.db import models, purge
from tests.registry import Registry, statements

PARTS = (models.image_properties, models.image_locations, models.image_members)
LONG_AGO = datetime(2020, 1, 1)


def test_batches_are_removed_after_one_look_at_the_table(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SEC-083, database.md section 7."""
    monkeypatch.setattr(purge, "_BATCH", 2)
    for _ in range(5):
        image_id = registry.create(location="file:///x", properties={"a": "b"}, size=5)["id"]
        registry.call("PUT", f"/images/{image_id}/members/t2")
        registry.call("DELETE", f"/images/{image_id}")
    live = registry.create(properties={"a": "b"})
    with registry.database.engine.begin() as connection:
        for table in (models.images, *PARTS):
            removed = table.update().where(table.c.deleted == sa.true())
            connection.execute(removed.values(deleted_at=LONG_AGO))
    with statements(registry.database) as sent:
        gone = purge.purge(registry.database, 30, 1000)
    assert {gone[table.name] for table in (models.images, *PARTS)} == {5}
    assert sum("ORDER BY" in statement for statement, _ in sent) == len(gone)
    assert [row.id for row in registry.rows(models.images)] == [live["id"]]
    assert len(registry.rows(models.image_properties)) == 1
    assert len(registry.rows(models.image_tombstones)) == 5
