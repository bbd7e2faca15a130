"""Who is asking, and what is said to them: images-v1.md sections 14 to 16, cases 21.10."""

import re
import time
import uuid
from collections.abc import Iterator

import pytest

from tests.functional.conftest import audited_service
from tests.functional.daemons import ADMIN, OCTETS, RAW, Client, Service, identity
from tests.functional.steps import active_image, create, meta, path, queued_image
from tests.registry import UNKNOWN_ID

ABSENT = path(UNKNOWN_ID)
REQUEST_ID = "x-openstack-request-id"


class TestRequestId:
    @pytest.mark.parametrize(
        ("given", "answered"),
        [
            ("req-abc", "req-abc"),
            ("abc", "req-abc"),
            ("req-" + "x" * 60, "req-" + "x" * 60),
        ],
    )
    def test_a_callers_id_is_echoed(self, t1: Client, given: str, answered: str) -> None:
        """V1-IMG-910"""
        answer = t1.get("/v1/images", {"X-Openstack-Request-ID": given})
        assert (answer.status, answer.headers[REQUEST_ID]) == (200, answered)

    def test_a_long_id_is_refused(self, t1: Client) -> None:
        """V1-IMG-910, D26"""
        assert t1.get("/v1/images", {"X-Openstack-Request-ID": "x" * 65}).status == 431

    @pytest.mark.parametrize(
        ("method", "url", "headers", "status"),
        [
            ("GET", "/v1/images", {}, 200),
            ("GET", ABSENT, {}, 404),
            ("POST", "/v1/images/detail", {}, 405),
            ("POST", "/v1/images", meta(size="x"), 400),
            ("HEAD", ABSENT, {}, 404),
            ("FOO", "/v1/foo", {}, 501),
        ],
    )
    def test_every_answer_has_one(
        self, t1: Client, method: str, url: str, headers: dict[str, str], status: int
    ) -> None:
        """V1-IMG-911"""
        answer = t1.request(method, url, headers)
        assert answer.status == status
        assert re.fullmatch(r"req-[0-9a-f-]{36}", answer.headers[REQUEST_ID])

    def test_it_goes_on_to_the_registry(self, service: Service, t1: Client) -> None:
        """Section 15, REL-092"""
        marker = f"req-{uuid.uuid4()}"
        t1.get("/v1/images", {"X-Openstack-Request-ID": marker})
        time.sleep(0.2)
        assert marker in service.registry.log
        assert marker in service.api.log


class TestErrors:
    @pytest.mark.parametrize(
        ("accept", "kind"),
        [
            pytest.param("text/html", "text/html", id="V1-IMG-914"),
            pytest.param("*/*", "text/html", id="V1-IMG-914 any"),
            pytest.param("", "text/plain", id="V1-IMG-915"),
            pytest.param("application/json", "application/json", id="V1-IMG-915 JSON"),
            pytest.param("application/json, */*", "text/html"),
            pytest.param("image/png", "text/plain"),
        ],
    )
    def test_their_form_is_the_callers(self, t1: Client, accept: str, kind: str) -> None:
        answer = t1.get(ABSENT, {"Accept": accept} if accept else {})
        assert answer.status == 404
        assert answer.headers["content-type"].partition(";")[0] == kind
        assert f"Image {ABSENT.rpartition('/')[2]} not found." in answer.text
        if kind == "text/html":
            assert answer.text.lstrip().startswith("<html>")
        elif kind == "application/json":
            assert answer.json["error"]["code"] == 404
        else:
            assert answer.text.startswith("404 Not Found")

    def test_what_was_sent_is_no_markup(self, t1: Client) -> None:
        """SEC-038"""
        headers = {**meta(disk_format="<script>x</script>"), "Accept": "text/html"}
        answer = t1.post("/v1/images", headers)
        assert answer.status == 400
        assert "<script>" not in answer.text

    def test_head_has_no_body(self, t1: Client) -> None:
        answer = t1.head(ABSENT, {"Accept": "text/html"})
        assert (answer.status, answer.content) == (404, b"")


class TestCallers:
    def test_without_a_tenant_an_image_has_no_owner(self, service: Service) -> None:
        """V1-IMG-909"""
        nobody = service.client(identity(None, "member"))
        image = create(nobody).image
        assert image["owner"] is None
        assert service.admin.delete(path(image["id"])).status == 200

    def test_a_role_in_any_case_makes_an_admin(self, service: Service, t1: Client) -> None:
        image_id = queued_image(t1)
        for role in ("admin", "Admin", " ADMIN"):
            assert service.caller("x", "member", role).head(path(image_id)).status == 200
        assert service.caller("x", "administrator").head(path(image_id)).status == 404

    @pytest.mark.parametrize("status", ["Invalid", "confirmed", ""])
    def test_only_a_confirmed_identity_counts(self, service: Service, status: str) -> None:
        """V1-IMG-030"""
        caller = service.client({**ADMIN, "X-Identity-Status": status})
        assert caller.get("/v1/images").status == 401


