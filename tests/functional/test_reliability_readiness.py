"""Two questions of whoever balances load: is it up, and can it work (REL-091)?"""

import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing

import pytest

from tests.functional.between import Between, Fate
from tests.functional.daemons import Answer, Service, free_port, make_service, running
from tests.functional.steps import wait_until


@pytest.fixture(scope="module")
def between() -> Iterator[Between]:
    with Between(free_port()) as running:
        yield running


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, between: Between) -> Iterator[Service]:
    options = {"registry_port": between.port}
    made = make_service(tmp_path_factory.mktemp("readiness"), api=options)
    between.registry_port = made.registry.port
    with running(made):
        yield made


def readiness(service: Service) -> Answer:
    """Nobody has to be known; and the daemon itself is well all the time."""
    assert service.client().get("/healthcheck").status == 200
    return service.client().get("/readiness")


def becomes(service: Service, status: int, text: str) -> bool:
    found = readiness(service)
    return (found.status, found.text) == (status, text)


def test_all_is_well(service: Service) -> None:
    wait_until(lambda: becomes(service, 200, "READY"))
    assert service.client().head("/readiness").status == 200
    registry = service.client()
    registry.port = service.registry.port
    assert registry.get("/readiness").text == "READY"


def test_the_registry_is_away(service: Service, between: Between) -> None:
    with between.refusing():
        wait_until(lambda: becomes(service, 503, "NOT READY: registry"))
        assert "retry-after" in readiness(service).headers
    wait_until(lambda: becomes(service, 200, "READY"))


def test_the_registry_stalls(service: Service, between: Between) -> None:
    time.sleep(1.1)  # longer than an earlier finding counts
    with between.rule(lambda method, path: Fate(silent=True)):
        started = time.monotonic()
        assert becomes(service, 503, "NOT READY: registry")
        assert time.monotonic() - started < 10
    wait_until(lambda: becomes(service, 200, "READY"))


def test_the_database_is_broken(service: Service) -> None:
    def rename(before: str, after: str) -> None:
        with closing(sqlite3.connect(service.database)) as database, database:
            database.execute(f"alter table {before} rename to {after}")

    rename("images", "gone")
    try:
        wait_until(lambda: becomes(service, 503, "NOT READY: registry"))
    finally:
        rename("gone", "images")
    wait_until(lambda: becomes(service, 200, "READY"))


def test_the_store_is_gone(service: Service) -> None:
    aside = service.store.with_name("aside")
    service.store.rename(aside)
    try:
        wait_until(lambda: becomes(service, 503, "NOT READY: store"))
    finally:
        aside.rename(service.store)
    wait_until(lambda: becomes(service, 200, "READY"))


def test_nothing_but_parts_is_named(service: Service) -> None:
    """SEC-021: no image, no tenant, no address for whoever happens to ask."""
    answer = readiness(service)
    assert set(answer.headers) <= {"content-type", "content-length", "date", "retry-after"}
    assert answer.text in ("READY", "NOT READY: registry", "NOT READY: store")


def test_it_can_be_switched_off(service: Service) -> None:
    service.reconfigure({"readiness": {"enabled": False}}, {"readiness": {"enabled": False}})
    assert service.client().get("/readiness").status == 300
    registry = service.client()
    registry.port = service.registry.port
    assert registry.get("/readiness").status == 401
