"""How many images one owner may have: [limits] of glance-registry.conf (SEC-074)."""

import threading
from typing import Any

import pytest

from common.context import RequestContext
from glance_registry.app import application
from glance_registry.db.engine import Database
from glance_registry.db.owner_limits import OwnerLimits
from glance_registry.images import ListSettings
from tests.registry import ADMIN, Registry, user


@pytest.fixture
def registry(database: Database) -> Registry:
    limits = OwnerLimits(images=4, queued=2)
    return Registry(application(database, ListSettings(), 128, limits), database)


def create(registry: Registry, ctx: RequestContext | None = None, **fields: Any) -> int:
    image = {"status": "active", **fields}
    return int(registry.call("POST", "/images", {"image": image}, ctx).status_int)


def test_an_owner_has_at_most_so_many_images(registry: Registry) -> None:
    assert [create(registry) for _ in range(5)] == [200] * 4 + [413]
    refused = registry.call("POST", "/images", {"image": {"status": "active"}})
    assert refused.json["error"]["message"] == "The limit of 4 images has been reached."
    assert len(registry.ids()) == 4


def test_deleting_one_admits_one(registry: Registry) -> None:
    for _ in range(4):
        create(registry)
    registry.call("DELETE", f"/images/{registry.ids()[0]}")
    assert [create(registry), create(registry)] == [200, 413]


def test_images_without_data_have_a_limit_of_their_own(registry: Registry) -> None:
    assert [create(registry, status="queued"), create(registry, status="saving")] == [200, 200]
    assert create(registry, status="queued") == 413
    assert create(registry, status="saving") == 413
    assert create(registry, status="active") == 200
    filled = registry.ids("?status=queued")[0]
    assert registry.put(filled, image={"status": "active"}).status_int == 200
    assert create(registry, status="queued") == 200


def test_every_owner_has_limits_of_his_own(registry: Registry) -> None:
    for _ in range(4):
        create(registry)
    assert create(registry, user("t2")) == 200
    # Whoever creates for somebody else is held to that somebody's.
    assert create(registry, ADMIN, owner="t1") == 413
    assert [create(registry, ADMIN, owner="") for _ in range(6)] == [200] * 6


def test_creations_at_the_same_time_do_not_pass_together(registry: Registry) -> None:
    answers: list[int] = []
    threads = [threading.Thread(target=lambda: answers.append(create(registry))) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answers) == [200] * 4 + [413] * 6
