"""Stores' own access lists, after members have changed."""

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, cast

import pytest

from common.context import RequestContext
from common.image import Image, Location, Member
from glance_api.layers.acl import AclMemberLayer
from glance_api.layers.base import MemberRepo
from glance_api.registry_client import RegistryClient
from glance_store.driver import Capability
from glance_store.loader import Stores

OWNER = RequestContext(tenant="t1")
SHARER = RequestContext(tenant="t2")
ADMIN = RequestContext(tenant="adm", is_admin=True)


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
        self.readers: list[Sequence[str]] = []

    def set_acls(self, ctx: RequestContext, url: str, *, read: Sequence[str], **_: Any) -> None:
        self.readers.append(read)


@pytest.mark.parametrize(
    ("ctx", "readers"), [(OWNER, [["t2", "t3"]]), (ADMIN, [["t2", "t3"]]), (SHARER, [])]
)
def test_a_member_who_shares_shuts_nobody_out(
    ctx: RequestContext, readers: list[Sequence[str]]
) -> None:
    """SEC-035: an access list is made of all members or left as it is."""
    store = Store()
    layer = AclMemberLayer(
        cast(MemberRepo, SimpleNamespace(add=lambda *_: None)),
        cast(RegistryClient, Registry()),
        cast(Stores, SimpleNamespace(for_url=lambda url: store)),
    )
    layer.add(ctx, "image", "t3", None)
    assert store.readers == readers
