"""Sizes, quotas and counts: images-v1.md section 18 and the cases that need small limits."""

import hashlib
import uuid
from collections.abc import Iterator

import orjson
import pytest

from tests.functional.conftest import audited_service
from tests.functional.daemons import OCTETS, RAW, Answer, Client, Service, chunked
from tests.functional.sources import CONTENT, Sources
from tests.functional.steps import (
    HalfUpload,
    active_image,
    create,
    meta,
    path,
    queued_image,
    status_of,
    upload,
    wait_for_status,
)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    options = {
        "image_size_cap": 1000,
        "user_storage_quota": "2KB",
        "image_property_quota": 10,
        "image_member_quota": 10,
        "copy_from": {"sizing_timeout": 0.3},
    }
    home = tmp_path_factory.mktemp("limits")
    with audited_service(home, api=options, registry={"image_member_quota": 10}) as running:
        yield running


@pytest.fixture(scope="class")
def tiny(service: Service) -> None:
    """Other limits from here on."""
    options = {
        "image_size_cap": 1_000_000,
        "user_storage_quota": "50",
        "image_property_quota": 2,
        "image_member_quota": 1,
    }
    service.reconfigure(api=options, registry={"image_member_quota": 1})


@pytest.fixture(scope="class")
def other(service: Service) -> None:
    options = {"user_storage_quota": "500B", "image_member_quota": 0}
    service.reconfigure(api=options, registry={"image_member_quota": 3})


@pytest.fixture(scope="class")
def unlimited(service: Service) -> None:
    options = {"user_storage_quota": "0", "image_member_quota": -1, "image_property_quota": -1}
    service.reconfigure(api=options, registry={"image_member_quota": -1})


def sent(caller: Client, count: int, as_chunks: bool, **fields: str) -> tuple[Answer, str]:
    """An upload of so many bytes, and its id."""
    image_id = str(uuid.uuid4())
    content = b"x" * count
    body = chunked(content, 100) if as_chunks else content
    return upload(caller, body, id=image_id, **fields), image_id


def share(caller: Client, image_id: str, member: str, **body: object) -> int:
    url = f"{path(image_id)}/members/{member}"
    return caller.put_json(url, {"member": body}).status if body else caller.put(url).status


def members_of(caller: Client, image_id: str) -> list[str]:
    listed = caller.get(f"{path(image_id)}/members").json["members"]
    return [member["member_id"] for member in listed]


class TestCap:
    @pytest.mark.parametrize(
        ("as_chunks", "status"),
        [pytest.param(False, 400, id="V1-IMG-217"), pytest.param(True, 413, id="V1-IMG-218")],
    )
    def test_the_cap_holds(
        self, service: Service, t1: Client, as_chunks: bool, status: int
    ) -> None:
        assert sent(t1, 1000, as_chunks)[0].status == 201
        answer, image_id = sent(t1, 1001, as_chunks)
        assert answer.status == status
        if as_chunks:
            assert status_of(t1, image_id) == "killed"
        else:
            assert t1.head(path(image_id)).status == 404
        assert image_id not in service.stored_files()

    def test_a_small_declared_size_does_not_open_the_cap(self, t1: Client) -> None:
        """V1-IMG-219, D05: the answer comes before the rest has been sent."""
        answer, image_id = sent(t1, 5000, True, size="5")
        assert answer.status in (400, 413)
        assert status_of(t1, image_id) == "killed"

    def test_nothing_past_the_cap_is_waited_for(self, t1: Client) -> None:
        """V1-IMG-219, CVE-2014-5356"""
        headers = {**RAW, **OCTETS, "x-image-meta-size": "5"}
        with HalfUpload(t1, "POST", "/v1/images", headers, 900) as half:
            half.send(b"x" * 6)
            assert half.answer().status == 400

    @pytest.mark.parametrize(("size", "status"), [("1000", 201), ("1001", 400)])
    def test_a_declared_size_is_within_the_cap(self, t1: Client, size: str, status: int) -> None:
        """V1-IMG-124"""
        assert create(t1, size=size).status == status

    def test_a_size_above_the_cap_is_seen_before_it_is_frozen(self, t1: Client) -> None:
        """V1-IMG-631"""
        image_id = active_image(t1)
        assert t1.put(path(image_id), meta(size="1001")).status == 400
        assert t1.put(path(image_id), meta(size="1000")).status == 403

    def test_a_source_is_within_the_cap_too(self, t1: Client, sources: Sources) -> None:
        """D37"""
        for name in ("x-image-meta-location", "x-glance-api-copy-from"):
            answer = t1.post("/v1/images", {**RAW, name: sources.url("/ok")})
            assert answer.status == 400
        untold = {**RAW, "x-glance-api-copy-from": sources.url("/endless")}
        image_id = t1.post("/v1/images", untold).image["id"]
        wait_for_status(t1, image_id, "killed")


