"""Members: images-v1.md section 13, cases 21.9 but for quotas and policies."""

import sqlite3
from contextlib import closing
from typing import Any

import orjson
import pytest

from tests.functional.daemons import Answer, Client, Service, identity
from tests.functional.steps import active_image, create, path, queued_image
from tests.registry import UNKNOWN_ID

ABSENT = [UNKNOWN_ID, "zz"]


@pytest.fixture
def image_id(t1: Client) -> str:
    return active_image(t1)


@pytest.fixture
def public_id(admin: Client) -> Any:
    image_id = create(admin, is_public="true").image["id"]
    yield image_id
    admin.delete(path(image_id))


def members_path(image_id: str, member: str | None = None) -> str:
    return f"{path(image_id)}/members" + (f"/{member}" if member is not None else "")


def share(caller: Client, image_id: str, with_whom: Client | str, **body: Any) -> int:
    """PUT one member; without keywords there is no body."""
    member = with_whom.tenant if isinstance(with_whom, Client) else with_whom
    url = members_path(image_id, member)
    return caller.put_json(url, {"member": body}).status if body else caller.put(url).status


def unshare(caller: Client, image_id: str, with_whom: Client) -> int:
    return caller.delete(members_path(image_id, with_whom.tenant)).status


def replace(caller: Client, image_id: str, *entries: Any) -> Answer:
    """PUT all members; an entry is a member id, or a pair with can_share."""
    memberships = [
        {"member_id": each} if isinstance(each, str) else dict(zip(KEYS, each, strict=True))
        for each in entries
    ]
    return caller.put_json(members_path(image_id), {"memberships": memberships})


KEYS = ("member_id", "can_share")


def listed(caller: Client, image_id: str) -> dict[str, bool]:
    answer = caller.get(members_path(image_id))
    assert answer.status == 200, answer.text
    entries = answer.json["members"]
    assert all(entry.keys() == set(KEYS) for entry in entries)
    members = {entry["member_id"]: entry["can_share"] for entry in entries}
    assert len(members) == len(entries)
    return members


