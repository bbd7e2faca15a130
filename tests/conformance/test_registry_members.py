"""registry-v1.md section 8: memberships, by their numbered cases."""

from typing import Any

import pytest

from common.context import RequestContext
from glance_registry.db import models
from glance_registry.images import ListSettings
from tests.registry import ADMIN, UNKNOWN_ID, Registry, user

OWNER = user("t1")
SHARER = user("sharer")
MEMBER = user("member")


def members(registry: Registry, image_id: str, ctx: RequestContext = OWNER) -> dict[str, bool]:
    answer = registry.call("GET", f"/images/{image_id}/members", ctx=ctx)
    assert answer.status_int == 200
    return {entry["member_id"]: entry["can_share"] for entry in answer.json["members"]}


def put(
    registry: Registry,
    image_id: str,
    member: str,
    can_share: Any = None,
    ctx: RequestContext = OWNER,
) -> int:
    body = None if can_share is None else {"member": {"can_share": can_share}}
    status: int = registry.call("PUT", f"/images/{image_id}/members/{member}", body, ctx).status_int
    return status


def put_all(registry: Registry, image_id: str, entries: Any, ctx: RequestContext = OWNER) -> int:
    body = {"memberships": entries}
    status: int = registry.call("PUT", f"/images/{image_id}/members", body, ctx).status_int
    return status


def drop(registry: Registry, image_id: str, member: str, ctx: RequestContext = OWNER) -> int:
    status: int = registry.call(
        "DELETE", f"/images/{image_id}/members/{member}", ctx=ctx
    ).status_int
    return status


@pytest.fixture
def image_id(registry: Registry) -> str:
    """A private image of t1 with a sharing and an ordinary member."""
    found: str = registry.create()["id"]
    assert put(registry, found, "sharer", True) == 204
    assert put(registry, found, "member") == 204
    return found


def test_lists_show_what_the_caller_may_see(registry: Registry, image_id: str) -> None:
    """images-v1.md section 13: others see an entry for themselves only."""
    assert members(registry, image_id) == {"sharer": True, "member": False}
    assert members(registry, image_id, ADMIN) == {"sharer": True, "member": False}
    assert members(registry, image_id, SHARER) == {"sharer": True}
    public = registry.create(is_public=True)["id"]
    put(registry, public, "member")
    assert members(registry, public, user("t9")) == {}
    assert members(registry, public, user(None)) == {}


def test_lists_of_images_that_cannot_be_seen(registry: Registry, image_id: str) -> None:
    """REG-049, SEC-002"""
    for path in (UNKNOWN_ID, image_id):
        answer = registry.call("GET", f"/images/{path}/members", ctx=user("t9"))
        assert answer.status_int == 404


def test_members_of_a_deleted_image_are_out_of_reach(registry: Registry, image_id: str) -> None:
    """SEC-011: for admins too."""
    registry.call("DELETE", f"/images/{image_id}")
    assert registry.call("GET", f"/images/{image_id}/members", ctx=ADMIN).status_int == 404
    assert put(registry, image_id, "x", ctx=ADMIN) == 404
    assert drop(registry, image_id, "member", ADMIN) == 404
    assert registry.call("GET", "/shared-images/member", ctx=ADMIN).json["shared_images"] == []


@pytest.mark.parametrize("method", ["POST", "GET"])
def test_methods_that_are_not_allowed(registry: Registry, image_id: str, method: str) -> None:
    """REG-050, REG-051"""
    path = f"/images/{image_id}/members" + ("/x" if method == "GET" else "")
    answer = registry.call(method, path)
    assert answer.status_int == 405
    assert answer.headers["Allow"] == "PUT, DELETE"


def test_the_collection_cannot_be_deleted(registry: Registry, image_id: str) -> None:
    """REG-052"""
    assert registry.call("DELETE", f"/images/{image_id}/members").status_int == 404


def test_who_may_share(registry: Registry, image_id: str) -> None:
    """REG-053, REG-060: everybody else may see it, and is told that it is forbidden."""
    assert put(registry, image_id, "a", ctx=ADMIN) == 204
    assert put(registry, image_id, "b", ctx=OWNER) == 204
    assert put(registry, image_id, "c", ctx=SHARER) == 204
    assert put(registry, image_id, "d", ctx=MEMBER) == 403
    assert put_all(registry, image_id, [], MEMBER) == 403
    assert drop(registry, image_id, "member", MEMBER) == 403
    assert put(registry, image_id, "d", ctx=user("t9")) == 404
    public = registry.create(is_public=True)["id"]
    assert put(registry, public, "d", ctx=user("t9")) == 403
    assert set(members(registry, image_id)) == {"sharer", "member", "a", "b", "c"}


def test_without_an_owner_value_only_admins_change_anything(
    registry: Registry, image_id: str
) -> None:
    """REG-059, REG-060"""
    nobody, admin = user(None), RequestContext(is_admin=True)
    assert put(registry, image_id, "x", ctx=nobody) == 401
    assert put_all(registry, image_id, [], nobody) == 401
    assert drop(registry, image_id, "member", nobody) == 401
    assert put(registry, image_id, "x", ctx=admin) == 204


