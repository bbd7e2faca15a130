"""Stores' own access lists, after members have changed."""

from collections.abc import Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import pytest

from common.context import RequestContext
from common.image import Image, Location, Member
from glance_api.layers.acl import AclMemberLayer, Acls
from glance_api.layers.base import MemberRepo
from glance_api.registry_client import RegistryClient
from glance_store.driver import Capability
from glance_store.loader import Stores

OWNER = RequestContext(tenant="t1")
SHARER = RequestContext(tenant="t2")
ADMIN = RequestContext(tenant="adm", is_admin=True)
SERVICE = RequestContext(tenant="service", is_admin=True, is_service=True)


class Registry:
    """Shows a member his own membership only, as the registry does."""

    def get(self, ctx: RequestContext, image_id: str) -> Image:
        return Image(id=image_id, owner="t1", locations=[Location("fake://bytes")])

    def members(self, ctx: RequestContext, image_id: str, **_: Any) -> Sequence[Member]:
        names = ("t2",) if ctx is SHARER else ("t2", "t3")
        return [Member(image_id, name) for name in names]


class Store:
    capabilities = Capability.ACL

    def __init__(self) -> None:
        self.seen: list[tuple[RequestContext, Sequence[str]]] = []

    def set_acls(self, ctx: RequestContext, url: str, *, read: Sequence[str], **_: Any) -> None:
        self.seen.append((ctx, read))


@pytest.mark.parametrize(
    ("ctx", "acting"),
    [
        (OWNER, OWNER),
        (ADMIN, ADMIN),
        # With the service's rights, and for no more than the owner's account.
        (SHARER, replace(SERVICE, tenant="t1", is_admin=False)),
    ],
    ids=["owner", "admin", "sharer"],
)
def test_a_member_who_shares_shuts_nobody_out(ctx: RequestContext, acting: RequestContext) -> None:
    """SEC-035: an access list is made of the owner and all members, whoever changed them."""
    store = Store()
    acls = Acls(
        cast(RegistryClient, Registry()),
        cast(Stores, SimpleNamespace(for_url=lambda url: store)),
        SERVICE,
    )
    layer = AclMemberLayer(cast(MemberRepo, SimpleNamespace(add=lambda *_: None)), acls)
    layer.add(ctx, "image", "t3", None)
    assert store.seen == [(acting, ["t1", "t2", "t3"])]
