"""An image's bytes on their way into a store, and the record of how that ended."""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Protocol

from common import errors
from common.context import RequestContext
from common.image import ACTIVE, DELETED, KILLED, SAVING, Change, Image, Location
from common.lease import Lease
from common.upload import Observer, Upload
from common.upload import Source as ByteSource
from glance_api.leases import LeaseKeeper
from glance_store.loader import Stores

LOG = logging.getLogger(__name__)

# How often the registry is asked what became of an activation whose answer never came.
_SETTLE_PAUSE: Final = 0.5

# Makes the observer of a declared disk format's content.
Inspect = Callable[[str | None], Observer | None]


class Records(Protocol):
    """What a transfer needs of the registry."""

    def get(self, ctx: RequestContext, image_id: str, *, vouched: bool = False) -> Image: ...

    def save(self, ctx: RequestContext, image_id: str, change: Change) -> Image: ...


@dataclass(frozen=True)
class TransferSettings:
    """Sizes in bytes; settle_seconds bounds the wait for a registry that stopped answering."""

    image_size_cap: int
    hashing_algorithm: str | None = None
    settle_seconds: float = 15


@dataclass(frozen=True, slots=True)
class Incoming:
    """Bytes to be stored, with what their sender declared about them."""

    source: ByteSource
    size: int | None
    checksum: str | None


class Transfer:
    """Stores bytes under a lease and activates the image, or leaves nothing behind."""

    def __init__(
        self,
        records: Records,
        stores: Stores,
        leases: LeaseKeeper,
        inspect: Inspect,
        settings: TransferSettings,
    ) -> None:
        self.records = records
        self.stores = stores
        self.leases = leases
        self.inspect = inspect
        self.settings = settings

    def run(self, ctx: RequestContext, image: Image, lease: Lease, incoming: Incoming) -> Image:
        """Store incoming and return the active image; the image is `saving` under lease.

        Raises what went wrong; the image is then `killed`, unless it was deleted meanwhile
        (ImageDeleted) or is no longer ours.
        """
        observer = self.inspect(image.disk_format)
        upload = Upload(
            incoming.source,
            size=incoming.size,
            checksum=incoming.checksum,
            limit=self.settings.image_size_cap,
            hashing_algorithm=self.settings.hashing_algorithm,
            observers=[observer] if observer is not None else [],
        )
        self.leases.watch(lease, upload)
        try:
            url, metadata = self.stores.for_scheme(lease.store).add(ctx, image.id, upload)
        except Exception as error:
            self._give_up(ctx, lease, error)
            raise
        self.leases.unwatch(lease)
        change = self._activation(upload, Location(url, metadata), lease)
        return self._activate(ctx, image, lease, change, url)

    def _give_up(self, ctx: RequestContext, lease: Lease, error: Exception) -> None:
        """End a failed upload, and with it the lease, unless bytes may be left in the store."""
        # A driver whose backend was away may have been unable to clean up after itself.
        if isinstance(error, errors.ServiceUnavailable):
            try:
                self.stores.for_scheme(lease.store).discard(ctx, lease.image_id)
            except Exception as again:
                LOG.warning("image %s: bytes may be left for later: %s", lease.image_id, again)
                self._leave_to_janitor(ctx, lease)
                return
        self.leases.end(lease, KILLED, SAVING)

    def _leave_to_janitor(self, ctx: RequestContext, lease: Lease) -> None:
        """The image is killed now; whoever claims the lease when it has run out removes the
        bytes, which count against the quota until then."""
        self.leases.drop(lease)
        try:
            change = Change({"status": KILLED}, from_state=SAVING)
            self.records.save(ctx, lease.image_id, change)
        except errors.GlanceError as error:
            LOG.warning("image %s is left for its lease to expire: %s", lease.image_id, error)

    def _activation(self, upload: Upload, location: Location, lease: Lease) -> Change:
        fields: dict[str, Any] = {
            "status": ACTIVE,
            "size": upload.bytes_read,
            "checksum": upload.checksum,
        }
        if upload.second_hash is not None:
            fields["os_hash_algo"] = self.settings.hashing_algorithm
            fields["os_hash_value"] = upload.second_hash
        return Change(fields, locations=[location], from_state=SAVING, end_lease=lease.token)

    def _activate(
        self, ctx: RequestContext, image: Image, lease: Lease, change: Change, url: str
    ) -> Image:
        try:
            active = self._save_or_settle(ctx, image, change)
        except errors.ServiceUnavailable:
            # The bytes may belong to an active image: only whoever can ask again may judge.
            self.leases.drop(lease)
            raise
        except Exception as error:
            self._undo(ctx, lease, url)
            raise self._reason(ctx, image, error) from error
        self.leases.drop(lease)
        return active

    def _save_or_settle(self, ctx: RequestContext, image: Image, change: Change) -> Image:
        """Save; where no answer came, find out what happened before anything is undone."""
        deadline = time.monotonic() + self.settings.settle_seconds
        uncertain = False
        while True:
            try:
                return self.records.save(ctx, image.id, change)
            except errors.ServiceUnavailable:
                if time.monotonic() > deadline:
                    raise
                uncertain = True
            except (errors.Conflict, errors.NotFound):
                if uncertain and (active := self._already_active(ctx, image, change)):
                    return active
                raise
            time.sleep(_SETTLE_PAUSE)

    def _already_active(self, ctx: RequestContext, image: Image, change: Change) -> Image | None:
        found = self.records.get(ctx, image.id, vouched=True)
        same = found.status == ACTIVE and found.checksum == change.fields["checksum"]
        return found if same else None

    def _undo(self, ctx: RequestContext, lease: Lease, url: str) -> None:
        try:
            self.stores.for_url(url).delete(ctx, url)
        except errors.NotFound:
            pass
        except Exception:
            LOG.exception("the bytes of image %s are left for its lease to expire", lease.image_id)
            self._leave_to_janitor(ctx, lease)
            return
        self.leases.end(lease, KILLED, SAVING)

    def _reason(self, ctx: RequestContext, image: Image, error: Exception) -> Exception:
        """Why an activation was refused, in the caller's terms (D02)."""
        if isinstance(error, errors.NotFound):
            return errors.ImageDeleted()
        if isinstance(error, errors.Conflict):
            try:
                if self.records.get(ctx, image.id, vouched=True).status == DELETED:
                    return errors.ImageDeleted()
            except errors.NotFound:
                return errors.ImageDeleted()
            except errors.GlanceError:
                return error
        return error
