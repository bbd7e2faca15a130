"""A private Ceph cluster: one monitor, one manager, one OSD, and the pools a test needs."""

import json
import signal
import uuid
from dataclasses import dataclass
from pathlib import Path

from tests.servers.process import HOST, Server, ServerFailed, free_port

_CONF = """[global]
fsid = {fsid}
mon host = [v2:{host}:{port}]
public addr = {host}
cluster addr = {host}
ms bind ipv6 = false
ms bind msgr1 = false
ms bind port min = {lowest_port}
ms bind port max = {highest_port}
auth cluster required = {auth}
auth service required = {auth}
auth client required = {auth}
keyring = {directory}/keyring
run dir = {directory}/run
admin socket = {directory}/run/$name.$pid.asok
pid file = {directory}/run/$name.pid
log file = {directory}/$name.log
log to stderr = false
crash dir = {directory}/crash
debug ms = 0
debug mon = 0
debug osd = 0
clog to monitors = false
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 8
osd pool default pgp num = 8
osd pool default pg autoscale mode = off
osd crush chooseleaf type = 0
# The memory store counts its bytes without a lock: with several threads the count can fall below
# nothing, and then it takes itself for full.
osd op num shards = 1
osd op num threads per shard = 1
mon allow pool size one = true
mon allow pool delete = true
mon warn on pool no redundancy = false
[mon]
mon data = {directory}/mon.a
mon initial members = a
mon data avail crit = 1
mon data avail warn = 2
# The stock interval makes the start take eight seconds instead of two.
paxos propose interval = 0.05
paxos min wait = 0.01
mon tick interval = 1
mon osd reporter subtree level = osd
# The stock manager modules cost ten times the manager's memory; the monitor needs none.
mgr initial modules =
auth allow insecure global id reclaim = false
[mgr]
mgr data = {directory}/mgr.x
mgr module path = {directory}/no-modules
mgr tick period = 1
mgr stats period = 1
[osd]
osd data = {directory}/osd.0
osd objectstore = {store}
# Memory is written down on an orderly stop only.
osd fast shutdown = false
memstore device bytes = 8589934592
bluestore block size = 10737418240
bluestore block create = true
bluestore fsck on mount = false
osd scrub load threshold = 0
mgr stats period = 1
[client.rgw]
rgw data = {directory}/rgw
rgw frontends = beast endpoint={host}:{gateway_port}
rgw enable usage log = false
rgw dns name =
"""

_DAEMONS = {"mon": "a", "mgr": "x", "osd": "0"}


@dataclass(frozen=True, slots=True)
class RBDImage:
    """One image of a pool with the names of its snapshots."""

    name: str
    size: int
    snapshots: tuple[str, ...]


