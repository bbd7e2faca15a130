"""Where bytes are: the only layer that talks to stores.

Everything about a source is checked before anything is created or changed (D04). The record of
what is about to happen, a lease, is written with the change that begins it, so that a process
that dies half-way leaves something for others to finish.
"""

import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from common import errors
from common.body import Body, empty
from common.context import RequestContext
from common.image import (
    ACTIVE,
    DEACTIVATED,
    DELETED,
    KILLED,
    PENDING_DELETE,
    QUEUED,
    SAVING,
    Change,
    Image,
    Location,
)
from common.lease import COPY, DELETE, UPLOAD, Lease
from glance_api.layers.base import ImageLayer, ImageRepo, Source
from glance_api.leases import LeaseKeeper
from glance_api.sources import SourceChecks
from glance_api.transfer import Incoming, Transfer
from glance_api.verified_body import VerifiedBody
from glance_store.errors import DeleteUnsupported, SourceFailed
from glance_store.loader import Stores

LOG = logging.getLogger(__name__)

# A delete that meets a status change starts over with the image as it is then.
_DELETE_ATTEMPTS: Final = 5


class LocationLayer(ImageLayer):
    def __init__(
        self,
        inner: ImageRepo,
        stores: Stores,
        leases: LeaseKeeper,
        transfer: Transfer,
        checks: SourceChecks,
        *,
        delayed_delete: bool = False,
        verify_on_download: bool = False,
    ) -> None:
        super().__init__(inner)
        self.stores = stores
        self.leases = leases
        self.transfer = transfer
        self.checks = checks
        self.delayed_delete = delayed_delete
        self.verify_on_download = verify_on_download

    def add(self, ctx: RequestContext, image: Image, source: Source) -> Image:
        self.checks.check_store(source)
        self.checks.check(ctx, image, source)
        if source.location:
            image = replace(image, status=ACTIVE, locations=[Location(source.location)])
        elif source.body is not None:
            image = replace(image, status=SAVING)
        if source.remote_size:
            image = replace(image, size=source.remote_size)
        self._begin(ctx, image, source)
        return self._under_lease(source, lambda: self.inner.add(ctx, image, source))

    def save(self, ctx: RequestContext, image: Image, change: Change, source: Source) -> Image:
        remote = source.location is not None or source.copy_from is not None
        if not remote and source.body is None:
            return self.inner.save(ctx, image, change, source)
        if remote and image.status != QUEUED:
            self.checks.check_url(source)
            raise errors.Invalid("A location or copy-from is accepted for a queued image only.")
        self.checks.check_store(source)
        self.checks.check(ctx, _as_changed(image, change), source)
        source.updated = True
        change.from_state = QUEUED
        if source.location:
            change.fields["status"] = ACTIVE
            change.locations = [Location(source.location)]
        elif source.body is not None:
            change.fields["status"] = SAVING
        if source.remote_size:
            change.fields["size"] = source.remote_size
        change.lease = self._begin(ctx, image, source)
        change.quota = source.quota
        return self._under_lease(source, lambda: self.inner.save(ctx, image, change, source))

    def upload(self, ctx: RequestContext, image: Image, source: Source) -> Image:
        lease = source.lease
        if lease is None:
            return image  # a location: the record says all there is
        try:
            if source.copy_from:
                return self._copy(ctx, image, lease, source.copy_from, source.checksum)
            if not source.content_type_ok:
                self.leases.end(lease, KILLED, SAVING)
                raise errors.Invalid("Content-Type must be application/octet-stream")
            assert source.body is not None
            size = source.size if source.size is not None else source.body_size
            return self.transfer.run(
                ctx, image, lease, Incoming(source.body, size, source.checksum)
            )
        finally:
            self.leases.drop(lease)

    def download(
        self, ctx: RequestContext, image: Image, offset: int = 0, length: int | None = None
    ) -> Body:
        locations = [each for each in image.locations if each.status == ACTIVE]
        if image.size == 0 or not (image.size or locations):
            return empty()
        missing: errors.GlanceError = errors.NotFound(f"Image {image.id} not found.")
        for location in locations:
            try:
                body = self._open(ctx, image, location, offset, length)
            except (errors.NotFound, errors.ServiceUnavailable) as error:
                if isinstance(error, errors.ServiceUnavailable):
                    missing = error
                continue
            whole = self.verify_on_download and length is None and image.checksum is not None
            return VerifiedBody(body, str(image.checksum), image.id) if whole else body
        raise missing

    def _open(
        self,
        ctx: RequestContext,
        image: Image,
        location: Location,
        offset: int,
        length: int | None,
    ) -> Body:
        body = self.stores.for_url(location.url).get(ctx, location.url, offset, length)
        try:
            _promise_recorded(image, body, offset, length)
            body.begin()
        except BaseException:
            body.close()
            raise
        return body

    def remove(self, ctx: RequestContext, image: Image) -> Image:
        for _ in range(_DELETE_ATTEMPTS):
            try:
                return self._remove(ctx, image)
            except errors.Conflict as error:
                if isinstance(error, errors.InUse):
                    raise
                image = self.inner.get(ctx, image.id)
        raise errors.Conflict("The image is changing; try again.")

    def _remove(self, ctx: RequestContext, image: Image) -> Image:
        # The registry hides the locations of a deactivated image from users.
        has_bytes = bool(image.locations) or image.status == DEACTIVATED
        status = PENDING_DELETE if has_bytes and self.delayed_delete else DELETED
        lease = self.leases.new(DELETE, image.id, self._scheme(image), previous=image.status)
        change = Change({"status": status}, from_state=image.status, lease=lease)
        # Permission is decided by this change, before any byte is touched (CVE-2012-4573).
        marked = self.inner.save(ctx, image, change, Source())
        with self.leases.hold(lease):
            try:
                if status == DELETED:
                    delete_bytes(ctx, self.stores, marked)
            except Exception:
                self.leases.end(lease, image.status, DELETED)
                raise
        # With the lease ends the record: whoever finds the one ends the other too.
        self.leases.end(lease)
        return marked

    def _copy(
        self, ctx: RequestContext, image: Image, lease: Lease, url: str, checksum: str | None
    ) -> Image:
        try:
            change = Change({"status": SAVING}, from_state=QUEUED)
            image = self.inner.save(ctx, image, change, Source())
        except Exception:
            self.leases.end(lease, KILLED, QUEUED)
            raise
        try:
            opened = self.stores.open_source(ctx, url)
        except errors.GlanceError as error:
            self.leases.end(lease, KILLED, SAVING)
            raise SourceFailed(error.message) from error
        except Exception:
            self.leases.end(lease, KILLED, SAVING)
            raise
        with opened:
            # The source's own word on its length counts, whatever the caller declared.
            incoming = Incoming(opened, opened.length, checksum)
            return self.transfer.run(ctx, image, lease, incoming)

    def _begin(self, ctx: RequestContext, image: Image, source: Source) -> Lease | None:
        """Give source the lease that the change about to be written begins."""
        if not source.moves_bytes:
            return None
        # A copy's bytes are reserved as they come: exceeding the quota kills it later (section
        # 10.3) instead of refusing the request.
        known = 0 if source.copy_from else source.body_size or source.size or 0
        source.lease = self.leases.new(
            COPY if source.copy_from else UPLOAD,
            image.id,
            source.store or self.stores.default_scheme,
            owner=ctx.owner,
            reserved=known,
        )
        return source.lease

    def _under_lease(self, source: Source, operation: Callable[[], Image]) -> Image:
        if source.lease is None:
            return operation()
        self.leases.keep(source.lease, source.quota)
        try:
            return operation()
        except BaseException:
            # Either nothing was written, or the lease runs out and is cleaned up after.
            self.leases.drop(source.lease)
            raise

    def _scheme(self, image: Image) -> str:
        location = image.location
        return location.url.partition(":")[0] if location is not None else ""


def delete_bytes(ctx: RequestContext, stores: Stores, image: Image) -> None:
    """Remove the bytes behind every location; those already gone are no error."""
    for location in image.locations:
        try:
            stores.for_url(location.url).delete(ctx, location.url)
        except errors.NotFound:
            LOG.warning("the bytes of image %s were missing already", image.id)
        except DeleteUnsupported:
            LOG.info("the store of image %s does not delete; its bytes stay", image.id)


def _as_changed(image: Image, change: Change) -> Image:
    known = {name: value for name, value in change.fields.items() if hasattr(image, name)}
    return replace(image, **known)


def _promise_recorded(image: Image, body: Body, offset: int, length: int | None) -> None:
    """Promise the recorded number of bytes, whatever the store has now; where none was ever
    recorded, the store's word counts.

    Bytes of our own that have become fewer cut the download short, visibly (REL-030). A remote
    source that has changed since it was registered is not served at all (CVE-2022-4134).
    """
    size = image.size
    if size is None:
        return
    promised = min(size - offset, length) if length is not None else size - offset
    if body.length is not None and body.length != promised and image.checksum is None:
        raise errors.ServiceUnavailable("The image's bytes are not what was registered.")
    body.length = promised