@pytest.mark.parametrize(
    "body",
    [
        {"x": 1},
        {"member": ["can_share"]},
        {"member": None},
        {"member": "can_share"},
        {"member": {}},
        ["member"],
        {"member": {"can_share": "perhaps"}},
        {"member": {"can_share": []}},
        {"member": {"can_share": None}},
        b"{",
    ],
)
def test_an_unusable_body_for_one_member(registry: Registry, image_id: str, body: Any) -> None:
    """REG-054, D12, D13"""
    answer = registry.call("PUT", f"/images/{image_id}/members/member", body)
    assert answer.status_int == 400
    assert members(registry, image_id) == {"sharer": True, "member": False}


@pytest.mark.parametrize(
    "body",
    [
        None,
        {},
        {"x": 1},
        {"member_id": "x"},
        [],
        {"memberships": None},
        {"memberships": {"member_id": "x"}},
        {"memberships": ["x"]},
        {"memberships": [{"can_share": True}]},
        {"memberships": [{"member_id": 5}]},
        {"memberships": [{"member_id": ""}]},
        {"memberships": [{"member_id": "x" * 256}]},
        {"memberships": [{"member_id": "a\nb"}]},
        {"memberships": [{"member_id": "good"}, {"member_id": "x", "can_share": "perhaps"}]},
    ],
)
def test_an_unusable_list_of_members(registry: Registry, image_id: str, body: Any) -> None:
    """REG-056, D14: and nothing of it is applied. DB-020: over-long member ids."""
    assert registry.call("PUT", f"/images/{image_id}/members", body).status_int == 400
    assert members(registry, image_id) == {"sharer": True, "member": False}


@pytest.mark.parametrize("member", ["x" * 256, "a%0Ab", "%F0%9F%98%80"])
def test_a_member_id_that_cannot_be_stored(registry: Registry, image_id: str, member: str) -> None:
    """DB-020, SEC-063"""
    assert put(registry, image_id, member) == 400


@pytest.mark.parametrize("member", ["Zo%C3%AB", "a%20b", "x" * 255, "t1"])
def test_a_member_id_is_opaque_text(registry: Registry, image_id: str, member: str) -> None:
    """images-v1.md section 13, REL-061: it may be the owner's too."""
    assert put(registry, image_id, member) == 204
    shared = registry.call("GET", f"/shared-images/{member}", ctx=ADMIN).json["shared_images"]
    assert [entry["image_id"] for entry in shared] == [image_id]
    assert drop(registry, image_id, member) == 204


@pytest.mark.parametrize(
    ("word", "given"), [("false", False), ("TRUE", True), ("0", False), (True, True)]
)
def test_can_share_takes_booleans_and_boolean_words(
    registry: Registry, image_id: str, word: Any, given: bool
) -> None:
    """D12: the text "false" grants nothing."""
    assert put(registry, image_id, "x", word) == 204
    assert members(registry, image_id)["x"] is given
    assert put_all(registry, image_id, [{"member_id": "x", "can_share": word}]) == 204
    assert members(registry, image_id) == {"x": given}


def test_an_existing_member_changes_only_if_told(registry: Registry, image_id: str) -> None:
    assert put(registry, image_id, "sharer") == 204
    assert members(registry, image_id)["sharer"] is True
    assert put(registry, image_id, "sharer", False) == 204
    assert members(registry, image_id)["sharer"] is False


def test_removing_a_non_member(registry: Registry, image_id: str) -> None:
    """REG-055"""
    assert drop(registry, image_id, "nobody") == 404
    assert drop(registry, image_id, "member") == 204
    assert drop(registry, image_id, "member") == 404


def test_a_member_added_again_is_the_same_row(registry: Registry, image_id: str) -> None:
    """REG-057, DB-005, D11, REL-059"""
    for _ in range(3):
        assert drop(registry, image_id, "member") == 204
        assert put(registry, image_id, "member") == 204
    (row,) = registry.rows(models.image_members, member="member")
    assert (row.deleted, row.deleted_at, row.status) == (False, None, "pending")
    assert drop(registry, image_id, "member") == 204
    assert put_all(registry, image_id, [{"member_id": "member"}]) == 204
    (row,) = registry.rows(models.image_members, member="member")
    assert not row.deleted


def test_a_revived_membership_does_not_bring_its_right_back(
    registry: Registry, image_id: str
) -> None:
    """REG-058, D16"""
    assert drop(registry, image_id, "sharer") == 204
    assert put_all(registry, image_id, [{"member_id": "sharer"}]) == 204
    assert members(registry, image_id) == {"sharer": False}
    assert put(registry, image_id, "sharer", True) == 204
    assert drop(registry, image_id, "sharer") == 204
    assert put(registry, image_id, "sharer") == 204
    assert members(registry, image_id) == {"sharer": False}
    assert len(registry.rows(models.image_members, member="sharer")) == 1


def test_replacing_all_keeps_drops_and_adds(registry: Registry, image_id: str) -> None:
    entries = [{"member_id": "sharer"}, {"member_id": "new", "can_share": True}]
    assert put_all(registry, image_id, entries) == 204
    assert members(registry, image_id) == {"sharer": True, "new": True}
    assert put_all(registry, image_id, []) == 204
    assert members(registry, image_id) == {}


