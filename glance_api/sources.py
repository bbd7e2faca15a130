"""What is asked of a source before anything is created for it (images-v1.md sections 8 to 10)."""

from dataclasses import dataclass

from common import errors
from common.context import RequestContext
from common.image import Image
from glance_api.formats import check_formats_set
from glance_api.layers.base import Source
from glance_store.loader import Stores


@dataclass(frozen=True)
class SourceChecks:
    stores: Stores
    image_size_cap: int

    def check_store(self, source: Source) -> None:
        """Raise Invalid for a store that is not enabled."""
        if source.store is not None:
            self.stores.named(source.store)

    def check_url(self, source: Source) -> None:
        """Raise Invalid for a URL that callers may not name."""
        for url in (source.location, source.copy_from):
            if url is None:
                continue
            scheme, colon, _ = url.partition(":")
            if not colon or scheme not in self.stores.external_schemes:
                raise _unsupported(url)

    def check(self, ctx: RequestContext, image: Image, source: Source) -> None:
        """Check source for image as it will be, and fill in its remote size.

        Raises Invalid, NotFound for a URL with nothing behind it, Conflict for a declared size
        that is not the remote one.
        """
        self.check_url(source)
        given = (source.body is not None, source.copy_from is not None, source.location is not None)
        if sum(given) > 1:
            raise errors.Invalid("Only one of a body, copy-from and a location may be given.")
        url = source.location or source.copy_from
        if url:
            self.stores.for_url(url).validate_external(url)
        if source.copy_from:
            self._check_rights(ctx, source.copy_from)
        if source.body is not None or source.location:
            check_formats_set(image)
        if url and (source.location or source.size is None):
            source.remote_size = self._remote_size(ctx, url)
        if source.location:
            self._check_location_size(source)

    def _check_rights(self, ctx: RequestContext, url: str) -> None:
        """A copy takes no more rights than its caller's; for a location, policy decides."""
        if not ctx.is_admin and self.stores.lends_rights(ctx, url):
            raise _unsupported(url)

    def _remote_size(self, ctx: RequestContext, url: str) -> int | None:
        try:
            size = self.stores.external_size(ctx, url)
        except errors.ServiceUnavailable:
            # One answer for every way of not being there: no oracle for ports (SEC-044).
            raise errors.Invalid("The source cannot be read.") from None
        if size is not None and size > self.image_size_cap:
            raise errors.Invalid("The source is larger than image_size_cap allows.")
        return size

    def _check_location_size(self, source: Source) -> None:
        if not source.remote_size and source.size is None:
            # It would be recorded as empty and download as nothing (D43).
            raise errors.Invalid("The source does not tell its size.")
        if source.size and source.remote_size and source.size != source.remote_size:
            raise errors.Conflict("The declared size differs from the size of the source.")


def _unsupported(url: str) -> errors.Invalid:
    return errors.Invalid(f"External sources are not supported: '{_shown(url)}'")


def _shown(url: str) -> str:
    """A refused URL as it may be repeated to its sender, and logged: without what may be
    user-info, however malformed, and without its query, which may be a signature."""
    before, at, after = url.rpartition("@")
    return ("***@" if before or at else "") + after.partition("?")[0]
