"""Changing metadata: images-v1.md section 11, cases 21.7 but for quotas and protections."""

import uuid
from collections.abc import Iterator

import pytest

from tests.functional.daemons import RAW, Answer, Client, Service
from tests.functional.steps import (
    active_image,
    create,
    deactivated_image,
    killed_image,
    meta,
    path,
    queued_image,
)
from tests.registry import UNKNOWN_ID

PURGE = "x-glance-registry-purge-props"
MD5 = "8d777f385d3dfec8815d20f7496026dc"  # of b"data"


@pytest.fixture
def image_id(t1: Client) -> str:
    return active_image(t1, b"data", **{"property-a": "1", "property-b": "2"})


@pytest.fixture
def public_id(admin: Client) -> Iterator[str]:
    image_id = active_image(admin, is_public="true")
    yield image_id
    admin.delete(path(image_id))


def put(caller: Client, image_id: str, **fields: str | bytes) -> Answer:
    return caller.put(path(image_id), meta(**fields))


class TestProperties:
    def test_a_bare_put_removes_all(self, t1: Client, image_id: str) -> None:
        """V1-IMG-600"""
        before = t1.head(path(image_id)).headers["x-image-meta-updated_at"]
        image = put(t1, image_id).image
        assert image["properties"] == {}
        assert image["updated_at"] > before

    def test_what_is_not_sent_is_removed(self, t1: Client, image_id: str) -> None:
        """V1-IMG-601"""
        assert put(t1, image_id, **{"property-c": "3"}).image["properties"] == {"c": "3"}

    @pytest.mark.parametrize(
        ("word", "kept"),
        [
            *(
                pytest.param(word, True, id=f"V1-IMG-602 {word}")
                for word in ("false", "no", "0", "junk", "")
            ),
            *(pytest.param(word, False, id=f"V1-IMG-603 {word}") for word in ("true", "True")),
        ],
    )
    def test_a_header_decides(self, t1: Client, image_id: str, word: str, kept: bool) -> None:
        headers = {**meta(**{"property-d": "4"}), PURGE: word}
        properties = t1.put(path(image_id), headers).image["properties"]
        assert properties == ({"a": "1", "b": "2", "d": "4"} if kept else {"d": "4"})

    def test_an_empty_one_is_null(self, t1: Client, image_id: str) -> None:
        """V1-IMG-604"""
        assert put(t1, image_id, **{"property-a": ""}).image["properties"] == {"a": None}

    def test_a_removed_one_can_come_back(self, t1: Client, image_id: str) -> None:
        """V1-IMG-605"""
        put(t1, image_id)
        assert put(t1, image_id, **{"property-a": "new"}).image["properties"] == {"a": "new"}
        assert t1.head(path(image_id)).headers["x-image-meta-property-a"] == "new"


