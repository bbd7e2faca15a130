"""The directories of the filesystem store: which may hold a new image, and which hold a path.

Like `glance_store.disk`, this blocks and does not log.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Final, Self

from common import errors
from glance_store.errors import (
    BackendUnavailable,
    BadStoreConfiguration,
    StorageFull,
    StorageWriteDenied,
)

DEFAULT_DATADIR: Final = "/var/lib/glance/images"


@dataclass(frozen=True, slots=True)
class Datadir:
    """One directory. `mount` is the mount point it lay on when the service started."""

    path: str
    priority: int
    mount: str

    def is_mounted(self) -> bool:
        """Whether it is still on its own filesystem, rather than on what a lost mount hid."""
        return os.path.ismount(self.mount) and os.path.isdir(self.path)

    def may_be_written(self) -> bool:
        return os.access(self.path, os.W_OK | os.X_OK)

    def free(self) -> int:
        """Bytes free here. Raises the reason why a new image cannot go here."""
        if not self.is_mounted():
            raise BackendUnavailable()
        try:
            found = os.statvfs(self.path)
        except OSError:
            raise BackendUnavailable() from None
        if found.f_flag & os.ST_RDONLY or not self.may_be_written():
            raise StorageWriteDenied()
        return found.f_bavail * found.f_frsize


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A directory that a new image did not go to, and why."""

    path: str
    reason: errors.GlanceError


class Datadirs:
    """The configured directories, the highest priority first. Every method may block."""

    def __init__(self, datadirs: Sequence[Datadir]) -> None:
        self._datadirs = sorted(datadirs, key=lambda datadir: -datadir.priority)

    @classmethod
    def configured(cls, conf: Mapping[str, Any]) -> Self:
        """Read filesystem_store_datadir or filesystem_store_datadirs and make the directories.

        Raises BadStoreConfiguration, naming the option.
        """
        single = conf.get("filesystem_store_datadir") or DEFAULT_DATADIR
        several = conf.get("filesystem_store_datadirs") or ()
        if several and single != DEFAULT_DATADIR:
            raise BadStoreConfiguration(
                "filesystem_store_datadir and filesystem_store_datadirs exclude each other"
            )
        if not several:
            return cls([_prepared(single, 0, "filesystem_store_datadir")])
        entries = [_parsed(entry) for entry in several]
        if len({os.path.realpath(path) for path, _ in entries}) < len(entries):
            raise BadStoreConfiguration("filesystem_store_datadirs names a directory twice")
        return cls([_prepared(*entry, "filesystem_store_datadirs") for entry in entries])

    def __iter__(self) -> Iterator[Datadir]:
        return iter(self._datadirs)

    def choose(self, size: int | None) -> tuple[Datadir, list[LeftOut]]:
        """Where a new image of size bytes goes: highest priority with room, then most room.

        Also which directories before it were left out. Raises StorageFull, StorageWriteDenied or
        BackendUnavailable if there is no place.
        """
        left_out: list[LeftOut] = []
        for _, group in groupby(self._datadirs, key=lambda datadir: datadir.priority):
            roomy: list[tuple[int, Datadir]] = []
            for datadir in group:
                try:
                    free = datadir.free()
                except errors.GlanceError as refusal:
                    left_out.append(LeftOut(datadir.path, refusal))
                    continue
                if free >= max(size or 0, 1):
                    roomy.append((free, datadir))
                else:
                    left_out.append(LeftOut(datadir.path, StorageFull()))
            if roomy:
                return max(roomy, key=lambda entry: entry[0])[1], left_out
        raise min((each.reason for each in left_out), key=_telling)

    def holding(self, directory: str) -> Datadir | None:
        """The configured directory that directory is, or lies under, links resolved."""
        for datadir in self._datadirs:
            if directory == datadir.path:
                return datadir
        real = os.path.realpath(directory)
        for datadir in self._datadirs:
            top = os.path.realpath(datadir.path)
            if os.path.commonpath([top, real]) == top:
                return datadir
        return None


def _telling(refusal: errors.GlanceError) -> int:
    """A full directory among broken ones is still the reason that helps most."""
    order = (StorageFull, StorageWriteDenied, BackendUnavailable)
    return order.index(type(refusal))


def _parsed(entry: str) -> tuple[str, int]:
    path, _, priority = entry.strip().rpartition(":")
    if not path:
        path, priority = priority, "0"
    try:
        return path.strip(), int(priority)
    except ValueError:
        raise BadStoreConfiguration(
            f"filesystem_store_datadirs: the priority in '{entry}' is not a number"
        ) from None


def _prepared(path: str, priority: int, option: str) -> Datadir:
    if not os.path.isabs(path):
        raise BadStoreConfiguration(f"{option}: '{path}' is not an absolute path")
    path = os.path.normpath(path)
    try:
        os.makedirs(path, mode=0o750, exist_ok=True)
    except OSError as error:
        raise BadStoreConfiguration(
            f"{option}: cannot make the directory '{path}': {error.strerror}"
        ) from None
    return Datadir(path, priority, _mount_point(path))


def _mount_point(path: str) -> str:
    path = os.path.realpath(path)
    while not os.path.ismount(path):
        path = os.path.dirname(path)
    return path