class TestOne:
    def test_a_fresh_image_has_none(self, t1: Client, image_id: str) -> None:
        """V1-IMG-800"""
        answer = t1.get(members_path(image_id))
        assert (answer.status, answer.json) == (200, {"members": []})
        assert answer.headers["content-type"] == "application/json; charset=UTF-8"

    def test_a_bare_put_shares(self, t1: Client, t2: Client, image_id: str) -> None:
        """V1-IMG-801"""
        answer = t1.put(members_path(image_id, t2.tenant))
        assert (answer.status, answer.content) == (204, b"")
        assert listed(t1, image_id) == {t2.tenant: False}

    def test_the_right_to_share_stays_until_it_is_taken(
        self, t1: Client, t2: Client, image_id: str
    ) -> None:
        """V1-IMG-802, V1-IMG-803"""
        assert share(t1, image_id, t2, can_share=True) == 204
        assert share(t1, image_id, t2) == 204
        assert listed(t1, image_id) == {t2.tenant: True}
        assert share(t1, image_id, t2, can_share=False) == 204
        assert listed(t1, image_id) == {t2.tenant: False}

    @pytest.mark.parametrize(
        ("word", "expected"),
        [
            pytest.param("false", False, id="V1-IMG-804"),
            ("no", False),
            ("true", True),
            ("1", True),
        ],
    )
    def test_words_are_booleans(
        self, t1: Client, t2: Client, image_id: str, word: str, expected: bool
    ) -> None:
        """D12"""
        assert share(t1, image_id, t2, can_share=word) == 204
        assert listed(t1, image_id) == {t2.tenant: expected}

    @pytest.mark.parametrize("value", ["perhaps", 1, 0, [], {}])
    def test_anything_else_is_no_boolean(
        self, t1: Client, t2: Client, image_id: str, value: object
    ) -> None:
        """D12"""
        assert share(t1, image_id, t2, can_share=value) == 400
        assert listed(t1, image_id) == {}

    @pytest.mark.parametrize("body", [{"foo": 1}, {"member": [1]}, {"member": {}}, {}])
    def test_a_body_that_says_nothing_changes_nothing(
        self, t1: Client, t2: Client, image_id: str, body: object
    ) -> None:
        """V1-IMG-805"""
        assert share(t1, image_id, t2, can_share=True) == 204
        assert t1.put_json(members_path(image_id, t2.tenant), body).status == 204
        assert listed(t1, image_id) == {t2.tenant: True}

    @pytest.mark.parametrize(
        "body",
        [
            pytest.param(b'{"member": null}', id="V1-IMG-806 null"),
            pytest.param(b'{"member": "can_share"}', id="V1-IMG-806 text"),
            pytest.param(b'["member"]', id="V1-IMG-806 list"),
            pytest.param(b'"x"', id="V1-IMG-807 text"),
            pytest.param(b"{", id="V1-IMG-807 broken"),
            b"5",
            b"\xff",
        ],
    )
    def test_a_malformed_body_is_refused(
        self, t1: Client, t2: Client, image_id: str, body: bytes
    ) -> None:
        """D13"""
        assert t1.put(members_path(image_id, t2.tenant), {}, body).status == 400
        assert listed(t1, image_id) == {}

    @pytest.mark.parametrize("headers", [{}, {"Content-Type": "text/plain"}])
    def test_a_content_type_does_not_matter(
        self, t1: Client, t2: Client, image_id: str, headers: dict[str, str]
    ) -> None:
        """V1-IMG-808"""
        body = b'{"member": {"can_share": true}}'
        assert t1.put(members_path(image_id, t2.tenant), headers, body).status == 204
        assert listed(t1, image_id) == {t2.tenant: True}

    def test_it_ends_once(self, t1: Client, t2: Client, t3: Client, image_id: str) -> None:
        """V1-IMG-818"""
        replace(t1, image_id, t2.tenant, t3.tenant)
        assert unshare(t1, image_id, t3) == 204
        assert unshare(t1, image_id, t3) == 404
        assert listed(t1, image_id) == {t2.tenant: False}
        assert t3.head(path(image_id)).status == 404

    def test_it_can_begin_again_without_its_old_right(
        self, t1: Client, t3: Client, image_id: str
    ) -> None:
        """V1-IMG-819, D11, D16"""
        share(t1, image_id, t3, can_share=True)
        unshare(t1, image_id, t3)
        assert share(t1, image_id, t3) == 204
        assert listed(t1, image_id) == {t3.tenant: False}
        assert t3.head(path(image_id)).status == 200

    def test_the_owner_may_be_one(self, t1: Client, image_id: str) -> None:
        """V1-IMG-829"""
        assert share(t1, image_id, t1) == 204
        assert listed(t1, image_id) == {t1.tenant: False}

    @pytest.mark.parametrize(
        ("sent", "stored"), [("a%20b", "a b"), ("a%2Fb", "a/b"), ("%C3%A9", "é"), ("a+b", "a+b")]
    )
    def test_a_member_is_opaque_text(
        self, t1: Client, image_id: str, sent: str, stored: str
    ) -> None:
        """V1-IMG-830"""
        answer = t1.put(members_path(image_id, sent))
        if "/" in stored:
            # A slash ends the segment, encoded or not, as in Mitaka.
            assert answer.status == 404
        else:
            assert answer.status == 204
            assert listed(t1, image_id) == {stored: False}
            assert t1.delete(members_path(image_id, sent)).status == 204

    @pytest.mark.parametrize(("length", "status"), [(255, 204), (256, 400), (300, 400)])
    def test_a_member_has_at_most_255_characters(
        self, t1: Client, image_id: str, length: int, status: int
    ) -> None:
        """V1-IMG-831"""
        assert share(t1, image_id, "m" * length) == status
        other = queued_image(t1)
        assert replace(t1, other, "m" * length).status == status