class TestFields:
    @pytest.mark.parametrize(
        ("fields", "shown"),
        [
            pytest.param({"name": "new"}, {"name": "new"}, id="V1-IMG-607"),
            pytest.param({"name": ""}, {"name": None}, id="V1-IMG-607 empty"),
            pytest.param({"disk_format": "qcow2"}, {"disk_format": "qcow2"}, id="V1-IMG-625"),
            pytest.param(
                {"disk_format": "ami"},
                {"disk_format": "ami", "container_format": "ami"},
                id="V1-IMG-626",
            ),
            pytest.param({"created_at": "2012-01-01"}, {}, id="V1-IMG-627"),
            pytest.param({"deleted": "True"}, {"deleted": False}, id="V1-IMG-628"),
            pytest.param({"virtual_size": "77"}, {"virtual_size": 77}, id="V1-IMG-629"),
            pytest.param({"store": "nope"}, {}, id="V1-IMG-630"),
            pytest.param({"min_ram": "9", "min_disk": "8"}, {"min_ram": 9, "min_disk": 8}),
            pytest.param({"protected": "y"}, {"protected": True}),
            pytest.param({"size": "4"}, {"size": 4}, id="V1-IMG-608 same"),
            pytest.param({"checksum": MD5}, {"checksum": MD5}),
            pytest.param({"status": "active"}, {"status": "active"}, id="V1-IMG-613 same"),
            pytest.param({"owner": "zz"}, {}, id="V1-IMG-614"),
            pytest.param({"owner": ""}, {}, id="V1-IMG-614 empty"),
        ],
    )
    def test_a_user_changes_these(
        self, t1: Client, image_id: str, fields: dict[str, str], shown: dict[str, object]
    ) -> None:
        """And nothing else changes with them."""
        before = put(t1, image_id).image
        after = put(t1, image_id, **fields).image
        assert after.pop("updated_at") > before.pop("updated_at")
        assert after == {**before, **shown}
        if after["protected"]:
            put(t1, image_id, protected="no")

    @pytest.mark.parametrize(
        ("fields", "status", "text"),
        [
            pytest.param({"zz": "1"}, 400, "", id="V1-IMG-606"),
            pytest.param(
                {"size": "5"}, 403, "Forbidden to modify 'size' of active image", id="V1-IMG-608"
            ),
            pytest.param(
                {"checksum": "x"},
                403,
                "Forbidden to modify 'checksum' of active image",
                id="V1-IMG-609",
            ),
            pytest.param({"checksum": ""}, 403, "'checksum'", id="V1-IMG-609 empty"),
            pytest.param({"id": UNKNOWN_ID}, 403, "Forbidden to modify 'id'"),
            pytest.param({"status": "queued"}, 403, "'status'", id="V1-IMG-613 other"),
            pytest.param({"status": ""}, 403, "'status'", id="V1-IMG-613 empty"),
            pytest.param({"is_public": "True"}, 403, "", id="V1-IMG-620"),
            pytest.param({"min_ram": "2147483648"}, 400, "", id="V1-IMG-623 ram"),
            pytest.param({"min_disk": "2147483649"}, 400, "", id="V1-IMG-623 disk"),
            pytest.param({"disk_format": "zz"}, 400, "Invalid disk format", id="V1-IMG-624"),
            pytest.param({"created_at": "foo"}, 400, "", id="V1-IMG-627"),
            pytest.param({"name": "x" * 256}, 400, ""),
            pytest.param({"virtual_size": ""}, 400, ""),
            pytest.param({"name": "a\U0001f600"}, 400, ""),
            pytest.param({"property-p": "a\U0001f600"}, 400, ""),
        ],
    )
    def test_a_user_does_not_change_these(
        self, t1: Client, image_id: str, fields: dict[str, str], status: int, text: str
    ) -> None:
        before = t1.head(path(image_id)).headers["x-image-meta-updated_at"]
        answer = put(t1, image_id, **fields)
        assert answer.status == status
        assert text.replace("'", "&#x27;") in answer.text or text in answer.text
        assert t1.head(path(image_id)).headers["x-image-meta-updated_at"] == before

    def test_an_admin_may_change_size_and_checksum(self, admin: Client, image_id: str) -> None:
        """V1-IMG-610"""
        image = put(admin, image_id, size="5", checksum="1234").image
        assert (image["size"], image["checksum"]) == (5, "1234")
        put(admin, image_id, size="4", checksum=MD5)

    @pytest.mark.parametrize(
        ("fields", "status"),
        [({"size": "5"}, 403), ({"size": "4"}, 200), ({"checksum": "x"}, 403), ({}, 200)],
    )
    def test_deactivated_is_as_frozen_as_active(
        self, service: Service, t1: Client, fields: dict[str, str], status: int
    ) -> None:
        """V1-IMG-611"""
        image_id = deactivated_image(service, t1)
        answer = put(t1, image_id, **(fields or {"checksum": MD5}))
        assert answer.status == status
        if status == 403:
            (name,) = fields
            assert f"Forbidden to modify '{name}' of deactivated image" in answer.text

    def test_an_id_never_changes(self, t1: Client, admin: Client, image_id: str) -> None:
        """V1-IMG-612"""
        assert put(t1, image_id, id=image_id).status == 200
        for other in (str(uuid.uuid4()), queued_image(t1)):
            assert put(t1, image_id, id=other).status == 403
            assert put(admin, image_id, id=other).status == 403

    def test_not_even_an_admin_sets_a_status(self, admin: Client, image_id: str) -> None:
        """V1-IMG-613"""
        assert put(admin, image_id, status="active").status == 200
        for status in ("queued", "killed", "deactivated", "Active"):
            assert put(admin, image_id, status=status).status == 403

    @pytest.mark.parametrize("make", [queued_image, killed_image])
    def test_before_activation_a_user_sets_size_and_checksum(
        self, t1: Client, make: object
    ) -> None:
        """Section 11.2, V1-IMG-636"""
        assert callable(make)
        image = put(t1, make(t1), size="99", checksum="c", name="kk").image
        assert (image["size"], image["checksum"], image["name"]) == (99, "c", "kk")

    def test_the_answer_is_the_image(self, t1: Client, image_id: str) -> None:
        """V1-IMG-637"""
        answer = put(t1, image_id, name="x")
        assert answer.headers["content-type"] == "application/json"
        assert answer.headers["etag"] == MD5
        assert answer.json.keys() == {"image"}
        assert len(answer.image) == 18
        assert "location" not in answer.text


