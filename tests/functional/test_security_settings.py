"""What operators may ask for, on one service: anonymous reading, policies by role, protected
properties, a second digest, and downloads that are verified."""

import hashlib
import http.client
import sqlite3
from collections.abc import Iterator
from contextlib import closing

import pytest

from tests.conformance.web import Page
from tests.functional.conftest import audited_service
from tests.functional.daemons import OCTETS, RAW, Client, Service, identity
from tests.functional.sources import Sources
from tests.functional.steps import (
    active_image,
    create,
    deactivated_image,
    meta,
    path,
    queued_image,
    status_of,
    wait_for_status,
)
from tests.functional.wire import Wire, head, lines_of

PROTECTIONS = """
[^x_.*]
create = admin
read = admin
update = admin
delete = admin

[.*]
create = @
read = @
update = @
delete = @
"""

POLICY = {
    "download_image": "not role:denied",
    "copy_from": "not role:denied",
    "set_image_location": "role:admin",
}


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    home = tmp_path_factory.mktemp("settings")
    rules = home / "protections.conf"
    rules.write_text(PROTECTIONS)
    options = {
        "allow_anonymous_access": True,
        "property_protection_file": rules,
        "hashing_algorithm": "sha512",
        "verify_on_download": True,
        "image_property_quota": 10,
    }
    registry = {"allow_anonymous_access": True}
    with audited_service(home, api=options, registry=registry, policy=POLICY) as running:
        yield running


@pytest.fixture
def anybody(service: Service) -> Client:
    return service.client()


@pytest.fixture
def denied(t1: Client) -> Client:
    """Somebody of t1's own tenant, whom the policy denies much."""
    return Client(t1.port, identity(t1.tenant, "denied"))


class TestAnonymous:
    """SEC-010."""

    def test_public_images_are_read(self, anybody: Client, admin: Client, t1: Client) -> None:
        public = active_image(admin, b"for all", is_public="true")
        private = active_image(t1, b"for some")
        assert anybody.get(path(public)).content == b"for all"
        assert anybody.get(path(private)).status == 404
        listed = [image["id"] for image in anybody.get("/v1/images?limit=1000").json["images"]]
        assert public in listed
        assert private not in listed

    def test_nothing_is_changed(self, anybody: Client, admin: Client) -> None:
        public = active_image(admin, b"for all", is_public="true")
        waiting = queued_image(admin, is_public="true")
        members = f"{path(public)}/members"
        answers = [
            anybody.post("/v1/images", RAW),
            anybody.post("/v1/images", {**RAW, **OCTETS}, b"data"),
            anybody.put(path(public), meta(name="x")),
            anybody.put(path(waiting), OCTETS, b"data"),
            anybody.delete(path(public)),
            anybody.put(f"{members}/x"),
            anybody.put_json(members, {"memberships": []}),
            anybody.delete(f"{members}/x"),
        ]
        assert {answer.status for answer in answers} == {403}
        assert admin.get(path(public)).content == b"for all"
        assert status_of(admin, waiting) == "queued"

    def test_nothing_else_is_shown(self, anybody: Client, t1: Client) -> None:
        private = active_image(t1)
        assert anybody.get(f"{path(private)}/members").status in (401, 404)
        assert anybody.get(f"/v1/shared-images/{t1.tenant}").json["shared_images"] == []
        for query in ("is_public=none", "deleted=true", "changes-since=2000-01-01"):
            answer = anybody.get(f"/v1/images/detail?limit=1000&{query}")
            assert private not in [image["id"] for image in answer.json["images"]]


class TestPolicies:
    """SEC-013, CVE-2013-4428: one rule on every road to an operation."""

    def test_a_denied_download_is_denied_whole_and_in_part(
        self, t1: Client, denied: Client
    ) -> None:
        image_id = active_image(t1, b"warm")
        assert t1.get(path(image_id)).status == 200
        for headers in ({}, {"Range": "bytes=0-0"}, {"If-None-Match": "x"}):
            answer = denied.get(path(image_id), headers)
            assert answer.status == 403
            assert b"warm" not in answer.content
        assert denied.head(path(image_id)).status == 200

    def test_a_denied_copy_reaches_nobody(
        self, t1: Client, denied: Client, sources: Sources
    ) -> None:
        image_id = queued_image(t1)
        before = len(sources.requests)
        copy = {**RAW, "x-glance-api-copy-from": sources.url("/ok")}
        assert denied.post("/v1/images", copy).status == 403
        assert denied.put(path(image_id), copy).status == 403
        assert len(sources.requests) == before
        assert t1.put(path(image_id), copy).status == 200
        wait_for_status(t1, image_id, "active")

    def test_locations_are_the_admins_as_the_sample_has_it(
        self, t1: Client, admin: Client, sources: Sources
    ) -> None:
        """SEC-008; decision 7."""
        before = len(sources.requests)
        place = {**RAW, "x-image-meta-location": sources.url("/ok")}
        assert t1.post("/v1/images", place).status == 403
        assert t1.put(path(queued_image(t1)), place).status == 403
        assert len(sources.requests) == before
        assert admin.post("/v1/images", place).status == 201


