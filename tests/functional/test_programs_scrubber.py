"""glance-scrubber beside both daemons: what it removes, leaves and reports (REL-098)."""

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest

from tests.functional.daemons import (
    ADMIN,
    OCTETS,
    RAW,
    REGISTRY_KEY,
    ROOT,
    Service,
    free_port,
    running_service,
)

JSON = {"Content-Type": "application/json"}


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    home = tmp_path_factory.mktemp("scrubber")
    with running_service(home, api={"delayed_delete": True}) as running:
        yield running


def command(service: Service, home: Path, *arguments: str, **options: object) -> list[str]:
    """The scrubber's command line, with a configuration file written for it."""
    settings = {
        "registry_host": "127.0.0.1",
        "registry_port": service.registry.port,
        "registry_auth_key": REGISTRY_KEY,
        "send_identity_headers": True,
        **options,
    }
    lines = ["[DEFAULT]", *(f"{name} = {value}" for name, value in settings.items())]
    lines += ["[glance_store]", f"filesystem_store_datadir = {service.store}"]
    conf = home / "scrubber.conf"
    conf.write_text("\n".join(lines))
    program = [sys.executable, "-m", "glance_api.cmd.scrubber", "--config-file", str(conf)]
    return [*program, *arguments]


def scrub(service: Service, home: Path, **options: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(service, home, **options), cwd=ROOT, capture_output=True, text=True, timeout=60
    )


def new_image(service: Service) -> str:
    created = service.t1.post("/v1/images", {**RAW, **OCTETS}, b"bytes")
    image_id: str = created.json["image"]["id"]
    return image_id


def deleted_image(service: Service) -> str:
    image_id = new_image(service)
    assert service.t1.delete(f"/v1/images/{image_id}").status == 200
    return image_id


def record(service: Service, image_id: str) -> tuple[str, list[str]]:
    """The status of a deleted image, and of its locations in the order of their URLs."""
    path = "/images/detail?deleted=True&is_public=none&limit=1000"
    listed = service.registry_client(ADMIN).get(path).json["images"]
    (image,) = [each for each in listed if each["id"] == image_id]
    locations = sorted(image["location_data"], key=lambda location: str(location["url"]))
    return image["status"], [location["status"] for location in locations]


def test_due_bytes_are_removed_and_image_and_location_become_deleted(
    service: Service, tmp_path: Path
) -> None:
    """MW-053."""
    image_id = deleted_image(service)
    assert record(service, image_id) == ("pending_delete", ["pending_delete"])
    assert image_id in service.stored_files()
    done = scrub(service, tmp_path)
    assert done.returncode == 0, done.stderr
    assert record(service, image_id) == ("deleted", ["deleted"])
    assert image_id not in service.stored_files()


def test_an_image_deleted_lately_is_untouched(service: Service, tmp_path: Path) -> None:
    """MW-052."""
    image_id = deleted_image(service)
    assert scrub(service, tmp_path, scrub_time=3600).returncode == 0
    assert record(service, image_id) == ("pending_delete", ["pending_delete"])
    assert image_id in service.stored_files()


def test_bytes_that_are_gone_already_are_no_error(service: Service, tmp_path: Path) -> None:
    """MW-054."""
    image_id = deleted_image(service)
    (service.store / image_id).unlink()
    assert scrub(service, tmp_path).returncode == 0
    assert record(service, image_id) == ("deleted", ["deleted"])


def test_nothing_to_do_is_a_success(service: Service, tmp_path: Path) -> None:
    """MW-056."""
    assert scrub(service, tmp_path).returncode == 0
    assert scrub(service, tmp_path).returncode == 0


def test_bytes_of_a_deactivated_image_are_removed_too(service: Service, tmp_path: Path) -> None:
    """V1-IMG-710, D30."""
    image_id = new_image(service)
    body = orjson.dumps({"image": {"status": "deactivated"}})
    changed = service.registry_client(ADMIN).put(f"/images/{image_id}", JSON, body)
    assert changed.status == 200
    assert service.t1.delete(f"/v1/images/{image_id}").status == 200
    assert record(service, image_id) == ("pending_delete", ["pending_delete"])
    assert scrub(service, tmp_path).returncode == 0
    assert record(service, image_id) == ("deleted", ["deleted"])
    assert image_id not in service.stored_files()


def test_a_location_elsewhere_is_let_go(service: Service, tmp_path: Path) -> None:
    url = f"http://127.0.0.1:{service.api.port}/healthcheck"
    headers = {**RAW, "x-image-meta-location": url, "x-image-meta-size": "2"}
    created = service.t1.post("/v1/images", headers)
    image_id = created.json["image"]["id"]
    assert service.t1.delete(f"/v1/images/{image_id}").status == 200
    assert scrub(service, tmp_path).returncode == 0
    assert record(service, image_id) == ("deleted", ["deleted"])


def test_a_failing_store_leaves_its_location_and_the_image_for_the_next_run(
    service: Service, tmp_path: Path
) -> None:
    """MW-055, REL-072, REL-076."""
    image_id = new_image(service)
    registry = service.registry_client(ADMIN)
    locations = registry.get(f"/images/{image_id}").json["image"]["location_data"]
    # Of a store that the scrubber does not have.
    locations.append({"url": f"rbd://fsid/pool/{image_id}/snap", "metadata": {}})
    body = orjson.dumps({"image": {"location_data": locations}})
    assert registry.put(f"/images/{image_id}", JSON, body).status == 200
    service.t1.delete(f"/v1/images/{image_id}")
    failed = scrub(service, tmp_path)
    assert failed.returncode == 1
    assert image_id in failed.stderr
    assert record(service, image_id) == ("pending_delete", ["deleted", "pending_delete"])
    assert image_id not in service.stored_files()
    _give_up(service, image_id)


def _give_up(service: Service, image_id: str) -> None:
    """Leave nothing behind that would fail the other tests' runs."""
    body = orjson.dumps({"image": {"status": "deleted"}})
    service.registry_client(ADMIN).put(f"/images/{image_id}", JSON, body)


def test_a_registry_that_is_away_fails_the_run(service: Service, tmp_path: Path) -> None:
    """REL-076."""
    assert scrub(service, tmp_path, registry_port=free_port()).returncode == 1


def test_a_store_that_cannot_be_configured_is_named(service: Service, tmp_path: Path) -> None:
    failed = scrub(service, tmp_path, wakeup_time=0)
    assert failed.returncode == 1
    assert "wakeup_time" in failed.stderr


def test_a_daemon_works_until_it_is_told_to_stop(service: Service, tmp_path: Path) -> None:
    first = deleted_image(service)
    process = subprocess.Popen(command(service, tmp_path, "-D", wakeup_time=1), cwd=ROOT)
    try:
        _wait_until_gone(service, first)
        second = deleted_image(service)
        _wait_until_gone(service, second)
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
    finally:
        process.kill()
        process.wait()


def _wait_until_gone(service: Service, image_id: str) -> None:
    deadline = time.monotonic() + 20
    while record(service, image_id)[0] != "deleted":
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert image_id not in service.stored_files()
