"""What happens when a store fails, at every point: REL-001, REL-032, REL-034, REL-070, REL-087."""

import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.functional.conftest import audited_service
from tests.functional.daemons import OCTETS, RAW, Client, Service
from tests.functional.sources import Sources
from tests.functional.steps import (
    active_image,
    meta,
    path,
    queued_image,
    status_of,
    upload,
    wait_for_status,
    wait_until,
)
from tests.functional.unreliable import NAME, trouble

CONTENT = b"x" * 300_000
LEASE_SECONDS = 5


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    options = {
        "user_storage_quota": "1MB",
        "glance_store": {"stores": f"{NAME},http"},
        "leases": {"seconds": LEASE_SECONDS},
    }
    home = tmp_path_factory.mktemp("stores")
    with audited_service(home, api=options) as running:
        yield running


@pytest.mark.parametrize("point", ["open", "first", "middle", "last", "close"])
@pytest.mark.parametrize("method", ["POST", "PUT", "copy"])
def test_a_store_that_fails_leaves_nothing_behind(
    service: Service, t1: Client, sources: Sources, point: str, method: str
) -> None:
    """REL-001: the sender hears of it, the image is killed, the bytes are gone."""
    image_id = queued_image(t1) if method == "PUT" else str(uuid.uuid4())
    with trouble(service, f"add {point}"):
        if method == "PUT":
            assert t1.put(path(image_id), OCTETS, CONTENT).status == 503
        elif method == "POST":
            answer = upload(t1, CONTENT, id=image_id)
            assert answer.status == 503
            assert answer.headers["retry-after"]
        else:
            copy = {**RAW, **meta(id=image_id), "x-glance-api-copy-from": sources.url("/ok")}
            assert t1.post("/v1/images", copy).status == 201
            wait_for_status(t1, image_id, "killed")
    assert status_of(t1, image_id) == "killed"
    assert image_id not in service.stored_files()
    assert upload(t1, CONTENT).status == 201


def test_bytes_a_dead_store_cannot_remove_are_removed_when_it_is_back(
    service: Service, t1: Client
) -> None:
    """REL-001, REL-009, SEC-071: until then they count against the quota."""
    image_id = str(uuid.uuid4())
    big = b"x" * 700_000
    with trouble(service, "add close", "discard fail"):
        assert upload(t1, big, id=image_id).status == 503
        assert status_of(t1, image_id) == "killed"
        assert image_id in service.stored_files()
    with trouble(service, "discard fail"):
        assert upload(t1, big).status == 413
        # Long enough for a janitor to have tried, and failed.
        wait_until(lambda: f"image {image_id}: left for later" in service.api.log)
        assert t1.delete(path(image_id)).status == 200
        assert image_id in service.stored_files()
    wait_until(lambda: image_id not in service.stored_files())
    wait_until(lambda: upload(t1, big).status == 201)


def test_a_store_that_stalls_holds_only_its_own(service: Service, t1: Client) -> None:
    """REL-082, REL-085: one worker goes on with everything else."""
    image_id = active_image(t1, b"bytes")
    with ThreadPoolExecutor() as pool:
        with trouble(service, "add stall", "get stall"):
            uploads = [pool.submit(upload, t1, b"slow") for _ in range(5)]
            downloads = [pool.submit(t1.get, path(image_id)) for _ in range(5)]
            time.sleep(0.5)
            started = time.monotonic()
            for _ in range(10):
                assert t1.head(path(image_id)).status == 200
                assert t1.get("/v1/images").status == 200
                assert queued_image(t1)
            assert time.monotonic() - started < 5
            assert not any(each.done() for each in (*uploads, *downloads))
        assert {each.result().status for each in uploads} == {201}
        assert {each.result().content for each in downloads} == {b"bytes"}


def test_reading_metadata_needs_no_store(service: Service, t1: Client) -> None:
    """REL-034: HEAD is what GET says, without the bytes."""
    image_id = active_image(t1, b"bytes", **{"property-a": "b"})
    whole = t1.get(path(image_id)).headers
    with trouble(service, "get fail"):
        found = t1.head(path(image_id))
        assert t1.get(path(image_id)).status == 503
    assert found.status == 200
    described = {name for name in whole if name.startswith("x-image-meta-") or name == "etag"}
    assert {name: found.headers[name] for name in described} == {
        name: whole[name] for name in described
    }


def test_bytes_that_are_gone_are_not_found(service: Service, t1: Client) -> None:
    """REL-032."""
    image_id = active_image(t1, b"bytes")
    (service.store / image_id).unlink()
    assert t1.get(path(image_id)).status == 404
    assert t1.delete(path(image_id)).status == 200


def test_a_delete_that_fails_changes_nothing(service: Service, t1: Client) -> None:
    """REL-070: one of two known states."""
    image_id = active_image(t1, b"bytes")
    with trouble(service, "delete fail"):
        assert t1.delete(path(image_id)).status == 503
    assert status_of(t1, image_id) == "active"
    assert t1.get(path(image_id)).content == b"bytes"
    assert t1.delete(path(image_id)).status == 200
    assert t1.get(path(image_id)).status == 404


def test_one_bad_store_does_not_sink_the_rest(
    service: Service, t1: Client, sources: Sources
) -> None:
    """REL-087."""
    placed = t1.post("/v1/images", {**RAW, "x-image-meta-location": sources.url("/ok")})
    with trouble(service, "add open", "get fail", "delete fail"):
        assert t1.get(path(placed.image["id"])).status == 200
        assert t1.get("/v1/images/detail").status == 200
        assert t1.get("/healthcheck").status == 200
