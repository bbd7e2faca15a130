"""Options of the API that change what v1 answers, and those that keep it from starting."""

import dataclasses
from collections.abc import Iterator

import pytest

from tests.functional.conftest import audited_service
from tests.functional.daemons import Client, Service, free_port, make_service
from tests.functional.steps import active_image, create, path


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    options = {
        "public_endpoint": "https://img.example.com:9292/x",
        "image_format": {"disk_formats": "foo", "container_formats": "bare,bar"},
        "downloads": {"ranges": False, "conditional": False},
        "decode_header_values": "always",
        "max_request_id_length": 0,
    }
    home = tmp_path_factory.mktemp("options")
    with audited_service(home, api=options, registry={"max_request_id_length": 0}) as running:
        yield running


def test_a_public_endpoint_replaces_the_host(t1: Client) -> None:
    """V1-IMG-015: in version documents only."""
    for path_ in ("/", "/versions"):
        hrefs = [each["links"][0]["href"] for each in t1.get(path_).json["versions"]]
        assert hrefs == ["https://img.example.com:9292/x/v1/"] * 2
    location = t1.post("/v1/images").headers["location"]
    assert location.startswith(f"http://127.0.0.1:{t1.port}/v1/images/")


@pytest.mark.parametrize(
    ("name", "value", "status"),
    [
        pytest.param("disk_format", "foo", 201, id="V1-IMG-144"),
        pytest.param("disk_format", "bar", 400, id="V1-IMG-144 other"),
        ("disk_format", "raw", 400),
        ("disk_format", "ami", 400),
        ("container_format", "bar", 201),
        ("container_format", "ovf", 400),
    ],
)
def test_formats_are_the_operators(t1: Client, name: str, value: str, status: int) -> None:
    assert create(t1, **{name: value}).status == status


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param({"Range": "bytes=0-1"}, id="V1-IMG-402"),
        pytest.param({"Range": "bytes=100-"}, id="V1-IMG-402 outside"),
        pytest.param({"If-None-Match": "*"}, id="V1-IMG-403"),
    ],
)
def test_downloads_can_be_mitakas(t1: Client, headers: dict[str, str]) -> None:
    """Decision 13: each ability has its off switch."""
    image_id = active_image(t1, b"0123456789", disk_format="foo")
    answer = t1.get(path(image_id), headers)
    assert (answer.status, answer.content) == (200, b"0123456789")
    assert "accept-ranges" not in answer.headers


def test_encoded_headers_can_be_decoded_for_everybody(t1: Client) -> None:
    """Decision 11."""
    assert create(t1, name="My%20image").image["name"] == "My image"


def test_a_request_id_may_be_of_any_length(t1: Client) -> None:
    """Section 15."""
    answer = t1.get("/v1/images", {"X-Openstack-Request-ID": "x" * 500})
    assert answer.headers["x-openstack-request-id"] == "req-" + "x" * 500


def test_v1_can_be_switched_off(service: Service, t1: Client) -> None:
    """V1-IMG-014"""
    service.reconfigure({"enable_v1_api": False, "decode_header_values": "never"})
    answer = t1.get("/v1/images")
    assert (answer.status, answer.json) == (300, {"versions": []})


def test_encoded_headers_can_be_left_alone(service: Service, t1: Client) -> None:
    """Decision 11."""
    service.reconfigure({"enable_v1_api": True})
    headers = {"x-image-meta-name": "My%20image", "User-Agent": "python-glanceclient"}
    assert t1.post("/v1/images", headers).image["name"] == "My%20image"


def test_a_malformed_storage_quota_keeps_the_service_down(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """V1-IMG-227, D32"""
    template = make_service(tmp_path_factory.mktemp("quota"))
    daemons = []
    for number, value in enumerate(["1 MB", "1mb", "-1", "abc", ""]):
        conf = {name: dict(template.api.conf[name]) for name in template.api.conf}
        conf["DEFAULT"] |= {"user_storage_quota": value, "bind_port": free_port()}
        del conf["DEFAULT"]["log_file"]
        daemon = dataclasses.replace(template.api, name=f"api{number}", conf=conf)
        daemon.start(wait=False)
        daemons.append(daemon)
    for daemon in daemons:
        assert daemon.process is not None
        assert daemon.process.wait(60) == 1
        assert "user_storage_quota" in daemon.output
        assert "Traceback" not in daemon.output
