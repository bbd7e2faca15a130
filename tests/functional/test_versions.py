"""Versions and routing: images-v1.md sections 1 and 2, cases 21.1."""

import pytest

from tests.functional.daemons import Client, Service

BRIEF_KEYS = ("id", "name", "disk_format", "container_format", "size", "checksum")
MEDIA_TYPE = "application/vnd.openstack.images-"


@pytest.fixture
def stranger(service: Service) -> Client:
    return service.client()


@pytest.fixture
def image_id(t1: Client) -> str:
    """A queued image of t1."""
    created: str = t1.post("/v1/images").image["id"]
    return created


def links(base: str) -> list[dict[str, object]]:
    return [
        {"id": each, "status": "SUPPORTED", "links": [{"rel": "self", "href": f"{base}/v1/"}]}
        for each in ("v1.1", "v1.0")
    ]


@pytest.mark.parametrize(
    ("path", "status"),
    [
        pytest.param("/", 300, id="V1-IMG-001"),
        pytest.param("/versions", 200, id="V1-IMG-002"),
        pytest.param("/versions/", 200, id="V1-IMG-003 slash"),
        pytest.param("/versions/x", 200, id="V1-IMG-003 more"),
    ],
)
def test_the_version_document_needs_no_credentials(
    stranger: Client, path: str, status: int
) -> None:
    """Decision 2: only v1 is listed."""
    answer = stranger.get(path)
    assert answer.status == status
    assert answer.headers["content-type"] == "application/json; charset=UTF-8"
    assert answer.json == {"versions": links(f"http://127.0.0.1:{stranger.port}")}
    assert "x-openstack-request-id" not in answer.headers


@pytest.mark.parametrize("method", ["POST", "DELETE", "HEAD", "PUT"])
def test_the_root_answers_every_method_alike(stranger: Client, method: str) -> None:
    """V1-IMG-004"""
    answer = stranger.request(method, "/")
    assert answer.status == 300
    assert bool(answer.content) == (method != "HEAD")


def test_a_version_without_a_slash_is_sent_on(stranger: Client) -> None:
    """V1-IMG-005"""
    answer = stranger.get("/v1")
    assert answer.status == 302
    assert answer.headers["location"].endswith("/v1/")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        pytest.param("GET", "/v1/", id="V1-IMG-006"),
        pytest.param("POST", "/v1/", id="V1-IMG-007 POST"),
        pytest.param("PUT", "/v1/", id="V1-IMG-007 PUT"),
        pytest.param("DELETE", "/v1/", id="V1-IMG-007 DELETE"),
        pytest.param("GET", "/v1.0/images", id="V1-IMG-008 v1.0"),
        pytest.param("GET", "/v1.1/images", id="V1-IMG-008 v1.1"),
        pytest.param("GET", "//v1//images", id="V1-IMG-010"),
    ],
)
def test_these_are_the_brief_list(t1: Client, image_id: str, method: str, path: str) -> None:
    answer = t1.request(method, path)
    assert answer.status == 200
    assert image_id in [image["id"] for image in answer.json["images"]]
    assert set(answer.json["images"][0]) == set(BRIEF_KEYS)
    assert [image["id"] for image in t1.mine()] == [image_id]


def test_head_of_the_version_root_has_the_headers_only(t1: Client) -> None:
    """Section 2: any method."""
    answer = t1.head("/v1/")
    assert (answer.status, answer.content) == (200, b"")


@pytest.mark.parametrize("path", ["/v1.2/images", "/V1/images", "/v3/images", "/images"])
def test_an_unknown_version_gets_the_choices(t1: Client, path: str) -> None:
    """V1-IMG-009"""
    assert t1.get(path).status == 300


@pytest.mark.parametrize(
    ("path", "version", "status"),
    [
        pytest.param("/images", "v1", 200, id="V1-IMG-011 v1"),
        pytest.param("/images", "v1.1", 200, id="V1-IMG-011 v1.1"),
        pytest.param("/v1/images", "v1", 404, id="V1-IMG-012"),
        pytest.param("/images", "v9", 300, id="V1-IMG-013"),
    ],
)
def test_a_media_type_can_name_the_version(
    t1: Client, path: str, version: str, status: int
) -> None:
    assert t1.get(path, {"Accept": MEDIA_TYPE + version}).status == status


