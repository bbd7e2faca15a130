"""Images that were announced and never got any data: SEC-074."""

from datetime import timedelta
from pathlib import Path

import pytest
from oslo_utils import timeutils

from common import errors
from glance_registry.db import commands, models
from tests.registry import Registry, sqlite_database


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry.over(sqlite_database(tmp_path / "glance.sqlite"))


def made(registry: Registry, days: int, **fields: object) -> str:
    """An image that was made so many days ago."""
    image_id: str = registry.create(**fields)["id"]
    when = timeutils.utcnow() - timedelta(days=days)
    with registry.database.migration() as connection:
        images = models.images
        connection.execute(images.update().where(images.c.id == image_id).values(created_at=when))
    return image_id


def live(registry: Registry) -> set[str]:
    return {row.id for row in registry.rows(models.images, deleted=False)}


def test_what_has_waited_too_long_for_data_is_deleted_and_nothing_else(
    registry: Registry,
) -> None:
    old = made(registry, 40, properties={"a": "b"})
    kept = {
        made(registry, 20),
        made(registry, 40, protected=True),
        *(made(registry, 40, status=status) for status in ("active", "saving", "killed")),
    }
    copied = made(registry, 40)
    lease = {"token": "t", "kind": "copy", "store": "file", "worker": "w", "seconds": 30}
    body = {"image": {}, "from_state": "queued", "lease": lease}
    assert registry.put(copied, **body).status_int == 200
    assert commands.delete_unfilled(registry.database) == "1 images without data deleted."
    assert live(registry) == kept | {copied}
    gone = registry.show(old)
    assert (gone["status"], gone["deleted"], gone["properties"]) == ("deleted", True, {})


def test_the_oldest_go_first_and_no_more_than_asked_for(registry: Registry) -> None:
    younger, oldest = made(registry, 3), made(registry, 4)
    assert commands.delete_unfilled(registry.database, 2, 1).startswith("1 ")
    assert live(registry) == {younger}
    assert commands.delete_unfilled(registry.database, 2, 1).startswith("1 ")
    assert commands.delete_unfilled(registry.database, 2, 1).startswith("0 ")
    assert registry.show(oldest)["deleted"]


def test_an_age_and_a_number_of_rows_that_mean_everything_are_refused(registry: Registry) -> None:
    for age, rows in ((0, 1), (-1, 1), (40_000, 1), (1, 0)):
        with pytest.raises(errors.Invalid):
            commands.delete_unfilled(registry.database, age, rows)