class TestStorageQuota:
    def test_the_unit_is_understood(self, service: Service, t1: Client) -> None:
        """V1-IMG-226"""
        for size in (1000, 1000, 48):
            assert sent(t1, size, False)[0].status == 201
        for as_chunks in (False, True):
            answer, image_id = sent(t1, 1, as_chunks)
            assert answer.status == 413
            # D33
            assert "quota" in answer.text
            assert "image_size_cap" not in answer.text
            assert status_of(t1, image_id) == "killed"
            assert image_id not in service.stored_files()


class TestPropertyQuota:
    def test_a_new_image_is_within_it(self, t1: Client) -> None:
        """V1-IMG-154"""
        ten = {f"property-p{number}": "v" for number in range(10)}
        assert len(create(t1, **ten).image["properties"]) == 10
        answer = create(t1, **ten, **{"property-more": "v"})
        assert answer.status == 413
        assert "Attempted: 11, Maximum: 10" in answer.text


class TestMemberQuota:
    def test_a_whole_list_is_within_it(self, t1: Client) -> None:
        """V1-IMG-843"""
        image_id = queued_image(t1)
        url = f"{path(image_id)}/members"
        entries = [{"member_id": f"m{number}"} for number in range(11)]
        assert t1.put_json(url, {"memberships": entries[:10]}).status == 204
        answer = t1.put_json(url, {"memberships": [*entries[1:], {"member_id": "m11"}]})
        assert answer.status == 413
        assert "Attempted: 11, Maximum: 10" in answer.text
        assert members_of(t1, image_id) == [entry["member_id"] for entry in entries[:10]]