class Ceph(Server):
    """`conf` is the ceph.conf to give a client; pools `images` and `volumes` are ready.

    By default data is in memory: it survives `restart` but not `kill`, for which ask
    `Ceph(store="bluestore")` (slower to start). With `cephx=True` clients authenticate;
    `keyring` holds client.admin and client.glance, and `conf` names it.
    """

    name = "ceph"
    programs = ("ceph-mon", "ceph-mgr", "ceph-osd", "ceph", "rbd", "ceph-authtool", "monmaptool")
    install = "ceph"

    def __init__(
        self,
        pools: tuple[str, ...] = ("images", "volumes"),
        *,
        store: str = "memstore",
        cephx: bool = False,
    ) -> None:
        super().__init__()
        self.pools = pools
        self.store = store
        self.cephx = cephx
        self.fsid = str(uuid.uuid4())
        self.port = free_port()
        self.gateway_port = free_port()
        self._lowest_port = free_port()
        # Only after the first start do the OSD's files and the pools exist.
        self._formatted = False
        self._lost = False

    @property
    def conf(self) -> Path:
        return self.directory / "ceph.conf"

    @property
    def keyring(self) -> Path:
        return self.directory / "keyring"

    def ceph(self, *words: str) -> str:
        return self.run("ceph", "-c", self.conf, "--connect-timeout", "30", *words)

    def rbd(self, *words: str) -> str:
        return self.run("rbd", "-c", self.conf, *words)

    def rbd_images(self, pool: str = "images") -> dict[str, RBDImage]:
        """Every image in a pool, by name, with its size and snapshots."""
        rows = json.loads(self.rbd("ls", "--long", "--format", "json", pool))
        found = {}
        for row in rows:
            if "snapshot" not in row:
                name = row["image"]
                snapshots = tuple(
                    other["snapshot"]
                    for other in rows
                    if other["image"] == name and "snapshot" in other
                )
                found[name] = RBDImage(name, row["size"], snapshots)
        return found

    def rados_objects(self, pool: str = "images") -> list[str]:
        """The raw objects of a pool, where a half-removed image would still show."""
        return self.run("rados", "-c", self.conf, "-p", pool, "ls").split()

    def create_pool(self, pool: str) -> None:
        self.ceph("osd", "pool", "create", pool, "8")
        self.rbd("pool", "init", pool)

    # The life of the cluster.

    def prepare(self) -> None:
        for name in ("mon.a", "osd.0", "mgr.x", "no-modules", "run", "crash", "rgw"):
            (self.directory / name).mkdir()
        conf = _CONF.format(
            fsid=self.fsid,
            host=HOST,
            port=self.port,
            lowest_port=self._lowest_port,
            highest_port=self._lowest_port + 60,
            auth="cephx" if self.cephx else "none",
            store=self.store,
            directory=self.directory,
            gateway_port=self.gateway_port,
        )
        self.write("ceph.conf", conf)
        self.run("ceph-authtool", "--create-keyring", self.keyring, *_key("mon."))
        for name in ("client.admin", "client.glance", "client.rgw", "osd.0", "mgr.x"):
            self.run("ceph-authtool", self.keyring, *_key(name))
        monmap = self.directory / "monmap"
        address = f"[v2:{HOST}:{self.port}]"
        self.run("monmaptool", "--create", "--fsid", self.fsid, "--addv", "a", address, monmap)
        self.run(*self._daemon("mon"), "--mkfs", "--monmap", monmap, "--keyring", self.keyring)

    def launch(self) -> None:
        self._spawn("mon")
        if not self._formatted:
            osd = str(uuid.uuid4())
            self.ceph("osd", "new", osd)
            self.run(*self._daemon("osd"), "--mkfs", "--osd-uuid", osd)
        # After a kill the monitor takes the old OSD for running until the new one reports.
        before = self._boot_epoch()
        self._spawn("osd")
        self._spawn("mgr")
        self.wait_until(lambda: self._boot_epoch() > before, "OSD up")
        if not self._formatted:
            for pool in self.pools:
                self.create_pool(pool)
            self._formatted = True

    def shutdown(self) -> None:
        # The monitor takes five seconds over SIGTERM and has everything on disk already.
        for process in self.processes:
            if process.name != "osd":
                process.stop_signal = signal.SIGKILL
        super().shutdown()

    def stop(self) -> None:
        while self.processes:
            self.processes.pop().kill()
        super().stop()

    def kill(self) -> None:
        super().kill()
        self._lost = self.store == "memstore"

    def restart(self) -> None:
        if self._lost:
            raise ServerFailed('the data was in memory; use Ceph(store="bluestore")')
        super().restart()

    def logs(self) -> list[Path]:
        return [path for path in super().logs() if path.name in ("mon.a.log", "osd.0.log")]

    def _daemon(self, kind: str) -> tuple[str, ...]:
        return (f"ceph-{kind}", "-c", str(self.conf), "-i", _DAEMONS[kind])

    def _spawn(self, kind: str) -> None:
        self.spawn(kind, *self._daemon(kind), "-f")

    def _boot_epoch(self) -> int:
        """The map in which the OSD last came up, 0 while it is down."""
        osds = json.loads(self.ceph("osd", "dump", "-f", "json"))["osds"]
        return int(osds[0]["up_from"]) if osds and osds[0]["up"] else 0


def _key(name: str) -> tuple[str, ...]:
    caps: tuple[str, ...] = ("--cap", "mon", "allow *")
    if name != "mon.":
        caps += ("--cap", "osd", "allow *", "--cap", "mgr", "allow *", "--cap", "mds", "allow *")
    return ("--gen-key", "-n", name, *caps)
