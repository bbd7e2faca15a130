"""The route table of v1, as data (images-v1.md section 2)."""

from collections.abc import Sequence

from common.wsgi.resource import ANY, Route
from glance_api.v1.images import ImagesController
from glance_api.v1.members import MembersController


def routes(images: ImagesController, members: MembersController) -> Sequence[Route]:
    """Paths as they are after version negotiation, below the version's prefix."""
    return (
        Route("/", {ANY: images.index}),
        Route("/images", {"GET": images.index, "POST": images.create}, "GET, POST"),
        Route("/images/detail", {"GET": images.detail}, {"HEAD": "GET", ANY: "GET, HEAD"}),
        Route(
            "/images/{image_id}",
            {
                "HEAD": images.meta,
                "GET": images.show,
                "PUT": images.update,
                "DELETE": images.delete,
            },
            "GET, HEAD, PUT, DELETE",
        ),
        Route(
            "/images/{image_id}/members",
            {"GET": members.index, "PUT": members.update_all},
            "GET, PUT",
        ),
        Route(
            "/images/{image_id}/members/{member}",
            {"PUT": members.update, "DELETE": members.delete},
            {"GET": "PUT, DELETE", ANY: "GET, PUT, DELETE"},
        ),
        Route("/shared-images/{member}", {ANY: members.shared_images}),
    )
