"""Images as files named by their id, under `file://<directory>/<id>`."""

import errno
import json
import logging
import os
import re
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from io import FileIO
from itertools import islice
from typing import Any, ClassVar, Final, TypeVar

from oslo_config import cfg

from common import errors
from common.body import Body, FileBody
from common.concurrency import Behind, offload
from common.context import RequestContext
from common.upload import Upload
from glance_store.datadirs import DEFAULT_DATADIR, Datadir, Datadirs, LeftOut
from glance_store.disk import PART_SUFFIX, NewFile, part_name, store_errors
from glance_store.driver import Capability, Store, Stored
from glance_store.errors import BackendUnavailable, BadLocation, BadStoreConfiguration

LOG = logging.getLogger(__name__)

T = TypeVar("T")

# Everything an image id consists of (images-v1.md 8.2) and nothing that means something to a
# filesystem; so neither an id nor a URL leads out of its directory.
_NAME: Final = re.compile(r"[0-9A-Za-z:{}_-]{1,255}")

# How much is written before it is made durable in the background: so much that the disk sees
# long writes, so little that the end of an upload waits for next to nothing.
SYNC_EVERY: Final = 32 * 1024 * 1024

# While one such chunk is received, hashing and writing hold two more, and the memory allocator
# what they left: four in all, under 2 MiB. Half as much costs a tenth more processor time.
CHUNK: Final = 448 * 1024

_SCAN_BATCH: Final = 1000

OPTIONS: Final = (
    cfg.StrOpt(
        "filesystem_store_datadir",
        default=DEFAULT_DATADIR,
        help="Directory of the file store. Files are named by image id.",
    ),
    cfg.MultiStrOpt(
        "filesystem_store_datadirs",
        default=[],
        help="Several directories, each as path:priority. The highest priority with enough "
        "room is used, and among equals the one with most room. Excludes "
        "filesystem_store_datadir.",
    ),
    cfg.StrOpt(
        "filesystem_store_metadata_file",
        help="JSON file with one object or a list of objects, each with an id and a "
        "mountpoint, that describe the mounts the directories are on.",
    ),
    cfg.IntOpt(
        "filesystem_store_file_perm",
        default=0,
        help="Mode of the files, octal digits written as a number, for example 640. "
        "0: private to owner and group, less what the umask takes away.",
    ),
    cfg.IntOpt(
        "filesystem_store_chunk_size",
        default=CHUNK,
        min=1,
        help="Bytes read or written at a time.",
    ),
    cfg.BoolOpt(
        "filesystem_store_fsync",
        default=True,
        help="Whether an upload ends only when its bytes and directory entry are on disk.",
    ),
)


class _NotAnImage(errors.NotFound):
    """Something of an image's name that this store does not serve; `reason` is for the log."""

    def __init__(self, reason: str) -> None:
        super().__init__()
        self.reason = reason


class FilesystemStore(Store):
    """Writes whole files or none, and serves them in a form that can leave without a copy."""

    schemes: ClassVar[tuple[str, ...]] = ("file", "filesystem")
    capabilities: ClassVar[Capability] = (
        Capability.READ | Capability.WRITE | Capability.DELETE | Capability.LIST
    )
    accepts_external: ClassVar[bool] = False
    options: ClassVar[Sequence[cfg.Opt]] = OPTIONS

    def __init__(self, conf: Mapping[str, Any]) -> None:
        super().__init__(conf)
        self._datadirs = Datadirs.configured(conf)
        for datadir in self._datadirs:
            if not datadir.may_be_written():
                LOG.warning("the image directory %s may not be written to", datadir.path)
        self._chunk: int = conf.get("filesystem_store_chunk_size") or CHUNK
        self._durable: bool = conf.get("filesystem_store_fsync", True)
        self._permissions = _permissions(conf.get("filesystem_store_file_perm") or 0)
        self._mounts = _mounts(conf.get("filesystem_store_metadata_file"))

    def add(self, ctx: RequestContext, image_id: str, upload: Upload) -> tuple[str, dict[str, Any]]:
        datadir, file, left_out = offload(self._create, _name_of(image_id), upload.size)
        for each in left_out:
            LOG.warning("the image directory %s is left out: %s", each.path, each.reason)
        try:
            self._fill(file, upload)
            offload(file.publish)
        except BaseException:
            offload(file.abandon)
            raise
        path = os.path.join(datadir.path, image_id)
        return f"file://{path}", self._metadata(path)

    def get(
        self, ctx: RequestContext, url: str, offset: int = 0, length: int | None = None
    ) -> Body:
        file, size = self._located(url, _open)
        left = max(size - offset, 0)
        return FileBody(file, offset, left if length is None else min(left, length), self._chunk)

    def size(self, ctx: RequestContext, url: str) -> int:
        return self._located(url, _size)

    def delete(self, ctx: RequestContext, url: str) -> None:
        self._located(url, _delete)

    def discard(self, ctx: RequestContext, image_id: str) -> None:
        offload(self._discard, _name_of(image_id))

    def ping(self) -> None:
        if not offload(lambda: any(datadir.is_mounted() for datadir in self._datadirs)):
            raise BackendUnavailable()

    def validate(self, url: str) -> None:
        scheme, separator, path = url.partition("://")
        well_formed = separator and os.path.isabs(path) and "\0" not in path
        if scheme not in self.schemes or not well_formed:
            raise BadLocation()
        if _NAME.fullmatch(os.path.basename(path)) is None:
            raise BadLocation()

    def contents(self) -> Iterator[Stored]:
        for datadir in self._datadirs:
            entries = offload(self._scan, datadir)
            while batch := offload(lambda scan: list(islice(scan, _SCAN_BATCH)), entries):
                yield from batch

    def _fill(self, file: NewFile, upload: Upload) -> None:
        """While a chunk is received, the one before is hashed and written, on other threads."""
        # As deep as the hashing in Upload: the chunks waiting are the same ones.
        writing, syncing = Behind(depth=2), Behind()
        synced = 0
        try:
            while chunk := upload.read(self._chunk):
                writing.start(file.write, chunk)
                # While the next is awaited, perhaps for long, only the file has this one.
                del chunk
                if self._durable and upload.bytes_read - synced >= SYNC_EVERY:
                    syncing.start(file.sync)
                    synced = upload.bytes_read
            writing.wait()
            syncing.wait()
        finally:
            # Nothing may be under way on a file that is about to be closed.
            for work in (writing, syncing):
                with suppress(errors.GlanceError):
                    work.wait()

    def _create(self, name: str, size: int | None) -> tuple[Datadir, NewFile, list[LeftOut]]:
        if any(os.path.lexists(os.path.join(datadir.path, name)) for datadir in self._datadirs):
            raise errors.Duplicate()
        datadir, left_out = self._datadirs.choose(size)
        file = NewFile(
            datadir.path,
            name,
            size=size,
            permissions=self._permissions,
            durable=self._durable,
        )
        return datadir, file, left_out

    def _located(self, url: str, operation: Callable[[Datadir, str], T]) -> T:
        """Do operation, in a native thread, to the directory and path that url names."""
        self.validate(url)
        path = url.partition("://")[2]

        def locate() -> T:
            datadir = self._datadirs.holding(os.path.dirname(path))
            if datadir is None:
                raise _NotAnImage("lies outside the configured directories")
            return operation(datadir, path)

        try:
            return offload(locate)
        except _NotAnImage as error:
            LOG.warning("the file of image %s %s", os.path.basename(path), error.reason)
            raise

    def _discard(self, name: str) -> None:
        for datadir in self._datadirs:
            if not datadir.is_mounted():
                raise BackendUnavailable()
            for leftover in (name, part_name(name)):
                with store_errors(), suppress(FileNotFoundError):
                    os.unlink(os.path.join(datadir.path, leftover))

    def _scan(self, datadir: Datadir) -> Iterator[Stored]:
        if not datadir.is_mounted():
            raise BackendUnavailable()
        with store_errors(), os.scandir(datadir.path) as entries:
            for entry in entries:
                if not entry.is_file(follow_symlinks=False):
                    continue
                with suppress(FileNotFoundError):
                    yield _stored(datadir, entry.name, entry.stat(follow_symlinks=False))

    def _metadata(self, path: str) -> dict[str, Any]:
        for mount in self._mounts:
            if path.startswith(os.path.join(mount["mountpoint"], "")):
                return dict(mount)
        return {}