@pytest.mark.usefixtures("tiny")
class TestTinyLimits:
    @pytest.mark.parametrize("as_chunks", [False, True])
    def test_storage_is_shared_by_an_owners_images(
        self, service: Service, t1: Client, t2: Client, as_chunks: bool
    ) -> None:
        """V1-IMG-220, V1-IMG-221, V1-IMG-222, V1-IMG-223, V1-IMG-224"""
        _, first = sent(t1, 30, False)
        answer, image_id = sent(t1, 21, as_chunks)
        assert answer.status == 413
        assert status_of(t1, image_id) == "killed"
        assert image_id not in service.stored_files()
        assert sent(t1, 20, as_chunks)[0].status == 201
        assert sent(t2, 50, as_chunks)[0].status == 201
        assert create(t1, size="90").image["status"] == "queued"
        assert t1.delete(path(first)).status == 200
        assert sent(t1, 30, True)[0].status == 201
        assert sent(t1, 1, True)[0].status == 413

    def test_the_caller_is_charged_while_it_lasts(self, t1: Client, admin: Client) -> None:
        """Section 18: the caller's quota, not the image owner's."""
        assert sent(t1, 50, False)[0].status == 201
        assert sent(admin, 50, False, owner=t1.tenant)[0].status == 201

    def test_put_is_held_to_it_too(self, t1: Client) -> None:
        image_id = queued_image(t1)
        assert t1.put(path(image_id), OCTETS, b"x" * 51).status == 413
        assert status_of(t1, image_id) == "killed"

    def test_a_copy_is_held_to_it_too(self, service: Service, t1: Client, sources: Sources) -> None:
        """V1-IMG-337"""
        headers = {**RAW, "x-glance-api-copy-from": sources.url("/ok")}
        image_id = t1.post("/v1/images", headers).image["id"]
        wait_for_status(t1, image_id, "killed")
        assert image_id not in service.stored_files()

    def test_a_location_takes_no_storage(self, t1: Client, sources: Sources) -> None:
        headers = {**RAW, "x-image-meta-location": sources.url("/ok")}
        assert t1.post("/v1/images", headers).image["size"] == len(CONTENT)

    def test_properties_are_counted_after_the_update(self, t1: Client) -> None:
        """V1-IMG-639, V1-IMG-640, V1-IMG-641"""
        keep = {"x-glance-registry-purge-props": "false"}
        image_id = queued_image(t1, **{"property-a": "1", "property-b": "2"})
        answer = t1.put(path(image_id), {**meta(**{"property-c": "3"}), **keep})
        assert answer.status == 413
        assert "Attempted: 3, Maximum: 2" in answer.text
        changed = t1.put(path(image_id), {**meta(**{"property-a": "9"}), **keep})
        assert changed.image["properties"] == {"a": "9", "b": "2"}
        replaced = t1.put(path(image_id), meta(**{"property-c": "3", "property-d": "4"}))
        assert replaced.image["properties"] == {"c": "3", "d": "4"}

    def test_a_member_counts_once(self, t1: Client) -> None:
        """V1-IMG-841, D17"""
        image_id = queued_image(t1)
        assert share(t1, image_id, "m1") == 204
        assert share(t1, image_id, "m1", can_share=True) == 204
        assert share(t1, image_id, "m2") == 413
        assert members_of(t1, image_id) == ["m1"]


@pytest.mark.usefixtures("other")
class TestOtherLimits:
    def test_a_killed_upload_takes_nothing(self, t1: Client) -> None:
        """V1-IMG-225"""
        assert sent(t1, 100, False)[0].status == 201
        assert sent(t1, 501, False)[0].status == 413
        assert sent(t1, 501, True)[0].status == 413
        assert sent(t1, 400, True)[0].status == 201

    def test_a_quota_of_no_members(self, t1: Client) -> None:
        """V1-IMG-842"""
        image_id = queued_image(t1)
        assert share(t1, image_id, "m1") == 413
        empty = t1.put_json(f"{path(image_id)}/members", {"memberships": []})
        assert empty.status == 204


@pytest.mark.usefixtures("unlimited")
class TestNoLimits:
    def test_minus_one_means_no_limit(self, t1: Client) -> None:
        """V1-IMG-842"""
        image_id = queued_image(t1, **{f"property-p{number}": "v" for number in range(150)})
        entries = [{"member_id": f"m{number}"} for number in range(150)]
        url = f"{path(image_id)}/members"
        assert t1.put_json(url, {"memberships": entries}).status == 204
        assert share(t1, image_id, "more") == 204
        assert len(members_of(t1, image_id)) == 151
        content = b"x" * 100_000
        assert upload(t1, content).image["checksum"] == hashlib.md5(content).hexdigest()
        assert orjson.loads(t1.get("/v1/images/detail").content)

    def test_members_unseen_by_a_sharer_count(
        self, service: Service, t1: Client, t2: Client
    ) -> None:
        """D45"""
        service.reconfigure({"image_member_quota": 3}, {"image_member_quota": 3})
        image_id = queued_image(t1)
        assert share(t1, image_id, t2.tenant, can_share=True) == 204
        assert share(t1, image_id, "m1") == 204
        assert share(t2, image_id, "m2") == 204
        assert share(t2, image_id, "m3") == 413
        assert members_of(t1, image_id) == [t2.tenant, "m1", "m2"]