class TestProtectedProperties:
    """SEC-015: the first rule that matches decides, everywhere."""

    @pytest.fixture
    def image_id(self, t1: Client, admin: Client) -> str:
        image_id = queued_image(t1, **{"property-open": "1"})
        keep = {"x-glance-registry-purge-props": "false"}
        headers = {**meta(**{"property-x_a": "secret"}), **keep}
        assert admin.put(path(image_id), headers).status == 200
        return image_id

    def test_it_is_not_made_by_others(self, t1: Client, image_id: str) -> None:
        assert create(t1, **{"property-x_a": "1"}).status == 403
        for name in ("property-x_a", "property-X_A", "property-x-a"):
            assert t1.put(path(image_id), meta(**{name: "mine"})).status == 403
            assert t1.put(path(image_id), meta(**{name: "secret"})).status == 403

    def test_it_is_not_shown_to_others(self, t1: Client, admin: Client, image_id: str) -> None:
        shown = [
            t1.head(path(image_id)).headers,
            *t1.get(f"/v1/images/detail?name={image_id}").json["images"],
            *t1.mine(),
            t1.put(path(image_id), meta(name="n")).image,
        ]
        assert "secret" not in str(shown)
        assert t1.get("/v1/images/detail?property-x_a=secret").json["images"] == []
        assert admin.head(path(image_id)).headers["x-image-meta-property-x_a"] == "secret"

    def test_a_purge_keeps_it(self, t1: Client, admin: Client, image_id: str) -> None:
        assert t1.put(path(image_id), meta(**{"property-new": "1"})).status == 200
        found = admin.head(path(image_id)).headers
        assert found["x-image-meta-property-x_a"] == "secret"
        assert "x-image-meta-property-open" not in found


class TestVerifiedContent:
    def test_bytes_that_have_changed_do_not_pass_for_whole(
        self, service: Service, t1: Client
    ) -> None:
        """SEC-008: with verify_on_download (decision 8)."""
        content = bytes(range(256)) * 8192
        image_id = active_image(t1, content)
        file = service.store / image_id
        with open(file, "r+b") as stored:
            stored.seek(1000)
            stored.write(b"?")
        try:
            with Wire(service.api.port) as wire:
                wire.send(head(path(image_id), *lines_of(t1.headers)))
                served = wire.rest()
            with pytest.raises(http.client.IncompleteRead):
                t1.get(path(image_id))
        finally:
            file.write_bytes(content)
        announced, _, body = served.partition(b"\r\n\r\n")
        assert f"Content-Length: {len(content)}".lower() in announced.decode().lower()
        assert len(body) < len(content)
        assert f"image {image_id}: the stored bytes have changed" in service.api.log
        assert t1.get(path(image_id)).content == content

    def test_a_location_that_has_changed_is_not_served(
        self, admin: Client, sources: Sources
    ) -> None:
        """SEC-008, CVE-2022-4134."""
        page = sources.pages["/changing"] = Page(b"as registered")
        place = {**RAW, "x-image-meta-location": sources.url("/changing")}
        image_id = admin.post("/v1/images", place).image["id"]
        assert admin.get(path(image_id)).content == b"as registered"
        page.content = b"something else, and longer"
        assert admin.get(path(image_id)).status == 503

    def test_a_stronger_digest_is_kept_beside_md5(self, service: Service, t1: Client) -> None:
        """SEC-048, CVE-2015-8234; decision 8."""
        content = b"x" * 300_000
        image_id = active_image(t1, content)
        with closing(sqlite3.connect(f"file:{service.database}?mode=ro", uri=True)) as database:
            (kept,) = database.execute(
                "select os_hash_algo, os_hash_value, checksum from images where id = ?",
                (image_id,),
            )
        assert kept == (
            "sha512",
            hashlib.sha512(content).hexdigest(),
            hashlib.md5(content).hexdigest(),
        )


def test_a_deactivated_image_is_nobodys_to_read(
    service: Service, t1: Client, admin: Client, anybody: Client
) -> None:
    """SEC-014 without the cache: and it stays so for parts and for callers who have it."""
    image_id = deactivated_image(service, t1, b"harmful")
    for caller in (t1, admin):
        for headers in ({}, {"Range": "bytes=0-1"}, {"If-None-Match": '"x"'}):
            answer = caller.get(path(image_id), headers)
            assert answer.status == 403
            assert b"harmful" not in answer.content
    assert anybody.get(path(image_id)).status == 404


def test_who_is_over_a_limit_can_still_go_down(t1: Client, service: Service) -> None:
    """SEC-075."""
    many = {f"property-p{number}": "v" for number in range(10)}
    image_id = queued_image(t1, **many)
    assert create(t1, **many, **{"property-more": "v"}).status == 413
    service.reconfigure(api={"image_property_quota": 3})
    fewer = dict(list(many.items())[:7])
    assert t1.put(path(image_id), meta(**fewer)).status == 200
    assert t1.put(path(image_id), meta(**fewer, **{"property-q": "v"})).status == 413
    assert t1.delete(path(image_id)).status == 200
