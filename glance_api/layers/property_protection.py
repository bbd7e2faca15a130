"""Who may create, read, update and delete which property (middleware-and-config.md section 6)."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Final

from common import errors
from common.body import Body
from common.context import RequestContext
from common.image import Change, Image
from common.query import ListQuery
from glance_api.layers.base import ImageLayer, ImageRepo, Plan, Source
from glance_api.property_rules import PropertyRules

CREATE: Final = "create"
READ: Final = "read"
UPDATE: Final = "update"
DELETE: Final = "delete"


@dataclass(slots=True)
class _Partial(Image):
    """An image as its caller sees it, with the `hidden` properties that he does not."""

    hidden: dict[str, str | None] = field(default_factory=dict, repr=False)


class PropertyProtectionLayer(ImageLayer):
    """What is unreadable is hidden on the way out, and put back on the way in: the layers below
    must judge, count and keep what this caller may not see."""

    def __init__(self, inner: ImageRepo, rules: PropertyRules) -> None:
        super().__init__(inner)
        self.rules = rules

    def permit(self, ctx: RequestContext, plan: Plan) -> None:
        image = plan.image
        self.inner.permit(ctx, plan if image is None else replace(plan, image=_whole(image)))

    def list(self, ctx: RequestContext, query: ListQuery, *, detail: bool) -> Sequence[Image]:
        # A filter must not reveal by trial what the caller may not read (D24).
        if not all(self._may(ctx, READ, name) for name in query.properties):
            return []
        images = self.inner.list(ctx, query, detail=detail)
        return [self._visible(ctx, image) for image in images] if detail else images

    def get(self, ctx: RequestContext, image_id: str) -> Image:
        return self._visible(ctx, self.inner.get(ctx, image_id))

    def add(self, ctx: RequestContext, image: Image, source: Source) -> Image:
        self._require(ctx, CREATE, image.properties)
        return self._visible(ctx, self.inner.add(ctx, image, source))

    def save(self, ctx: RequestContext, image: Image, change: Change, source: Source) -> Image:
        image = _whole(image)
        if change.properties is not None:
            change = self._allowed_change(ctx, image, change, change.properties)
        return self._visible(ctx, self.inner.save(ctx, image, change, source))

    def upload(self, ctx: RequestContext, image: Image, source: Source) -> Image:
        return self._visible(ctx, self.inner.upload(ctx, _whole(image), source))

    def download(
        self, ctx: RequestContext, image: Image, offset: int = 0, length: int | None = None
    ) -> Body:
        return self.inner.download(ctx, _whole(image), offset, length)

    def remove(self, ctx: RequestContext, image: Image) -> Image:
        return self.inner.remove(ctx, _whole(image))

    def _allowed_change(
        self,
        ctx: RequestContext,
        image: Image,
        change: Change,
        properties: dict[str, str | None],
    ) -> Change:
        existing = image.properties
        for name, value in properties.items():
            if name not in existing:
                self._require(ctx, CREATE, (name,))
            elif value != existing[name] or not self._may(ctx, READ, name):
                self._require(ctx, READ, (name,))
                self._require(ctx, UPDATE, (name,))
        if not change.purge:
            return change
        missing = [name for name in existing if name not in properties]
        kept = {name: existing[name] for name in missing if not self._may(ctx, READ, name)}
        self._require(ctx, DELETE, (name for name in missing if name not in kept))
        return replace(change, properties={**properties, **kept})

    def _visible(self, ctx: RequestContext, image: Image) -> Image:
        shown: dict[str, str | None] = {}
        hidden: dict[str, str | None] = {}
        for name, value in image.properties.items():
            (shown if self._may(ctx, READ, name) else hidden)[name] = value
        if not hidden:
            return image
        values = {each.name: getattr(image, each.name) for each in fields(Image)}
        return _Partial(**{**values, "properties": shown}, hidden=hidden)

    def _may(self, ctx: RequestContext, operation: str, name: str) -> bool:
        return self.rules.allows(ctx, operation, name)

    def _require(self, ctx: RequestContext, operation: str, names: Iterable[str]) -> None:
        for name in names:
            if not self._may(ctx, operation, name):
                raise errors.Forbidden(f"Property '{name}' is protected")


def _whole(image: Image) -> Image:
    if not isinstance(image, _Partial):
        return image
    return replace(image, properties={**image.properties, **image.hidden}, hidden={})
