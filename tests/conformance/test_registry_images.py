"""registry-v1.md sections 2, 3, 5, 6 and 7: images one at a time, by their numbered cases."""

import re
import uuid

import pytest

from glance_registry.db import models
from tests.registry import ADMIN, ANONYMOUS, UNKNOWN_ID, Registry, user

ALL_KEYS = {
    "id", "name", "status", "size", "virtual_size", "disk_format", "container_format",
    "checksum", "min_disk", "min_ram", "is_public", "protected", "owner", "created_at",
    "updated_at", "deleted_at", "deleted", "properties", "location_data", "location",
}  # fmt: skip
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}\Z")
EMOJI = "a\U0001f600"


class TestCreate:
    def test_a_new_image_belongs_to_the_caller_and_shows_every_key(
        self, registry: Registry
    ) -> None:
        """REG-001; DB-019: times have six digits on every engine."""
        image = registry.create(name="a")
        assert image.keys() == ALL_KEYS
        assert image["owner"] == "t1"
        assert image["status"] == "queued"
        assert TIME.match(image["created_at"])
        assert registry.show(image["id"]) == image

    def test_without_a_status_it_is_active(self, registry: Registry) -> None:
        """REG-002"""
        answer = registry.call("POST", "/images", {"image": {"name": "a"}})
        assert answer.json["image"]["status"] == "active"

    def test_a_location_becomes_one_entry(self, registry: Registry) -> None:
        """REG-003"""
        image = registry.create(location="file:///x")
        (entry,) = image["location_data"]
        assert image["location"] == "file:///x"
        assert (entry["url"], entry["metadata"], entry["status"]) == ("file:///x", {}, "active")
        assert isinstance(entry["id"], int)

    def test_location_and_location_data_of_one_url_are_one_entry(self, registry: Registry) -> None:
        """REG-004"""
        data = [{"url": "file:///x", "metadata": {"a": 1}, "status": "active"}]
        image = registry.create(location="file:///x", location_data=data)
        (entry,) = image["location_data"]
        assert entry["metadata"] == {"a": 1}

    def test_several_locations_keep_their_order(self, registry: Registry) -> None:
        """REG-005"""
        data = [{"url": url, "metadata": {}} for url in ("file:///b", "file:///a")]
        image = registry.create(location_data=data)
        assert [entry["url"] for entry in image["location_data"]] == ["file:///b", "file:///a"]
        assert image["location"] == "file:///b"
        assert registry.show(image["id"])["location_data"] == image["location_data"]

    def test_an_unknown_status_is_refused(self, registry: Registry) -> None:
        """REG-006"""
        answer = registry.call("POST", "/images", {"image": {"status": "zz"}})
        assert answer.status_int == 400
        assert "Invalid image status" in answer.text

    @pytest.mark.parametrize("image_id", ["asdf", "urn:uuid:" + UNKNOWN_ID, "{" + UNKNOWN_ID + "}"])
    def test_an_id_that_is_no_uuid_or_too_long_is_refused(
        self, registry: Registry, image_id: str
    ) -> None:
        """REG-007, D08"""
        assert registry.call("POST", "/images", {"image": {"id": image_id}}).status_int == 400

    def test_an_id_is_stored_as_it_was_sent(self, registry: Registry) -> None:
        for image_id in (str(uuid.uuid4()), uuid.uuid4().hex, str(uuid.uuid4()).upper()):
            assert registry.create(id=image_id)["id"] == image_id
            assert registry.show(image_id)["id"] == image_id

    def test_an_id_in_use_is_refused_also_when_deleted_or_foreign(self, registry: Registry) -> None:
        """REG-008"""
        image = registry.create(id=str(uuid.uuid4()))
        body = {"image": {"id": image["id"]}}
        assert registry.call("POST", "/images", body).status_int == 409
        assert registry.call("POST", "/images", body, user("t2")).status_int == 409
        registry.call("DELETE", f"/images/{image['id']}")
        assert registry.call("POST", "/images", body).status_int == 409

    def test_formats_sizes_and_unknown_keys_are_not_checked(self, registry: Registry) -> None:
        """REG-009, REG-010"""
        image = registry.create(disk_format="junk", size=-3, nonsense="x")
        assert (image["disk_format"], image["size"]) == ("junk", -3)
        assert "nonsense" not in image

    def test_only_an_admin_chooses_the_owner(self, registry: Registry) -> None:
        """REG-011"""
        assert registry.create(owner="zz")["owner"] == "t1"
        assert registry.create(ADMIN, owner="zz")["owner"] == "zz"
        assert registry.create(ADMIN, owner="")["owner"] is None
        assert registry.create(ADMIN)["owner"] == "ops"

    def test_publishing_is_the_apis_business(self, registry: Registry) -> None:
        """REG-012"""
        assert registry.create(is_public=True)["is_public"] is True

    @pytest.mark.parametrize(
        "body", [None, {"x": 1}, {"image": None}, {"image": []}, [], b"{", b"\xff", "text", 5]
    )
    @pytest.mark.parametrize("method", ["POST", "PUT"])
    def test_an_unusable_body_is_refused(
        self, registry: Registry, method: str, body: object
    ) -> None:
        """REG-013, REG-014, REG-030, R02"""
        path = "/images" if method == "POST" else f"/images/{registry.create()['id']}"
        assert registry.call(method, path, body).status_int == 400

    @pytest.mark.parametrize(
        "fields",
        [
            {"min_ram": 2147483648},
            {"min_disk": 2147483648},
            {"size": 2**63},
            {"size": "many"},
            {"size": 1.5},
            {"name": EMOJI},
            {"name": "a\r\nX-Evil: 1"},
            {"name": "a\x00"},
            {"name": 5},
            {"name": "x" * 256},
            {"owner": EMOJI},
            {"checksum": "x" * 33},
            {"properties": {EMOJI: "x"}},
            {"properties": {"a": EMOJI}},
            {"properties": {"a\n": "x"}},
            {"properties": {"a": "x\ny"}},
            {"properties": {"x" * 256: "y"}},
            {"properties": {"a": 5}},
            {"properties": {"a": "é" * 40000}},
            {"properties": []},
            {"is_public": "perhaps"},
            {"protected": []},
            {"location": 5},
            {"location": "file:///" + EMOJI},
            {"location_data": {}},
            {"location_data": ["x"]},
            {"location_data": [{"metadata": {}}]},
            {"location_data": [{"url": "file:///x", "metadata": []}]},
            {"location_data": [{"url": "file:///x", "status": "zz"}]},
            {"location_data": [{"url": "file:///x", "id": "x"}]},
        ],
    )
    def test_what_cannot_be_stored_is_refused(
        self, registry: Registry, fields: dict[str, object]
    ) -> None:
        """REG-015, SEC-063, REL-060: on create and on update alike, and nothing changes."""
        image = registry.create()
        assert registry.call("POST", "/images", {"image": fields}).status_int == 400
        assert registry.put(image["id"], image=fields).status_int == 400
        assert registry.show(image["id"]) == image

    def test_an_owner_or_property_name_too_long_is_refused(self, registry: Registry) -> None:
        """DB-020"""
        for field in ({"owner": "x" * 256}, {"properties": {"x" * 256: "y"}}):
            assert registry.call("POST", "/images", {"image": field}, ADMIN).status_int == 400

    def test_minimums_are_stored_or_zero(self, registry: Registry) -> None:
        """REG-016"""
        image = registry.create(min_disk=5, min_ram=256)
        assert (image["min_disk"], image["min_ram"]) == (5, 256)
        image = registry.create(min_disk=None)
        assert (image["min_disk"], image["min_ram"]) == (0, 0)

    def test_properties_keep_case_and_null(self, registry: Registry) -> None:
        """REG-017, REL-061"""
        properties = {"A": "b", "n": None, "Größe": "日本語 ‎שלום", "": "x"}
        image = registry.create(properties=properties)
        assert image["properties"] == properties
        assert registry.show(image["id"])["properties"] == properties

    @pytest.mark.parametrize(
        ("given", "stored"),
        [
            ("False", False),
            ("no", False),
            ("TRUE", True),
            (" on ", True),
            (True, True),
            (None, False),
        ],
    )
    def test_flags_take_booleans_and_boolean_words(
        self, registry: Registry, given: object, stored: bool
    ) -> None:
        """REG-018, R03"""
        image = registry.create(protected=given, is_public=given)
        assert (image["protected"], image["is_public"]) == (stored, stored)

    def test_times_and_the_deleted_flag_are_the_registrys_own(self, registry: Registry) -> None:
        """D09, D10"""
        past = "2001-01-01T00:00:00"
        image = registry.create(created_at=past, updated_at=past, deleted_at=past, deleted=True)
        assert not image["created_at"].startswith("2001")
        assert (image["deleted"], image["deleted_at"]) == (False, None)

    def test_a_second_digest_is_kept_but_not_shown(self, registry: Registry) -> None:
        """Decision 8"""
        image = registry.create(os_hash_algo="sha512", os_hash_value="ab" * 64)
        assert image.keys() == ALL_KEYS
        (row,) = registry.rows(models.images, id=image["id"])
        assert (row.os_hash_algo, row.os_hash_value) == ("sha512", "ab" * 64)


