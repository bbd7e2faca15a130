"""What every call to a driver has in common, done once around all of them."""

import contextlib
import errno
import logging
import re
import traceback
from collections.abc import Iterator, Sequence
from typing import Any, Final

from common import errors
from common.body import Body, FileBody
from common.context import RequestContext
from common.upload import Upload
from glance_store.driver import Capability, Store, Stored
from glance_store.errors import (
    AddDisabled,
    BackendUnavailable,
    BadLocation,
    DeleteUnsupported,
    ReadUnsupported,
)

LOG = logging.getLogger(__name__)

_UUID: Final = re.compile(r"[0-9A-Fa-f]{8}-(?:[0-9A-Fa-f]{4}-){3}[0-9A-Fa-f]{12}")


class GuardedStore(Store):
    """A driver whose errors are all domain errors, say nothing of its URLs, and are logged.

    An error of a kind that the driver's contract does not know becomes BackendUnavailable. The
    log gets the store's name, the image's id and the lines of code, never a message or a URL: a
    library's message may hold either, and a URL credentials (SEC-030, SEC-031).
    """

    def __init__(self, name: str, driver: Store) -> None:
        super().__init__(driver.conf)
        self.name = name
        self._driver = driver
        # Each driver has its own; to the type checker they belong to a class.
        self.__dict__.update(
            schemes=driver.schemes,
            capabilities=driver.capabilities,
            accepts_external=driver.accepts_external,
            internal_schemes=driver.internal_schemes,
        )

    def add(self, ctx: RequestContext, image_id: str, upload: Upload) -> tuple[str, dict[str, Any]]:
        self._require(Capability.WRITE, AddDisabled)
        with self._guard("add", image_id):
            return self._driver.add(ctx, image_id, upload)

    def get(
        self, ctx: RequestContext, url: str, offset: int = 0, length: int | None = None
    ) -> Body:
        self._require(Capability.READ, ReadUnsupported)
        with self._guard_url("get", url):
            body = self._driver.get(ctx, url, offset, length)
        # A file is sent without being iterated, and raises nothing that names a store.
        return body if isinstance(body, FileBody) else _GuardedBody(self, url, body)

    def size(self, ctx: RequestContext, url: str) -> int | None:
        with self._guard_url("size", url):
            return self._driver.size(ctx, url)

    def delete(self, ctx: RequestContext, url: str) -> None:
        self._require(Capability.DELETE, DeleteUnsupported)
        with self._guard_url("delete", url):
            self._driver.delete(ctx, url)

    def discard(self, ctx: RequestContext, image_id: str) -> None:
        with self._guard("discard", image_id):
            self._driver.discard(ctx, image_id)

    def validate(self, url: str) -> None:
        with self._guard_url("validate", url):
            self._driver.validate(url)

    def validate_external(self, url: str) -> None:
        with self._guard_url("validate", url):
            self._driver.validate_external(url)

    def lends_rights(self, ctx: RequestContext, url: str) -> bool:
        with self._guard_url("lends_rights", url):
            return self._driver.lends_rights(ctx, url)

    def without_credentials(self, url: str) -> str | None:
        with self._guard_url("without_credentials", url):
            return self._driver.without_credentials(url)

    def ping(self) -> None:
        with self._guard("ping", "-"):
            self._driver.ping()

    def set_acls(
        self,
        ctx: RequestContext,
        url: str,
        *,
        public: bool,
        read: Sequence[str] = (),
        write: Sequence[str] = (),
    ) -> None:
        if Capability.ACL in self.capabilities:
            with self._guard_url("set_acls", url):
                self._driver.set_acls(ctx, url, public=public, read=read, write=write)

    def contents(self) -> Iterator[Stored]:
        with self._guard("contents", "-"):
            yield from self._driver.contents()

    def _require(self, capability: Capability, refusal: type[errors.GlanceError]) -> None:
        if capability not in self.capabilities:
            raise refusal()

    @contextlib.contextmanager
    def _guard_url(self, operation: str, url: str) -> Iterator[None]:
        if url.partition(":")[0] not in self.schemes:
            raise BadLocation()
        found = _UUID.search(url)
        with self._guard(operation, found[0] if found else "-", url):
            yield

    @contextlib.contextmanager
    def _guard(self, operation: str, image_id: str, url: str = "") -> Iterator[None]:
        try:
            yield
        except errors.GlanceError as error:
            self._hush(operation, image_id, url, error)
            raise
        except Exception as error:
            LOG.error(
                "store %s: %s of image %s failed with %s\n%s",
                self.name,
                operation,
                image_id,
                type(error).__qualname__,
                "".join(traceback.format_tb(error.__traceback__)).rstrip(),
            )
            raise BackendUnavailable() from None

    def _hush(self, operation: str, image_id: str, url: str, error: errors.GlanceError) -> None:
        """Take from error whatever would show a URL where it is answered or logged."""
        if isinstance(error, errors.ServiceUnavailable):
            LOG.warning(
                "store %s: %s of image %s failed with %s, from %s",
                self.name,
                operation,
                image_id,
                type(error).__qualname__,
                _kind(error.__cause__ or error.__context__),
            )
        error.__cause__ = None
        error.__suppress_context__ = True
        if url and url.partition(":")[2].strip("/") in error.message:
            error.args = (type(error).default,)


def _kind(cause: BaseException | None) -> str:
    """What sort of error cause is; its own words may hold a path or a URL."""
    if cause is None:
        return "the driver itself"
    code = getattr(cause, "errno", None)
    return errno.errorcode.get(code, type(cause).__qualname__) if code else type(cause).__qualname__


class _GuardedBody(Body):
    """A driver's body; what goes wrong in the middle is guarded as well."""

    def __init__(self, store: GuardedStore, url: str, inner: Body) -> None:
        super().__init__(inner.length)
        self._store = store
        self._url = url
        self._inner = inner

    def chunks(self) -> Iterator[bytes]:
        self._inner.length = self.length
        with self._store._guard_url("get", self._url):
            yield from self._inner

    def interrupt(self) -> None:
        self._inner.interrupt()

    def release(self) -> None:
        self._inner.close()
