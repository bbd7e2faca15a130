"""Stores that fail: the cases of images-v1.md about them, with the store of moody_store.py."""

import uuid
from collections.abc import Iterator

import pytest

from tests.functional.conftest import audited_service
from tests.functional.daemons import Client, Service, chunked
from tests.functional.moody_store import MoodyStore
from tests.functional.steps import active_image, path, status_of, upload


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    stores = f"file,http,{MoodyStore.__module__}.{MoodyStore.__name__}"
    home = tmp_path_factory.mktemp("moody")
    with audited_service(home, api={"glance_store": {"stores": stores}}) as running:
        yield running


def wishing(caller: Client, operation: str, error: str) -> Client:
    """The same caller; the store fails for him."""
    return Client(caller.port, {**caller.headers, "X-Roles": f"moody:{operation}:{error}"})


@pytest.mark.parametrize(
    ("error", "status"),
    [
        pytest.param("full", 413, id="V1-IMG-228 full"),
        pytest.param("denied", 503, id="V1-IMG-228 write denied"),
        pytest.param("disabled", 410, id="V1-IMG-228 add disabled"),
        ("duplicate", 409),
        ("forbidden", 403),
        ("unavailable", 503),
        ("bug", 503),
    ],
)
def test_an_upload_that_fails_kills(t1: Client, error: str, status: int) -> None:
    """Section 9. A killed image has no bytes, so nothing is in doubt."""
    image_id = str(uuid.uuid4())
    answer = upload(wishing(t1, "add", error), b"data", store="moody", id=image_id)
    assert answer.status == status
    assert status_of(t1, image_id) == "killed"
    assert t1.get(path(image_id)).status == 404


@pytest.mark.parametrize(
    ("error", "status"),
    [
        pytest.param("unavailable", 503, id="V1-IMG-417"),
        pytest.param("unreadable", 400, id="V1-IMG-418"),
        ("missing", 404),
        ("bug", 503),
    ],
)
def test_a_download_that_fails_is_answered(t1: Client, error: str, status: int) -> None:
    image_id = active_image(t1, store="moody")
    caller = wishing(t1, "get", error)
    assert caller.get(path(image_id)).status == status
    assert caller.head(path(image_id)).status == 200
    assert t1.get(path(image_id)).content == b"data"


def test_an_empty_image_is_answered_without_its_store(t1: Client) -> None:
    """Section 7, V1-IMG-202."""
    image_id = upload(t1, chunked(b""), store="moody").image["id"]
    answer = wishing(t1, "get", "unavailable").get(path(image_id))
    assert (answer.status, answer.headers["content-length"], answer.content) == (200, "0", b"")


@pytest.mark.parametrize(
    ("error", "status"),
    [
        pytest.param("forbidden", 403, id="V1-IMG-711"),
        pytest.param("inuse", 409, id="V1-IMG-712"),
        ("unavailable", 503),
        ("bug", 503),
    ],
)
@pytest.mark.parametrize("deactivated", [False, True])
def test_a_delete_that_fails_restores(
    service: Service, t1: Client, error: str, status: int, deactivated: bool
) -> None:
    image_id = active_image(t1, store="moody")
    if deactivated:
        service.set_status(image_id, "deactivated")
    assert wishing(t1, "delete", error).delete(path(image_id)).status == status
    assert status_of(t1, image_id) == ("deactivated" if deactivated else "active")
    assert t1.get(path(image_id)).status == (403 if deactivated else 200)
    assert t1.delete(path(image_id)).status == 200


@pytest.mark.parametrize("error", ["missing", "undeletable"])
def test_a_delete_with_nothing_to_do_succeeds(t1: Client, error: str) -> None:
    """Section 12."""
    image_id = active_image(t1, store="moody")
    assert wishing(t1, "delete", error).delete(path(image_id)).status == 200
    assert t1.head(path(image_id)).status == 404
