"""Who may change what, as far as it can be told from the caller and the image alone.

Visibility and ownership are decided by the registry, in the statement that makes the change.
"""

from typing import Final

from common import errors
from common.context import RequestContext
from common.image import (
    ACTIVE,
    DEACTIVATED,
    DELETED,
    PENDING_DELETE,
    QUEUED,
    Change,
    Image,
)
from glance_api.layers.base import Act, ImageLayer, MemberLayer, Plan, Source

_FROZEN_WHEN_ACTIVE: Final = ("size", "checksum")
_ALWAYS_FROZEN: Final = ("status", "id")


def require_writable(ctx: RequestContext) -> None:
    if ctx.read_only:
        raise errors.Forbidden()


class AuthLayer(ImageLayer):
    def permit(self, ctx: RequestContext, plan: Plan) -> None:
        if plan.act in (Act.MODIFY, Act.DELETE):
            require_writable(ctx)
        self.inner.permit(ctx, plan)

    def add(self, ctx: RequestContext, image: Image, source: Source) -> Image:
        require_writable(ctx)
        if not ctx.is_admin:
            image.owner = ctx.owner
        return self.inner.add(ctx, image, source)

    def save(self, ctx: RequestContext, image: Image, change: Change, source: Source) -> Image:
        if image.status == DELETED:
            raise errors.Forbidden("Forbidden to update deleted image.")
        self._check_frozen(ctx, image, change)
        if source.body is not None and image.status != QUEUED:
            raise errors.Conflict(f"Image status is {image.status}: data cannot be uploaded.")
        if not ctx.is_admin:
            change.fields.pop("owner", None)
        return self.inner.save(ctx, image, change, source)

    def remove(self, ctx: RequestContext, image: Image) -> Image:
        if image.protected:
            raise errors.Forbidden("Image is protected. Forbidden to delete image.")
        if image.status == PENDING_DELETE:
            raise errors.Forbidden("Forbidden to delete a pending_delete image.")
        if image.status == DELETED:
            raise errors.NotFound(f"Image {image.id} not found.")
        return self.inner.remove(ctx, image)

    def _check_frozen(self, ctx: RequestContext, image: Image, change: Change) -> None:
        """Size and checksum are settled with the bytes (SEC-006), status and id are the
        service's own (CVE-2015-5251)."""
        if not ctx.is_admin and not change.fields.keys().isdisjoint(_FROZEN_WHEN_ACTIVE):
            if image.status in (ACTIVE, DEACTIVATED):
                _require_unchanged(image, change, _FROZEN_WHEN_ACTIVE)
            else:
                # An upload may be ending just now.
                change.from_state = image.status
        _require_unchanged(image, change, _ALWAYS_FROZEN)
        for name in _ALWAYS_FROZEN:
            change.fields.pop(name, None)


def _require_unchanged(image: Image, change: Change, names: tuple[str, ...]) -> None:
    for name in names:
        if name in change.fields and change.fields[name] != getattr(image, name):
            raise errors.Forbidden(f"Forbidden to modify '{name}' of {image.status} image.")


class AuthMemberLayer(MemberLayer):
    """Changing members needs a caller who can be held to something."""

    def add(self, ctx: RequestContext, image_id: str, member: str, can_share: bool | None) -> None:
        _require_sharer(ctx)
        self.inner.add(ctx, image_id, member, can_share)

    def replace(self, ctx: RequestContext, image_id: str, members: dict[str, bool | None]) -> None:
        _require_sharer(ctx)
        self.inner.replace(ctx, image_id, members)

    def remove(self, ctx: RequestContext, image_id: str, member: str) -> None:
        _require_sharer(ctx)
        self.inner.remove(ctx, image_id, member)


def _require_sharer(ctx: RequestContext) -> None:
    require_writable(ctx)
    if ctx.owner is None and not ctx.is_admin:
        raise errors.NotAuthenticated()
