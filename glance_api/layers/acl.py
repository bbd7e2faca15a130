"""Keeps stores' own access lists in step with visibility and members.

Only wired where an enabled store has such lists; one call for the members is what it costs.
"""

import logging
from collections.abc import Callable
from dataclasses import replace

from common import errors
from common.context import RequestContext
from common.image import Change, Image
from glance_api.layers.base import ImageLayer, ImageRepo, MemberLayer, MemberRepo, Source
from glance_api.registry_client import RegistryClient
from glance_store.driver import Capability
from glance_store.loader import Stores

LOG = logging.getLogger(__name__)


class Acls:
    """service: the API's own identity, for callers who are not the image's owner."""

    def __init__(self, registry: RegistryClient, stores: Stores, service: RequestContext) -> None:
        self.registry = registry
        self.stores = stores
        self.service = service

    def refresh(self, ctx: RequestContext, image: Image) -> None:
        """Let exactly the image's readers read its bytes. A failure is logged, no more."""
        location = image.location
        if location is None:
            return
        try:
            store = self.stores.for_url(location.url)
            if Capability.ACL not in store.capabilities:
                return
            asking, acting = self._identities(ctx, image)
            members = self.registry.members(asking, image.id, vouched=True)
            # An administrator may have stored it for its owner, in an account of his own.
            readers = [image.owner, *(member.member for member in members)]
            store.set_acls(
                acting,
                location.url,
                public=image.is_public,
                read=[reader for reader in readers if reader is not None],
                write=[],
            )
        except errors.GlanceError as error:
            LOG.warning("image %s: the store's access list is out of date: %s", image.id, error)

    def _identities(
        self, ctx: RequestContext, image: Image
    ) -> tuple[RequestContext, RequestContext]:
        """As whom to ask for the members, and whose rights the store is shown."""
        if ctx.is_admin or ctx.owner == image.owner:
            return ctx, ctx
        # A member who may share sees no other members, and the bytes are not his. What the
        # service does for an owner it does for no more than the owner's account.
        return self.service, replace(self.service, tenant=image.owner, is_admin=False)


class AclLayer(ImageLayer):
    def __init__(self, inner: ImageRepo, acls: Acls) -> None:
        super().__init__(inner)
        self.acls = acls

    def save(self, ctx: RequestContext, image: Image, change: Change, source: Source) -> Image:
        saved = self.inner.save(ctx, image, change, source)
        if "is_public" in change.fields or source.location:
            self.acls.refresh(ctx, saved)
        return saved

    def upload(self, ctx: RequestContext, image: Image, source: Source) -> Image:
        active = self.inner.upload(ctx, image, source)
        self.acls.refresh(ctx, active)
        return active


class AclMemberLayer(MemberLayer):
    def __init__(self, inner: MemberRepo, acls: Acls) -> None:
        super().__init__(inner)
        self.acls = acls

    def add(self, ctx: RequestContext, image_id: str, member: str, can_share: bool | None) -> None:
        self._changed(ctx, image_id, lambda: self.inner.add(ctx, image_id, member, can_share))

    def replace(self, ctx: RequestContext, image_id: str, members: dict[str, bool | None]) -> None:
        self._changed(ctx, image_id, lambda: self.inner.replace(ctx, image_id, members))

    def remove(self, ctx: RequestContext, image_id: str, member: str) -> None:
        self._changed(ctx, image_id, lambda: self.inner.remove(ctx, image_id, member))

    def _changed(self, ctx: RequestContext, image_id: str, operation: Callable[[], object]) -> None:
        operation()
        try:
            image = self.acls.registry.get(ctx, image_id)
        except errors.NotFound:
            return  # the caller has just removed himself (D46)
        self.acls.refresh(ctx, image)
