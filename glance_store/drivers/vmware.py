"""Images as files on vSphere datastores.

Bytes travel over the datastores' HTTPS access, everything else over the vSphere API. An upload
goes to a name of its own and is moved to its place when it is whole: a datastore keeps what it
received of a broken upload, and offers it for download.
"""

import contextlib
import logging
import re
import secrets
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC
from typing import Any, ClassVar

from oslo_config import cfg

from common import errors
from common.body import Body
from common.context import RequestContext
from common.query import is_uuid_like
from common.upload import Upload
from glance_store.driver import Capability, Store, Stored
from glance_store.drivers.vmware_files import DatastoreFile, FileServer, parse_url
from glance_store.drivers.vmware_session import VSphereFault, VSphereSession
from glance_store.drivers.vmware_settings import OPTIONS, Datastore, Settings
from glance_store.errors import (
    BackendUnavailable,
    BadLocation,
    StorageFull,
    StorageWriteDenied,
)

LOG = logging.getLogger(__name__)

# What vSphere refuses, in the contract's words. Any other fault is the backend's.
_FAULTS: Mapping[str, type[errors.GlanceError]] = {
    "CannotDeleteFile": errors.InUse,
    "FileAlreadyExists": errors.Duplicate,
    "FileLocked": errors.InUse,
    "FileNotFound": errors.NotFound,
    "NoDiskSpace": StorageFull,
    "NoPermission": StorageWriteDenied,
    "ResourceInUse": errors.InUse,
}

# An upload under way is named after its image, with something random between.
_UNFINISHED = re.compile(r"(?P<image_id>.+)\.[0-9a-f]{16}\.part")

# When to look for what a broken upload has left: a server may create the file only after we
# have gone.
_UNDO_AFTER = (0.0, 0.2, 1.0)


@dataclass(frozen=True, slots=True)
class _Mounted:
    """A configured datastore as vSphere knows it now."""

    datastore: Datastore
    datacenter: Any
    browser: Any
    free: int


