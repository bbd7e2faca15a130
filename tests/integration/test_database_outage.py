"""A database that goes away and comes back (REL-054; issue: bad answers are 503, never a hang)."""

import threading
import time
from collections import Counter
from collections.abc import Iterator

import pytest

from glance_registry.db import sync, usage
from glance_registry.db.engine import Database, DatabaseSettings
from tests.registry import Registry
from tests.servers.mariadb import MariaDB
from tests.servers.postgresql import PostgreSQL

PATIENCE = 3.0


@pytest.fixture(scope="module", params=[MariaDB, PostgreSQL])
def server(request: pytest.FixtureRequest) -> Iterator[MariaDB | PostgreSQL]:
    """One that may be killed."""
    found = request.param()
    found.require()
    with found:
        yield found


@pytest.fixture
def registry(server: MariaDB | PostgreSQL) -> Iterator[Registry]:
    database = Database(DatabaseSettings(server.create(), patience_seconds=PATIENCE))
    sync.sync(database)
    yield Registry.over(database)
    database.dispose()


def test_a_restart_under_load_is_survived(server: MariaDB | PostgreSQL, registry: Registry) -> None:
    """REL-054: 503 while it is away, all is well within five seconds after, no poisoned pool."""
    stop = threading.Event()
    answers: list[tuple[float, int]] = []
    failures: list[BaseException] = []

    def load() -> None:
        try:
            ask()
        except BaseException as error:
            failures.append(error)

    def ask() -> None:
        while not stop.is_set():
            started = time.monotonic()
            answer = registry.call("POST", "/images", {"image": {"properties": {"a": "b"}}})
            answers.append((time.monotonic(), answer.status_int))
            assert time.monotonic() - started < 3 * PATIENCE
            listed = registry.call("GET", "/images/detail?limit=3")
            answers.append((time.monotonic(), listed.status_int))

    threads = [threading.Thread(target=load) for _ in range(4)]
    for thread in threads:
        thread.start()
    time.sleep(1)
    server.kill()
    time.sleep(1)
    server.restart()
    back = time.monotonic()
    time.sleep(5)
    stop.set()
    for thread in threads:
        thread.join()
    assert failures == []
    statuses = Counter(status for _, status in answers)
    assert set(statuses) == {200, 503}
    late = [moment - back for moment, status in answers if status == 503]
    assert max(late) < 5
    assert {registry.call("GET", "/images").status_int for _ in range(20)} == {200}
    assert registry.database.write(usage.recount) == 0


def test_a_database_that_is_down_gives_503_at_once(
    server: MariaDB | PostgreSQL, registry: Registry
) -> None:
    image_id = registry.create()["id"]
    with server.killed():
        started = time.monotonic()
        for method, path, body in (
            ("GET", "/images", None),
            ("GET", f"/images/{image_id}", None),
            ("PUT", f"/images/{image_id}", {"image": {}}),
            ("POST", "/images", {"image": {}}),
            ("PUT", "/leases", {"leases": [{"token": "x"}], "seconds": 5}),
        ):
            answer = registry.call(method, path, body)
            assert answer.status_int == 503
            assert "Retry-After" in answer.headers
            assert "127.0.0.1" not in answer.text
        assert time.monotonic() - started < 5 * PATIENCE
    assert registry.show(image_id)["id"] == image_id


def test_a_database_that_does_not_answer_gives_503_in_time(
    server: MariaDB | PostgreSQL, registry: Registry
) -> None:
    """A stopped process keeps its connections open and says nothing."""
    registry.create()
    with server.paused():
        started = time.monotonic()
        assert registry.call("GET", "/images").status_int == 503
        assert registry.call("POST", "/images", {"image": {}}).status_int == 503
        assert time.monotonic() - started < 4 * PATIENCE + 2
    assert registry.call("GET", "/images").status_int == 200
