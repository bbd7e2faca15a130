"""Keeps stores' own access lists in step with visibility and members.

Only wired where an enabled store has such lists; one call for the members is what it costs.
"""

import logging
from collections.abc import Callable

from common import errors
from common.context import RequestContext
from common.image import Change, Image
from glance_api.layers.base import ImageLayer, ImageRepo, MemberLayer, MemberRepo, Source
from glance_api.registry_client import RegistryClient
from glance_store.driver import Capability
from glance_store.loader import Stores

LOG = logging.getLogger(__name__)


def refresh_acls(
    ctx: RequestContext, image: Image, registry: RegistryClient, stores: Stores
) -> None:
    """Let exactly the image's readers read its bytes. A failure is logged; nothing is undone."""
    location = image.location
    if location is None:
        return
    try:
        store = stores.for_url(location.url)
        if Capability.ACL not in store.capabilities:
            return
        if not ctx.is_admin and image.owner != ctx.owner:
            # Shown no membership but his own, he would shut the other members out.
            raise errors.Forbidden("only its owner's requests bring it up to date.")
        members = registry.members(ctx, image.id, vouched=True)
        store.set_acls(
            ctx,
            location.url,
            public=image.is_public,
            read=[member.member for member in members],
            write=[],
        )
    except errors.GlanceError as error:
        LOG.warning("image %s: the store's access list is out of date: %s", image.id, error)


class AclLayer(ImageLayer):
    def __init__(self, inner: ImageRepo, registry: RegistryClient, stores: Stores) -> None:
        super().__init__(inner)
        self.registry = registry
        self.stores = stores

    def save(self, ctx: RequestContext, image: Image, change: Change, source: Source) -> Image:
        saved = self.inner.save(ctx, image, change, source)
        if "is_public" in change.fields or source.location:
            refresh_acls(ctx, saved, self.registry, self.stores)
        return saved

    def upload(self, ctx: RequestContext, image: Image, source: Source) -> Image:
        active = self.inner.upload(ctx, image, source)
        refresh_acls(ctx, active, self.registry, self.stores)
        return active


class AclMemberLayer(MemberLayer):
    def __init__(self, inner: MemberRepo, registry: RegistryClient, stores: Stores) -> None:
        super().__init__(inner)
        self.registry = registry
        self.stores = stores

    def add(self, ctx: RequestContext, image_id: str, member: str, can_share: bool | None) -> None:
        self._changed(ctx, image_id, lambda: self.inner.add(ctx, image_id, member, can_share))

    def replace(self, ctx: RequestContext, image_id: str, members: dict[str, bool | None]) -> None:
        self._changed(ctx, image_id, lambda: self.inner.replace(ctx, image_id, members))

    def remove(self, ctx: RequestContext, image_id: str, member: str) -> None:
        self._changed(ctx, image_id, lambda: self.inner.remove(ctx, image_id, member))

    def _changed(self, ctx: RequestContext, image_id: str, operation: Callable[[], object]) -> None:
        operation()
        try:
            image = self.registry.get(ctx, image_id)
        except errors.NotFound:
            return  # the caller has just removed himself (D46)
        refresh_acls(ctx, image, self.registry, self.stores)