@pytest.mark.parametrize(
    "path",
    [
        "/v1/images/",
        "/v1/images/detail/",
        "/v1/foo",
        "/v1/images.json",
        "/v1/images/detail.xxx",
        "/v1/images/{id}/members.xxx",
        pytest.param("/v1/images/new", id="V1-IMG-017"),
    ],
)
def test_what_is_no_route_is_not_found(t1: Client, image_id: str, path: str) -> None:
    """V1-IMG-016"""
    assert t1.get(path.format(id=image_id)).status == 404


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        pytest.param("PUT", "/images", "GET, POST", id="V1-IMG-018"),
        pytest.param("HEAD", "/images", "GET, POST", id="V1-IMG-019"),
        pytest.param("HEAD", "/images/detail", "GET", id="V1-IMG-020"),
        pytest.param("POST", "/images/detail", "GET, HEAD", id="V1-IMG-021"),
        pytest.param("POST", "/images/{id}", "GET, HEAD, PUT, DELETE", id="V1-IMG-022 POST"),
        pytest.param("PATCH", "/images/{id}", "GET, HEAD, PUT, DELETE", id="V1-IMG-022 PATCH"),
        pytest.param("FOO", "/images/{id}", "GET, HEAD, PUT, DELETE", id="V1-IMG-022 FOO"),
        pytest.param("POST", "/images/{id}/members", "GET, PUT", id="V1-IMG-023 POST"),
        pytest.param("DELETE", "/images/{id}/members", "GET, PUT", id="V1-IMG-023 DELETE"),
        pytest.param("HEAD", "/images/{id}/members", "GET, PUT", id="V1-IMG-023 HEAD"),
        pytest.param("GET", "/images/{id}/members/x", "PUT, DELETE", id="V1-IMG-024"),
        pytest.param("POST", "/images/{id}/members/x", "GET, PUT, DELETE", id="V1-IMG-025 POST"),
        pytest.param("HEAD", "/images/{id}/members/x", "GET, PUT, DELETE", id="V1-IMG-025 HEAD"),
        pytest.param("PATCH", "/images/{id}/members/x", "GET, PUT, DELETE", id="V1-IMG-025 PATCH"),
    ],
)
def test_a_wrong_method_is_told_the_right_ones(
    t1: Client, image_id: str, method: str, path: str, allow: str
) -> None:
    answer = t1.request(method, "/v1" + path.format(id=image_id))
    assert answer.status == 405
    assert answer.headers["allow"] == allow


@pytest.mark.parametrize("method", ["POST", "DELETE", "GET"])
def test_shared_images_answers_every_method(t1: Client, method: str) -> None:
    """V1-IMG-026"""
    answer = t1.request(method, "/v1/shared-images/x")
    assert (answer.status, answer.json) == (200, {"shared_images": []})


def test_options_is_an_empty_success(stranger: Client) -> None:
    """V1-IMG-027"""
    answer = stranger.request("OPTIONS", "/v1/images")
    assert (answer.status, answer.content) == (200, b"")


def test_an_unknown_verb_on_an_unknown_path_is_not_implemented(t1: Client) -> None:
    """V1-IMG-028"""
    assert t1.request("FOO", "/v1/foo").status == 501


@pytest.mark.parametrize("size", [17000, 300_000])
def test_an_over_long_header_line_is_refused(t1: Client, size: int) -> None:
    """V1-IMG-029"""
    assert t1.get("/v1/images", {"X-Long": "x" * size}).status == 400


def test_without_identity_there_is_no_list(stranger: Client) -> None:
    """V1-IMG-030"""
    answer = stranger.get("/v1/images")
    assert answer.status == 401
    assert "x-openstack-request-id" not in answer.headers
