"""A Ceph in memory with the parts of rados and rbd that the driver uses, for what a real cluster
cannot be brought to do: to fail at a chosen call, or to hold 100 GiB.

The driver's whole contract runs against it too, as it does against the real one.
"""

import contextlib
import errno
import threading
from datetime import datetime
from types import SimpleNamespace


def _errors(*names):
    """A module's error classes, by name; the numbered ones carry `errno`."""
    error = type("Error", (Exception,), {})

    class Numbered(error):
        errno = None

        def __init__(self, message, number=None):
            super().__init__(message)
            if number is not None:
                self.errno = number

    found = {"Error": error, "OSError": Numbered}
    for name, number in names:
        found[name] = type(name, (Numbered,), {"errno": number})
    return found


RADOS_ERRORS = _errors(("ObjectNotFound", errno.ENOENT), ("TimedOut", errno.ETIMEDOUT))
RBD_ERRORS = _errors(
    ("ImageNotFound", errno.ENOENT),
    ("ImageExists", errno.EEXIST),
    ("ImageBusy", errno.EBUSY),
    ("ImageHasSnapshots", errno.ENOTEMPTY),
    ("InvalidArgument", errno.EINVAL),
    ("Timeout", errno.ETIMEDOUT),
)


class Stored:
    """One image as the cluster keeps it."""

    def __init__(self, size, order, features):
        self.content = bytearray(size)
        self.order = order
        self.features = features
        self.snapshots = {}
        self.protected = set()
        self.children = 0
        self.watchers = 0


class FakeCeph:
    """`rados` and `rbd` stand in for the modules. `images` are those of the pool `images`.

    Every call is appended to `calls`; `fail(n, error)` makes the n-th from now raise it.
    """

    def __init__(self):
        self.pools = {"images": {}}
        self.calls = []
        self.connections = 0
        self.connecting = lambda: None
        self.down = False
        self.full_tries = []
        self.settings = {"rados_osd_op_timeout": "0", "rados_mon_op_timeout": "0.000000"}
        self.lock = threading.Lock()
        self._failures = {}
        bind = {"ceph": self}
        self.rados = SimpleNamespace(Rados=type("Rados", (FakeRados,), bind), **RADOS_ERRORS)
        self.rbd = SimpleNamespace(
            RBD=type("RBD", (FakeRBD,), bind),
            Image=type("Image", (FakeImage,), bind),
            RBD_FEATURE_LAYERING=1,
            **RBD_ERRORS,
        )

    @property
    def images(self):
        return self.pools["images"]

    def fail(self, call, error):
        self._failures[len(self.calls) + call] = error

    def called(self, name):
        if self.down:
            raise RBD_ERRORS["Timeout"]("operation timed out")
        number = len(self.calls)
        self.calls.append(name)
        if number in self._failures:
            raise self._failures.pop(number)

    def image(self, pool, name):
        try:
            return self.pools[pool][name]
        except KeyError:
            raise RBD_ERRORS["ImageNotFound"](f"no image {name}") from None


class FakeRados:
    ceph: FakeCeph

    def __init__(self, conffile, rados_id):
        self.settings = dict(self.ceph.settings)
        self.ended = False

    def conf_set(self, name, value):
        self.settings[name] = value

    def conf_get(self, name):
        return self.settings[name]

    def connect(self):
        self.ceph.connecting()
        if self.ceph.down:
            raise RADOS_ERRORS["TimedOut"]("error connecting to the cluster")
        self.ceph.connections += 1
        self.ceph.last = self

    def shutdown(self):
        self.ended = True

    def get_fsid(self):
        return "b3b0a3a2-0000-4000-8000-000000000000"

    def open_ioctx(self, pool):
        if pool not in self.ceph.pools:
            raise RADOS_ERRORS["ObjectNotFound"](f"error opening pool {pool}")
        return SimpleNamespace(
            pool=pool,
            close=lambda: None,
            set_osdmap_full_try=lambda: self.ceph.full_tries.append(pool),
        )


