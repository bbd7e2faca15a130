"""Volumes on this host: os-brick connects them, here their bytes are read and written.

What a volume becomes is either the path of a device or, for Ceph, an open image. Either way the
bytes are moved by calls that block natively, so they and the connecting of Ceph's volumes go
through `offload`. All else that os-brick does is running programs, which is cooperative on the
event loop.
"""

import contextlib
import errno
import logging
import os
import shutil
import socket
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, Protocol

from common import errors
from common.concurrency import offload
from glance_store.errors import BackendUnavailable, BadStoreConfiguration, StorageFull

LOG = logging.getLogger(__name__)

_GIB: Final = 1024**3


class Device(Protocol):
    """A connected volume. Every method blocks natively: call it through `offload`."""

    def size(self) -> int: ...

    def read(self, offset: int, length: int) -> bytes: ...

    def write(self, offset: int, data: bytes) -> None: ...

    def flush(self) -> None: ...

    def close(self) -> None: ...


class _CephDevice:
    """The open image in the file-like object that os-brick makes of a volume in Ceph."""

    def __init__(self, handle: Any) -> None:
        self._image = handle.rbd_image

    def size(self) -> int:
        return int(self._image.size())

    def read(self, offset: int, length: int) -> bytes:
        content: bytes = self._image.read(offset, length)
        return content

    def write(self, offset: int, data: bytes) -> None:
        self._image.write(data, offset)

    def flush(self) -> None:
        self._image.flush()

    def close(self) -> None:
        """Left to os-brick's disconnecting."""


class _BlockDevice:
    """A device node, or a file that serves as a volume."""

    def __init__(self, path: str, mode: str) -> None:
        access = os.O_RDWR if mode == "rw" else os.O_RDONLY
        self._file = os.open(path, access | os.O_CLOEXEC)

    def size(self) -> int:
        return os.lseek(self._file, 0, os.SEEK_END)

    def read(self, offset: int, length: int) -> bytes:
        content = os.pread(self._file, length, offset)
        while len(content) < length and (more := self._more(offset, length, content)):
            content += more
        return content

    def write(self, offset: int, data: bytes) -> None:
        left = memoryview(data)
        while left:
            written = os.pwrite(self._file, left, offset)
            left, offset = left[written:], offset + written

    def flush(self) -> None:
        os.fsync(self._file)

    def close(self) -> None:
        os.close(self._file)

    def _more(self, offset: int, length: int, content: bytes) -> bytes:
        return os.pread(self._file, length - len(content), offset + len(content))


@contextlib.contextmanager
def device_errors() -> Iterator[None]:
    """Turn what connecting a volume or moving its bytes raises into the domain's errors."""
    try:
        yield
    except errors.GlanceError:
        raise
    except Exception as error:
        if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT):
            raise StorageFull() from error
        # The texts of os-brick's errors may hold what it was given, credentials included.
        LOG.error("A volume cannot be used on this host: %s", type(error).__name__)
        raise BackendUnavailable() from error


