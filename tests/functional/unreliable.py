"""A store whose backend fails where a test wants it to, for daemons that enable it by its name.

Its trouble stands in a file beside its directory, as `operation point`: every add, get, delete
or discard meets it until the file is gone.
"""

import errno
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from common.body import Body
from common.context import RequestContext
from common.upload import Upload
from glance_store.drivers.filesystem import FilesystemStore
from glance_store.errors import BackendUnavailable
from tests.functional.daemons import Service

NAME = f"{__name__}.UnreliableStore"


@contextmanager
def trouble(service: Service, *words: str) -> Iterator[None]:
    """While the block lasts the store has these troubles, each `operation point`."""
    file = service.store.with_name("trouble")
    file.write_text("\n".join(words))
    try:
        yield
    finally:
        file.unlink()


class FailingUpload(Upload):
    """Reads from another; the store fails after so many bytes of it."""

    def __init__(self, upload: Upload, after: int) -> None:
        self.__dict__.update(upload.__dict__)
        self._inner = upload
        self._after = after

    def read(self, size: int = 65536) -> bytes:
        chunk = self._inner.read(min(size, 65536))
        self.bytes_read = self._inner.bytes_read
        if self.bytes_read > self._after or not chunk:
            raise OSError(errno.EIO, "the disk is broken")
        return chunk


class UnreliableStore(FilesystemStore):
    def add(self, ctx: RequestContext, image_id: str, upload: Upload) -> tuple[str, dict[str, Any]]:
        match self._trouble("add"):
            case "open":
                raise BackendUnavailable()
            case "stall":
                self._wait("add")
            case "first":
                return super().add(ctx, image_id, FailingUpload(upload, 0))
            case "middle":
                return super().add(ctx, image_id, FailingUpload(upload, 100_000))
            case "last":
                return super().add(ctx, image_id, FailingUpload(upload, 1 << 60))
            case "close":
                super().add(ctx, image_id, upload)
                raise BackendUnavailable()
        return super().add(ctx, image_id, upload)

    def get(
        self, ctx: RequestContext, url: str, offset: int = 0, length: int | None = None
    ) -> Body:
        self._fail_or_stall("get")
        return super().get(ctx, url, offset, length)

    def delete(self, ctx: RequestContext, url: str) -> None:
        self._fail_or_stall("delete")
        super().delete(ctx, url)

    def discard(self, ctx: RequestContext, image_id: str) -> None:
        self._fail_or_stall("discard")
        super().discard(ctx, image_id)

    def _fail_or_stall(self, operation: str) -> None:
        match self._trouble(operation):
            case "fail":
                raise BackendUnavailable()
            case "stall":
                self._wait(operation)

    def _wait(self, operation: str) -> None:
        while self._trouble(operation) == "stall":
            time.sleep(0.05)

    def _trouble(self, operation: str) -> str | None:
        file = Path(self.conf["filesystem_store_datadir"]).with_name("trouble")
        if not os.path.exists(file):
            return None
        words = dict(line.split(" ") for line in file.read_text().splitlines())
        return words.get(operation)
