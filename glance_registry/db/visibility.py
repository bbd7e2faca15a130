"""Who may see an image and who may change it (images-v1.md section 14): every rule, and nothing
else. Listing expresses `is_visible` as SQL; a test compares the two.
"""

from collections.abc import Callable

from common import errors
from common.context import RequestContext
from common.image import DEACTIVATED, Image


def not_found(image_id: str) -> errors.NotFound:
    """The one answer for images that do not exist and images that nobody may know of."""
    return errors.NotFound(f"Image {image_id} not found.")


def is_owner(ctx: RequestContext, image: Image) -> bool:
    return image.owner is not None and image.owner == ctx.owner


def is_visible(ctx: RequestContext, image: Image, is_member: Callable[[str], bool]) -> bool:
    """Whether ctx may know of image. `is_member` is asked, with the caller's owner value, only
    when nothing else decides; it tells whether that owner has a live membership.
    """
    if ctx.is_admin:
        return True
    if image.deleted:
        return False
    if image.owner is None or image.is_public or is_owner(ctx, image):
        return True
    return ctx.owner is not None and is_member(ctx.owner)


def can_change(ctx: RequestContext, image: Image) -> bool:
    return ctx.is_admin or is_owner(ctx, image)


def require_change(ctx: RequestContext, image: Image) -> None:
    """Raises Forbidden for a public image of another owner, NotFound for any other image that
    ctx may not change: whoever may only read a private image learns nothing more (D01).
    """
    if can_change(ctx, image) and (ctx.is_admin or not image.deleted):
        return
    if image.is_public and not image.deleted:
        raise errors.Forbidden()
    raise not_found(image.id)


def require_writer(ctx: RequestContext) -> None:
    """Raises Forbidden for a read-only (anonymous) caller."""
    if ctx.read_only:
        raise errors.Forbidden()


def can_see_locations(ctx: RequestContext, image: Image) -> bool:
    """A deactivated image keeps its bytes from everybody but admins."""
    return ctx.is_admin or image.status != DEACTIVATED
