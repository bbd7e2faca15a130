"""Both daemons with flavor keystone, against a real Keystone with two tenants and an admin."""

import itertools
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.functional.audit import audit
from tests.functional.daemons import (
    OCTETS,
    RAW,
    ROOT,
    Client,
    Service,
    running_service,
)
from tests.functional.steps import (
    HalfUpload,
    active_image,
    path,
    queued_image,
    status_of,
    wait_for_status,
    wait_until,
)
from tests.integration.keystone_service import CACHE_SECONDS, WAYS, caller, options, running
from tests.servers.keystone import Keystone


@pytest.fixture(scope="module")
def service(keystone: Keystone, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with running(tmp_path_factory.mktemp("keystone"), keystone, "the caller's token") as service:
        yield service
        audit(service)


@pytest.fixture(scope="module", params=list(WAYS))
def any_service(
    request: pytest.FixtureRequest, keystone: Keystone, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Service]:
    with running(tmp_path_factory.mktemp("keystone"), keystone, request.param) as service:
        yield service
        audit(service)


@dataclass(frozen=True)
class People:
    """Two users of two tenants, an administrator, and somebody without a token."""

    service: Service
    keystone: Keystone

    def __getattr__(self, name: str) -> Client:
        return caller(self.service, self.keystone.token(name))


@pytest.fixture
def alice(service: Service, keystone: Keystone) -> Client:
    return caller(service, keystone.token("alice"))


@pytest.fixture
def bob(service: Service, keystone: Keystone) -> Client:
    return caller(service, keystone.token("bob"))


class TestAnyWayToTheRegistry:
    def test_two_tenants_and_an_admin_have_what_is_theirs(
        self, keystone: Keystone, any_service: Service
    ) -> None:
        """SEC-019: whoever speaks to the registry, it is the caller's rights that count."""
        people = People(any_service, keystone)
        alice, bob, admin = people.alice, people.bob, people.admin
        image_id = active_image(alice, b"alice's bytes", name="hers")
        assert alice.head(path(image_id)).headers["x-image-meta-owner"] == (
            keystone.users["alice"].project_id
        )
        assert alice.get(path(image_id)).content == b"alice's bytes"
        assert alice.get("/v1/images").names == ["hers"]

        assert bob.get("/v1/images?is_public=none").names == []
        for method in ("GET", "HEAD", "DELETE", "PUT"):
            assert bob.request(method, path(image_id)).status == 404
        assert any_service.client().get("/v1/images").status == 401

        assert admin.get("/v1/images/detail?is_public=none").names == ["hers"]
        assert alice.put(path(image_id), {"x-image-meta-is_public": "true"}).status == 403
        assert admin.put(path(image_id), {"x-image-meta-is_public": "true"}).status == 200
        assert bob.get(path(image_id)).content == b"alice's bytes"
        assert bob.delete(path(image_id)).status == 403
        assert admin.put(path(image_id), {"x-image-meta-is_public": "false"}).status == 200

        member = keystone.users["bob"].project_id
        assert alice.put(f"{path(image_id)}/members/{member}").status == 204
        assert bob.get(path(image_id)).content == b"alice's bytes"
        shared = bob.get(f"/v1/shared-images/{member}").json["shared_images"]
        assert [each["image_id"] for each in shared] == [image_id]
        assert bob.put(path(image_id), {"x-image-meta-name": "his"}).status == 404
        assert alice.delete(path(image_id)).status == 200

    def test_an_abandoned_upload_is_cleared_up(
        self, keystone: Keystone, any_service: Service
    ) -> None:
        """REL-009: the API killed in mid-upload; what it left is found with its own identity."""
        alice = People(any_service, keystone).alice
        image_id = queued_image(alice)
        with HalfUpload.to(alice, image_id, 100_000, b"x" * 50_000):
            any_service.api.kill()
        any_service.api.start()
        assert wait_for_status(alice, image_id, "killed") == "killed"
        wait_until(lambda: not any_service.stored_files())
        assert alice.delete(path(image_id)).status == 200


FORGED = {
    "Identity-Status": "Confirmed",
    "Roles": "admin",
    "Role": "admin",
    "User-Id": "somebody",
    "Tenant-Id": "sometenant",
    "Project-Id": "sometenant",
    "Tenant": "sometenant",
    "User": "somebody",
    "Is-Admin-Project": "True",
    "Service-Identity-Status": "Confirmed",
    "Service-Roles": "admin",
}


def spellings(name: str) -> set[str]:
    """`X-Name` with dashes and underscores in every mixture, in three cases."""
    words = f"X-{name}".split("-")
    joints = itertools.product("-_", repeat=len(words) - 1)
    names = {"".join(map(str.__add__, words, [*joint, ""])) for joint in joints}
    return {each for name in names for each in (name, name.lower(), name.upper())}


FORGERIES = [
    pytest.param({f"X-{name}": value for name, value in FORGED.items()}, id="dashes"),
    pytest.param(
        {f"X_{name}".replace("-", "_"): value for name, value in FORGED.items()}, id="underscores"
    ),
    pytest.param(
        {f"HTTP_X_{name}".replace("-", "_").upper(): value for name, value in FORGED.items()},
        id="WSGI names",
    ),
    pytest.param(
        {each: value for name, value in FORGED.items() for each in spellings(name)},
        id="all at once",
    ),
]


@pytest.mark.parametrize("forged", FORGERIES)
class TestForgedHeaders:
    """SEC-017, MW-014: who a caller is, is what Keystone says of the token."""

    def test_without_a_token_nobody_is_anybody(
        self, service: Service, forged: dict[str, str]
    ) -> None:
        for target in ("/images", "/images/detail", "/shared-images/x"):
            assert service.client().get(f"/v1{target}", forged).status == 401
            assert Client(service.registry.port).get(target, forged).status == 401
        assert service.client().post("/v1/images", {**RAW, **forged}).status == 401

    def test_with_a_token_the_rights_are_the_tokens(
        self, service: Service, alice: Client, bob: Client, forged: dict[str, str]
    ) -> None:
        private = queued_image(bob)
        assert alice.get(path(private), forged).status == 404
        assert alice.head(path(private), forged).status == 404
        assert alice.delete(path(private), forged).status == 404
        publish = {**RAW, **forged, "x-image-meta-is_public": "true"}
        assert alice.post("/v1/images", publish).status == 403
        registry = Client(service.registry.port, alice.headers)
        assert registry.get(f"/images/{private}", forged).status == 404
        mine = alice.post("/v1/images", {**RAW, **forged}).image
        assert mine["owner"] not in ("sometenant", "somebody")
        assert alice.delete(path(mine["id"]), forged).status == 200
        assert bob.delete(path(private)).status == 200


def test_a_request_without_a_token_is_refused(service: Service) -> None:
    """MW-013, first half; a token is read from X-Auth-Token and nowhere else."""
    anybody = service.client()
    assert anybody.get("/v1/images").status == 401
    assert anybody.get("/v1/images", {"X_Auth_Token": "x"}).status == 401
    assert anybody.get("/v1/images", {"X-Auth-Token": "no such token"}).status == 401
    for refused in (anybody.get("/v1/images"), Client(service.registry.port).get("/images")):
        assert refused.status == 401
        assert refused.headers["www-authenticate"].startswith("Keystone uri=")
    assert anybody.get("/healthcheck").status == 200


class TestTokens:
    """SEC-020: a token counts for as long as Keystone says so."""

    def test_an_expired_token_is_refused(self, service: Service, keystone: Keystone) -> None:
        expired = {"X-Auth-Token": keystone.expired_token("alice")}
        assert service.client(expired).get("/v1/images").status == 401
        assert Client(service.registry.port, expired).get("/images").status == 401

    def test_a_token_that_expires_is_refused_from_then_on(
        self, service: Service, keystone: Keystone
    ) -> None:
        """Even one whose first use has put it into the cache."""
        short = caller(service, keystone.token("alice", lifetime=2))
        assert short.get("/v1/images").status == 200
        time.sleep(2.1)
        assert short.get("/v1/images").status == 401

    def test_a_revoked_token_is_refused_within_the_caches_time(
        self, service: Service, keystone: Keystone
    ) -> None:
        token = keystone.token("alice")
        revoked = caller(service, token)
        assert revoked.get("/v1/images").status == 200
        keystone.revoke(token)
        time.sleep(CACHE_SECONDS + 0.2)
        assert revoked.get("/v1/images").status == 401
        assert revoked.post("/v1/images", RAW).status == 401


class TestUploadsAndExpiry:
    """REL-021: an upload may outlive its caller's token."""

    @pytest.mark.parametrize("method", ["PUT", "POST"])
    def test_an_upload_that_began_with_a_good_token_is_completed(
        self, service: Service, keystone: Keystone, alice: Client, method: str
    ) -> None:
        """The API vouches for the expired token with that of its own account."""
        short = caller(service, keystone.token("alice", lifetime=2))
        image_id = queued_image(alice) if method == "PUT" else str(uuid.uuid4())
        headers = {**RAW, **OCTETS, "x-image-meta-id": image_id}
        target = path(image_id) if method == "PUT" else "/v1/images"
        with HalfUpload(short, method, target, headers, 4000) as started:
            for _ in range(4):
                started.send(b"x" * 1000)
                time.sleep(0.8)
            assert started.answer().image["status"] == "active"
        assert short.get("/v1/images").status == 401
        assert alice.get(path(image_id)).content == b"x" * 4000
        assert alice.delete(path(image_id)).status == 200

    def test_an_upload_whose_token_was_revoked_leaves_nothing(
        self, service: Service, keystone: Keystone, alice: Client
    ) -> None:
        token = keystone.token("alice")
        image_id = queued_image(alice)
        with HalfUpload.to(caller(service, token), image_id, 2000, b"x" * 1000) as started:
            keystone.revoke(token)
            time.sleep(CACHE_SECONDS + 0.2)
            started.send(b"x" * 1000)
            assert started.answer().status == 401
        assert status_of(alice, image_id) == "killed"
        assert image_id not in service.stored_files()
        assert alice.delete(path(image_id)).status == 200


@pytest.fixture(scope="module")
def fragile(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Keystone, Service]]:
    """A service that lets anonymous callers read, and a Keystone of its own to break."""
    Keystone.require()
    with Keystone() as keystone:
        api = options(keystone, allow_anonymous_access=True)
        api["keystone_authtoken"] |= {"http_connect_timeout": 1, "http_request_max_retries": 0}
        registry = {
            "allow_anonymous_access": True,
            "registry_auth_key": "",
            "keystone_authtoken": api["keystone_authtoken"],
            "paste_deploy": {"config_file": str(_delaying_paste_file(tmp_path_factory))},
        }
        home = tmp_path_factory.mktemp("fragile")
        with running_service(home, flavor="keystone", api=api, registry=registry) as service:
            yield keystone, service
            audit(service)