class Host:
    """This host as a place to attach volumes to.

    rootwrap_config lets os-brick do as root what it must; it is not used by a daemon that is
    root itself. lock_path is where os-brick keeps its locks. Operations on a volume in Ceph end
    after operation_timeout seconds.
    """

    def __init__(self, rootwrap_config: str, lock_path: str, operation_timeout: int) -> None:
        """Raises BadStoreConfiguration if os-brick is missing."""
        try:
            import os_brick
            from os_brick.initiator import connector
            from oslo_config import cfg
            from oslo_privsep import priv_context
        except ImportError:
            raise BadStoreConfiguration(
                "stores: cinder needs os-brick; install it with: pip install '.[cinder]'"
            ) from None
        self._connector = connector
        self._operation_timeout = operation_timeout
        self._properties: Mapping[str, Any] | None = None
        self._root_helper = f"sudo glance-rootwrap {rootwrap_config}"
        # These libraries read the process's one set of options, which the daemons do not use.
        if not cfg.CONF.oslo_concurrency.lock_path:
            cfg.CONF.set_default("lock_path", lock_path, group="oslo_concurrency")
        os_brick.setup(cfg.CONF)
        priv_context.init(root_helper=self._root_helper.split())
        if os.geteuid() == 0 and (helper := _privsep_helper()):
            cfg.CONF.set_default("helper_command", helper, group="privsep_osbrick")

    def properties(self) -> Mapping[str, Any]:
        """What a volume service has to know of the host it attaches a volume to."""
        if self._properties is None:
            name = socket.gethostname()
            try:
                self._properties = self._connector.get_connector_properties(
                    self._root_helper, _address_of(name), False, False, host=name
                )
            except Exception as error:
                # All that a volume in Ceph needs; others will say what they miss.
                LOG.warning("os-brick cannot describe this host: %s", type(error).__name__)
                self._properties = {
                    "host": name,
                    "ip": _address_of(name),
                    "platform": os.uname().machine,
                    "os_type": sys.platform,
                    "multipath": False,
                    "do_local_attach": False,
                }
        return self._properties

    @contextlib.contextmanager
    def connected(self, info: Mapping[str, Any], gibibytes: int, mode: str) -> Iterator[Device]:
        """Connect the volume that an attachment's info describes, for as long as the block lasts.

        Disconnects by force whatever happens: a device left behind could come to mean another
        tenant's volume (SEC-049, CVE-2023-2088). Raises BackendUnavailable if the device is
        not of the volume's size (REL-097).
        """
        connector = self._connector_for(info)
        on_host = _runner(info)
        found: Mapping[str, Any] | None = None
        try:
            with device_errors(), contextlib.ExitStack() as held:
                found = on_host(connector.connect_volume, dict(info))
                device = self._open(found["path"], mode)
                held.callback(offload, device.close)
                if offload(device.size) < gibibytes * _GIB:
                    LOG.error("A device is smaller than the volume it should be")
                    raise BackendUnavailable()
                held.pop_all()
            try:
                yield device
            finally:
                offload(device.close)
        finally:
            self._disconnect(connector, on_host, info, found)

    def disconnect(self, info: Mapping[str, Any]) -> None:
        """Undo a connection of which only the attachment's info is left."""
        if info.get("driver_volume_type", "rbd") != "rbd":
            self._disconnect(self._connector_for(info), _runner(info), info, None)

    def _connector_for(self, info: Mapping[str, Any]) -> Any:
        with device_errors():
            connector = self._connector.InitiatorConnector.factory(
                info["driver_volume_type"], self._root_helper, conn=dict(info)
            )
        if info["driver_volume_type"] == "rbd":
            connector._create_ceph_conf = self._bounded(connector._create_ceph_conf)
        return connector

    def _bounded(self, make: Callable[..., str]) -> Callable[..., str]:
        """Have the configuration that os-brick writes for librados say when to give up."""
        options = ("client_mount_timeout", "rados_mon_op_timeout", "rados_osd_op_timeout")

        def make_bounded(*args: Any) -> str:
            path = make(*args)
            lines = "".join(f"{option} = {self._operation_timeout}\n" for option in options)
            # Before the keyring, which may begin another section.
            text = Path(path).read_text()
            Path(path).write_text(text.replace("[global]\n", f"[global]\n{lines}", 1))
            return path

        return make_bounded

    def _open(self, path: Any, mode: str) -> Device:
        if hasattr(path, "rbd_image"):
            return _CephDevice(path)
        path = path.decode() if isinstance(path, bytes) else str(path)
        if os.geteuid() != 0 and not os.access(path, os.W_OK if mode == "rw" else os.R_OK):
            self._own(path)
        return offload(_BlockDevice, path, mode)

    def _own(self, path: str) -> None:
        from oslo_concurrency import processutils

        processutils.execute(
            "chown", str(os.geteuid()), path, run_as_root=True, root_helper=self._root_helper
        )

    def _disconnect(
        self,
        connector: Any,
        on_host: Callable[..., Any],
        info: Mapping[str, Any],
        found: Mapping[str, Any] | None,
    ) -> None:
        try:
            on_host(connector.disconnect_volume, dict(info), found, force=True, ignore_errors=True)
        except Exception as error:
            LOG.error("A volume could not be disconnected: %s", type(error).__name__)
            # os-brick flushes an image before it closes it, and leaves it open if that fails.
            image = getattr(found and found["path"], "rbd_image", None)
            if image is not None:
                with contextlib.suppress(Exception):
                    on_host(image.close)


def _runner(info: Mapping[str, Any]) -> Callable[..., Any]:
    """How to call os-brick: for Ceph it calls a C library, for all else it runs programs."""
    return offload if info["driver_volume_type"] == "rbd" else _call


def _call(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    return function(*args, **kwargs)


def _privsep_helper() -> str | None:
    beside_us = str(Path(sys.executable).parent)
    return shutil.which("privsep-helper", path=os.pathsep.join((beside_us, os.defpath)))


def _address_of(name: str) -> str:
    try:
        return socket.gethostbyname(name)
    except OSError:
        return "127.0.0.1"
