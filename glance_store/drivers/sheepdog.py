"""Images as Sheepdog VDIs, moved by Sheepdog's own program (see `dog.py`).

Whatever part of a location reaches the program has first matched a strict pattern (SEC-042).
"""

import contextlib
import logging
import re
import shutil
import socket
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Final
from urllib.parse import quote, unquote

from oslo_config import cfg

from common import errors
from common.body import Body
from common.context import RequestContext
from common.query import is_uuid_like
from common.upload import Upload
from glance_store.driver import Capability, Store, Stored
from glance_store.drivers.dog import PIECE, Cluster
from glance_store.errors import BackendUnavailable, BadLocation, BadStoreConfiguration

LOG = logging.getLogger(__name__)

_MIB: Final = 1024 * 1024
# Old releases of Sheepdog call the program `collie`.
_PROGRAMS: Final = ("dog", "collie")

# A VDI cannot shrink, so one of unknown size grows by what has arrived, which waits in memory.
_GROWTH: Final = 8 * _MIB

# A VDI that is being written has another one beside it, empty, that says so.
_MARK: Final = ".part"

_HOST: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9.-]{0,252}[A-Za-z0-9])?")
_PORT: Final = re.compile(r"[0-9]{1,5}")
# Never a leading dash: it would be taken for an option.
_NAME: Final = re.compile(r"[A-Za-z0-9%_.][A-Za-z0-9%_.~-]{0,249}")


def vdi_name(image_id: str) -> str:
    """An image's VDI has the image's id as its name, unless the id could not stand in a URL."""
    name = quote(image_id, safe="")
    return "%2D" + name[1:] if name.startswith("-") else name


@dataclass(frozen=True, slots=True)
class _Address:
    """What a URL names; host and port are None for the configured cluster."""

    host: str | None
    port: int | None
    name: str

    @classmethod
    def of(cls, url: str) -> "_Address":
        scheme, _, rest = url.partition("://")
        match [scheme, *rest.split(":")]:
            case ["sheepdog", name] if _NAME.fullmatch(name):
                return cls(None, None, name)
            case ["sheepdog", host, port, name] if (
                _HOST.fullmatch(host) and _PORT.fullmatch(port) and _NAME.fullmatch(name)
            ):
                if 0 < int(port) < 65536:
                    return cls(host, int(port), name)
        raise BadLocation()


class _VdiBody(Body):
    """A range of a VDI, as a running program delivers it."""

    def __init__(self, cluster: Cluster, name: str, offset: int, length: int) -> None:
        super().__init__(length)
        self._cluster = cluster
        self._words = (name, str(offset), str(length))
        self._left = length
        self._held = contextlib.ExitStack()

    def chunks(self) -> Iterator[bytes]:
        if not self._left:
            return
        running = self._held.enter_context(self._cluster.start("read", *self._words))
        while self._left and (chunk := running.read(PIECE)):
            self._left -= len(chunk)
            yield chunk
        running.finish()
        if self._left:
            LOG.error("Sheepdog's program delivered %s bytes too few", self._left)
            raise BackendUnavailable()

    def release(self) -> None:
        self._held.close()