class TestWhoSees:
    def test_a_member_reads_the_image_and_his_own_entry(
        self, t1: Client, t2: Client, t3: Client, admin: Client, image_id: str
    ) -> None:
        """V1-IMG-809, V1-IMG-810, V1-IMG-811, V1-IMG-812"""
        replace(t1, image_id, t2.tenant, "another")
        assert t2.head(path(image_id)).status == 200
        assert t2.get(path(image_id)).content == b"data"
        assert listed(t2, image_id) == {t2.tenant: False}
        assert t3.get(members_path(image_id)).status == 404
        assert listed(admin, image_id) == {t2.tenant: False, "another": False}

    def test_of_a_public_image_everybody_sees_his_own(
        self, t1: Client, t3: Client, admin: Client, public_id: str
    ) -> None:
        """V1-IMG-834, V1-IMG-835"""
        assert share(t1, public_id, t3) == 404
        assert unshare(t1, public_id, t3) == 404
        assert replace(t1, public_id, t3.tenant).status == 404
        assert share(admin, public_id, t1) == 204
        assert listed(t1, public_id) == {t1.tenant: False}
        assert listed(t3, public_id) == {}

    def test_a_queued_image_is_shared_too(self, t1: Client, t2: Client) -> None:
        """V1-IMG-837"""
        image_id = queued_image(t1)
        assert share(t1, image_id, t2) == 204
        assert t2.head(path(image_id)).status == 200

    def test_an_acceptance_does_not_matter(
        self, service: Service, t1: Client, t2: Client, image_id: str
    ) -> None:
        """V1-IMG-840: what v2 wrote into a shared database."""
        share(t1, image_id, t2)
        with closing(sqlite3.connect(service.database, timeout=20)) as connection, connection:
            connection.execute(
                "update image_members set status = 'rejected' where image_id = ?", (image_id,)
            )
        assert t2.head(path(image_id)).status == 200
        found = [image["id"] for image in t2.get("/v1/images").json["images"]]
        assert image_id in found


class TestWhoShares:
    def test_a_member_without_the_right_does_not(
        self, t1: Client, t2: Client, t3: Client, image_id: str
    ) -> None:
        """V1-IMG-813"""
        share(t1, image_id, t2)
        answers = [
            t2.put(members_path(image_id, t3.tenant)),
            t2.delete(members_path(image_id, t2.tenant)),
            replace(t2, image_id),
        ]
        for answer in answers:
            assert answer.status == 404
            assert "Forbidden" in answer.text
        assert listed(t1, image_id) == {t2.tenant: False}

    def test_a_member_with_the_right_does(
        self, t1: Client, t2: Client, t3: Client, image_id: str
    ) -> None:
        """V1-IMG-814, V1-IMG-815, V1-IMG-816; D15"""
        share(t1, image_id, t2, can_share=True)
        assert share(t2, image_id, t3) == 204
        assert listed(t1, image_id) == {t2.tenant: True, t3.tenant: False}
        assert share(t2, image_id, t3) == 204
        assert share(t2, image_id, t3, can_share=True) == 204
        assert listed(t1, image_id) == {t2.tenant: True, t3.tenant: False}
        assert unshare(t2, image_id, t3) == 404
        assert listed(t1, image_id) == {t2.tenant: True, t3.tenant: False}

    def test_a_sharer_replaces_what_he_can_see(
        self, t1: Client, t2: Client, t3: Client, t4: Client, image_id: str
    ) -> None:
        """V1-IMG-817, D46"""
        share(t1, image_id, t2, can_share=True)
        share(t1, image_id, t3)
        assert replace(t2, image_id, t4.tenant).status == 204
        assert listed(t1, image_id) == {t3.tenant: False, t4.tenant: False}

    def test_a_sharer_may_leave(self, t1: Client, t2: Client, image_id: str) -> None:
        """D46"""
        share(t1, image_id, t2, can_share=True)
        assert unshare(t2, image_id, t2) == 204
        assert t2.head(path(image_id)).status == 404

    @pytest.mark.parametrize("image_id", ABSENT)
    def test_an_unknown_image(self, t1: Client, t2: Client, image_id: str) -> None:
        """V1-IMG-832"""
        assert share(t1, image_id, t2) == 404
        assert unshare(t1, image_id, t2) == 404
        assert replace(t1, image_id).status == 404
        assert t1.get(members_path(image_id)).status == 404

    def test_a_stranger_finds_nothing(self, t2: Client, t3: Client, image_id: str) -> None:
        """V1-IMG-833"""
        assert share(t3, image_id, t2) == 404
        assert unshare(t3, image_id, t2) == 404
        assert replace(t3, image_id).status == 404

    def test_what_nobody_owns_is_an_admins(self, t1: Client, t2: Client, admin: Client) -> None:
        """V1-IMG-836"""
        image_id = create(admin, owner="").image["id"]
        assert share(t1, image_id, t2) == 404
        assert share(admin, image_id, t2) == 204

    def test_a_caller_without_a_tenant_only_reads(
        self, service: Service, t1: Client, image_id: str, public_id: str
    ) -> None:
        """V1-IMG-838, V1-IMG-839"""
        nobody = service.client(identity(None, "member"))
        for target in (image_id, public_id):
            assert share(nobody, target, t1) == 401
            assert unshare(nobody, target, t1) == 401
            assert replace(nobody, target).status == 401
        assert listed(nobody, public_id) == {}


