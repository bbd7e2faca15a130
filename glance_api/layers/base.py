"""The onion's only shape: ImageRepo and MemberRepo, and layers that forward to the next one."""

import enum
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from common import upload as incoming
from common.body import Body
from common.context import RequestContext
from common.image import Change, Image, Member
from common.lease import Lease
from common.query import ListQuery


@dataclass(slots=True)
class Source:
    """Where an image's bytes come from: a request's body, a URL to copy, or one to use in place.

    `body`, `copy_from` and `location` exclude each other; "" is a header that was sent empty.
    `store` is the scheme asked for. `size` and `checksum` are what the caller declared.

    The rest is filled in on the way in: `quota` (bytes the owner may hold, 0 for no limit) by
    the quota layer; `lease`, `remote_size` and `updated` (the record existed before) by the
    location layer.
    """

    body: incoming.Source | None = None
    content_type_ok: bool = True
    body_size: int | None = None
    copy_from: str | None = None
    location: str | None = None
    store: str | None = None
    size: int | None = None
    checksum: str | None = None
    quota: int = 0
    remote_size: int | None = None
    lease: Lease | None = field(default=None, repr=False)
    updated: bool = False

    @property
    def moves_bytes(self) -> bool:
        """Whether bytes will be written to a store of ours."""
        return self.body is not None or bool(self.copy_from)

    @property
    def brings_data(self) -> bool:
        return self.moves_bytes or bool(self.location)


class Act(enum.Enum):
    """What a caller is about to do with an image that has not been looked up yet."""

    READ = "read"
    DOWNLOAD = "download"
    MODIFY = "modify"
    DELETE = "delete"


@dataclass(frozen=True, slots=True)
class Plan:
    """What a caller is about to do, as far as permission depends on it.

    `image` is None until it has been looked up; then the answer is about any image.
    """

    act: Act
    change: Change | None = None
    source: Source | None = None
    image: Image | None = None


class ImageRepo(Protocol):
    """What can be done with images. Every operation gets the caller's context first.

    An operation that needs an image takes the one that `get` returned, so that no layer
    fetches it again.
    """

    def permit(self, ctx: RequestContext, plan: Plan) -> None:
        """Raise Forbidden if the caller may not do this, whether such an image exists or not."""

    def list(self, ctx: RequestContext, query: ListQuery, *, detail: bool) -> Sequence[Image]: ...

    def get(self, ctx: RequestContext, image_id: str) -> Image:
        """Raises NotFound for an image the caller may not see."""

    def add(self, ctx: RequestContext, image: Image, source: Source) -> Image:
        """Create the record. Nothing remains of a request that is refused here.

        If source moves bytes, the record is ready for `upload` when this returns.
        """

    def save(self, ctx: RequestContext, image: Image, change: Change, source: Source) -> Image:
        """Change the record, and prepare it for `upload` if source brings data."""

    def upload(self, ctx: RequestContext, image: Image, source: Source) -> Image:
        """Bring the data in and activate the image; returns it as it is afterwards.

        On any failure no bytes remain, and the image is `killed` unless somebody else changed
        it meanwhile.
        """

    def download(
        self, ctx: RequestContext, image: Image, offset: int = 0, length: int | None = None
    ) -> Body:
        """Open the image's bytes. Raises NotFound for an image that has none."""

    def remove(self, ctx: RequestContext, image: Image) -> Image:
        """Delete: permission first, then bytes, then the record.

        Returns the image with the status it has now, `deleted` or `pending_delete`.
        """


class ImageLayer:
    """Forwards every operation to the next layer; override what you change."""

    def __init__(self, inner: ImageRepo) -> None:
        self.inner = inner

    def permit(self, ctx: RequestContext, plan: Plan) -> None:
        self.inner.permit(ctx, plan)

    def list(self, ctx: RequestContext, query: ListQuery, *, detail: bool) -> Sequence[Image]:
        return self.inner.list(ctx, query, detail=detail)

    def get(self, ctx: RequestContext, image_id: str) -> Image:
        return self.inner.get(ctx, image_id)

    def add(self, ctx: RequestContext, image: Image, source: Source) -> Image:
        return self.inner.add(ctx, image, source)

    def save(self, ctx: RequestContext, image: Image, change: Change, source: Source) -> Image:
        return self.inner.save(ctx, image, change, source)

    def upload(self, ctx: RequestContext, image: Image, source: Source) -> Image:
        return self.inner.upload(ctx, image, source)

    def download(
        self, ctx: RequestContext, image: Image, offset: int = 0, length: int | None = None
    ) -> Body:
        return self.inner.download(ctx, image, offset, length)

    def remove(self, ctx: RequestContext, image: Image) -> Image:
        return self.inner.remove(ctx, image)


class MemberRepo(Protocol):
    """Whom an image is shared with. `can_share` None keeps what is, or false for a new member."""

    def list(self, ctx: RequestContext, image_id: str) -> Sequence[Member]: ...

    def list_shared(self, ctx: RequestContext, member: str) -> Sequence[Member]:
        """The memberships of one tenant, as far as the caller may see them."""

    def add(
        self, ctx: RequestContext, image_id: str, member: str, can_share: bool | None
    ) -> None: ...

    def replace(
        self, ctx: RequestContext, image_id: str, members: dict[str, bool | None]
    ) -> None: ...

    def remove(self, ctx: RequestContext, image_id: str, member: str) -> None: ...


class MemberLayer:
    """Forwards every operation to the next layer; override what you change."""

    def __init__(self, inner: MemberRepo) -> None:
        self.inner = inner

    def list(self, ctx: RequestContext, image_id: str) -> Sequence[Member]:
        return self.inner.list(ctx, image_id)

    def list_shared(self, ctx: RequestContext, member: str) -> Sequence[Member]:
        return self.inner.list_shared(ctx, member)

    def add(self, ctx: RequestContext, image_id: str, member: str, can_share: bool | None) -> None:
        self.inner.add(ctx, image_id, member, can_share)

    def replace(self, ctx: RequestContext, image_id: str, members: dict[str, bool | None]) -> None:
        self.inner.replace(ctx, image_id, members)

    def remove(self, ctx: RequestContext, image_id: str, member: str) -> None:
        self.inner.remove(ctx, image_id, member)