class SheepdogStore(Store):
    """Stores an image as a VDI, under `sheepdog://address:port:name`.

    While it is being written it has a second, empty VDI beside it, `<name>.part`, and is
    reported as not there. Old locations, `sheepdog://name`, mean the configured cluster.
    """

    schemes: ClassVar[tuple[str, ...]] = ("sheepdog",)
    capabilities: ClassVar[Capability] = (
        Capability.READ | Capability.WRITE | Capability.DELETE | Capability.LIST
    )
    options: ClassVar[Sequence[cfg.Opt]] = (
        cfg.StrOpt("sheepdog_store_address", default="localhost", help="A Sheepdog server."),
        cfg.PortOpt("sheepdog_store_port", default=7000, help="The server's port."),
        cfg.IntOpt(
            "sheepdog_store_chunk_size",
            default=64,
            help="MiB to write by one run of Sheepdog's program.",
        ),
        cfg.IntOpt(
            "sheepdog_store_timeout",
            default=60,
            min=1,
            help="Seconds without progress after which a run of Sheepdog's program is ended.",
        ),
        cfg.StrOpt(
            "sheepdog_store_program_path",
            default="/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            help="Directories, separated by colons, to look for the program dog or collie.",
        ),
    )

    def __init__(self, conf: Mapping[str, Any]) -> None:
        super().__init__(conf)
        if not _HOST.fullmatch(conf["sheepdog_store_address"] or ""):
            raise BadStoreConfiguration("sheepdog_store_address must be a host name or address")
        if conf["sheepdog_store_chunk_size"] < 1:
            raise BadStoreConfiguration("sheepdog_store_chunk_size must be 1 (MiB) or more")
        self._chunk = conf["sheepdog_store_chunk_size"] * _MIB
        path = conf["sheepdog_store_program_path"]
        program = next(filter(None, (shutil.which(name, path=path) for name in _PROGRAMS)), None)
        if program is None:
            raise BadStoreConfiguration(
                "stores: sheepdog needs Sheepdog's program dog (or collie) in one of the "
                "directories of sheepdog_store_program_path"
            )
        self._own = Cluster(
            program,
            path,
            conf["sheepdog_store_timeout"],
            conf["sheepdog_store_address"],
            conf["sheepdog_store_port"],
        )

    def add(self, ctx: RequestContext, image_id: str, upload: Upload) -> tuple[str, dict[str, Any]]:
        name = vdi_name(image_id)
        self._own.run("create", name + _MARK, "0")
        if self._own.size(name) is not None:
            self._own.run("delete", name + _MARK)
            raise errors.Duplicate()
        try:
            self._own.run("create", name, str(upload.size or 0))
            if upload.size is None:
                self._fill_growing(name, upload)
            else:
                self._fill(name, upload, upload.size)
            self._own.run("delete", name + _MARK)
        except BaseException:
            self._undo(name)
            raise
        return self._url(name), {}

    def get(
        self, ctx: RequestContext, url: str, offset: int = 0, length: int | None = None
    ) -> Body:
        cluster, name = self._find(url)
        available = max(self._size(cluster, name) - offset, 0)
        wanted = available if length is None else min(length, available)
        return _VdiBody(cluster, name, offset, wanted)

    def size(self, ctx: RequestContext, url: str) -> int:
        return self._size(*self._find(url))

    def delete(self, ctx: RequestContext, url: str) -> None:
        cluster, name = self._find(url)
        # The program also succeeds in deleting what is not there.
        if cluster.size(name) is None:
            raise errors.NotFound()
        cluster.run("delete", name)
        if cluster.size(name) is not None:
            raise BackendUnavailable()

    def discard(self, ctx: RequestContext, image_id: str) -> None:
        name = vdi_name(image_id)
        self._own.run("delete", name)
        if self._own.size(name) is not None:
            raise BackendUnavailable()
        self._own.run("delete", name + _MARK)

    def validate(self, url: str) -> None:
        _Address.of(url)

    def lends_rights(self, ctx: RequestContext, url: str) -> bool:
        # There are no rights in Sheepdog: whoever reaches a cluster reads all of it.
        return True

    def contents(self) -> Iterator[Stored]:
        vdis = {vdi.name: vdi for vdi in self._own.vdis()}
        marked = {name.removesuffix(_MARK) for name in vdis if name.endswith(_MARK)}
        for name in vdis.keys() | marked:
            if name.endswith(_MARK) or not _NAME.fullmatch(name):
                continue
            vdi = vdis.get(name)
            image_id = unquote(name)
            yield Stored(
                self._url(name),
                image_id if is_uuid_like(image_id) else None,
                vdi.size if vdi else None,
                vdi.made if vdi else None,
                complete=name not in marked,
            )

    def _find(self, url: str) -> tuple[Cluster, str]:
        """The cluster that a URL names. Raises BackendUnavailable for one not to be asked."""
        address, own = _Address.of(url), self._own
        if address.host is None or (address.host, address.port) == (own.address, own.port):
            return own, address.name
        assert address.port is not None
        found = self.outbound.resolve(address.host, address.port)
        checked = next((a for family, a in found if family == socket.AF_INET), found[0][1])
        return replace(own, address=str(checked[0]), port=address.port), address.name

    def _size(self, cluster: Cluster, name: str) -> int:
        size = cluster.size(name)
        if size is None or cluster.size(name + _MARK) is not None:
            raise errors.NotFound()
        return size

    def _fill(self, name: str, upload: Upload, size: int) -> None:
        offset = 0
        while offset < size:
            length = min(self._chunk, size - offset)
            offset += self._own.write(name, offset, _pieces(upload, length))
        # Nothing may follow, and what has come is verified.
        upload.read()

    def _fill_growing(self, name: str, upload: Upload) -> None:
        offset = 0
        while chunk := upload.read_full(min(self._chunk, _GROWTH)):
            self._own.run("resize", name, str(offset + len(chunk)))
            offset += self._own.write(name, offset, [chunk])

    def _undo(self, name: str) -> None:
        try:
            self._own.run("delete", name)
            self._own.run("delete", name + _MARK)
        except errors.GlanceError:
            LOG.error("VDI %s was left half-made in the sheepdog store", name)

    def _url(self, name: str) -> str:
        return f"sheepdog://{self._own.address}:{self._own.port}:{name}"


def _pieces(upload: Upload, length: int) -> Iterator[bytes]:
    while length and (piece := upload.read(min(PIECE, length))):
        length -= len(piece)
        yield piece
