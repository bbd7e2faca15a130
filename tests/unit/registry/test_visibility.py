"""images-v1.md section 14, as a table."""

import pytest

from common import errors
from common.context import RequestContext
from common.image import Image
from glance_registry.db import visibility
from tests.registry import ADMIN, ANONYMOUS, user

PRIVATE = Image(id="x", owner="t1")
PUBLIC = Image(id="x", owner="t1", is_public=True)
OWNERLESS = Image(id="x")
DELETED = Image(id="x", owner="t1", is_public=True, deleted=True)


@pytest.mark.parametrize(
    ("image", "ctx", "member", "visible", "changeable"),
    [
        (PRIVATE, user("t1"), False, True, True),
        (PRIVATE, user("t2"), False, False, errors.NotFound),
        (PRIVATE, user("t2"), True, True, errors.NotFound),
        (PRIVATE, user(None), True, False, errors.NotFound),
        (PRIVATE, ANONYMOUS, True, False, errors.NotFound),
        (PRIVATE, ADMIN, False, True, True),
        (PUBLIC, user("t1"), False, True, True),
        (PUBLIC, user("t2"), False, True, errors.Forbidden),
        (PUBLIC, ANONYMOUS, False, True, errors.Forbidden),
        (PUBLIC, ADMIN, False, True, True),
        (OWNERLESS, user("t2"), False, True, errors.NotFound),
        (OWNERLESS, user(None), False, True, errors.NotFound),
        (OWNERLESS, user(""), False, True, errors.NotFound),
        (OWNERLESS, ADMIN, False, True, True),
        (DELETED, user("t1"), True, False, errors.NotFound),
        (DELETED, user("t2"), True, False, errors.NotFound),
        (DELETED, ADMIN, False, True, True),
    ],
)
def test_who_sees_and_who_changes(
    image: Image,
    ctx: RequestContext,
    member: bool,
    visible: bool,
    changeable: bool | type[Exception],
) -> None:
    assert visibility.is_visible(ctx, image, lambda _: member) is visible
    if changeable is True:
        visibility.require_change(ctx, image)
        return
    assert isinstance(changeable, type)
    with pytest.raises(changeable):
        visibility.require_change(ctx, image)


def test_memberships_are_asked_for_only_when_nothing_else_decides() -> None:
    def never(_: str) -> bool:
        raise AssertionError("not needed")

    for image, ctx in ((PUBLIC, user("t2")), (PRIVATE, user("t1")), (PRIVATE, ADMIN)):
        assert visibility.is_visible(ctx, image, never)
    assert not visibility.is_visible(user(None), PRIVATE, never)


def test_owner_may_be_the_user() -> None:
    """middleware-and-config.md section 3: owner_is_tenant"""
    ctx = RequestContext(user="t1", tenant="zz", owner_is_tenant=False)
    assert visibility.can_change(ctx, PRIVATE)


def test_a_read_only_caller_writes_nothing() -> None:
    with pytest.raises(errors.Forbidden):
        visibility.require_writer(ANONYMOUS)
    visibility.require_writer(user("t1"))