def _name_of(image_id: str) -> str:
    if _NAME.fullmatch(image_id) is None:
        raise errors.Invalid("The image id cannot be the name of a file.")
    return image_id


def _open(datadir: Datadir, path: str) -> tuple[FileIO, int]:
    """The open file and its size; anything but a regular file is not an image (SEC-041)."""
    # O_NONBLOCK: opening a FIFO that nobody writes to would wait for ever.
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        descriptor = os.open(path, flags)
    except OSError as error:
        raise _unreadable(error, datadir) from error
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode):
        os.close(descriptor)
        raise _NotAnImage("is not a regular file")
    return FileIO(descriptor, "r"), found.st_size


def _size(datadir: Datadir, path: str) -> int:
    file, size = _open(datadir, path)
    file.close()
    return size


def _delete(datadir: Datadir, path: str) -> None:
    with store_errors():
        try:
            os.unlink(path)
        except FileNotFoundError as error:
            raise _unreadable(error, datadir) from error


def _stored(datadir: Datadir, name: str, found: os.stat_result) -> Stored:
    complete = not (name.startswith(".") and name.endswith(PART_SUFFIX))
    image_id = name if complete else name[1 : -len(PART_SUFFIX)]
    return Stored(
        url=f"file://{datadir.path}/{name}",
        image_id=image_id if _NAME.fullmatch(image_id) else None,
        size=found.st_size,
        modified=datetime.fromtimestamp(found.st_mtime, UTC).replace(tzinfo=None),
        complete=complete,
    )


def _unreadable(error: OSError, datadir: Datadir) -> errors.GlanceError:
    """What a file that cannot be opened means: gone, or out of reach for now."""
    if isinstance(error, FileNotFoundError):
        return errors.NotFound() if datadir.is_mounted() else BackendUnavailable()
    if error.errno in (errno.ELOOP, errno.ENXIO):
        return _NotAnImage("is a symbolic link or a socket")
    return BackendUnavailable()


def _permissions(digits: int) -> int:
    try:
        return int(str(digits), 8)
    except ValueError:
        raise BadStoreConfiguration(
            f"filesystem_store_file_perm: {digits} does not consist of octal digits"
        ) from None


def _mounts(path: str | None) -> list[dict[str, Any]]:
    if not path:
        return []
    option = "filesystem_store_metadata_file"
    try:
        with open(path, encoding="utf-8") as file:
            found = json.load(file)
    except (OSError, ValueError) as error:
        raise BadStoreConfiguration(f"{option}: cannot be read: {type(error).__name__}") from None
    mounts = found if isinstance(found, list) else [found]
    for mount in mounts:
        if not isinstance(mount, dict) or not all(
            isinstance(mount.get(key), str) for key in ("id", "mountpoint")
        ):
            raise BadStoreConfiguration(f"{option}: each object needs an id and a mountpoint")
    return mounts
