"""The innermost layer: images as the registry keeps them. Bytes are the location layer's."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NoReturn

from common import errors
from common.body import Body
from common.context import RequestContext
from common.image import Change, Image, Member
from common.query import ListQuery
from glance_api.layers.base import Plan, Source
from glance_api.registry_client import RegistryClient


class RegistryRepo:
    def __init__(self, client: RegistryClient) -> None:
        self.client = client

    def permit(self, ctx: RequestContext, plan: Plan) -> None:
        return None

    def list(self, ctx: RequestContext, query: ListQuery, *, detail: bool) -> Sequence[Image]:
        return self.client.list(ctx, query, detail=detail)

    def get(self, ctx: RequestContext, image_id: str) -> Image:
        return self.client.get(ctx, image_id)

    def add(self, ctx: RequestContext, image: Image, source: Source) -> Image:
        return self.client.add(ctx, image, source.lease, source.quota)

    def save(self, ctx: RequestContext, image: Image, change: Change, source: Source) -> Image:
        return self.client.save(ctx, image.id, change)

    def upload(self, ctx: RequestContext, image: Image, source: Source) -> NoReturn:
        raise AssertionError("the registry holds no bytes")

    def download(
        self, ctx: RequestContext, image: Image, offset: int = 0, length: int | None = None
    ) -> Body:
        raise AssertionError("the registry holds no bytes")

    def remove(self, ctx: RequestContext, image: Image) -> NoReturn:
        raise AssertionError("a delete is a change of status and the end of its lease")


class RegistryMemberRepo:
    """A caller who may not share an image gets 404 from v1, with the registry's refusal inside."""

    def __init__(self, client: RegistryClient, quota: int) -> None:
        """quota: image_member_quota, which the registry keeps, since it sees every member."""
        self.client = client
        self.quota = quota

    def list(self, ctx: RequestContext, image_id: str) -> Sequence[Member]:
        return self.client.members(ctx, image_id)

    def list_shared(self, ctx: RequestContext, member: str) -> Sequence[Member]:
        return self.client.shared_images(ctx, member)

    def add(self, ctx: RequestContext, image_id: str, member: str, can_share: bool | None) -> None:
        with _forbidden_as_not_found():
            self.client.add_member(ctx, image_id, member, can_share, self.quota)

    def replace(self, ctx: RequestContext, image_id: str, members: dict[str, bool | None]) -> None:
        with _forbidden_as_not_found():
            self.client.replace_members(ctx, image_id, members, self.quota)

    def remove(self, ctx: RequestContext, image_id: str, member: str) -> None:
        with _forbidden_as_not_found():
            self.client.remove_member(ctx, image_id, member)


@contextmanager
def _forbidden_as_not_found() -> Iterator[None]:
    try:
        yield
    except errors.Forbidden:
        raise errors.NotFound(errors.Forbidden.default) from None