def _delaying_paste_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The registry's paste file, letting its context filter decide about callers without token."""
    text = (ROOT / "etc" / "glance-registry-paste.ini").read_text()
    section = "[filter:authtoken]\n"
    assert section in text
    changed = tmp_path_factory.mktemp("paste") / "glance-registry-paste.ini"
    changed.write_text(text.replace(section, f"{section}delay_auth_decision = true\n"))
    return changed


class TestWithoutKeystone:
    def test_an_anonymous_caller_only_reads(self, fragile: tuple[Keystone, Service]) -> None:
        """MW-013, second half."""
        keystone, service = fragile
        admin = People(service, keystone).admin
        image_id = active_image(admin, b"public bytes", is_public="true", name="public")
        hidden = active_image(admin, b"private bytes", name="private")
        anybody = service.client()
        assert anybody.get("/v1/images").names == ["public"]
        assert anybody.get(path(image_id)).content == b"public bytes"
        assert anybody.get(path(hidden)).status == 404
        assert anybody.post("/v1/images", RAW).status == 403
        assert anybody.delete(path(image_id)).status == 403
        assert anybody.delete(path(image_id), {"X-Roles": "admin"}).status == 403

    @pytest.mark.parametrize("fault", ["killed", "paused"])
    def test_a_token_that_cannot_be_checked_gives_503_and_no_anonymous_rights(
        self, fragile: tuple[Keystone, Service], fault: str
    ) -> None:
        """SEC-020: fails closed, within a bounded time, and recovers by itself."""
        keystone, service = fragile
        known, unknown = People(service, keystone).alice, People(service, keystone).alice
        assert known.get("/v1/images").status == 200
        time.sleep(CACHE_SECONDS + 0.2)
        with keystone.killed() if fault == "killed" else keystone.paused():
            for client in (known, unknown):
                started = time.monotonic()
                for answer in (client.get("/v1/images"), client.post("/v1/images", RAW)):
                    assert answer.status == 503
                    assert "retry-after" in answer.headers
                assert time.monotonic() - started < 12
            assert service.client().get("/v1/images").status == 200
        assert known.get("/v1/images").status == 200