class TestShow:
    def test_own_foreign_and_unknown(self, registry: Registry) -> None:
        """REG-019; SEC-002: a foreign private image answers like one that does not exist."""
        image_id = registry.create()["id"]
        assert registry.call("GET", f"/images/{image_id}").status_int == 200
        foreign = registry.call("GET", f"/images/{image_id}", ctx=user("t2"))
        unknown = registry.call("GET", f"/images/{UNKNOWN_ID}", ctx=user("t2"))
        assert (foreign.status_int, unknown.status_int) == (404, 404)
        assert foreign.text.replace(image_id, UNKNOWN_ID) == unknown.text
        for odd in ("zz", "x" * 500, image_id + "%20", image_id.upper()):
            assert registry.call("GET", f"/images/{odd}").status_int == 404

    def test_a_deleted_image_is_shown_to_admins_only(self, registry: Registry) -> None:
        """REG-020"""
        image_id = registry.create()["id"]
        registry.call("DELETE", f"/images/{image_id}")
        assert registry.call("GET", f"/images/{image_id}").status_int == 404
        assert registry.call("GET", f"/images/{image_id}", ctx=ADMIN).json["image"]["deleted"]

    def test_there_is_no_head(self, registry: Registry) -> None:
        """REG-021"""
        assert registry.call("HEAD", f"/images/{registry.create()['id']}").status_int == 404

    @pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE"])
    def test_the_root_lists_whatever_the_method(self, registry: Registry, method: str) -> None:
        """REG-022"""
        image_id = registry.create()["id"]
        answer = registry.call(method, "/")
        assert answer.status_int == 200
        assert [image["id"] for image in answer.json["images"]] == [image_id]

    @pytest.mark.parametrize(
        "path",
        [
            "/images.xxx",
            "/images/detail.xxx",
            "/images/new",
            "/images/ID/members.xxx",
            "/v1/images",
        ],
    )
    def test_there_are_no_other_paths(self, registry: Registry, path: str) -> None:
        """REG-023"""
        path = path.replace("ID", registry.create()["id"])
        assert registry.call("GET", path).status_int == 404
        assert registry.call("BREW", path + "/x/y/z").status_int == 501

    def test_everybody_may_see_an_ownerless_image_by_id(self, registry: Registry) -> None:
        image_id = registry.create(ADMIN, owner="")["id"]
        assert registry.call("GET", f"/images/{image_id}", ctx=user(None)).status_int == 200
        assert registry.ids() == []

    def test_a_deactivated_image_hides_its_locations_from_users(self, registry: Registry) -> None:
        """REG-062"""
        image_id = registry.create(location="file:///x", status="deactivated")["id"]
        shown = registry.show(image_id, user())
        assert (shown["location"], shown["location_data"]) == (None, [])
        listed = registry.call("GET", "/images/detail").json["images"][0]
        assert (listed["location"], listed["location_data"]) == (None, [])
        updated = registry.put(image_id, image={"name": "b"}).json["image"]
        assert (updated["location"], updated["location_data"]) == (None, [])
        assert registry.show(image_id)["location"] == "file:///x"

    def test_encrypted_locations_come_back_unchanged(self, registry: Registry) -> None:
        """REG-064"""
        secret = "rP3cmfN2qg5VkmoJp-qbHWYt0h44BKA9PlX0R3rnGmM="
        assert registry.show(registry.create(location=secret)["id"])["location"] == secret