class TestOwners:
    def test_an_admin_gives_it_away(self, t1: Client, t2: Client, admin: Client) -> None:
        """V1-IMG-615, V1-IMG-616"""
        image_id = queued_image(t1)
        assert put(admin, image_id, owner=t2.tenant).image["owner"] == t2.tenant
        assert put(t1, image_id, name="x").status == 404
        assert put(t2, image_id, name="x").status == 200
        assert put(admin, image_id, owner="").image["owner"] is None

    def test_what_nobody_owns_is_an_admins(self, t1: Client, admin: Client) -> None:
        """V1-IMG-617, D01"""
        image_id = create(admin, owner="").image["id"]
        assert t1.head(path(image_id)).status == 200
        assert put(t1, image_id, name="x").status == 404
        assert t1.delete(path(image_id)).status == 404
        assert put(admin, image_id, name="x").status == 200

    def test_a_member_only_reads(self, t1: Client, t2: Client, image_id: str) -> None:
        """V1-IMG-618, D01"""
        t1.put_json(f"{path(image_id)}/members/{t2.tenant}", {"member": {"can_share": True}})
        assert t2.get(path(image_id)).status == 200
        assert put(t2, image_id, name="x").status == 404
        assert t2.delete(path(image_id)).status == 404
        assert t1.get(path(image_id)).content == b"data"

    def test_a_public_image_is_not_everybodys(
        self, t2: Client, admin: Client, public_id: str
    ) -> None:
        """V1-IMG-619, V1-IMG-707, SEC-001"""
        assert put(t2, public_id, name="x").status == 403
        assert t2.delete(path(public_id)).status == 403
        got = t2.get(path(public_id))
        assert (got.status, got.content) == (200, b"data")
        assert "x-image-meta-name" not in got.headers

    def test_an_owner_may_hide_but_not_publish(
        self, t1: Client, t2: Client, admin: Client, image_id: str
    ) -> None:
        """V1-IMG-620, V1-IMG-621, V1-IMG-622"""
        assert put(admin, image_id, is_public="true").image["is_public"] is True
        assert put(t1, image_id, is_public="true").status == 403
        image = put(t1, image_id, name="x").image
        assert (image["name"], image["is_public"]) == ("x", True)
        assert t2.head(path(image_id)).status == 200
        assert put(t1, image_id, is_public="False").image["is_public"] is False
        assert t2.head(path(image_id)).status == 404


class TestAbsent:
    @pytest.mark.parametrize("image_id", [UNKNOWN_ID, "zz", "4" * 40])
    def test_an_unknown_image(self, t1: Client, admin: Client, image_id: str) -> None:
        """V1-IMG-632, V1-IMG-633"""
        for caller in (t1, admin):
            assert put(caller, image_id, name="x").status == 404
            assert put(caller, image_id, size="x").status == 400

    def test_a_deleted_image(self, t1: Client, admin: Client, image_id: str) -> None:
        """V1-IMG-634"""
        assert t1.delete(path(image_id)).status == 200
        assert put(t1, image_id, name="x").status == 404
        answer = put(admin, image_id, name="x")
        assert answer.status == 403
        assert "Forbidden to update deleted image" in answer.text

    def test_headers_come_first(self, t1: Client, t2: Client, image_id: str) -> None:
        """Section 11.1: before the image is looked up."""
        assert t2.put(path(image_id), {**RAW, **meta(min_ram="x")}).status == 400