class TestAll:
    @pytest.fixture
    def shared(self, t1: Client, image_id: str) -> str:
        """Shared with `old`, who may share."""
        assert share(t1, image_id, "old", can_share=True) == 204
        return image_id

    @pytest.mark.parametrize(
        ("entries", "expected"),
        [
            pytest.param(
                ["m4", ("m5", True), "old"],
                {"m4": False, "m5": True, "old": True},
                id="V1-IMG-820",
            ),
            pytest.param([("old", True), ("old", False)], {"old": False}, id="V1-IMG-821"),
            pytest.param([("new", False), ("new", True)], {"new": True}, id="V1-IMG-822"),
            pytest.param([], {}, id="V1-IMG-823"),
            pytest.param([("old", "false")], {"old": False}, id="D12"),
        ],
    )
    def test_the_list_is_what_was_sent(
        self, t1: Client, shared: str, entries: list[Any], expected: dict[str, bool]
    ) -> None:
        """D14: all or nothing."""
        answer = replace(t1, shared, *entries)
        assert (answer.status, answer.content) == (204, b"")
        assert listed(t1, shared) == expected

    def test_a_former_member_comes_back_without_his_right(self, t1: Client, shared: str) -> None:
        """V1-IMG-824, D16"""
        replace(t1, shared)
        assert replace(t1, shared, "old").status == 204
        assert listed(t1, shared) == {"old": False}

    def test_an_object_is_one_entry(self, t1: Client, shared: str) -> None:
        """V1-IMG-825"""
        assert t1.put_json(members_path(shared), {"member_id": "m6"}).status == 204
        assert listed(t1, shared) == {"m6": False}

    @pytest.mark.parametrize(
        "body",
        [
            pytest.param({}, id="V1-IMG-826"),
            pytest.param({"foo": 1}, id="V1-IMG-826 foo"),
            pytest.param([{"member_id": "x"}], id="V1-IMG-827 list"),
            pytest.param({"memberships": None}, id="V1-IMG-827 null"),
            pytest.param(None, id="V1-IMG-827 no body"),
            pytest.param({"memberships": [{"can_share": True}]}, id="V1-IMG-828 no id"),
            pytest.param({"memberships": ["x"]}, id="V1-IMG-828 text"),
            pytest.param({"memberships": {"member_id": "x"}}, id="V1-IMG-828 object"),
            {"memberships": [{"member_id": 5}]},
            {"memberships": [{"member_id": "a", "can_share": "perhaps"}]},
            {"memberships": [{"member_id": "fine"}, {"member_id": ""}]},
        ],
    )
    def test_a_malformed_body_changes_nothing(self, t1: Client, shared: str, body: object) -> None:
        content = None if body is None else orjson.dumps(body)
        assert t1.put(members_path(shared), {}, content).status == 400
        assert listed(t1, shared) == {"old": True}


class TestSharedImages:
    def test_who_sees_what_is_shared_with_a_member(
        self, t1: Client, t2: Client, t3: Client, admin: Client, image_id: str
    ) -> None:
        """V1-IMG-844, V1-IMG-845, V1-IMG-846"""
        share(t1, image_id, t2, can_share=True)
        other = queued_image(t3)
        share(t3, other, t2)
        url = f"/v1/shared-images/{t2.tenant}"

        def shared(caller: Client) -> set[tuple[str, bool]]:
            answer = caller.get(url)
            assert answer.status == 200
            entries = answer.json["shared_images"]
            return {(entry["image_id"], entry["can_share"]) for entry in entries}

        both = {(image_id, True), (other, False)}
        assert shared(t2) == shared(admin) == both
        assert shared(t1) == {(image_id, True)}
        assert shared(t3) == {(other, False)}
        stranger = t1.get("/v1/shared-images/nobody")
        assert (stranger.status, stranger.json) == (200, {"shared_images": []})

    def test_a_stranger_sees_none(self, t1: Client, t2: Client, t3: Client, image_id: str) -> None:
        """V1-IMG-846"""
        share(t1, image_id, t2)
        assert t3.get(f"/v1/shared-images/{t2.tenant}").json == {"shared_images": []}