class TestUpdate:
    def test_it_renews_updated_at(self, registry: Registry) -> None:
        """REG-024"""
        image = registry.create(name="a")
        answer = registry.put(image["id"], image={"name": "zz"})
        assert answer.status_int == 200
        updated = answer.json["image"]
        assert updated["name"] == "zz"
        assert updated["created_at"] == image["created_at"] != updated["updated_at"]
        assert registry.show(image["id"]) == updated

    def test_a_status_changes_only_from_the_expected_one(self, registry: Registry) -> None:
        """REG-025, REL-058"""
        image_id = registry.create()["id"]
        change = {"image": {"status": "saving", "name": "b"}, "from_state": "queued"}
        assert registry.put(image_id, **change).status_int == 200
        before = registry.show(image_id)
        answer = registry.put(image_id, **change)
        assert answer.status_int == 409
        assert "Image operation conflicts" in answer.text
        assert registry.show(image_id) == before

    def test_without_from_state_any_status_may_be_set(self, registry: Registry) -> None:
        """REG-026"""
        image_id = registry.create()["id"]
        assert registry.put(image_id, image={"status": "killed"}).status_int == 200

    def test_an_unknown_status_is_refused(self, registry: Registry) -> None:
        """REG-027"""
        answer = registry.put(registry.create()["id"], image={"status": "invalid"})
        assert answer.status_int == 400
        assert "Invalid image status" in answer.text

    @pytest.mark.parametrize(
        ("fields", "status"), [({}, 404), ({"is_public": True}, 403), ({"owner": ""}, 404)]
    )
    def test_others_may_not(
        self, registry: Registry, fields: dict[str, object], status: int
    ) -> None:
        """REG-028, D01, SEC-004"""
        image = registry.create(ADMIN, **{"owner": "t1", **fields})
        answer = registry.put(image["id"], user("t2"), image={"name": "zz"})
        assert answer.status_int == status
        assert registry.show(image["id"]) == image

    def test_a_member_may_not(self, registry: Registry) -> None:
        """D01: who may only read a private image is told that there is none to change."""
        image_id = registry.create()["id"]
        registry.call("PUT", f"/images/{image_id}/members/t2")
        assert registry.put(image_id, user("t2"), image={}).status_int == 404
        assert registry.call("DELETE", f"/images/{image_id}", ctx=user("t2")).status_int == 404

    def test_an_unknown_image(self, registry: Registry) -> None:
        """REG-029"""
        assert registry.put(UNKNOWN_ID, image={"name": "zz"}).status_int == 404

    def test_the_id_cannot_change(self, registry: Registry) -> None:
        """REG-031"""
        image = registry.create()
        answer = registry.put(image["id"], ADMIN, image={"id": "x", "name": "zz"})
        assert answer.status_int == 404
        assert registry.show(image["id"]) == image
        assert registry.put(image["id"], image={"id": image["id"]}).status_int == 200

    def test_properties_are_merged_or_purged(self, registry: Registry) -> None:
        """REG-032, REG-033: only the exact word `true` purges."""
        image_id = registry.create(properties={"a": "1"})["id"]

        def put(purge: str, **body: object) -> dict[str, str]:
            path = f"/images/{image_id}"
            answer = registry.call(
                "PUT", path, {"image": body}, X_Glance_Registry_Purge_Props=purge
            )
            assert registry.show(image_id) == answer.json["image"]
            return dict(answer.json["image"]["properties"])

        assert put("false", properties={"b": "2"}) == {"a": "1", "b": "2"}
        assert put("True", properties={"c": "3"}) == {"a": "1", "b": "2", "c": "3"}
        assert put("true", properties={"b": "4"}) == {"b": "4"}
        assert put("false") == {"b": "4"}
        assert put("true") == {}

    def test_a_property_set_again_revives_its_row(self, registry: Registry) -> None:
        """DB-004"""
        image_id = registry.create(properties={"a": "1"})["id"]
        (before,) = registry.rows(models.image_properties, image_id=image_id)
        path = f"/images/{image_id}"
        registry.call("PUT", path, {"image": {}}, X_Glance_Registry_Purge_Props="true")
        (removed,) = registry.rows(models.image_properties, image_id=image_id)
        assert removed.deleted
        registry.put(image_id, image={"properties": {"a": "2"}})
        (after,) = registry.rows(models.image_properties, image_id=image_id)
        assert (after.id, after.deleted, after.deleted_at, after.value) == (
            before.id, False, None, "2"
        )  # fmt: skip

    def test_a_new_location_replaces_the_old_one(self, registry: Registry) -> None:
        """REG-034, DB-008"""
        image_id = registry.create(location="file:///A")["id"]
        image = registry.put(image_id, image={"location": "file:///B"}).json["image"]
        assert [entry["url"] for entry in image["location_data"]] == ["file:///B"]
        rows = registry.rows(models.image_locations, image_id=image_id)
        assert [(row.value, row.status, row.deleted) for row in rows] == [
            ("file:///A", "deleted", True),
            ("file:///B", "active", False),
        ]
        assert rows[0].deleted_at is not None

    def test_a_location_with_an_id_is_changed_in_place(self, registry: Registry) -> None:
        """REG-035"""
        image = registry.create(location="file:///A")
        (entry,) = image["location_data"]
        change = {**entry, "url": "file:///B", "metadata": {"m": 1}}
        registry.put(image["id"], image={"location_data": [change]})
        assert registry.show(image["id"])["location_data"] == [change]

    def test_a_location_of_another_image_cannot_be_changed(self, registry: Registry) -> None:
        (entry,) = registry.create(location="file:///A")["location_data"]
        other = registry.create()["id"]
        answer = registry.put(other, image={"location_data": [{**entry, "url": "file:///C"}]})
        assert answer.status_int == 404
        assert registry.show(other)["location"] is None

    def test_only_an_admin_changes_the_owner(self, registry: Registry) -> None:
        """REG-036"""
        image_id = registry.create()["id"]
        answer = registry.put(image_id, image={"owner": "zz"})
        assert (answer.status_int, answer.json["image"]["owner"]) == (200, "t1")
        assert registry.put(image_id, ADMIN, image={"owner": "zz"}).json["image"]["owner"] == "zz"

    def test_times_and_the_deleted_flag_are_ignored(self, registry: Registry) -> None:
        """REG-037, SEC-064"""
        image = registry.create()
        change = {"created_at": "2001-01-01", "deleted_at": "2001-01-01", "deleted": True}
        updated = registry.put(image["id"], image=change).json["image"]
        assert updated["created_at"] == image["created_at"]
        assert (updated["deleted"], updated["deleted_at"]) == (False, None)

    def test_an_admin_changes_a_deleted_image(self, registry: Registry) -> None:
        """REG-038"""
        image_id = registry.create()["id"]
        registry.call("DELETE", f"/images/{image_id}")
        answer = registry.put(image_id, ADMIN, image={"status": "deleted"})
        assert (answer.status_int, answer.json["image"]["status"]) == (200, "deleted")
        assert registry.put(image_id, image={"name": "x"}).status_int == 404

    @pytest.mark.parametrize("fields", [{"location": None}, {"location_data": []}])
    def test_no_location_is_no_change(self, registry: Registry, fields: dict[str, object]) -> None:
        """REG-063, R06"""
        image = registry.create(location="file:///x")
        answer = registry.put(image["id"], image=fields)
        assert answer.status_int == 200
        assert answer.json["image"]["location_data"] == image["location_data"]


