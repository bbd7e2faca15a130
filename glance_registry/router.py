"""The registry's routes, as data (registry-v1.md section 2)."""

from collections.abc import Sequence
from typing import NoReturn

from common import errors
from common.wsgi.resource import ANY, Request, Route
from glance_registry.images import ImagesController
from glance_registry.leases import LeasesController
from glance_registry.members import MembersController

_MEMBER_METHODS = "PUT, DELETE"


def image_routes(images: ImagesController, members: MembersController) -> Sequence[Route]:
    return (
        Route("/", {ANY: images.index}),
        Route("/images", {"GET": images.index, "POST": images.create}),
        Route("/images/detail", {"GET": images.detail}),
        Route(
            "/images/{image_id}",
            {"GET": images.show, "PUT": images.update, "DELETE": images.delete},
        ),
        Route(
            "/images/{image_id}/members",
            {"GET": members.index, "PUT": members.update_all, "POST": _refuse},
        ),
        Route(
            "/images/{image_id}/members/{member_id}",
            {"PUT": members.update, "DELETE": members.delete},
            allow=_MEMBER_METHODS,
        ),
        Route("/shared-images/{member_id}", {ANY: members.shared_images}),
    )


def _refuse(_request: Request, image_id: str) -> NoReturn:
    # Of all collections, Glance answers a wrong method with 405 only here, and only to POST.
    raise errors.MethodNotAllowed(_MEMBER_METHODS)


def lease_routes(leases: LeasesController) -> Sequence[Route]:
    return (
        Route("/leases", {"GET": leases.index, "PUT": leases.renew}),
        Route("/leases/{token}", {"DELETE": leases.end}),
        Route("/leases/{lease_id}/claim", {"POST": leases.claim}),
    )
