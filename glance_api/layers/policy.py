"""One policy rule per operation (middleware-and-config.md section 5)."""

from collections.abc import Sequence
from typing import Any, Protocol

from common.body import Body
from common.context import RequestContext
from common.documents import image_fields
from common.image import Change, Image, Member
from common.query import ListQuery
from glance_api.layers.base import (
    Act,
    ImageLayer,
    ImageRepo,
    MemberLayer,
    MemberRepo,
    Plan,
    Source,
)


class Enforcer(Protocol):
    def check(self, ctx: RequestContext, rule: str, target: dict[str, Any] | None = None) -> None:
        """Raise Forbidden unless rule accepts the caller."""


class PolicyLayer(ImageLayer):
    def __init__(self, inner: ImageRepo, enforcer: Enforcer) -> None:
        super().__init__(inner)
        self.enforcer = enforcer

    def permit(self, ctx: RequestContext, plan: Plan) -> None:
        match plan.act:
            case Act.READ:
                self.enforcer.check(ctx, "get_image")
            case Act.DOWNLOAD:
                self._check_download(ctx, plan.image)
            case Act.DELETE:
                self.enforcer.check(ctx, "delete_image")
            case Act.MODIFY:
                self.enforcer.check(ctx, "modify_image")
                fields = plan.change.fields if plan.change is not None else {}
                publish = fields.get("is_public") is True
                self._check_data(ctx, publish, plan.source or Source())
        self.inner.permit(ctx, plan)

    def list(self, ctx: RequestContext, query: ListQuery, *, detail: bool) -> Sequence[Image]:
        self.enforcer.check(ctx, "get_images")
        return self.inner.list(ctx, query, detail=detail)

    def add(self, ctx: RequestContext, image: Image, source: Source) -> Image:
        self.enforcer.check(ctx, "add_image")
        self._check_data(ctx, image.is_public, source)
        self._check_location(ctx, source)
        return self.inner.add(ctx, image, source)

    def save(self, ctx: RequestContext, image: Image, change: Change, source: Source) -> Image:
        self._check_location(ctx, source)
        return self.inner.save(ctx, image, change, source)

    def download(
        self, ctx: RequestContext, image: Image, offset: int = 0, length: int | None = None
    ) -> Body:
        self._check_download(ctx, image)
        return self.inner.download(ctx, image, offset, length)

    def _check_download(self, ctx: RequestContext, image: Image | None) -> None:
        fields = image_fields(image) if image is not None else {"properties": {}}
        # A core field wins over a property of the same name.
        target = {**fields.pop("properties"), **fields}
        self.enforcer.check(ctx, "download_image", target)

    def _check_data(self, ctx: RequestContext, publish: bool, source: Source) -> None:
        if publish:
            self.enforcer.check(ctx, "publicize_image")
        if source.copy_from:
            self.enforcer.check(ctx, "copy_from")
        if source.moves_bytes:
            self.enforcer.check(ctx, "upload_image")

    def _check_location(self, ctx: RequestContext, source: Source) -> None:
        if source.location is not None:
            self.enforcer.check(ctx, "set_image_location")


class PolicyMemberLayer(MemberLayer):
    def __init__(self, inner: MemberRepo, enforcer: Enforcer) -> None:
        super().__init__(inner)
        self.enforcer = enforcer

    def list(self, ctx: RequestContext, image_id: str) -> Sequence[Member]:
        self.enforcer.check(ctx, "get_members")
        return self.inner.list(ctx, image_id)

    def add(self, ctx: RequestContext, image_id: str, member: str, can_share: bool | None) -> None:
        self.enforcer.check(ctx, "modify_member")
        self.inner.add(ctx, image_id, member, can_share)

    def replace(self, ctx: RequestContext, image_id: str, members: dict[str, bool | None]) -> None:
        self.enforcer.check(ctx, "modify_member")
        self.inner.replace(ctx, image_id, members)

    def remove(self, ctx: RequestContext, image_id: str, member: str) -> None:
        self.enforcer.check(ctx, "delete_member")
        self.inner.remove(ctx, image_id, member)
