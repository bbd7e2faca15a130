"""Who may change what (SEC-004 to SEC-006), as the registry is asked for it."""

from typing import cast

import pytest

from common import errors
from common.context import RequestContext
from common.image import ACTIVE, QUEUED, SAVING, Change, Image
from glance_api.layers.auth import AuthLayer
from glance_api.layers.base import ImageRepo, Source

OWNER = RequestContext(user="u", tenant="t", roles=("member",))
ADMIN = RequestContext(user="a", tenant="adm", roles=("admin",), is_admin=True)


class Inner:
    """Takes every change."""

    def save(self, ctx: RequestContext, image: Image, change: Change, source: Source) -> Image:
        return image


def save(ctx: RequestContext, status: str, **fields: object) -> Change:
    change = Change(dict(fields))
    image = Image(id="i", owner="t", status=status, size=4)
    AuthLayer(cast(ImageRepo, Inner())).save(ctx, image, change, Source())
    return change


@pytest.mark.parametrize("status", [QUEUED, SAVING])
def test_a_size_is_free_only_as_long_as_the_image_has_no_bytes(status: str) -> None:
    """SEC-006: not a moment longer, though an upload may be ending just now."""
    assert save(OWNER, status, size=5).from_state == status
    assert save(OWNER, status, checksum=None).from_state == status
    assert save(OWNER, status, name="n").from_state is None
    assert save(ADMIN, status, size=5).from_state is None


def test_a_size_that_is_settled_may_be_repeated() -> None:
    """V1-IMG-608."""
    assert save(OWNER, ACTIVE, size=4).from_state is None
    with pytest.raises(errors.Forbidden, match="Forbidden to modify 'size' of active image"):
        save(OWNER, ACTIVE, size=5)