class TestAnonymous:
    """allow_anonymous_access, and with it owner_is_tenant = false."""

    @pytest.fixture(scope="class")
    @classmethod
    def service(cls, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
        options = {"allow_anonymous_access": True, "owner_is_tenant": False}
        home = tmp_path_factory.mktemp("anonymous")
        with audited_service(home, api=options, registry=options) as running:
            yield running

    @pytest.fixture(scope="class")
    @classmethod
    def images(cls, service: Service) -> tuple[str, str]:
        """A public image and a private one that is shared with somebody."""
        admin, user = service.client(ADMIN), service.client(identity("t1", user="u1"))
        public = active_image(admin, name="public", is_public="true")
        private = active_image(user, name="private")
        assert user.put(f"{path(private)}/members/u2").status == 204
        return public, private

    @pytest.fixture
    def anybody(self, service: Service) -> Client:
        return service.client()

    def test_the_list_is_of_public_images(self, anybody: Client, images: tuple[str, str]) -> None:
        """V1-IMG-900, D18"""
        for query in ("", "?is_public=none", "?changes-since=2020-01-01", "?name=private"):
            names = anybody.get(f"/v1/images{query}").names
            assert names == ([] if "private" in query else ["public"])
            assert anybody.get(f"/v1/images/detail{query}").names == names

    def test_only_what_is_public_can_be_read(
        self, anybody: Client, images: tuple[str, str]
    ) -> None:
        """V1-IMG-901"""
        public, private = images
        assert anybody.head(path(public)).status == 200
        assert anybody.get(path(public)).content == b"data"
        assert anybody.head(path(private)).status == 404
        assert anybody.get(path(private)).status == 404

    def test_nothing_can_be_changed(self, anybody: Client, images: tuple[str, str]) -> None:
        """V1-IMG-902, V1-IMG-903"""
        for image_id in images:
            members = f"{path(image_id)}/members"
            assert anybody.put(path(image_id), meta(name="x")).status == 403
            assert anybody.delete(path(image_id)).status == 403
            assert anybody.put(f"{members}/x").status == 403
            assert anybody.delete(f"{members}/x").status == 403
            assert anybody.put_json(members, {"memberships": []}).status == 403
        assert anybody.post("/v1/images").status == 403
        assert anybody.post("/v1/images", {**RAW, **OCTETS}, b"data").status == 403
        assert anybody.post("/v1/images", meta(size="x")).status == 400

    def test_nothing_shared_is_shown(self, anybody: Client, images: tuple[str, str]) -> None:
        """V1-IMG-904"""
        assert anybody.get(f"{path(images[0])}/members").json == {"members": []}
        assert anybody.get("/v1/shared-images/u2").json == {"shared_images": []}

    def test_an_owner_can_be_a_user(self, service: Service, images: tuple[str, str]) -> None:
        """V1-IMG-908"""
        one, other = (service.client(identity("t1", user=user)) for user in ("one", "other"))
        image = create(one).image
        assert image["owner"] == "one"
        assert other.head(path(image["id"])).status == 404
        assert one.head(path(image["id"])).status == 200
        assert service.client(identity("t1", user="u2")).head(path(images[1])).status == 200


class TestNoAuthentication:
    """The default pipeline: everybody is an admin without roles."""

    @pytest.fixture(scope="class")
    @classmethod
    def service(cls, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
        home = tmp_path_factory.mktemp("noauth")
        with audited_service(home, flavor="") as running:
            yield running

    def test_images_have_no_owner(self, service: Service) -> None:
        """V1-IMG-905, V1-IMG-906"""
        caller = service.client()
        image_id = active_image(caller, name="mine")
        assert "x-image-meta-owner" not in caller.head(path(image_id)).headers
        assert caller.get("/v1/images").names == []
        assert caller.get("/v1/images?is_public=None").names == ["mine"]
        assert caller.get(path(image_id)).content == b"data"
        assert create(caller, owner="somebody").image["owner"] == "somebody"
        assert caller.delete(path(image_id)).status == 200

    def test_publishing_asks_for_a_role(self, service: Service) -> None:
        """V1-IMG-907"""
        assert create(service.client(), is_public="True").status == 403
        assert create(service.client(ADMIN), is_public="True").status == 403


class TestRegistryTrouble:
    @pytest.fixture(scope="class")
    @classmethod
    def service(cls, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
        home = tmp_path_factory.mktemp("registry")
        with audited_service(home) as running:
            yield running

    @pytest.fixture(scope="class")
    @classmethod
    def image_id(cls, service: Service) -> str:
        return active_image(service.t1)

    def requests(self, caller: Client, image_id: str) -> Iterator[int]:
        members = f"{path(image_id)}/members"
        for url in ("/v1/images", "/v1/images/detail", "/v1/", path(image_id), members):
            yield caller.get(url).status
        yield caller.get("/v1/shared-images/x").status
        yield caller.head(path(image_id)).status
        yield caller.put(path(image_id)).status
        yield caller.delete(path(image_id)).status
        yield caller.put(f"{members}/x").status
        yield caller.delete(f"{members}/x").status
        yield caller.put_json(members, {"memberships": []}).status
        yield caller.post("/v1/images").status
        yield caller.post("/v1/images", {**RAW, **OCTETS}, b"data").status

    def test_its_refusal_is_passed_on(self, service: Service, image_id: str) -> None:
        """V1-IMG-913, D25"""
        service.reconfigure({"send_identity_headers": False})
        assert set(self.requests(service.t1, image_id)) == {401}
        service.reconfigure({"send_identity_headers": True})
        assert service.t1.get(path(image_id)).content == b"data"

    def test_its_absence_is_a_503(self, service: Service, image_id: str) -> None:
        """V1-IMG-912, D25"""
        service.registry.stop()
        assert set(self.requests(service.t1, image_id)) == {503}
        assert service.t1.get("/v1/images").headers["retry-after"] == "5"
        service.registry.start()
        assert service.t1.get(path(image_id)).content == b"data"
        assert image_id in service.stored_files()
