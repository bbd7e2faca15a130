"""The scrubber over the real registry's routes and a store in memory."""

import threading
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import webob

from common import errors
from common.context import RequestContext
from common.image import ACTIVE, PENDING_DELETE, Change, Image, Location
from common.lease import DELETE, Lease
from common.query import ListQuery
from common.wsgi.resource import CONTEXT
from glance_api.location_cipher import LocationCipher
from glance_api.registry_client import Identity, RegistryClient
from glance_api.registry_connection import Answer
from glance_api.scrubber import Scrubber
from glance_store import BackendUnavailable
from glance_store.drivers.memory import MemoryStore
from glance_store.loader import Stores
from tests.registry import ADMIN, Registry, sqlite_database

KEY = "0123456789abcdef"


class AppPool:
    """Stands for the connections to the registry: calls its application directly."""

    def __init__(self, registry: Registry) -> None:
        self.registry = registry

    def request(
        self,
        method: str,
        path: str,
        body: bytes | None,
        headers: Mapping[str, str],
        timeout: float | None = None,
    ) -> Answer:
        request = webob.Request.blank(path, method=method, headers=dict(headers), body=body or b"")
        request.environ[CONTEXT] = ADMIN
        response = request.get_response(self.registry.app)
        return Answer(response.status_int, response.body)


class FlakyStore(MemoryStore):
    """Refuses to delete so many times; remembers what was asked for."""

    failures = 0
    deleted: list[str]

    def delete(self, ctx: RequestContext, url: str) -> None:
        self.deleted.append(url)
        if self.failures > 0:
            self.failures -= 1
            raise BackendUnavailable()


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("template") / "glance.sqlite"
    sqlite_database(path).engine.dispose()
    return path


@pytest.fixture
def pool(tmp_path: Path, template: Path) -> Iterator[Any]:
    database = sqlite_database(tmp_path / "glance.sqlite", template)
    yield AppPool(Registry.over(database))
    database.engine.dispose()


@pytest.fixture
def client(pool: Any) -> RegistryClient:
    return RegistryClient(pool, Identity(), LocationCipher(KEY))


@pytest.fixture
def store() -> FlakyStore:
    made = FlakyStore({})
    made.deleted = []
    return made


@pytest.fixture
def scrubber(client: RegistryClient, store: FlakyStore) -> Scrubber:
    return Scrubber(client, Stores({"memory": store}), ADMIN, scrub_time=0, pool_size=3)


def pending(client: RegistryClient, number: int) -> str:
    """An image that awaits the scrubber."""
    image_id = f"{number:08x}-0000-4000-8000-000000000000"
    image = Image(id=image_id, status=ACTIVE, size=1, locations=[Location(f"memory://{image_id}")])
    client.add(ADMIN, image, None, 0)
    lease = Lease(uuid.uuid4().hex, image_id, DELETE, "memory", "a worker")
    client.save(ADMIN, image_id, Change({"status": PENDING_DELETE}, from_state=ACTIVE, lease=lease))
    client.end_lease(ADMIN, lease.token)
    return image_id


def left(client: RegistryClient) -> list[str]:
    query = ListQuery(scope="all", matches={"status": (PENDING_DELETE,)}, deleted=True, limit=1000)
    return [image.id for image in client.list(ADMIN, query, detail=True)]


def test_all_pages_are_scrubbed_in_one_run(
    client: RegistryClient, scrubber: Scrubber, store: FlakyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """REL-073."""
    monkeypatch.setattr("glance_api.scrubber._PAGE", 4)
    ids = {pending(client, number) for number in range(12)}
    outcome = scrubber.run()
    assert (outcome.scrubbed, outcome.failed) == (12, 0)
    assert {url.removeprefix("memory://") for url in store.deleted} == ids
    assert left(client) == []


def test_a_store_that_fails_twice_is_done_at_the_third_run(
    client: RegistryClient, scrubber: Scrubber, store: FlakyStore
) -> None:
    """REL-072."""
    image_id = pending(client, 1)
    store.failures = 2
    assert [scrubber.run().failed for _ in range(2)] == [1, 1]
    assert left(client) == [image_id]
    assert scrubber.run().scrubbed == 1
    assert left(client) == []


def test_two_scrubbers_at_once_do_no_harm(
    client: RegistryClient, scrubber: Scrubber, store: FlakyStore
) -> None:
    """REL-074."""
    image_id = pending(client, 1)
    query = ListQuery(scope="all", matches={"status": (PENDING_DELETE,)}, deleted=True)
    (listed,) = client.list(ADMIN, query, detail=True)
    assert scrubber.run().scrubbed == 1
    with pytest.raises(errors.Conflict):
        scrubber.scrub(listed)
    assert client.get(ADMIN, image_id).status == "deleted"


def test_a_location_that_cannot_be_decrypted_is_left_and_reported(
    pool: Any, client: RegistryClient, store: FlakyStore
) -> None:
    """M08."""
    pending(client, 1)
    other = RegistryClient(pool, Identity(), LocationCipher(KEY[::-1]))
    outcome = Scrubber(other, Stores({"memory": store}), ADMIN, scrub_time=0, pool_size=1).run()
    assert (outcome.scrubbed, outcome.failed) == (0, 1)
    assert store.deleted == []
    assert len(left(client)) == 1


def test_a_run_that_is_told_to_stop_begins_nothing(
    client: RegistryClient, scrubber: Scrubber, store: FlakyStore
) -> None:
    pending(client, 1)
    stop = threading.Event()
    stop.set()
    assert scrubber.run(stop).scrubbed == 0
    assert store.deleted == []
