"""Images as RBD images in a Ceph pool, each with a protected snapshot to read and clone from.

Compute and volume services clone an image from its snapshot instead of copying it, so name,
snapshot and URL (`rbd://fsid/pool/image/snapshot`) are as every release of Glance made them.
"""

import contextlib
import logging
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, ClassVar, Final
from urllib.parse import quote, unquote

from oslo_config import cfg

from common import errors
from common.concurrency import Behind, offload
from common.query import is_uuid_like
from glance_store import (
    BackendUnavailable,
    BadLocation,
    BadStoreConfiguration,
    Body,
    Capability,
    RequestContext,
    Store,
    Stored,
    Upload,
)
from glance_store.drivers.ceph import Cluster, Pool
from glance_store.drivers.readahead import ReadAheadBody

LOG = logging.getLogger(__name__)

SNAPSHOT: Final = "snap"

_MIB: Final = 1024 * 1024
# librbd accepts objects of up to 32 MiB.
_CHUNK_SIZES: Final = range(1, 33)
# An image of unknown size at least doubles when it is full, by no more than this: few resizes,
# and few objects to look for when the excess is cut off (REL-093).
_MOST_GROWTH: Final = 8 * 1024 * _MIB
# Ceph takes a client that died for alive until its watch of the image expires, 30 s by default.
_WATCH_EXPIRES: Final = 40.0

# Nothing that a shell, a path or librbd's own pool/image@snapshot notation would read a meaning
# into (SEC-042); a leading dash only where it begins an image's id.
_NAME: Final = re.compile(r"[\w{.][\w{}.:+=,~ -]*|-+[0-9A-Fa-f][0-9A-Fa-f-]*")


@dataclass(frozen=True, slots=True)
class _Address:
    """Where an image is; without a pool in the configured one, without a snapshot in the head."""

    pool: str | None
    image: str
    snapshot: str | None

    @classmethod
    def of(cls, url: str) -> "_Address":
        scheme, _, rest = url.partition("://")
        try:
            parts = [unquote(part, errors="strict") for part in rest.split("/")]
        except UnicodeDecodeError:
            raise BadLocation() from None
        if scheme != "rbd" or not url.isascii() or not all(map(_NAME.fullmatch, parts)):
            raise BadLocation()
        match parts:
            case [image]:
                return cls(None, image, None)
            case [_fsid, pool, image, snapshot]:
                return cls(pool, image, snapshot)
        raise BadLocation()


class _Images:
    """The images of an open pool. Its methods block natively: call them through `offload`."""

    def __init__(self, rbd: Any, ioctx: Any) -> None:
        self._rbd = rbd
        self._ioctx = ioctx

    def names(self) -> list[str]:
        return list(self._rbd.RBD().list(self._ioctx))

    def create(self, name: str, size: int, order: int) -> None:
        layering = self._rbd.RBD_FEATURE_LAYERING
        self._rbd.RBD().create(self._ioctx, name, size, order, old_format=False, features=layering)

    def open(self, name: str) -> Any:
        return self._rbd.Image(self._ioctx, name)

    def open_to_read(self, name: str, snapshot: str | None) -> Any:
        return self._rbd.Image(self._ioctx, name, snapshot=snapshot, read_only=True)

    def size(self, name: str, snapshot: str | None) -> int:
        with self.open_to_read(name, snapshot) as image:
            return int(image.size())

    def describe(self, name: str) -> tuple[int, bool, datetime] | None:
        """Size, whether it can be read and cloned, when it was made; None if it is gone."""
        try:
            with self.open_to_read(name, None) as image:
                sizes = {found["name"]: found["size"] for found in image.list_snaps()}
                complete = SNAPSHOT in sizes and image.is_protected_snap(SNAPSHOT)
                return sizes.get(SNAPSHOT, image.size()), complete, image.create_timestamp()
        except self._rbd.ImageNotFound:
            return None

    def remove(self, name: str, snapshot: str | None) -> None:
        """Remove an image and its snapshot. Raises an error with everything as it was where
        something depends on them."""
        with self.open(name) as image:
            self._refuse_if_used(image, snapshot)
            if snapshot is not None:
                self._remove_snapshot(image, snapshot)
        try:
            self._rbd.RBD().remove(self._ioctx, name)
        except (self._rbd.ImageBusy, self._rbd.ImageHasSnapshots):
            # Somebody cloned or opened it in between: without its snapshot it would be lost.
            if snapshot is not None:
                self._restore_snapshot(name, snapshot)
            raise

    def _refuse_if_used(self, image: Any, snapshot: str | None) -> None:
        snapshots = {found["name"] for found in image.list_snaps()}
        # One watcher is this image, open.
        if snapshots - {snapshot} or len(list(image.watchers_list())) > 1:
            raise errors.InUse()
        if snapshot in snapshots:
            image.set_snap(snapshot)
            # Clones of the newer format do not stop a snapshot from being removed.
            if list(image.list_children()):
                raise errors.InUse()
            image.set_snap(None)

    def _remove_snapshot(self, image: Any, snapshot: str) -> None:
        # A delete that was cut off may have been here before.
        with contextlib.suppress(self._rbd.ImageNotFound):
            protected = image.is_protected_snap(snapshot)
            if protected:
                image.unprotect_snap(snapshot)
            try:
                image.remove_snap(snapshot)
            except self._rbd.Error:
                if protected:
                    image.protect_snap(snapshot)
                raise

    def _restore_snapshot(self, name: str, snapshot: str) -> None:
        with self.open(name) as image:
            image.create_snap(snapshot)
            image.protect_snap(snapshot)


