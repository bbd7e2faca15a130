"""Files that appear whole or not at all, and what the operating system's errors mean to a store.

Everything here blocks, so callers on an event loop go through `common.concurrency`; and nothing
here logs, because the log's locks belong to the event loop.
"""

import contextlib
import ctypes
import errno
import os
from collections.abc import Iterator
from io import FileIO
from typing import Final

from common import errors
from glance_store.errors import BackendUnavailable, StorageFull, StorageWriteDenied

_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_DENIED: Final = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})
_UNSUPPORTED: Final = frozenset({errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL})
# A kernel that does not know O_TMPFILE sees an attempt to write to a directory.
_NO_TMPFILE: Final = frozenset({errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL, errno.ENOENT})
_NO_HARD_LINKS: Final = frozenset({errno.EOPNOTSUPP, errno.EPERM, errno.ENOSYS, errno.EMLINK})

# Space is claimed in steps, so that a caller who merely declares a huge image holds only this
# much of the disk beyond what it has sent.
RESERVE_STEP: Final = 256 * 1024 * 1024

PART_SUFFIX: Final = ".part"

# Not os.posix_fallocate: where a filesystem (NFS 3, some FUSE) cannot reserve, the C library
# imitates it by writing to every block.
_libc = ctypes.CDLL(None, use_errno=True)
_libc.fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]


def part_name(name: str) -> str:
    """What an unfinished file called name is called, where it needs a name at all."""
    return f".{name}{PART_SUFFIX}"


def store_error(error: OSError) -> errors.GlanceError:
    """The domain's word for error, without the path that error names (D34)."""
    if error.errno in _FULL:
        return StorageFull()
    if error.errno in _DENIED:
        return StorageWriteDenied()
    return BackendUnavailable()


@contextlib.contextmanager
def store_errors() -> Iterator[None]:
    """Turn any OSError of the block into the domain's error for it, with that as its cause."""
    try:
        yield
    except OSError as error:
        raise store_error(error) from error


class NewFile:
    """A file being written, invisible under its name until `publish`.

    It has no name at all meanwhile where the filesystem can do that (O_TMPFILE), so that not
    even a lost power supply leaves anything; elsewhere it is called `part_name(name)`. One of
    publish and abandon ends it.
    """

    def __init__(
        self, directory: str, name: str, *, size: int | None, permissions: int, durable: bool
    ) -> None:
        """Open it; permissions 0 means private to owner and group, less what umask takes away.

        Raises Duplicate if name exists already or, without O_TMPFILE, is being written.
        """
        self._directory = directory
        self._name = name
        self._size = size
        self._durable = durable
        self._part: str | None = None
        self._published = False
        self._position = 0
        self._reserved = 0
        if os.path.lexists(self._path(name)):
            raise errors.Duplicate()
        with store_errors():
            self._file = self._open()
            if permissions:
                os.fchmod(self._file.fileno(), permissions)

    def write(self, chunk: bytes) -> None:
        """Append chunk. Raises StorageFull, StorageWriteDenied or BackendUnavailable."""
        with store_errors():
            self._reserve(self._position + len(chunk))
            left = memoryview(chunk)
            while left:
                left = left[self._file.write(left) :]
            self._position += len(chunk)

    def sync(self) -> None:
        """Return when all that is written is on the disk."""
        with store_errors():
            os.fdatasync(self._file.fileno())

    def publish(self) -> None:
        """Give the file its name; durable if that was asked for. Raises Duplicate."""
        with store_errors():
            directory = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                if self._durable:
                    os.fdatasync(self._file.fileno())
                self._link(directory)
                self._published = True
                if self._durable:
                    os.fsync(directory)
            finally:
                os.close(directory)
            self._file.close()

    def abandon(self) -> None:
        """Leave nothing, not even after a publish that failed; quiet if the disk is gone too."""
        # A network filesystem may have kept the error of an earlier write for this.
        with contextlib.suppress(OSError):
            self._file.close()
        for name in (self._part, self._name if self._published else None):
            if name is not None:
                with contextlib.suppress(OSError):
                    os.unlink(self._path(name))

    def _path(self, name: str) -> str:
        return os.path.join(self._directory, name)

    def _open(self) -> FileIO:
        flags = os.O_WRONLY | os.O_CLOEXEC
        try:
            descriptor = os.open(self._directory, flags | os.O_TMPFILE, 0o640)
        except OSError as error:
            if error.errno not in _NO_TMPFILE:
                raise
            self._part = part_name(self._name)
            try:
                descriptor = os.open(
                    self._path(self._part), flags | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o640
                )
            except FileExistsError:
                self._part = None
                raise errors.Duplicate() from None
        return FileIO(descriptor, "w")

    def _reserve(self, end: int) -> None:
        if self._size is None or end <= self._reserved or end > self._size:
            return
        step = min(max(RESERVE_STEP, end - self._reserved), self._size - self._reserved)
        if _libc.fallocate(self._file.fileno(), 0, self._reserved, step) == 0:
            self._reserved += step
            return
        code = ctypes.get_errno()
        if code not in _UNSUPPORTED:
            raise OSError(code, os.strerror(code))
        self._size = None

    def _link(self, directory: int) -> None:
        source = self._part or f"/proc/self/fd/{self._file.fileno()}"
        source_directory = directory if self._part else None
        try:
            # A name for either end makes this linkat, which alone can follow the /proc link.
            os.link(
                source,
                self._name,
                src_dir_fd=source_directory,
                dst_dir_fd=directory,
                follow_symlinks=self._part is None,
            )
        except FileExistsError:
            raise errors.Duplicate() from None
        except OSError as error:
            if self._part is None or error.errno not in _NO_HARD_LINKS:
                raise
            self._rename(directory)
            return
        if self._part is not None:
            os.unlink(self._part, dir_fd=directory)
            self._part = None

    def _rename(self, directory: int) -> None:
        # Without hard links nothing portable both moves and refuses to replace. The part's own
        # name already keeps a second writer of this name away.
        assert self._part is not None
        if os.path.lexists(self._path(self._name)):
            raise errors.Duplicate()
        os.rename(self._part, self._name, src_dir_fd=directory, dst_dir_fd=directory)
        self._part = None
