"""A store that fails as its caller wishes: a role `moody:<operation>:<error>` is a wish.

Its bytes are in memory, so that a service has nothing of it left.
"""

from typing import Any, ClassVar

from common import errors
from common.body import Body
from common.context import RequestContext
from common.upload import Upload
from glance_store import errors as store_errors
from glance_store.drivers.memory import MemoryStore

ERRORS: dict[str, type[Exception]] = {
    "full": store_errors.StorageFull,
    "denied": store_errors.StorageWriteDenied,
    "disabled": store_errors.AddDisabled,
    "duplicate": errors.Duplicate,
    "forbidden": errors.Forbidden,
    "unavailable": store_errors.BackendUnavailable,
    "unreadable": store_errors.ReadUnsupported,
    "undeletable": store_errors.DeleteUnsupported,
    "missing": errors.NotFound,
    "inuse": errors.InUse,
    "bug": RuntimeError,
}


class MoodyStore(MemoryStore):
    schemes: ClassVar[tuple[str, ...]] = ("moody",)
    accepts_external: ClassVar[bool] = False

    def add(self, ctx: RequestContext, image_id: str, upload: Upload) -> tuple[str, dict[str, Any]]:
        _fail(ctx, "add")
        _, metadata = super().add(ctx, image_id, upload)
        return f"moody://{image_id}", metadata

    def get(
        self, ctx: RequestContext, url: str, offset: int = 0, length: int | None = None
    ) -> Body:
        _fail(ctx, "get")
        return super().get(ctx, _inner(url), offset, length)

    def delete(self, ctx: RequestContext, url: str) -> None:
        _fail(ctx, "delete")
        super().delete(ctx, _inner(url))


def _inner(url: str) -> str:
    return url.replace("moody://", "memory://", 1)


def _fail(ctx: RequestContext, operation: str) -> None:
    for role in ctx.roles:
        word, _, wish = role.partition(":")
        wanted, _, name = wish.partition(":")
        if word == "moody" and wanted == operation:
            raise ERRORS[name]()
