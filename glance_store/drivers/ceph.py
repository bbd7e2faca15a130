"""A process's connection to a Ceph cluster, shared by all its requests.

Connecting costs several round trips, a dozen native threads and a socket for every server, so
the connection is kept. librados finds servers that come back by itself; a connection that has
failed is replaced all the same, so that new keys and addresses in the configuration are used.

librados and librbd block natively: every call of theirs goes through `offload`.
"""

import contextlib
import errno
import logging
import os
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from common import errors
from common.concurrency import offload
from glance_store.errors import (
    BackendUnavailable,
    BadStoreConfiguration,
    StorageFull,
    StorageWriteDenied,
)

LOG = logging.getLogger(__name__)

_MEANING: Final[Mapping[int, type[errors.GlanceError]]] = {
    errno.ENOENT: errors.NotFound,
    errno.EEXIST: errors.Duplicate,
    errno.EBUSY: errors.InUse,
    errno.ENOTEMPTY: errors.InUse,
    errno.ENOSPC: StorageFull,
    errno.EDQUOT: StorageFull,
    errno.EPERM: StorageWriteDenied,
    errno.EACCES: StorageWriteDenied,
    errno.EROFS: StorageWriteDenied,
}


def bindings() -> tuple[Any, Any]:
    """The modules rados and rbd. Raises BadStoreConfiguration, naming what to install."""
    try:
        import rados
        import rbd
    except ImportError:
        raise BadStoreConfiguration(
            "stores: rbd needs the Python bindings of librados and librbd; they come with the "
            "operating system, on Debian and Ubuntu as the packages python3-rados and python3-rbd"
        ) from None
    return rados, rbd


@dataclass(slots=True, eq=False)
class _Connection:
    """`users` may still be at work when the connection is `replaced`; the last one ends it."""

    rados: Any
    fsid: str
    pid: int
    users: int = 0
    replaced: bool = False


class Pool:
    """One pool, open for one piece of work."""

    def __init__(self, cluster: "Cluster", connection: _Connection, name: str, ioctx: Any) -> None:
        self.name = name
        self.ioctx = ioctx
        self.fsid = connection.fsid
        self._cluster = cluster
        self._connection = connection

    @contextlib.contextmanager
    def domain_errors(self) -> Iterator[None]:
        """Turn the libraries' errors into the domain's; `Cluster.pool` does so for its block."""
        try:
            yield
        except (self._cluster.rados.Error, self._cluster.rbd.Error) as error:
            raise self._cluster.meaning_of(error, self._connection) from error


class Cluster:
    """Hands out pools over one connection, which is opened on first use.

    operation_timeout bounds each operation on a monitor or an OSD, in seconds, unless the
    configuration file has a bound of its own: without any, librados waits for ever.
    connect_timeout bounds connecting; 0 or less takes operation_timeout.
    """

    def __init__(
        self, conf: str, user: str | None, connect_timeout: int, operation_timeout: int
    ) -> None:
        self.rados, self.rbd = bindings()
        self._conf = conf
        self._user = user
        self._connect_timeout = connect_timeout if connect_timeout > 0 else operation_timeout
        self._operation_timeout = operation_timeout
        self._connecting = threading.Lock()
        self._counting = threading.Lock()
        self._current: _Connection | None = None
        # Another process's, after a fork: to let go of it would end it over there.
        self._inherited: list[_Connection] = []
        self._failed_at = float("-inf")

    @contextlib.contextmanager
    def pool(self, name: str) -> Iterator[Pool]:
        """Open a pool. Raises NotFound, BackendUnavailable, and in domain terms what the block
        does."""
        connection = self._acquire()
        try:
            try:
                ioctx = offload(connection.rados.open_ioctx, name)
                # Otherwise a write to a pool that is full waits until there is room.
                ioctx.set_osdmap_full_try()
                try:
                    yield Pool(self, connection, name, ioctx)
                finally:
                    offload(ioctx.close)
            except (self.rados.Error, self.rbd.Error) as error:
                raise self.meaning_of(error, connection) from error
        finally:
            self._release(connection)

    def meaning_of(self, error: Exception, connection: _Connection) -> errors.GlanceError:
        """The domain's error for one of the libraries'; a failed connection is replaced."""
        meaning = _MEANING.get(getattr(error, "errno", None) or 0, BackendUnavailable)
        if issubclass(meaning, errors.ServiceUnavailable):
            LOG.error("Ceph failed: %s", error)
            self._replace(connection)
        return meaning()

    def _acquire(self) -> _Connection:
        arrived = time.monotonic()
        if connection := self._take():
            return connection
        with self._connecting:
            if connection := self._take():
                return connection
            # The attempt waited for has failed: to try again after every such wait would
            # make the last in the line wait for the sum of all timeouts.
            if self._failed_at >= arrived:
                raise BackendUnavailable()
            try:
                fresh = offload(self._connect)
            except self.rados.Error as error:
                self._failed_at = time.monotonic()
                LOG.error("Cannot connect to Ceph: %s", error)
                raise BackendUnavailable() from error
            with self._counting:
                self._current = fresh
                fresh.users += 1
            return fresh

    def _take(self) -> _Connection | None:
        with self._counting:
            current = self._current
            if current is not None and current.pid != os.getpid():
                self._inherited.append(current)
                current = self._current = None
            if current is not None:
                current.users += 1
            return current

    def _replace(self, connection: _Connection) -> None:
        with self._counting:
            connection.replaced = True
            if self._current is connection:
                self._current = None

    def _release(self, connection: _Connection) -> None:
        with self._counting:
            connection.users -= 1
            ended = connection.replaced and not connection.users
        if ended:
            offload(connection.rados.shutdown)

    def _connect(self) -> _Connection:
        client = self.rados.Rados(conffile=self._conf, rados_id=self._user)
        try:
            client.conf_set("client_mount_timeout", str(self._connect_timeout))
            for option in ("rados_mon_op_timeout", "rados_osd_op_timeout"):
                if not float(client.conf_get(option) or 0):
                    client.conf_set(option, str(self._operation_timeout))
            client.connect()
            return _Connection(client, client.get_fsid(), os.getpid())
        except BaseException:
            client.shutdown()
            raise