class TestDelete:
    def test_it_marks_the_image_and_keeps_its_status(self, registry: Registry) -> None:
        """REG-039"""
        image_id = registry.create(status="active", location="file:///x", properties={"a": "b"})[
            "id"
        ]
        answer = registry.call("DELETE", f"/images/{image_id}")
        assert answer.status_int == 200
        image = answer.json["image"]
        assert (image["deleted"], image["status"]) == (True, "active")
        assert (image["properties"], image["location_data"]) == ({}, [])
        assert TIME.match(image["deleted_at"])
        assert registry.show(image_id) == image

    def test_everything_goes_at_the_same_time(self, registry: Registry) -> None:
        """DB-006, REL-062"""
        image_id = registry.create(location="file:///x", properties={"a": "b"})["id"]
        registry.call("PUT", f"/images/{image_id}/members/t2")
        with registry.database.migration() as connection:
            (image,) = connection.execute(models.images.select()).all()
            connection.execute(
                models.image_tags.insert(),
                {"image_id": image_id, "value": "t", "created_at": image.created_at,
                 "updated_at": image.created_at, "deleted": False},
            )  # fmt: skip
        registry.call("DELETE", f"/images/{image_id}")
        (image,) = registry.rows(models.images, id=image_id)
        for table in (
            models.image_properties,
            models.image_members,
            models.image_tags,
            models.image_locations,
        ):
            (row,) = registry.rows(table, image_id=image_id)
            assert (row.deleted, row.deleted_at) == (True, image.deleted_at), table.name
        assert registry.rows(models.image_locations)[0].status == "deleted"

    def test_again(self, registry: Registry) -> None:
        """REG-040"""
        path = f"/images/{registry.create()['id']}"
        first = registry.call("DELETE", path).json["image"]["deleted_at"]
        assert registry.call("DELETE", path).status_int == 404
        again = registry.call("DELETE", path, ctx=ADMIN)
        assert again.status_int == 200
        assert again.json["image"]["deleted_at"] > first

    @pytest.mark.parametrize(("is_public", "status"), [(False, 404), (True, 403)])
    def test_others_may_not(self, registry: Registry, is_public: bool, status: int) -> None:
        """REG-041, SEC-001"""
        image = registry.create(is_public=is_public)
        answer = registry.call("DELETE", f"/images/{image['id']}", ctx=user("t2"))
        assert answer.status_int == status
        assert registry.show(image["id"]) == image
        assert registry.call("DELETE", f"/images/{UNKNOWN_ID}").status_int == 404

    def test_protection_is_the_apis_business(self, registry: Registry) -> None:
        image_id = registry.create(protected=True)["id"]
        assert registry.call("DELETE", f"/images/{image_id}").status_int == 200

    def test_a_delayed_delete_keeps_the_location_for_the_scrubber(self, registry: Registry) -> None:
        """DB-007: location first, then the image; the scrubber then finishes both."""
        image = registry.create(status="active", location="file:///x", size=7)
        image_id, (entry,) = image["id"], image["location_data"]
        waiting = {**entry, "status": "pending_delete"}
        registry.put(image_id, image={"status": "pending_delete", "location_data": [waiting]})
        registry.call("DELETE", f"/images/{image_id}")
        (row,) = registry.rows(models.image_locations)
        assert (row.status, row.deleted) == ("pending_delete", True)
        query = "?deleted=True&is_public=none&status=pending_delete"
        (listed,) = registry.call("GET", f"/images/detail{query}", ctx=ADMIN).json["images"]
        assert listed["location_data"] == [waiting]
        assert (listed["deleted"], listed["status"]) == (True, "pending_delete")
        done = {"location_data": [{**entry, "status": "deleted"}]}
        assert registry.put(image_id, ADMIN, image=done).status_int == 200
        answer = registry.put(
            image_id, ADMIN, image={"status": "deleted"}, from_state="pending_delete"
        )
        assert answer.status_int == 200
        (row,) = registry.rows(models.image_locations)
        assert (row.status, row.deleted) == ("deleted", True)


def test_a_read_only_caller_changes_nothing(registry: Registry) -> None:
    """SEC-010: also before the body is looked at for the image."""
    image_id = registry.create(ADMIN, owner="", is_public=True)["id"]
    for method, path, body in (
        ("POST", "/images", {"image": {}}),
        ("PUT", f"/images/{image_id}", {"image": {}}),
        ("DELETE", f"/images/{image_id}", None),
        ("PUT", f"/images/{image_id}/members", {"memberships": []}),
        ("PUT", f"/images/{image_id}/members/x", None),
        ("DELETE", f"/images/{image_id}/members/x", None),
    ):
        assert registry.call(method, path, body, ANONYMOUS).status_int == 403, path
    assert registry.call("GET", f"/images/{image_id}", ctx=ANONYMOUS).status_int == 200
