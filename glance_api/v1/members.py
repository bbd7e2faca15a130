"""Members of images, and the images shared with a member."""

from collections.abc import Mapping
from typing import Any, Final

from common import errors
from common.query import parse_boolean
from common.wsgi.resource import Request
from glance_api.layers.base import MemberRepo

_MAX_MEMBER: Final = 255
_FALSE_WORDS: Final = frozenset({"false", "f", "no", "n", "off", "0", ""})


class MembersController:
    def __init__(self, repo: MemberRepo) -> None:
        self.repo = repo

    def index(self, request: Request, image_id: str) -> dict[str, Any]:
        members = self.repo.list(request.context, image_id)
        return {
            "members": [{"member_id": each.member, "can_share": each.can_share} for each in members]
        }

    def shared_images(self, request: Request, member: str) -> dict[str, Any]:
        members = self.repo.list_shared(request.context, member)
        return {
            "shared_images": [
                {"image_id": each.image_id, "can_share": each.can_share} for each in members
            ]
        }

    def update(self, request: Request, image_id: str, member: str) -> None:
        _check_member(member)
        can_share = _can_share_of(request.read_json())
        self.repo.add(request.context, image_id, member, can_share)

    def update_all(self, request: Request, image_id: str) -> None:
        members = _memberships_of(request.read_json())
        self.repo.replace(request.context, image_id, members)

    def delete(self, request: Request, image_id: str, member: str) -> None:
        self.repo.remove(request.context, image_id, member)


def _can_share_of(body: Any) -> bool | None:
    """What a body says of can_share; None where it says nothing (D12, D13)."""
    if body is None:
        return None
    if not isinstance(body, dict):
        raise errors.Invalid("The body must be an object with a member.")
    if "member" not in body:
        return None
    member = body["member"]
    if isinstance(member, list):
        return None
    if not isinstance(member, dict):
        raise errors.Invalid("Invalid value for member: must be an object.")
    return _boolean(member.get("can_share"))


def _memberships_of(body: Any) -> dict[str, bool | None]:
    """The whole list a body asks for; the last entry of a repeated member wins (D14)."""
    if not isinstance(body, dict):
        raise errors.Invalid("The body must be an object with memberships.")
    entries = body.get("memberships", [body] if "memberships" not in body else None)
    if not isinstance(entries, list):
        raise errors.Invalid("Invalid value for memberships: must be a list.")
    return dict(_membership(entry) for entry in entries)


def _membership(entry: Any) -> tuple[str, bool | None]:
    if not isinstance(entry, Mapping) or not isinstance(entry.get("member_id"), str):
        raise errors.Invalid("Invalid value for memberships: every entry needs a member_id.")
    member: str = entry["member_id"]
    _check_member(member)
    return member, _boolean(entry.get("can_share"))


def _boolean(value: Any) -> bool | None:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str) and (parse_boolean(value) or value.lower() in _FALSE_WORDS):
        return parse_boolean(value)
    raise errors.Invalid("Invalid value for can_share: must be true or false.")


def _check_member(member: str) -> None:
    if not 0 < len(member) <= _MAX_MEMBER or any(character < " " for character in member):
        raise errors.Invalid(f"Invalid value for member: must have 1 to {_MAX_MEMBER} characters.")
