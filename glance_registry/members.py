"""The members controller (registry-v1.md section 8)."""

import re
from typing import Any, Final

from common import errors
from common.context import RequestContext
from common.wsgi.resource import Request
from glance_registry import bodies
from glance_registry.db import members, visibility
from glance_registry.db.engine import Database

# The API's own image_member_quota, which an operator may have set in its file alone.
_QUOTA: Final = "HTTP_X_GLANCE_MEMBER_QUOTA"
_NUMBER: Final = re.compile(r"-?[0-9]{1,9}")


class MembersController:
    """`quota` is image_member_quota for callers that bring none: the limit is kept here, where
    every member is seen (R05, D45).
    """

    def __init__(self, database: Database, quota: int) -> None:
        self.database = database
        self.quota = quota

    def index(self, request: Request, image_id: str) -> dict[str, Any]:
        ctx = request.context
        found = self.database.read(lambda connection: members.of_image(connection, ctx, image_id))
        return {
            "members": [
                {"member_id": member.member, "can_share": member.can_share} for member in found
            ]
        }

    def shared_images(self, request: Request, member_id: str) -> dict[str, Any]:
        ctx = request.context
        found = self.database.read(lambda connection: members.of_member(connection, ctx, member_id))
        return {
            "shared_images": [
                {"image_id": member.image_id, "can_share": member.can_share} for member in found
            ]
        }

    def update(self, request: Request, image_id: str, member_id: str) -> None:
        ctx = _require_sharer(request)
        can_share = bodies.member_share(request.read_json())
        member = bodies.member_id(member_id)
        quota = self._quota_for(request)
        self.database.write(
            lambda connection: members.put(connection, ctx, image_id, member, can_share, quota)
        )

    def update_all(self, request: Request, image_id: str) -> None:
        ctx = _require_sharer(request)
        wanted = bodies.memberships(request.read_json())
        quota = self._quota_for(request)
        self.database.write(
            lambda connection: members.replace_all(connection, ctx, image_id, wanted, quota)
        )

    def delete(self, request: Request, image_id: str, member_id: str) -> None:
        ctx = _require_sharer(request)
        self.database.write(lambda connection: members.remove(connection, ctx, image_id, member_id))

    def _quota_for(self, request: Request) -> int:
        text: str = request.environ.get(_QUOTA, "")
        return int(text) if _NUMBER.fullmatch(text) else self.quota


def _require_sharer(request: Request) -> RequestContext:
    """Raises Forbidden for a read-only caller, NotAuthenticated for one who can own nothing."""
    ctx = request.context
    visibility.require_writer(ctx)
    if ctx.owner is None and not ctx.is_admin:
        raise errors.NotAuthenticated()
    return ctx