class FakeRBD:
    ceph: FakeCeph

    def create(self, ioctx, name, size, order, old_format, features):
        assert not old_format
        self.ceph.called("create")
        with self.ceph.lock:
            if name in self.ceph.pools[ioctx.pool]:
                raise RBD_ERRORS["ImageExists"](f"image {name} exists")
            self.ceph.pools[ioctx.pool][name] = Stored(size, order, features)

    def remove(self, ioctx, name):
        self.ceph.called("remove")
        image = self.ceph.image(ioctx.pool, name)
        if image.watchers:
            raise RBD_ERRORS["ImageBusy"]("image has watchers")
        if image.snapshots:
            raise RBD_ERRORS["ImageHasSnapshots"]("image has snapshots")
        del self.ceph.pools[ioctx.pool][name]

    def list(self, ioctx):
        self.ceph.called("list")
        return sorted(self.ceph.pools[ioctx.pool])


class FakeImage:
    ceph: FakeCeph

    def __init__(self, ioctx, name, snapshot=None, read_only=False):
        self.ceph.called("open")
        self._where = ioctx.pool, name
        self._image = self.ceph.image(*self._where)
        self._writable = not read_only
        self._open = True
        self.set_snap(snapshot)
        self._image.watchers += self._writable

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    @property
    def _content(self):
        return self._image.snapshots[self._snapshot] if self._snapshot else self._image.content

    def _changing(self, name):
        self.ceph.called(name)
        assert self._writable
        self.ceph.image(*self._where)

    def _require_snapshot(self, snapshot):
        if snapshot not in self._image.snapshots:
            raise RBD_ERRORS["ImageNotFound"](f"no snapshot {snapshot}")

    def close(self):
        if self._open:
            self._open = False
            self._image.watchers = max(self._image.watchers - self._writable, 0)
            self.ceph.called("close")

    def set_snap(self, snapshot):
        if snapshot is not None:
            self._require_snapshot(snapshot)
        self._snapshot = snapshot

    def size(self):
        return len(self._content)

    def read(self, offset, length):
        self.ceph.called("read")
        return bytes(self._content[offset : offset + length])

    def write(self, data, offset):
        self._changing("write")
        assert offset + len(data) <= len(self._content)
        self._image.content[offset : offset + len(data)] = data

    def resize(self, size):
        self._changing("resize")
        self._image.content = self._image.content[:size].ljust(size, b"\0")

    def flush(self):
        self._changing("flush")

    def create_snap(self, name):
        self._changing("create_snap")
        self._image.snapshots[name] = bytes(self._image.content)

    def remove_snap(self, name):
        self._changing("remove_snap")
        self._require_snapshot(name)
        if name in self._image.protected:
            raise RBD_ERRORS["ImageBusy"]("snapshot is protected")
        del self._image.snapshots[name]

    def protect_snap(self, name):
        self._changing("protect_snap")
        self._require_snapshot(name)
        self._image.protected.add(name)

    def unprotect_snap(self, name):
        self._changing("unprotect_snap")
        if self._image.children:
            raise RBD_ERRORS["ImageBusy"]("snapshot has children")
        self._image.protected.discard(name)

    def is_protected_snap(self, name):
        self._require_snapshot(name)
        return name in self._image.protected

    def list_snaps(self):
        return ({"name": name, "size": len(c)} for name, c in self._image.snapshots.items())

    def list_children(self):
        return [("volumes", "clone")] * self._image.children

    def watchers_list(self):
        return iter([{}] * self._image.watchers)

    def create_timestamp(self):
        return datetime(2026, 1, 2, 3, 4, 5)


@contextlib.contextmanager
def expired_watches(ceph):
    """The clients that had images open are known to be gone."""
    for image in ceph.images.values():
        image.watchers = 0
    yield
