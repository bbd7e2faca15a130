"""The filters in front of the API: health, identity, CORS, compression, policy files (MW cases)."""

import gzip
import ssl
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from common.wsgi.workers import tls_context
from tests.functional.conftest import audited_service
from tests.functional.daemons import ADMIN, RAW, Client, Service, identity

ORIGIN = "https://ui.example.com"


@pytest.fixture(scope="module")
def filtered(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service with an allowed origin, a file that disables health, the gzip filter, and faith
    in a proxy in front."""
    home = tmp_path_factory.mktemp("filtered")
    paste = Path(__file__).parents[2].joinpath("etc", "glance-api-paste.ini").read_text()
    paste = paste.replace(
        "[filter:healthcheck]", f"[filter:healthcheck]\ndisable_by_file_path = {home}/disabled"
    ).replace("disable_by_file_path = /etc/glance/healthcheck_disable", "")
    lines = [
        line.replace("cors ", "gzip cors ") if line.startswith("pipeline =") else line
        for line in paste.splitlines()
    ]
    if "[filter:gzip]" not in paste:
        lines += ["[filter:gzip]", "paste.filter_factory = common.wsgi.filters:gzip_factory"]
    (home / "paste.ini").write_text("\n".join(lines))
    api = {
        "cors": {"allowed_origin": ORIGIN},
        "paste_deploy": {"config_file": home / "paste.ini"},
        "oslo_middleware": {"enable_proxy_headers_parsing": True},
    }
    with audited_service(home / "service", api=api) as service:
        yield service


def test_health_needs_no_credentials(service: Service) -> None:
    """MW-001, MW-002."""
    anybody = service.client()
    answer = anybody.get("/healthcheck")
    assert (answer.status, answer.text) == (200, "OK")
    assert anybody.head("/healthcheck").status == 204


def test_a_file_disables_health_and_nothing_else(filtered: Service) -> None:
    """MW-003."""
    switch = filtered.home.parent / "disabled"
    switch.touch()
    try:
        answer = filtered.client().get("/healthcheck")
        assert (answer.status, answer.text) == (503, "DISABLED BY FILE")
        assert filtered.t1.get("/v1/images").status == 200
    finally:
        switch.unlink()
    assert filtered.client().get("/healthcheck").status == 200


@pytest.mark.parametrize("status", ["confirmed", "Invalid", ""])
def test_only_the_exact_word_confirms_an_identity(service: Service, status: str) -> None:
    """MW-004."""
    headers = {**identity("t1"), "X-Identity-Status": status}
    assert service.client(headers).get("/v1/images").status == 401


def test_a_confirmed_caller_may_be_nobody_in_particular(service: Service) -> None:
    """MW-005."""
    nobody = service.client({"X-Identity-Status": "Confirmed"})
    assert nobody.get("/v1/images").status == 200
    image = nobody.post("/v1/images", RAW).image
    assert image["owner"] is None
    service.admin.delete(f"/v1/images/{image['id']}")


@pytest.mark.parametrize(
    ("roles", "is_admin"), [("  ADMIN , x", True), ("x,admins", False), ("", False)]
)
def test_roles_are_trimmed_and_compared_without_case(
    service: Service, roles: str, is_admin: bool
) -> None:
    """MW-006: an admin may name the owner of what he creates."""
    caller = service.client({**identity("roles"), "X-Roles": roles})
    image = caller.post("/v1/images", {**RAW, "x-image-meta-owner": "else"}).image
    assert image["owner"] == ("else" if is_admin else "roles")
    service.admin.delete(f"/v1/images/{image['id']}")


def test_the_admin_role_is_the_configured_one_or_the_policys(
    tmp_path: Path,
) -> None:
    """MW-007, MW-008."""
    options = {"admin_role": "cloudadmin"}
    with audited_service(tmp_path, api=options, registry=options) as service:
        for role in ("CloudAdmin", "admin"):
            caller = service.client(identity("boss", role))
            image = caller.post("/v1/images", {**RAW, "x-image-meta-owner": "else"}).image
            assert image["owner"] == "else"
            assert caller.delete(f"/v1/images/{image['id']}").status == 200


@pytest.mark.parametrize(("catalog", "status"), [("{", 400), ("{}", 400), ("[]", 200)])
def test_a_service_catalog_is_a_list_of_json(service: Service, catalog: str, status: int) -> None:
    """MW-009, MW-010."""
    headers = {**identity("t1"), "X-Service-Catalog": catalog}
    assert service.client(headers).get("/v1/images").status == status


def test_the_older_token_header_is_a_token_too(service: Service) -> None:
    """MW-011: it is accepted, and goes no further than the registry."""
    headers = {**identity("t1"), "X-Storage-Token": "old-token"}
    assert service.client(headers).get("/v1/images").status == 200


def test_the_default_pipeline_takes_nobodys_word(tmp_path: Path) -> None:
    """MW-012: forged headers change nothing; whoever calls is an admin without a tenant."""
    with audited_service(tmp_path, flavor="", api={"send_identity_headers": False}) as service:
        image = service.client(identity("forged")).post("/v1/images", RAW).image
        assert image["owner"] is None
        assert service.client().delete(f"/v1/images/{image['id']}").status == 200


def test_options_is_answered_emptily_without_cors(service: Service) -> None:
    """MW-015."""
    answer = service.client().request("OPTIONS", "/v1/images")
    assert (answer.status, answer.content) == (200, b"")
    assert not any(name.startswith("access-control") for name in answer.headers)


def test_a_preflight_of_an_allowed_origin_needs_no_credentials(filtered: Service) -> None:
    """MW-016."""
    asked = {"Origin": ORIGIN, "Access-Control-Request-Method": "GET"}
    answer = filtered.client().request("OPTIONS", "/v1/images", asked)
    assert answer.status == 200
    assert answer.headers["access-control-allow-origin"] == ORIGIN
    assert answer.headers["access-control-allow-methods"] == "GET"


def test_a_foreign_origin_gets_an_ordinary_answer(filtered: Service) -> None:
    """MW-017."""
    answer = filtered.t1.get("/v1/images", {"Origin": "https://evil.example.com"})
    assert answer.status == 200
    assert "access-control-allow-origin" not in answer.headers


@pytest.mark.parametrize(
    ("prefix", "path"), [({}, ""), ({"X-Forwarded-Prefix": "/image"}, "/image")]
)
def test_links_lead_through_the_proxy_that_is_believed(
    filtered: Service, prefix: dict[str, str], path: str
) -> None:
    """Section 4.8: scheme, host and prefix, in every link there is."""
    proxy = {"X-Forwarded-Proto": "https", "X-Forwarded-Host": "images.example.com", **prefix}
    base = f"https://images.example.com{path}"
    versions = filtered.client(proxy).get("/versions").json["versions"]
    assert {version["links"][0]["href"] for version in versions} == {f"{base}/v1/"}
    made = filtered.t1.post("/v1.1/images", {**RAW, **proxy})
    image_id = made.image["id"]
    assert made.headers["location"] == f"{base}/v1/images/{image_id}"
    moved = filtered.client(proxy).get("/v1")
    assert (moved.status, moved.headers["location"]) == (302, f"{base}/v1/")
    assert filtered.t1.delete(f"/v1/images/{image_id}").status == 200


def test_gzip_compresses_lists_and_downloads(filtered: Service) -> None:
    """MW-018, MW-019."""
    content = b"repeated " * 10_000
    octets = {**RAW, "Content-Type": "application/octet-stream"}
    image = filtered.t1.post("/v1/images", octets, content).image
    accept = {"Accept-Encoding": "gzip"}
    listed = filtered.t1.get("/v1/images", accept)
    assert listed.headers["content-encoding"] == "gzip"
    assert image["id"].encode() in gzip.decompress(listed.content)
    answer = filtered.t1.get(f"/v1/images/{image['id']}", accept)
    assert answer.headers["content-encoding"] == "gzip"
    assert answer.headers["x-image-meta-size"] == str(len(content))
    assert gzip.decompress(answer.content) == content
    filtered.t1.delete(f"/v1/images/{image['id']}")


def test_a_changed_policy_file_holds_within_a_second_and_a_broken_one_not_at_all(
    tmp_path: Path,
) -> None:
    """MW-020, MW-021."""
    with audited_service(tmp_path) as service:
        good = service.policy_file.read_bytes()
        service.set_policy(get_images="!")
        assert service.t1.get("/v1/images").status == 403
        service.policy_file.write_text("{bad")
        time.sleep(1)
        assert service.t1.get("/v1/images").status == 403
        service.policy_file.write_bytes(good)
        time.sleep(1)
        assert service.t1.get("/v1/images").status == 200


def test_protection_by_policies_asks_the_named_rule(tmp_path: Path) -> None:
    """MW-028."""
    protections = tmp_path / "protections.conf"
    operations = "".join(f"{each} = keepers\n" for each in ("create", "read", "update", "delete"))
    protections.write_text(f"[^kept_.*]\n{operations}[.*]\n{operations.replace('keepers', '@')}")
    options = {
        "property_protection_file": protections,
        "property_protection_rule_format": "policies",
    }
    policy = {"keepers": "role:keeper"}
    with audited_service(tmp_path / "service", api=options, policy=policy) as service:
        keeper = service.client(identity("kept", "keeper"))
        member = service.client(identity("kept", "member"))
        headers = {**RAW, "x-image-meta-property-kept_a": "1", "x-image-meta-property-free": "1"}
        assert member.post("/v1/images", headers).status == 403
        image = keeper.post("/v1/images", headers).image
        path = f"/v1/images/{image['id']}"
        assert member.put(path, {"x-image-meta-property-kept_a": "2"}).status == 403
        assert "x-image-meta-property-kept_a" not in member.head(path).headers
        assert keeper.put(path, {"x-image-meta-property-kept_a": "2"}).status == 200
        assert keeper.delete(path).status == 200


def test_a_key_that_does_not_belong_to_the_certificate_is_refused(tmp_path: Path) -> None:
    """MW-044."""
    for name in ("one", "two"):
        command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1"]
        command += ["-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.pem"]
        subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    tls_context(str(tmp_path / "one.pem"), str(tmp_path / "one.key"), None)
    with pytest.raises(ssl.SSLError):
        tls_context(str(tmp_path / "one.pem"), str(tmp_path / "two.key"), None)


def test_an_admin_is_an_admin_in_the_tests_of_this_file(service: Service) -> None:
    """What MW-006 relies on: the stock role is `admin`."""
    assert Client(service.api.port, ADMIN).get("/v1/images?is_public=none").status == 200
