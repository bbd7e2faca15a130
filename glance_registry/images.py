"""The images controller (registry-v1.md sections 4 to 7)."""

from dataclasses import dataclass
from typing import Any, Final

from common.context import RequestContext
from common.documents import brief_fields, image_document
from common.image import Change, Image
from common.query import parse_registry
from common.wsgi.resource import Request
from glance_registry import bodies
from glance_registry.db import images, listing, visibility
from glance_registry.db.engine import Database
from glance_registry.db.owner_limits import NO_LIMITS, OwnerLimits

_PURGE: Final = "HTTP_X_GLANCE_REGISTRY_PURGE_PROPS"
_LEASE: Final = "HTTP_X_GLANCE_LEASE"


@dataclass(frozen=True, slots=True)
class ListSettings:
    """`limit_param_default` and `api_limit_max`, of which the registry's own are the ones that
    count, and `list_unaccepted`.
    """

    default: int = 25
    largest: int = 1000
    unaccepted: bool = True

    def choose(self, limit: int | None) -> int:
        return min(self.default if limit is None else limit, self.largest)


class ImagesController:
    def __init__(
        self, database: Database, lists: ListSettings, limits: OwnerLimits = NO_LIMITS
    ) -> None:
        self.database = database
        self.lists = lists
        self.limits = limits

    def index(self, request: Request) -> dict[str, Any]:
        return {"images": [brief_fields(image) for image in self._page(request, brief=True)]}

    def detail(self, request: Request) -> dict[str, Any]:
        return {"images": [image_document(image) for image in self._page(request, brief=False)]}

    def _page(self, request: Request, *, brief: bool) -> list[Image]:
        ctx = request.context
        query = parse_registry(request.query, is_admin=ctx.is_admin)
        limit = self.lists.choose(query.limit)
        return self.database.read(
            lambda connection: listing.page(
                connection, ctx, query, limit, brief=brief, unaccepted=self.lists.unaccepted
            )
        )

    def show(self, request: Request, image_id: str) -> dict[str, Any]:
        ctx = request.context
        image = self.database.read(lambda connection: images.get(connection, ctx, image_id))
        return {"image": image_document(image)}

    def create(self, request: Request) -> dict[str, Any]:
        visibility.require_writer(request.context)
        change = bodies.new_image(request.read_json())
        _settle_owner(request.context, change)
        written = self.database.write(
            lambda connection: images.create(connection, change, self.limits)
        )
        return _answer(written)

    def update(self, request: Request, image_id: str) -> dict[str, Any]:
        ctx = request.context
        visibility.require_writer(ctx)
        purge = request.environ.get(_PURGE) == "true"
        change = bodies.image_change(request.read_json(), purge=purge)
        if change.fields.pop("id", image_id) != image_id:
            raise visibility.not_found(image_id)
        if not ctx.is_admin:
            change.fields.pop("owner", None)
        written = self.database.write(
            lambda connection: images.update(connection, ctx, image_id, change)
        )
        return _answer(written)

    def delete(self, request: Request, image_id: str) -> dict[str, Any]:
        ctx = request.context
        visibility.require_writer(ctx)
        token = request.environ.get(_LEASE)
        image = self.database.write(
            lambda connection: images.delete(connection, ctx, image_id, token)
        )
        return {"image": image_document(image)}


def _settle_owner(ctx: RequestContext, change: Change) -> None:
    if not ctx.is_admin or "owner" not in change.fields:
        change.fields["owner"] = ctx.owner


def _answer(written: images.Written) -> dict[str, Any]:
    answer: dict[str, Any] = {"image": image_document(written.image)}
    if written.refused:
        answer["refused"] = "quota"
    return answer
