"""Both daemons on a real PostgreSQL; the registry's own tests run there too."""

from collections.abc import Iterator

import pytest

from tests.functional.audit import audit
from tests.functional.daemons import OCTETS, RAW, Client, Service, running_service
from tests.functional.steps import active_image, meta, path
from tests.servers.postgresql import PostgreSQL


@pytest.fixture(scope="module")
def service(postgresql: PostgreSQL, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    home = tmp_path_factory.mktemp("postgresql")
    # As Mitaka's files have it.
    url = postgresql.create().replace("postgresql+pg8000:", "postgresql:")
    with running_service(home, connection=url, registry={"workers": 2}) as running:
        yield running
        running.registry.conf["database"]["connection"] = url.replace("://", "+pg8000://", 1)
        audit(running)


@pytest.fixture
def t1(service: Service) -> Client:
    return service.caller("t1")


def test_an_image_is_created_uploaded_changed_listed_and_deleted(
    service: Service, t1: Client
) -> None:
    name = "Größe 日本語"
    image = t1.post("/v1/images", {**RAW, **meta(name=name, **{"property-os": "Grün"})}).image
    target = path(image["id"])
    assert t1.put(target, OCTETS, b"content").image["status"] == "active"
    assert t1.get(target).content == b"content"
    changed = t1.put(target, meta(min_ram="7", **{"property-a": "1"})).image
    assert (changed["name"], changed["properties"], changed["min_ram"]) == (name, {"a": "1"}, 7)
    nameless = active_image(t1)
    assert t1.get("/v1/images?sort_key=name&sort_dir=asc").names == [None, name]
    assert t1.get("/v1/images?sort_key=name&sort_dir=desc").names == [name, None]
    assert t1.get("/v1/images?property-a=1").names == [name]
    for each in (target, path(nameless)):
        assert t1.delete(each).status == 200
        assert t1.get(each).status == 404
    assert service.stored_files() == set()
