"""The images of v1: each method reads like the API's description of it."""

from dataclasses import dataclass
from typing import Any

import webob

from common import errors
from common.context import RequestContext
from common.documents import brief_fields, image_fields
from common.image import Change, Image
from common.query import parse_public
from common.wsgi.resource import Request, json_response
from glance_api.copies import Copies
from glance_api.formats import Formats
from glance_api.layers.base import Act, ImageRepo, Plan, Source
from glance_api.v1 import validation
from glance_api.v1.download import DownloadSettings, download_response
from glance_api.v1.headers import Meta, add_image_headers, etag, read_meta
from glance_api.v1.request_body import BodySource, has_body


@dataclass(frozen=True)
class ImagesSettings:
    formats: Formats
    image_size_cap: int
    decode_header_values: str
    downloads: DownloadSettings


class ImagesController:
    def __init__(self, repo: ImageRepo, copies: Copies, settings: ImagesSettings) -> None:
        """copies runs background copies."""
        self.repo = repo
        self.copies = copies
        self.settings = settings

    def index(self, request: Request) -> dict[str, Any]:
        return {"images": [brief_fields(image) for image in self._list(request, detail=False)]}

    def detail(self, request: Request) -> dict[str, Any]:
        return {"images": [image_fields(image) for image in self._list(request, detail=True)]}

    def _list(self, request: Request, *, detail: bool) -> Any:
        ctx = request.context
        query = parse_public(request.query, is_admin=ctx.is_admin)
        return self.repo.list(ctx, query, detail=detail)

    def meta(self, request: Request, image_id: str) -> webob.Response:
        ctx = request.context
        self.repo.permit(ctx, Plan(Act.READ))
        image = self.repo.get(ctx, image_id)
        response = webob.Response(content_type="text/html", charset="UTF-8")
        add_image_headers(response, image)
        return response

    def show(self, request: Request, image_id: str) -> webob.Response:
        ctx = request.context
        self.repo.permit(ctx, Plan(Act.READ))
        try:
            image = self.repo.get(ctx, image_id)
            return download_response(request, self.repo, image, self.settings.downloads)
        except errors.NotFound:
            # A caller who may not download learns nothing about what exists (section 7).
            self.repo.permit(ctx, Plan(Act.DOWNLOAD))
            raise

    def create(self, request: Request) -> webob.Response:
        ctx = request.context
        meta, source = self._read(request)
        self._require_room(source)
        image = self.repo.add(ctx, validation.new_image(meta, source, ctx.owner), source)
        image = self._bring_data(ctx, image, source)
        response = json_response({"image": image_fields(image)}, 201, "application/json")
        # Below what a proxy in front has taken off the path, and always as v1.
        base = request.application_url.removesuffix("/v1")
        response.headers["Location"] = f"{base}/v1/images/{image.id}"
        return _with_etag(response, image)

    def update(self, request: Request, image_id: str) -> webob.Response:
        ctx = request.context
        meta, source = self._read(request)
        change = validation.requested_change(meta, source)
        self.repo.permit(ctx, Plan(Act.MODIFY, change, source))
        image = self.repo.get(ctx, image_id)
        _complete_declarations(source, image, change)
        self._require_room(source)
        image = self.repo.save(ctx, image, change, source)
        image = self._bring_data(ctx, image, source)
        response = json_response({"image": image_fields(image)}, 200, "application/json")
        return _with_etag(response, image)

    def delete(self, request: Request, image_id: str) -> webob.Response:
        ctx = request.context
        self.repo.permit(ctx, Plan(Act.DELETE))
        self.repo.remove(ctx, self.repo.get(ctx, image_id))
        return webob.Response(content_type="text/html", charset="UTF-8")

    def _read(self, request: Request) -> tuple[Meta, Source]:
        meta = read_meta(request.environ, self.settings.decode_header_values)
        validation.check_fields(meta.fields, self.settings.formats)
        source = _source(request, meta)
        validation.check_size_cap(meta, source, self.settings.image_size_cap)
        return meta, source

    def _require_room(self, source: Source) -> None:
        if source.copy_from:
            self.copies.require_room()

    def _bring_data(self, ctx: RequestContext, image: Image, source: Source) -> Image:
        if source.copy_from:
            self.copies.start(self.repo.upload, ctx, image, source)
            return image
        return self.repo.upload(ctx, image, source) if source.brings_data else image


def _source(request: Request, meta: Meta) -> Source:
    source = Source(
        copy_from=meta.copy_from,
        location=meta.location,
        store=meta.store,
        size=meta.fields.get("size") or None,
        checksum=meta.fields.get("checksum"),
    )
    if has_body(request.environ):
        source.body = BodySource(request.environ)
        source.body_size = request.content_length
        # Parameters after `;` are tolerated.
        kind = request.environ.get("CONTENT_TYPE", "").partition(";")[0].strip().lower()
        source.content_type_ok = kind == "application/octet-stream"
    return source


def _complete_declarations(source: Source, image: Image, change: Change) -> None:
    """What was declared when the record was created still holds for bytes that come later."""
    if "size" not in change.fields:
        source.size = image.size or None
    if "checksum" not in change.fields:
        source.checksum = image.checksum


def _with_etag(response: webob.Response, image: Image) -> webob.Response:
    if image.checksum is not None:
        response.headerlist.append(etag(image.checksum))
    return response
