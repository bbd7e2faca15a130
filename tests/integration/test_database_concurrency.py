"""Callers at the same moment, as several registries on one database see them (database.md 9)."""

import threading
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from glance_registry.db import models, rows, sync, usage
from glance_registry.db.engine import Database, DatabaseSettings
from tests.conformance.test_registry_leases import lease
from tests.registry import ADMIN, Registry, sqlite_database, user

CALLERS = 8


@pytest.fixture(params=["sqlite", "mariadb", "postgresql"])
def registries(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[list[Registry]]:
    """As many registries as callers, each with connections of its own."""
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path}/glance.sqlite"
        sqlite_database(tmp_path / "glance.sqlite").dispose()
    else:
        url = request.getfixturevalue(request.param).create()
        sync.sync(Database(DatabaseSettings(url)))
    databases = [Database(DatabaseSettings(url, sqlite_synchronous=False)) for _ in range(CALLERS)]
    yield [Registry.over(database) for database in databases]
    for database in databases:
        database.dispose()


def together(registries: list[Registry], call: Callable[[Registry, int], Any]) -> list[Any]:
    """What each caller was answered, all having started at once."""
    start = threading.Barrier(len(registries))
    answers: list[Any] = [None] * len(registries)

    def run(number: int, registry: Registry) -> None:
        start.wait()
        answers[number] = call(registry, number)

    threads = [
        threading.Thread(target=run, args=(number, registry))
        for number, registry in enumerate(registries)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert None not in answers
    return answers


@pytest.mark.parametrize("attempt", range(3))
def test_one_of_several_creations_of_an_id_succeeds(
    registries: list[Registry], attempt: int
) -> None:
    """DB-009"""
    body = {"image": {"id": str(uuid.uuid4()), "properties": {"a": "b"}}}
    answers = together(
        registries, lambda registry, _: registry.call("POST", "/images", body).status_int
    )
    assert Counter(answers) == {200: 1, 409: CALLERS - 1}


@pytest.mark.parametrize("attempt", range(3))
def test_one_of_several_updates_from_a_state_succeeds(
    registries: list[Registry], attempt: int
) -> None:
    """DB-010, REL-058, SEC-007"""
    image_id = registries[0].create()["id"]

    def save(registry: Registry, number: int) -> int:
        change = {"image": {"status": "saving", "name": str(number)}, "from_state": "queued"}
        return int(registry.put(image_id, **change, lease=lease()).status_int)

    answers = together(registries, save)
    assert Counter(answers) == {200: 1, 409: CALLERS - 1}
    winner = str(answers.index(200))
    assert registries[0].show(image_id)["name"] == winner
    assert len(registries[0].rows(models.image_leases, image_id=image_id)) == 1


def test_uploads_do_not_pass_a_quota_together(registries: list[Registry]) -> None:
    """The first usage row of an owner is made by several callers at once, too."""

    def begin(registry: Registry, _: int) -> bool:
        body = {"image": {"status": "saving"}, "lease": lease(reserve=3, quota=10)}
        return "refused" in registry.call("POST", "/images", body).json

    assert Counter(together(registries, begin)) == {False: 3, True: CALLERS - 3}
    assert registries[0].database.write(usage.recount) == 0
    (row,) = registries[0].rows(models.owner_usage)
    assert (row.bytes, row.reserved) == (0, 9)


def test_reservations_do_not_pass_a_quota_together(registries: list[Registry]) -> None:
    tokens = []
    for registry in registries:
        wanted = lease(reserve=1, quota=20)
        registry.call("POST", "/images", {"image": {"status": "saving"}, "lease": wanted})
        tokens.append(wanted["token"])

    def grow(registry: Registry, number: int) -> str:
        entries = [{"token": token} for token in tokens] + [{"token": tokens[number], "reserve": 5}]
        body = {"leases": entries, "seconds": 30, "quota": 20}
        answer = registry.call("PUT", "/leases", body)
        assert answer.status_int == 200
        return str(answer.json["leases"][tokens[number]]["state"])

    assert Counter(together(registries, grow)) == {"held": 3, "refused": CALLERS - 3}
    assert registries[0].database.write(usage.recount) == 0


@pytest.mark.parametrize("server", ["mariadb", "postgresql"])
def test_an_end_gives_back_what_was_reserved_until_then(
    request: pytest.FixtureRequest, server: str
) -> None:
    """I-7: also where the reservation grows while the lease is being ended."""
    url = request.getfixturevalue(server).create()
    sync.sync(Database(DatabaseSettings(url)))
    one, other = (Registry.over(Database(DatabaseSettings(url))) for _ in range(2))
    wanted = lease(reserve=1)
    one.call("POST", "/images", {"image": {"status": "saving"}, "lease": wanted})
    lock_image = rows.image_row

    def grow(*args: Any, **options: Any) -> Any:
        entry = {"token": wanted["token"], "reserve": 5}
        assert other.call("PUT", "/leases", {"leases": [entry], "seconds": 30}).status_int == 200
        return lock_image(*args, **options)

    with patch.object(rows, "image_row", grow):
        assert one.call("DELETE", f"/leases/{wanted['token']}").status_int == 204
    assert one.rows(models.image_leases) == []
    assert one.database.write(usage.recount) == 0
    for registry in (one, other):
        registry.database.dispose()


def test_one_of_several_claims_succeeds(registries: list[Registry]) -> None:
    registries[0].call("POST", "/images", {"image": {"status": "saving"}, "lease": lease()})
    (found,) = registries[0].call("GET", "/leases", ctx=ADMIN).json["leases"]

    def claim(registry: Registry, number: int) -> int:
        body = {"worker": f"n{number}", "seconds": 30, "token": f"t{number}",
                "expected_worker": "w1"}  # fmt: skip
        path = f"/leases/{found['id']}/claim"
        return int(registry.call("POST", path, body, ADMIN).status_int)

    assert Counter(together(registries, claim)) == {200: 1, 409: CALLERS - 1}


def test_a_member_is_one_row_whoever_adds_it(registries: list[Registry]) -> None:
    """REL-059"""
    image_id = registries[0].create()["id"]
    path = f"/images/{image_id}/members/t2"
    for method in ("PUT", "DELETE", "PUT"):
        answers = together(
            registries, lambda registry, _, m=method: registry.call(m, path).status_int
        )
        assert set(answers) <= {204, 404}
    (row,) = registries[0].rows(models.image_members)
    assert not row.deleted


def test_members_do_not_pass_a_quota_together(registries: list[Registry]) -> None:
    image_id = registries[0].create()["id"]
    limited = [Registry.over(registry.database, quota=3) for registry in registries]
    answers = together(
        limited,
        lambda registry, number: (
            registry.call("PUT", f"/images/{image_id}/members/m{number}").status_int
        ),
    )
    assert Counter(answers) == {204: 3, 413: CALLERS - 3}


def test_mixed_work_leaves_exact_figures(registries: list[Registry]) -> None:
    """REL-053, I-7: deadlocks are overcome, nothing is counted twice, and nobody hears 5xx."""

    def work(registry: Registry, number: int) -> list[int]:
        owner = f"t{number % 3}"
        ctx = user(owner)
        answers = []
        for round_ in range(6):
            wanted = lease(reserve=5, owner=owner)
            created = registry.call(
                "POST", "/images",
                {"image": {"status": "saving", "properties": {"a": "1", "b": "2"}},
                 "lease": wanted}, ctx,
            )  # fmt: skip
            image_id = created.json["image"]["id"]
            done = {"status": "active", "size": 7, "location": f"file:///{number}/{round_}"}
            for method, path, body in (
                ("PUT", "/leases", {"leases": [{"token": wanted["token"]}], "seconds": 9}),
                ("PUT", f"/images/{image_id}",
                 {"image": done, "from_state": "saving", "end_lease": wanted["token"]}),
                ("PUT", f"/images/{image_id}/members/t{(number + 1) % 3}", None),
                ("PUT", f"/images/{image_id}", {"image": {"properties": {"a": "3"}}}),
                ("GET", "/images/detail?limit=5", None),
            ):  # fmt: skip
                answers.append(registry.call(method, path, body, ctx).status_int)
            if round_ % 2:
                answers.append(registry.call("DELETE", f"/images/{image_id}", ctx=ctx).status_int)
        return answers

    answers = [status for answer in together(registries, work) for status in answer]
    assert set(answers) == {200, 204}
    assert registries[0].database.write(usage.recount) == 0
    stored = {row.owner: row.bytes for row in registries[0].rows(models.owner_usage)}
    assert sum(stored.values()) == CALLERS * 3 * 7
    assert registries[0].rows(models.image_leases) == []