class _Sink:
    """Writes chunks one after the other, growing the image as needed; blocks natively."""

    def __init__(self, image: Any, size: int | None) -> None:
        self._image = image
        self._capacity = size or 0
        self._end = 0

    def write(self, chunk: bytes) -> None:
        end = self._end + len(chunk)
        if end > self._capacity:
            growth = min(max(self._capacity, len(chunk)), _MOST_GROWTH)
            self._resize(max(end, self._capacity + growth))
        self._image.write(chunk, self._end)
        self._end = end

    def finish(self) -> None:
        """Cut off what is too much and make the image readable, its bytes being on disk."""
        if self._end < self._capacity:
            self._resize(self._end)
        self._image.flush()
        self._image.create_snap(SNAPSHOT)
        self._image.protect_snap(SNAPSHOT)

    def _resize(self, size: int) -> None:
        self._image.resize(size)
        self._capacity = size


class RBDStore(Store):
    """Stores an image as RBD image `<image id>` of `rbd_store_pool` with the snapshot `snap`.

    Old locations of the form `rbd://<image id>` name an image without a snapshot.
    """

    schemes: ClassVar[tuple[str, ...]] = ("rbd",)
    capabilities: ClassVar[Capability] = (
        Capability.READ | Capability.WRITE | Capability.DELETE | Capability.LIST
    )
    options: ClassVar[Sequence[cfg.Opt]] = (
        cfg.StrOpt("rbd_store_pool", default="images", help="Pool that holds the images."),
        cfg.StrOpt(
            "rbd_store_user", help="Ceph user, without `client.`; unset takes Ceph's default."
        ),
        cfg.StrOpt(
            "rbd_store_ceph_conf",
            default="/etc/ceph/ceph.conf",
            help="Ceph's configuration file; it also names the keyring.",
        ),
        cfg.IntOpt(
            "rbd_store_chunk_size",
            default=8,
            help="Size in MiB of the objects an image is made of; a power of two up to 32.",
        ),
        cfg.IntOpt(
            "rados_connect_timeout",
            default=0,
            help="Seconds to wait for a connection; 0 or less for no bound but that of every "
            "operation, rbd_store_operation_timeout.",
        ),
        cfg.IntOpt(
            "rbd_store_operation_timeout",
            default=60,
            min=1,
            help="Seconds after which an operation on a monitor or an OSD fails, unless Ceph's "
            "configuration file sets rados_mon_op_timeout or rados_osd_op_timeout.",
        ),
    )

    def __init__(self, conf: Mapping[str, Any]) -> None:
        super().__init__(conf)
        mebibytes = conf["rbd_store_chunk_size"]
        if mebibytes not in _CHUNK_SIZES:
            raise BadStoreConfiguration("rbd_store_chunk_size must be between 1 and 32 (MiB)")
        if not conf["rbd_store_pool"]:
            raise BadStoreConfiguration("rbd_store_pool must name a pool")
        # Objects have a power of two as their size; as in Glance, the next smaller one.
        self._order = (mebibytes * _MIB).bit_length() - 1
        self._pool: str = conf["rbd_store_pool"]
        self._cluster = Cluster(
            conf["rbd_store_ceph_conf"],
            conf["rbd_store_user"] or None,
            conf["rados_connect_timeout"],
            conf["rbd_store_operation_timeout"],
        )

    def add(self, ctx: RequestContext, image_id: str, upload: Upload) -> tuple[str, dict[str, Any]]:
        with self._open_own_pool() as pool:
            images = self._images(pool)
            self._create(images, image_id, upload.size or 0)
            try:
                self._fill(images, image_id, upload)
            except BaseException:
                self._undo(image_id, SNAPSHOT, _WATCH_EXPIRES)
                raise
            return self._url(pool, image_id), {}

    def get(
        self, ctx: RequestContext, url: str, offset: int = 0, length: int | None = None
    ) -> Body:
        address = _Address.of(url)
        with contextlib.ExitStack() as held:
            pool = held.enter_context(self._open_pool(address))
            image = offload(self._images(pool).open_to_read, address.image, address.snapshot)
            held.callback(offload, image.close)
            available = max(offload(image.size) - offset, 0)
            wanted = available if length is None else min(length, available)
            return ReadAheadBody(image.read, offset, wanted, pool.domain_errors, held.pop_all())

    def size(self, ctx: RequestContext, url: str) -> int:
        address = _Address.of(url)
        with self._open_pool(address) as pool:
            return offload(self._images(pool).size, address.image, address.snapshot)

    def delete(self, ctx: RequestContext, url: str) -> None:
        address = _Address.of(url)
        with self._open_pool(address) as pool:
            offload(self._images(pool).remove, address.image, address.snapshot)

    def discard(self, ctx: RequestContext, image_id: str) -> None:
        self._remove_when_free(image_id, SNAPSHOT, _WATCH_EXPIRES)

    def validate(self, url: str) -> None:
        _Address.of(url)

    def lends_rights(self, ctx: RequestContext, url: str) -> bool:
        return True

    def contents(self) -> Iterator[Stored]:
        with self._open_own_pool() as pool:
            images = self._images(pool)
            for name in offload(images.names):
                if (described := offload(images.describe, name)) is not None:
                    size, complete, made = described
                    image_id = name if is_uuid_like(name) else None
                    yield Stored(self._url(pool, name), image_id, size, made, complete)

    def _create(self, images: _Images, image_id: str, size: int) -> None:
        try:
            offload(images.create, image_id, size, self._order)
        except self._cluster.rbd.ImageExists:
            raise errors.Duplicate() from None
        except BaseException:
            # After a timeout part of it may be there. A whole image of that name, which may be
            # there too, is not touched: it has its snapshot.
            self._undo(image_id, None, 0)
            raise

    def _fill(self, images: _Images, image_id: str, upload: Upload) -> None:
        image = offload(images.open, image_id)
        try:
            sink, writing = _Sink(image, upload.size), Behind(depth=2)
            try:
                # Whole objects: a write that covers part of one costs as much (LP 1916482).
                while chunk := upload.read_full(1 << self._order):
                    writing.start(sink.write, chunk)
            finally:
                writing.wait()
            offload(sink.finish)
        finally:
            offload(image.close)

    def _undo(self, image_id: str, snapshot: str | None, seconds: float) -> None:
        try:
            self._remove_when_free(image_id, snapshot, seconds)
        except errors.GlanceError:
            LOG.error("Image %s was left half-made in the rbd store", image_id)

    def _remove_when_free(self, image_id: str, snapshot: str | None, seconds: float) -> None:
        """Remove an image nobody reads, if it is there, within so many seconds.

        The client that left it, ourselves included, may be gone without Ceph having noticed.
        """
        deadline = time.monotonic() + seconds
        while True:
            try:
                with self._open_own_pool() as pool:
                    return offload(self._images(pool).remove, image_id, snapshot)
            except errors.NotFound:
                return None
            except errors.InUse as error:
                if time.monotonic() >= deadline:
                    raise BackendUnavailable() from error
            time.sleep(1)

    def _images(self, pool: Pool) -> _Images:
        return _Images(self._cluster.rbd, pool.ioctx)

    def _open_pool(self, address: _Address) -> contextlib.AbstractContextManager[Pool]:
        return self._cluster.pool(address.pool or self._pool)

    @contextlib.contextmanager
    def _open_own_pool(self) -> Iterator[Pool]:
        with contextlib.ExitStack() as held:
            try:
                pool = held.enter_context(self._cluster.pool(self._pool))
            except errors.NotFound as error:
                LOG.error("The pool that rbd_store_pool names does not exist")
                raise BackendUnavailable() from error
            yield pool

    def _url(self, pool: Pool, image: str) -> str:
        parts = (pool.fsid, pool.name, image, SNAPSHOT)
        return "rbd://" + "/".join(quote(part, safe="") for part in parts)
