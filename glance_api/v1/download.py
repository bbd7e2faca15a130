"""GET of an image: its bytes, a range of them, or word that the caller has them already.

Ranges and conditional requests are ours (decision 13); each has its off switch, and without them
this is Mitaka's answer: 200 with everything.
"""

import re
from dataclasses import dataclass
from typing import Final

import webob

from common import errors
from common.image import ACTIVE, DEACTIVATED, Image
from common.wsgi.resource import Request
from glance_api.layers.base import Act, ImageRepo, Plan
from glance_api.v1.headers import add_image_headers, etag

_RANGE: Final = re.compile(r"bytes=([0-9]{0,19})-([0-9]{0,19})\Z")


@dataclass(frozen=True)
class DownloadSettings:
    ranges: bool = True
    conditional: bool = True


@dataclass(frozen=True)
class Span:
    """Bytes offset to offset + length of an image."""

    offset: int
    length: int


def download_response(
    request: Request, repo: ImageRepo, image: Image, settings: DownloadSettings
) -> webob.Response:
    """Raises NotFound for an image without bytes, Forbidden for a deactivated one."""
    if image.status == DEACTIVATED:
        raise errors.Forbidden("The requested image has been deactivated.")
    if image.status != ACTIVE or image.deleted:
        raise errors.NotFound(f"Image {image.id} not found.")
    if settings.conditional and _has_it_already(request, image):
        _permit(request, repo, image)
        return _not_modified(image)
    try:
        span = _span(request, image) if settings.ranges else None
    except errors.RangeNotSatisfiable:
        _permit(request, repo, image)
        raise
    if span is None:
        body = repo.download(request.context, image)
    else:
        body = repo.download(request.context, image, span.offset, span.length)
    response = webob.Response(content_type="application/octet-stream")
    add_image_headers(response, image)
    # A browser must neither guess a type nor show the bytes (SEC-038).
    response.headers["X-Content-Type-Options"] = "nosniff"
    if settings.ranges:
        response.headers["Accept-Ranges"] = "bytes"
    if span is not None:
        response.status = 206
        last = span.offset + span.length - 1
        response.headers["Content-Range"] = f"bytes {span.offset}-{last}/{image.size}"
    response.app_iter = body
    response.content_length = body.length
    return response


def _permit(request: Request, repo: ImageRepo, image: Image) -> None:
    """What is answered without opening the bytes is for those who may have them as well."""
    repo.permit(request.context, Plan(Act.DOWNLOAD, image=image))


def _not_modified(image: Image) -> webob.Response:
    response = webob.Response(status=304)
    del response.content_type
    response.headerlist.append(etag(str(image.checksum)))
    return response


def _tags(text: str) -> set[str]:
    return {tag.strip().removeprefix("W/").strip('"') for tag in text.split(",")}


def _has_it_already(request: Request, image: Image) -> bool:
    given = request.environ.get("HTTP_IF_NONE_MATCH")
    return bool(given and image.checksum) and not _tags(given).isdisjoint({image.checksum, "*"})


def _span(request: Request, image: Image) -> Span | None:
    """The single range asked for; None for everything. Raises RangeNotSatisfiable."""
    text = request.environ.get("HTTP_RANGE", "").replace(" ", "")
    match = _RANGE.match(text)
    size = image.size or 0
    if match is None or match.group() == "bytes=-" or not size:
        return None  # several ranges, other units, nonsense: RFC 9110 lets a server ignore them
    condition = request.environ.get("HTTP_IF_RANGE")
    if condition is not None and (image.checksum is None or image.checksum not in _tags(condition)):
        return None
    first, last = match.groups()
    if not first:
        length = min(int(last), size)
        if not length:
            raise errors.RangeNotSatisfiable(size)
        return Span(size - length, length)
    start = int(first)
    end = min(int(last), size - 1) if last else size - 1
    if last and int(last) < start:
        return None
    if start >= size:
        raise errors.RangeNotSatisfiable(size)
    return Span(start, end - start + 1)