class VMwareStore(Store):
    """Stores images under `vsphere://host/folder/<dir>/<image id>?dcPath=..&dsName=..`."""

    schemes: ClassVar[tuple[str, ...]] = ("vsphere",)
    capabilities: ClassVar[Capability] = (
        Capability.READ | Capability.WRITE | Capability.DELETE | Capability.LIST
    )
    # A URL is read with our session: with one a caller could read, or delete, anybody's image.
    accepts_external: ClassVar[bool] = False
    options: ClassVar[Sequence[cfg.Opt]] = OPTIONS

    def __init__(self, conf: Mapping[str, Any]) -> None:
        super().__init__(conf)
        settings = Settings.read(conf)
        self._host = settings.host
        self._directory = settings.directory
        self._datastores = settings.datastores
        self._session = VSphereSession(
            settings.server,
            retries=settings.api_retry_count,
            poll_interval=settings.task_poll_interval,
        )
        self._files = FileServer(settings.server, self._session)
        self._lock = threading.Lock()
        self._prepared: set[Datastore] = set()

    def add(self, ctx: RequestContext, image_id: str, upload: Upload) -> tuple[str, dict[str, Any]]:
        with _translated():
            # Asking for the datastores also renews a session that has expired, which cannot be
            # done once bytes are on their way.
            mounted = self._mounted()
            if any(self._files.exists(self._place(one.datastore, image_id)) for one in mounted):
                raise errors.Duplicate()
            chosen = _choose(mounted, upload.size or 0)
            self._prepare(chosen)
            place = self._place(chosen.datastore, image_id)
            part = f"{image_id}.{secrets.token_hex(8)}.part"
            unfinished = self._place(chosen.datastore, part)
            try:
                self._files.put(unfinished, upload)
                self._move(chosen, unfinished, place)
            except BaseException:
                self._undo(chosen, unfinished)
                raise
        return place.url(self._host), {}

    def get(
        self, ctx: RequestContext, url: str, offset: int = 0, length: int | None = None
    ) -> Body:
        file = self._file(url)
        with _translated():
            return self._files.open(file, offset, length)

    def size(self, ctx: RequestContext, url: str) -> int | None:
        file = self._file(url)
        with _translated():
            return self._files.size(file)

    def delete(self, ctx: RequestContext, url: str) -> None:
        file = self._file(url)
        with _translated():
            datacenter = self._find_datacenter(file.datacenter)
            if datacenter is None:
                raise BackendUnavailable()
            self._delete(file, datacenter)

    def discard(self, ctx: RequestContext, image_id: str) -> None:
        with _translated():
            for one in self._mounted():
                for found in self._search(one, image_id, f"{image_id}.*.part"):
                    with contextlib.suppress(errors.NotFound):
                        self._delete(self._place(one.datastore, found.path), one.datacenter)

    def validate(self, url: str) -> None:
        self._file(url)
        if parse_url(url)[0] != self._host:
            raise BadLocation()

    def contents(self) -> Iterator[Stored]:
        with _translated():
            for one in self._mounted():
                for found in self._search(one, "*"):
                    yield self._stored(self._place(one.datastore, found.path), found)

    def _file(self, url: str) -> DatastoreFile:
        """The file of a URL: one directly in the images' directory, whatever host it names.

        Only the configured server is ever asked, so that nobody else is shown our session, and
        the images of a vCenter that was renamed are still found.
        """
        _, file = parse_url(url)
        if file.path.rpartition("/")[0] != self._directory:
            raise BadLocation()
        return file

    def _place(self, datastore: Datastore, name: str) -> DatastoreFile:
        return DatastoreFile(datastore.datacenter, datastore.name, f"{self._directory}/{name}")

    def _stored(self, file: DatastoreFile, info: Any) -> Stored:
        unfinished = _UNFINISHED.fullmatch(info.path)
        name = unfinished["image_id"] if unfinished else info.path
        modified = getattr(info, "modification", None)
        return Stored(
            file.url(self._host),
            name if is_uuid_like(name) else None,
            int(info.fileSize),
            modified and modified.astimezone(UTC).replace(tzinfo=None),
            complete=not unfinished,
        )

    def _mounted(self) -> list[_Mounted]:
        """The configured datastores that can be used now."""
        mounted = []
        for path in dict.fromkeys(datastore.datacenter for datastore in self._datastores):
            wanted = {one.name: one for one in self._datastores if one.datacenter == path}
            datacenter = self._find_datacenter(path)
            if datacenter is None:
                continue
            [properties] = self._session.properties([datacenter], "datastore")
            references = getattr(properties.get("datastore"), "ManagedObjectReference", [])
            names = ("summary.name", "summary.freeSpace", "summary.accessible", "browser")
            for found in self._session.properties(references, *names):
                datastore = wanted.get(str(found["summary.name"]))
                if datastore is not None and found["summary.accessible"]:
                    free = int(found["summary.freeSpace"])
                    mounted.append(_Mounted(datastore, datacenter, found["browser"], free))
        if not mounted:
            LOG.error("None of vmware_datastores can be used")
            raise BackendUnavailable()
        return mounted

    def _find_datacenter(self, path: str) -> Any:
        found = self._session.call("FindByInventoryPath", "searchIndex", inventoryPath=path)
        if found is None:
            LOG.error("vSphere has no datacenter %s", path)
        return found

    def _prepare(self, mounted: _Mounted) -> None:
        """Make the images' directory, once per datastore."""
        with self._lock:
            if mounted.datastore in self._prepared:
                return
        # It may be there, or be an administrator's to make: the upload will tell.
        with contextlib.suppress(VSphereFault):
            self._session.call(
                "MakeDirectory",
                "fileManager",
                name=f"[{mounted.datastore.name}] {self._directory}",
                datacenter=mounted.datacenter,
                createParentDirectories=True,
            )
        with self._lock:
            self._prepared.add(mounted.datastore)

    def _search(self, mounted: _Mounted, *patterns: str) -> list[Any]:
        """The files in the images' directory whose names match one of the patterns."""
        flags = {"fileType": True, "fileSize": True, "modification": True, "fileOwner": False}
        spec = self._session.make(
            "HostDatastoreBrowserSearchSpec",
            matchPattern=list(patterns),
            details=self._session.make("FileQueryFlags", **flags),
        )
        try:
            with _translated():
                found = self._session.run(
                    "SearchDatastore_Task",
                    mounted.browser,
                    datastorePath=f"[{mounted.datastore.name}] {self._directory}",
                    searchSpec=spec,
                )
        except errors.NotFound:
            return []
        files = getattr(found, "file", [])
        return [file for file in files if type(file).__name__ != "FolderFileInfo"]

    def _move(self, mounted: _Mounted, source: DatastoreFile, target: DatastoreFile) -> None:
        try:
            with _translated():
                self._session.run(
                    "MoveDatastoreFile_Task",
                    "fileManager",
                    sourceName=source.datastore_path,
                    sourceDatacenter=mounted.datacenter,
                    destinationName=target.datastore_path,
                    destinationDatacenter=mounted.datacenter,
                    force=False,
                )
        except (BackendUnavailable, errors.Duplicate, errors.NotFound):
            # Perhaps only the answer was lost, and the call repeated in vain. Nobody else knows
            # the source's name: if it is gone, it was moved, or discarded.
            if self._files.exists(source):
                raise
            if not self._files.exists(target):
                raise errors.Conflict("The image was discarded during the upload.") from None

    def _delete(self, file: DatastoreFile, datacenter: Any) -> None:
        with _translated():
            self._session.run(
                "DeleteDatastoreFile_Task",
                "fileManager",
                name=file.datastore_path,
                datacenter=datacenter,
            )

    def _undo(self, mounted: _Mounted, unfinished: DatastoreFile) -> None:
        for pause in _UNDO_AFTER:
            time.sleep(pause)
            try:
                self._delete(unfinished, mounted.datacenter)
            except errors.NotFound:
                continue
            except errors.GlanceError as error:
                # The error that led here is the one to tell; discard gets another chance.
                reason = type(error).__name__
                LOG.warning("An unfinished upload is left on a datastore: %s", reason)
            return


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    """Raise what vSphere refuses inside the block as an error of the contract."""
    try:
        yield
    except VSphereFault as fault:
        raise _FAULTS.get(fault.name, BackendUnavailable)() from fault


def _choose(mounted: Sequence[_Mounted], size: int) -> _Mounted:
    """The one with the most free space among those of the greatest weight that have room."""
    with_room = [one for one in mounted if one.free >= size]
    if not with_room:
        raise StorageFull()
    return max(with_room, key=lambda one: (one.datastore.weight, one.free))
