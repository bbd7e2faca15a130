"""Images in a dictionary: the reference driver, and a store for tests that touch no disk."""

import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, ClassVar

from common import errors
from common.body import Body, StreamBody
from common.context import RequestContext
from common.upload import Upload
from glance_store.driver import Capability, Store, Stored
from glance_store.errors import BadLocation

CHUNK = 512 * 1024


class MemoryStore(Store):
    """Holds each image as one bytes object, under `memory://<id>`; lost with the process."""

    schemes: ClassVar[tuple[str, ...]] = ("memory",)
    capabilities: ClassVar[Capability] = (
        Capability.READ | Capability.WRITE | Capability.DELETE | Capability.LIST
    )
    accepts_external: ClassVar[bool] = False

    def __init__(self, conf: Any) -> None:
        super().__init__(conf)
        self._images: dict[str, tuple[bytes, datetime]] = {}
        self._lock = threading.Lock()

    def add(self, ctx: RequestContext, image_id: str, upload: Upload) -> tuple[str, dict[str, Any]]:
        if image_id in self._images:
            raise errors.Duplicate()
        content = bytearray()
        while chunk := upload.read(CHUNK):
            content += chunk
        with self._lock:
            if image_id in self._images:
                raise errors.Duplicate()
            now = datetime.now(UTC).replace(tzinfo=None)
            self._images[image_id] = (bytes(content), now)
        return f"memory://{image_id}", {}

    def get(
        self, ctx: RequestContext, url: str, offset: int = 0, length: int | None = None
    ) -> Body:
        content = memoryview(self._content(url))[offset:][:length]
        pieces = range(0, len(content), CHUNK)
        chunks = (bytes(content[start : start + CHUNK]) for start in pieces)
        return StreamBody(chunks, len(content))

    def size(self, ctx: RequestContext, url: str) -> int:
        return len(self._content(url))

    def delete(self, ctx: RequestContext, url: str) -> None:
        with self._lock:
            if self._images.pop(self._image_id(url), None) is None:
                raise errors.NotFound()

    def discard(self, ctx: RequestContext, image_id: str) -> None:
        with self._lock:
            self._images.pop(image_id, None)

    def validate(self, url: str) -> None:
        self._image_id(url)

    def contents(self) -> Iterator[Stored]:
        with self._lock:
            images = list(self._images.items())
        for image_id, (content, modified) in images:
            yield Stored(f"memory://{image_id}", image_id, len(content), modified)

    def _content(self, url: str) -> bytes:
        try:
            return self._images[self._image_id(url)][0]
        except KeyError:
            raise errors.NotFound() from None

    def _image_id(self, url: str) -> str:
        scheme, separator, image_id = url.partition("://")
        if scheme != "memory" or not separator or not image_id or "/" in image_id:
            raise BadLocation()
        return image_id