def test_of_entries_for_one_member_the_last_wins(registry: Registry, image_id: str) -> None:
    """D14"""
    entries = [{"member_id": "x", "can_share": flag} for flag in (True, False, True)]
    assert put_all(registry, image_id, entries) == 204
    assert members(registry, image_id) == {"x": True}


def test_a_sharing_member_adds_who_is_there_already(registry: Registry, image_id: str) -> None:
    """D15: he cannot see the entry; it stays as it is."""
    assert put(registry, image_id, "member", ctx=SHARER) == 204
    assert put(registry, image_id, "member", True, SHARER) == 204
    assert put_all(registry, image_id, [{"member_id": "member", "can_share": True},
                                        {"member_id": "sharer"}], SHARER) == 204  # fmt: skip
    assert members(registry, image_id) == {"sharer": True, "member": False}


def test_a_sharing_member_cannot_remove_others(registry: Registry, image_id: str) -> None:
    assert drop(registry, image_id, "member", SHARER) == 404
    assert put_all(registry, image_id, [{"member_id": "sharer"}], SHARER) == 204
    assert members(registry, image_id) == {"sharer": True, "member": False}


def test_a_sharing_member_removes_himself(registry: Registry, image_id: str) -> None:
    """D46"""
    assert drop(registry, image_id, "sharer", SHARER) == 204
    assert members(registry, image_id) == {"member": False}
    assert put(registry, image_id, "sharer", True) == 204
    assert put_all(registry, image_id, [], SHARER) == 204
    assert members(registry, image_id) == {"member": False}


def test_the_member_quota_counts_all_live_members(registry: Registry, image_id: str) -> None:
    """R05, D17, D45, SEC-011"""
    limited = Registry.over(registry.database, quota=2)
    assert put(limited, image_id, "third") == 413
    assert put(limited, image_id, "third", ctx=SHARER) == 413
    assert put(limited, image_id, "member", True) == 204
    assert put_all(limited, image_id, [{"member_id": str(n)} for n in range(3)]) == 413
    assert put_all(limited, image_id, [{"member_id": "sharer"}, {"member_id": "x"}], SHARER) == 413
    assert members(registry, image_id) == {"sharer": True, "member": True}
    assert put_all(limited, image_id, [{"member_id": str(n)} for n in range(2)]) == 204
    unlimited = Registry.over(registry.database, quota=-1)
    assert put_all(unlimited, image_id, [{"member_id": str(n)} for n in range(200)]) == 204
    assert put(limited, image_id, "0", True) == 204
    none = Registry.over(registry.database, quota=0)
    assert put(none, registry.create()["id"], "x") == 413


def test_shared_images_show_what_the_caller_may_see(registry: Registry, image_id: str) -> None:
    """images-v1.md section 13"""

    def shared(member: str, ctx: RequestContext) -> list[str]:
        answer = registry.call("GET", f"/shared-images/{member}", ctx=ctx)
        assert answer.status_int == 200
        return [entry["image_id"] for entry in answer.json["shared_images"]]

    other = registry.create(user("t2"))["id"]
    assert put(registry, other, "member", ctx=user("t2")) == 204
    assert shared("member", ADMIN) == [image_id, other]
    assert shared("member", MEMBER) == [image_id, other]
    assert shared("member", OWNER) == [image_id]
    assert shared("member", user("t9")) == []
    assert shared("member", user(None)) == []
    assert shared("nobody", ADMIN) == []


def test_a_membership_works_at_once_whatever_its_acceptance(
    registry: Registry, image_id: str
) -> None:
    """registry-v1.md section 4"""
    assert registry.ids(ctx=MEMBER) == [image_id]
    assert registry.call("GET", f"/images/{image_id}", ctx=MEMBER).status_int == 200
    with registry.database.migration() as connection:
        connection.execute(models.image_members.update().values(status="rejected"))
    assert registry.ids(ctx=MEMBER) == [image_id]
    assert drop(registry, image_id, "member") == 204
    assert registry.ids(ctx=MEMBER) == []
    assert registry.call("GET", f"/images/{image_id}", ctx=MEMBER).status_int == 404


def test_lists_may_be_told_to_leave_out_what_was_not_accepted(
    registry: Registry, image_id: str
) -> None:
    """SEC-011: list_unaccepted off; by its id the image is shown either way."""
    strict = Registry.over(registry.database, lists=ListSettings(unaccepted=False))
    assert strict.ids(ctx=MEMBER) == []
    assert strict.ids("?changes-since=2001-01-01", ctx=MEMBER) == []
    assert strict.call("GET", f"/images/{image_id}", ctx=MEMBER).status_int == 200
    assert strict.ids() == [image_id]
    with registry.database.migration() as connection:
        connection.execute(models.image_members.update().values(status="accepted"))
    assert strict.ids(ctx=MEMBER) == [image_id]
    assert strict.ids("?changes-since=2001-01-01", ctx=MEMBER) == [image_id]
