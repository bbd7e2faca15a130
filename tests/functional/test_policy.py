"""Policy rules: the cases of images-v1.md about them. A role `no_<rule>` is denied that rule."""

import uuid
from collections.abc import Iterator

import orjson
import pytest

from tests.functional.conftest import audited_service
from tests.functional.daemons import OCTETS, RAW, Client, Service
from tests.functional.sources import Sources
from tests.functional.steps import active_image, meta, path, queued_image, wait_for_status

LOCATION = "x-image-meta-location"
COPY_FROM = "x-glance-api-copy-from"
ABSENT = str(uuid.uuid4())

RULES = {
    rule: f"not role:no_{rule}"
    for rule in (
        "get_images", "get_image", "add_image", "upload_image", "copy_from",
        "set_image_location", "modify_image", "delete_image", "get_members", "modify_member",
        "delete_member",
    )
} | {
    "context_is_admin": "role:admin",
    "publicize_image": "role:admin",
    "manage_image_cache": "role:admin",
    "default": "!",
    "add_member": "!",
    "get_member": "!",
    "download_image": (
        "not role:no_download_image"
        " and not (role:restricted and 'test_1234':%(x_test_key)s)"
        " and (not role:own_only or tenant:%(owner)s)"
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    home = tmp_path_factory.mktemp("policy")
    options = {"copy_from": {"sizing_timeout": 0.3}}
    with audited_service(home, api=options, policy=RULES) as running:
        yield running


def as_denied(caller: Client, *rules: str) -> Client:
    """The same caller without the right to these rules."""
    roles = ",".join(f"no_{rule}" for rule in rules)
    return Client(caller.port, {**caller.headers, "X-Roles": roles})


class TestReading:
    @pytest.mark.parametrize("url", ["/v1/images", "/v1/images/detail", "/v1/"])
    def test_lists(self, t1: Client, url: str) -> None:
        """V1-IMG-556"""
        assert as_denied(t1, "get_images").get(url).status == 403
        assert as_denied(t1, "get_image").get(url).status == 200

    def test_an_image_whether_it_exists_or_not(self, t1: Client) -> None:
        """V1-IMG-411"""
        image_id = active_image(t1)
        for target in (ABSENT, image_id, "zz"):
            for method in ("HEAD", "GET"):
                answer = as_denied(t1, "get_image").request(method, path(target))
                assert answer.status == 403

    def test_data_whether_it_exists_or_not(self, t1: Client, t2: Client) -> None:
        """V1-IMG-412"""
        denied = as_denied(t1, "download_image")
        image_id = active_image(t1)
        for target in (ABSENT, image_id, queued_image(t1), active_image(t2)):
            assert denied.get(path(target)).status == 403
        assert denied.head(path(image_id)).status == 200
        assert denied.head(path(ABSENT)).status == 404

    @pytest.mark.parametrize("condition", [{"If-None-Match": "*"}, {"Range": "bytes=9-"}])
    def test_data_without_opening_it(self, t1: Client, condition: dict[str, str]) -> None:
        """Decision 13 opens no way around the rule, nor around one about the image."""
        image_id = active_image(t1, **{"property-x_test_key": "test_1234"})
        restricted = Client(t1.port, {**t1.headers, "X-Roles": "restricted"})
        for caller in (as_denied(t1, "download_image"), restricted):
            assert caller.get(path(image_id), condition).status == 403
        assert t1.get(path(image_id), condition).status in (304, 416)

    def test_data_of_images_with_a_property(self, t1: Client) -> None:
        """V1-IMG-413"""
        restricted = Client(t1.port, {**t1.headers, "X-Roles": "restricted"})
        matching = active_image(t1, **{"property-x_test_key": "test_1234"})
        other = active_image(t1, **{"property-x_test_key": "other"})
        assert restricted.get(path(matching)).status == 403
        assert restricted.head(path(matching)).status == 200
        assert restricted.get(path(other)).status == 200
        assert restricted.get(path(active_image(t1))).status == 200
        assert t1.get(path(matching)).status == 200

    def test_data_of_ones_own_images(self, service: Service, t1: Client) -> None:
        """V1-IMG-414"""
        image_id = active_image(t1)
        owner = Client(t1.port, {**t1.headers, "X-Roles": "own_only"})
        assert owner.get(path(image_id)).status == 200
        assert service.caller("adm", "admin", "own_only").get(path(image_id)).status == 403

    def test_a_property_does_not_stand_in_for_a_field(self, service: Service, t2: Client) -> None:
        """Section 7: a core field wins over a property with the same name."""
        spy = Client(t2.port, {**t2.headers, "X-Roles": "own_only"})
        image_id = active_image(service.t1, **{"property-owner": spy.tenant})
        service.t1.put(f"{path(image_id)}/members/{spy.tenant}")
        assert spy.head(path(image_id)).status == 200
        assert spy.get(path(image_id)).status == 403


class TestWriting:
    def test_adding(self, t1: Client) -> None:
        """V1-IMG-155: bad headers come first."""
        denied = as_denied(t1, "add_image")
        assert denied.post("/v1/images").status == 403
        assert denied.post("/v1/images", meta(size="x")).status == 400
        assert t1.mine() == []

    def test_changing(self, t1: Client) -> None:
        """V1-IMG-638"""
        denied = as_denied(t1, "modify_image")
        for target in (ABSENT, queued_image(t1)):
            assert denied.put(path(target), meta(name="x")).status == 403
            assert denied.put(path(target), meta(size="x")).status == 400

    def test_deleting(self, service: Service, t1: Client) -> None:
        """V1-IMG-713"""
        image_id = active_image(t1)
        for target in (ABSENT, image_id):
            assert as_denied(t1, "delete_image").delete(path(target)).status == 403
        assert image_id in service.stored_files()

    def test_bringing_data(self, t1: Client, sources: Sources) -> None:
        """V1-IMG-339"""
        image_id = queued_image(t1)
        data = {**RAW, **OCTETS}
        denied = as_denied(t1, "upload_image")
        assert denied.post("/v1/images", data, b"data").status == 403
        assert denied.put(path(image_id), data, b"data").status == 403
        copy = {**RAW, COPY_FROM: sources.url("/ok")}
        for rule in ("upload_image", "copy_from"):
            denied = as_denied(t1, rule)
            assert denied.post("/v1/images", copy).status == 403
            assert denied.put(path(image_id), copy).status == 403
            assert denied.post("/v1/images", RAW).status == 201
        assert t1.head(path(image_id)).headers["x-image-meta-status"] == "queued"

    @pytest.mark.parametrize("page", ["/ok", None])
    def test_registering_a_location(self, t1: Client, sources: Sources, page: str | None) -> None:
        """V1-IMG-324: before anything is said about the URL."""
        url = sources.url(page) if page else "file:///x"
        denied = as_denied(t1, "set_image_location")
        assert denied.post("/v1/images", {**RAW, LOCATION: url}).status == 403
        assert denied.put(path(queued_image(t1)), {LOCATION: url}).status == 403
        assert denied.post("/v1/images", {**RAW, LOCATION: ""}).status == 403

    def test_copying_takes_no_right_to_locations(self, t1: Client, sources: Sources) -> None:
        """V1-IMG-325"""
        denied = as_denied(t1, "set_image_location")
        headers = {**RAW, COPY_FROM: sources.url("/ok")}
        image_id = denied.post("/v1/images", headers).image["id"]
        assert wait_for_status(t1, image_id, "active", "killed") == "active"

    def test_publishing(self, t1: Client, admin: Client) -> None:
        """V1-IMG-129, V1-IMG-620"""
        assert t1.post("/v1/images", meta(is_public="true")).status == 403
        image_id = admin.post("/v1/images", meta(is_public="true")).image["id"]
        assert admin.put(path(image_id), meta(is_public="true")).status == 200


class TestMembers:
    def test_each_act_has_its_rule(self, t1: Client) -> None:
        """V1-IMG-847"""
        image_id = queued_image(t1)
        members = f"{path(image_id)}/members"
        assert as_denied(t1, "get_members").get(members).status == 403
        no_change = as_denied(t1, "modify_member")
        assert no_change.put(f"{members}/x").status == 403
        assert no_change.put_json(members, {"memberships": []}).status == 403
        assert t1.put(f"{members}/x").status == 204
        assert as_denied(t1, "delete_member").delete(f"{members}/x").status == 403
        assert no_change.delete(f"{members}/x").status == 204

    def test_rules_of_v2_have_no_effect(self, t1: Client, t2: Client) -> None:
        """V1-IMG-848, V1-IMG-916: add_member, get_member and default are `!` here."""
        image_id = active_image(t1)
        assert t1.put(f"{path(image_id)}/members/{t2.tenant}").status == 204
        assert len(t1.get(f"{path(image_id)}/members").json["members"]) == 1
        assert t2.get(path(image_id)).status == 200
        assert t1.put(path(image_id), meta(name="x")).status == 200
        assert t1.get("/v1/images").status == 200
        assert t1.delete(path(image_id)).status == 200


class TestFile:
    def test_a_change_takes_effect_while_the_service_runs(
        self, service: Service, t1: Client
    ) -> None:
        service.set_policy(get_images="!")
        assert t1.get("/v1/images").status == 403
        service.set_policy(get_images="")
        assert t1.get("/v1/images").status == 200

    def test_the_default_rule_stands_in_for_what_is_missing(
        self, service: Service, t1: Client
    ) -> None:
        rules = orjson.loads(service.policy_file.read_bytes())
        missing = {name: rules[name] for name in rules if name != "get_images"}
        service.policy_file.write_bytes(orjson.dumps(missing))
        service.set_policy()
        assert t1.get("/v1/images").status == 403
        service.policy_file.write_bytes(orjson.dumps(rules))
        service.set_policy()
        assert t1.get("/v1/images").status == 200
