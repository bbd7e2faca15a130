"""image.* notifications around operations, each after the fact (middleware-and-config.md 7)."""

from dataclasses import replace
from typing import Any

from common import errors
from common.body import Body
from common.context import RequestContext
from common.documents import image_fields
from common.image import QUEUED, SAVING, Change, Image
from glance_api.layers.base import ImageLayer, ImageRepo, Source
from glance_api.notifier import Notifier
from glance_store.errors import SourceFailed


class NotifierLayer(ImageLayer):
    def __init__(self, inner: ImageRepo, notifier: Notifier) -> None:
        super().__init__(inner)
        self.notifier = notifier

    def add(self, ctx: RequestContext, image: Image, source: Source) -> Image:
        added = self.inner.add(ctx, image, source)
        self._notify("image.create", _before_upload(added))
        return added

    def save(self, ctx: RequestContext, image: Image, change: Change, source: Source) -> Image:
        saved = self.inner.save(ctx, image, change, source)
        if not source.brings_data:
            self._notify("image.update", saved)
        return saved

    def upload(self, ctx: RequestContext, image: Image, source: Source) -> Image:
        if source.moves_bytes:
            self._notify("image.prepare", _before_upload(image))
        try:
            active = self.inner.upload(ctx, image, source)
        except (errors.ClientDisconnected, SourceFailed):
            raise  # nothing failed here
        except Exception as error:
            text = error.message if isinstance(error, errors.GlanceError) else "upload failed"
            self.notifier.notify("image.upload", text, "ERROR")
            raise
        if source.moves_bytes:
            self._notify("image.upload", replace(active, status=SAVING))
        self._notify("image.activate", active)
        self._notify("image.update", active)
        if source.updated:
            # The PUT that brought the data changed the record too.
            self._notify("image.update", active)
        return active

    def download(
        self, ctx: RequestContext, image: Image, offset: int = 0, length: int | None = None
    ) -> Body:
        body = self.inner.download(ctx, image, offset, length)
        expected = body.length
        body.when_closed(lambda sent: self._notify_sent(ctx, image, sent.bytes_sent, expected))
        return body

    def remove(self, ctx: RequestContext, image: Image) -> Image:
        removed = self.inner.remove(ctx, image)
        # As after the status change and before the record is marked (section 7).
        self._notify("image.delete", replace(removed, deleted=False, deleted_at=None))
        return removed

    def _notify(self, event: str, image: Image) -> None:
        self.notifier.notify(event, image_fields(image))

    def _notify_sent(
        self, ctx: RequestContext, image: Image, sent: int, expected: int | None
    ) -> None:
        payload: dict[str, Any] = {
            "image_id": image.id,
            "owner_id": image.owner,
            "receiver_tenant_id": ctx.tenant,
            "receiver_user_id": ctx.user,
            "destination_ip": ctx.remote_address,
            "bytes_sent": sent,
        }
        whole = expected is None or sent == expected
        self.notifier.notify("image.send", payload, "INFO" if whole else "ERROR")


def _before_upload(image: Image) -> Image:
    """v1 announces an image as queued until its bytes are in, though its record is ahead."""
    return replace(image, status=QUEUED) if image.status == SAVING else image
