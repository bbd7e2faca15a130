"""Every server starts, serves its own kind of client, and leaves nothing behind."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.servers import process, reaper
from tests.servers.ceph import Ceph
from tests.servers.cinder import Cinder
from tests.servers.gluster import Gluster
from tests.servers.keystone import Keystone
from tests.servers.mariadb import MariaDB
from tests.servers.mongo import Mongo
from tests.servers.mounts import Tmpfs
from tests.servers.nginx import Nginx
from tests.servers.postgresql import PostgreSQL
from tests.servers.process import REPOSITORY, Server, ServerFailed, answers, client
from tests.servers.rabbitmq import RabbitMQ
from tests.servers.radosgw import Radosgw
from tests.servers.sheepdog import Sheepdog
from tests.servers.swift import Swift
from tests.servers.vcenter import VCenter

DATA = bytes(range(256)) * 1000


def use_mariadb(server: MariaDB) -> None:
    assert server.create("trial").endswith("/trial?charset=utf8mb4")
    pymysql = client("mariadb", "pymysql")
    with (
        pymysql.connect(host=server.host, port=server.port, user="root", database="trial") as link,
        link.cursor() as cursor,
    ):
        cursor.execute("SELECT 6 * 7")
        assert cursor.fetchone() == (42,)
    server.drop("trial")


def use_postgresql(server: PostgreSQL) -> None:
    server.create("trial")
    assert server.execute("SELECT 6, 7", "trial") == "6\t7\n"
    server.drop("trial")


def use_rabbitmq(server: RabbitMQ) -> None:
    kombu = client("rabbitmq", "kombu")
    with kombu.Connection(server.amqp_url) as link:
        queue = link.SimpleQueue("trial")
        queue.put("hello")
        message = queue.get(timeout=10)
        assert message.payload == "hello"
        message.ack()
        queue.close()


def use_keystone(server: Keystone) -> None:
    alice = server.users["alice"]
    token = server.request("GET", "/auth/tokens", headers={"X-Subject-Token": server.token()})
    assert token["token"]["user"]["id"] == alice.user_id
    assert token["token"]["project"]["id"] == alice.project_id
    assert "member" in [role["name"] for role in token["token"]["roles"]]
    headers = {"X-Subject-Token": server.expired_token("bob")}
    with pytest.raises(ServerFailed, match="404"):
        server.request("GET", "/auth/tokens", headers=headers)


def swift_connection(server: Swift) -> Any:
    swiftclient = client("swift", "swiftclient")
    tenant, _, user = server.user.partition(":")
    if not server.keystone:
        return swiftclient.Connection(server.auth_url, server.user, server.key)
    domain = server.keystone.domain
    options = {"user_domain_id": domain, "project_domain_id": domain, "project_name": tenant}
    return swiftclient.Connection(
        server.auth_url, user, server.key, auth_version="3", os_options=options
    )


def use_swift(server: Swift) -> None:
    link = swift_connection(server)
    link.put_container("trial")
    link.put_object("trial", "a/b", DATA)
    name = f"AUTH_{server.account}/trial"
    assert link.get_object("trial", "a/b")[1] == DATA
    assert server.objects() == {f"{name}/a/b": len(DATA)}
    assert server.containers() == {name: 1}
    link.delete_object("trial", "a/b")
    link.delete_container("trial")
    assert (server.objects(), server.containers()) == ({}, {})


def use_s3(server: Swift | Radosgw) -> None:
    boto3 = client(server.name, "boto3")
    access, secret, url, region = (
        (server.user, server.key, server.s3_url, server.s3_region)
        if isinstance(server, Swift)
        else (server.access_key, server.secret_key, server.url, server.region)
    )
    s3 = boto3.client(
        "s3",
        endpoint_url=url,
        region_name=region,
        aws_access_key_id=access,
        aws_secret_access_key=secret,
    )
    s3.create_bucket(Bucket="trial")
    s3.put_object(Bucket="trial", Key="k", Body=DATA)
    assert s3.get_object(Bucket="trial", Key="k")["Body"].read() == DATA
    if isinstance(server, Radosgw):
        assert server.buckets() == {"trial": ["k"]}
    s3.delete_object(Bucket="trial", Key="k")
    s3.delete_bucket(Bucket="trial")


def use_ceph(server: Ceph) -> None:
    server.rbd("create", "--size", "1M", "images/trial")
    server.rbd("snap", "create", "images/trial@snap")
    image = server.rbd_images()["trial"]
    assert (image.size, image.snapshots) == (1 << 20, ("snap",))
    server.rbd("snap", "purge", "--no-progress", "images/trial")
    server.rbd("rm", "--no-progress", "images/trial")
    assert server.rbd_images() == {}


def use_ceph_binding(server: Ceph) -> None:
    rados, rbd = client("ceph", "rados"), client("ceph", "rbd")
    with (
        rados.Rados(conffile=str(server.conf), rados_id="glance") as cluster,
        cluster.open_ioctx("images") as pool,
    ):
        rbd.RBD().create(pool, "bound", 1 << 20)
        with rbd.Image(pool, "bound") as image:
            image.write(DATA, 0)
            assert image.read(0, len(DATA)) == DATA
        rbd.RBD().remove(pool, "bound")


def use_cinder(server: Cinder) -> None:
    volume = server.request("POST", "/volumes", {"volume": {"size": 1}})["volume"]
    status = "creating"
    while status == "creating":
        time.sleep(0.1)
        [status] = [one["status"] for one in server.volumes() if one["id"] == volume["id"]]
    assert status == "available"
    assert f"volume-{volume['id']}" in server.ceph.rbd_images("volumes")
    server.request("DELETE", f"/volumes/{volume['id']}")
    while server.volumes():
        time.sleep(0.1)
    assert server.ceph.rbd_images("volumes") == {}


def use_mongo(server: Mongo) -> None:
    pymongo, gridfs = client("mongo", "pymongo"), client("mongo", "gridfs")
    with pymongo.MongoClient(server.url) as link:
        files = gridfs.GridFS(link.trial)
        files.put(DATA, _id="k")
        with pytest.raises(gridfs.errors.FileExists):
            files.put(DATA, _id="k")
        assert files.get("k").read() == DATA
        files.delete("k")
        assert link.trial.fs.chunks.count_documents({}) == 0


def use_vcenter(server: VCenter) -> None:
    requests = client("vcenter", "requests")
    api = client("vcenter", "oslo_vmware.api")
    session = api.VMwareAPISession(
        *(server.address, server.user, server.password, 1, 0.1),
        port=server.port,
        wsdl_loc=server.wsdl,
        cacert=str(server.ca),
        insecure=False,
    )
    [cookie] = [one for one in session.vim.client.cookiejar if one.name == "vmware_soap_session"]
    url = f"{server.url}/folder/k?dcPath={server.datacenter}&dsName={server.datastore}"

    def call(method: str, data: Any = None) -> int:
        headers = {"Cookie": f"{cookie.name}={cookie.value}"}
        answer = requests.request(method, url, data=data, headers=headers, verify=server.ca)
        return int(answer.status_code)

    assert call("GET") == 404
    assert call("PUT", iter([DATA, DATA])) == 201
    assert server.files() == {"k": 2 * len(DATA)}
    assert call("PUT", DATA) == 200
    server.answer(409, method="PUT", path="/folder")
    server.answer(503, times=2, method="GET")
    assert [call("PUT", DATA), call("GET"), call("GET"), call("GET")] == [409, 503, 503, 200]
    server.expire_sessions()
    assert call("GET") == 401


def use_gluster(server: Gluster) -> None:
    (server.path / "k").write_bytes(DATA)
    assert (server.brick / "k").read_bytes() == DATA
    (server.path / "k").unlink()


def use_sheepdog(server: Sheepdog) -> None:
    server.vdi("create", "a b", "1M")
    server.vdi("snapshot", "-s", "tag", "a b")
    assert server.vdis() == {"a b": 1 << 20}
    server.vdi("delete", "-s", "tag", "a b")
    server.vdi("delete", "a b")
    assert server.vdis() == {}


def use_nginx(server: Nginx) -> None:
    requests = client("nginx", "requests")
    url = server.put("a/k", DATA)
    assert requests.get(url).content == DATA
    assert requests.get(f"{server.url}/redirect/a/k").content == DATA
    assert requests.get(f"{server.tls_url}/a/k", verify=server.ca).content == DATA
    assert answers(f"{server.url}/status/503", 503)


# What it is called, how to make it, what to do with it.
SERVERS: dict[str, tuple[Callable[[], Server], tuple[Callable[[Any], None], ...]]] = {
    "mariadb": (MariaDB, (use_mariadb,)),
    "postgresql": (PostgreSQL, (use_postgresql,)),
    "rabbitmq": (RabbitMQ, (use_rabbitmq,)),
    "keystone": (Keystone, (use_keystone,)),
    "swift": (Swift, (use_swift, use_s3)),
    "ceph": (Ceph, (use_ceph, use_ceph_binding)),
    "ceph-cephx": (lambda: Ceph(cephx=True), (use_ceph, use_ceph_binding)),
    "ceph-bluestore": (lambda: Ceph(store="bluestore"), (use_ceph,)),
    "radosgw": (Radosgw, (use_s3,)),
    "cinder": (Cinder, (use_cinder,)),
    "mongo": (Mongo, (use_mongo,)),
    "vcenter": (VCenter, (use_vcenter,)),
    "gluster": (Gluster, (use_gluster,)),
    "sheepdog": (Sheepdog, (use_sheepdog,)),
    "nginx": (Nginx, (use_nginx,)),
}


@pytest.mark.parametrize("name", SERVERS)
def test_serves_its_client_and_leaves_nothing(name: str) -> None:
    make, uses = SERVERS[name]
    server = make()
    server.require()
    with server:
        directory, groups = server.directory, {one.pid for one in server.processes}
        assert server.leftovers()
        for use in uses:
            use(server)
    assert reaper.processes_of(directory, groups) == []
    assert reaper.mounts_below(directory) == []
    assert not directory.exists()


def test_keystone_guards_swift_and_cinder() -> None:
    for needed in (Keystone, Swift, Cinder):
        needed.require()
    with Keystone() as keystone, Swift(keystone=keystone) as swift:
        use_swift(swift)
        with Cinder(keystone=keystone) as cinder:
            use_cinder(cinder)
        catalogue = keystone.request("GET", "/auth/catalog")["catalog"]
        types = {entry["type"] for entry in catalogue}
    assert types == {"identity", "image", "object-store", "volumev3"}


def test_token_lives_as_long_as_asked() -> None:
    Keystone.require()
    with Keystone() as keystone:
        headers = {"X-Subject-Token": keystone.token("alice", lifetime=2)}
        keystone.request("GET", "/auth/tokens", headers=headers)
        time.sleep(2.1)
        with pytest.raises(ServerFailed, match="404"):
            keystone.request("GET", "/auth/tokens", headers=headers)


@pytest.mark.parametrize("name", ["mariadb", "postgresql", "swift", "rabbitmq", "ceph-bluestore"])
def test_killed_server_comes_back(name: str) -> None:
    make, uses = SERVERS[name]
    server = make()
    server.require()
    with server:
        with server.killed():
            assert server.leftovers() == []
        for use in uses:
            use(server)


def test_killed_database_keeps_what_was_committed() -> None:
    MariaDB.require()
    with MariaDB() as server:
        server.create("trial")
        server.execute(
            "CREATE TABLE trial.t (n INT) ENGINE=InnoDB; INSERT INTO trial.t VALUES (42)"
        )
        with server.killed():
            pass
        assert server.execute("SELECT n FROM trial.t") == "42\n"


def test_memory_backed_ceph_keeps_data_over_an_orderly_restart() -> None:
    Ceph.require()
    with Ceph() as server:
        server.rbd("create", "--size", "1M", "images/trial")
        server.restart()
        assert list(server.rbd_images()) == ["trial"]
        server.kill()
        with pytest.raises(ServerFailed, match="bluestore"):
            server.restart()


def test_paused_server_is_silent_until_resumed() -> None:
    Nginx.require()
    requests = client("nginx", "requests")
    with Nginx() as server:
        url = server.put("k", DATA)
        with server.paused(), pytest.raises(requests.exceptions.ReadTimeout):
            requests.get(url, timeout=0.2)
        assert requests.get(url, timeout=10).content == DATA


def test_paused_server_can_be_stopped() -> None:
    Nginx.require()
    with Nginx() as server:
        server.pause()
        directory = server.directory
    assert not directory.exists()


def test_killed_gluster_brick_breaks_the_mount_until_restart() -> None:
    Gluster.require()
    with Gluster() as server:
        (server.path / "k").write_bytes(DATA)
        server.kill()
        with pytest.raises(OSError, match="Transport endpoint is not connected"):
            (server.path / "k").read_bytes()
        server.restart()
        assert (server.path / "k").read_bytes() == DATA


class Broken(Server):
    """Starts a process, then fails."""

    name = "broken"
    install = "nothing"
    started: Path

    def prepare(self) -> None:
        pass

    def launch(self) -> None:
        self.started = self.directory
        self.spawn("sleeper", "sleep", "1000")
        self.spawn("failing", "sh", "-c", "echo the reason; exit 1")
        self.wait_until(lambda: False, "readiness")


def test_failed_start_shows_the_log_and_leaves_nothing() -> None:
    server = Broken()
    with pytest.raises(ServerFailed, match=r"(?s)failing exited before readiness.*the reason"):
        server.start()
    assert not server.started.exists()
    assert reaper.processes_of(server.started, set()) == []


def test_killed_test_run_leaves_nothing() -> None:
    script = (
        "import time\n"
        "from tests.servers.mounts import Tmpfs\n"
        "from tests.servers.test_servers import Broken\n"
        "class Fine(Broken):\n"
        "    def launch(self): self.spawn('sleeper', 'sleep', '1000')\n"
        "server = Fine().start()\n"
        f"mount = Tmpfs() if {os.geteuid() == 0} else None\n"
        "if mount: mount.__enter__()\n"
        "print(server.directory, mount.path if mount else server.directory, flush=True)\n"
        "time.sleep(1000)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, cwd=REPOSITORY
    ) as run:
        assert run.stdout is not None
        directories = [Path(word) for word in run.stdout.readline().split()]
        assert len(directories) == 2
        assert reaper.processes_of(directories[0], set())
        run.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 10
    while any(directory.exists() for directory in directories) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(directory.exists() for directory in directories)
    assert reaper.processes_of(directories[0], set()) == []


def test_small_filesystem_fills_and_refuses() -> None:
    Tmpfs.require()
    with Tmpfs("16m") as small:
        file = small.path / "k"
        with pytest.raises(OSError, match="No space left"):
            file.write_bytes(bytes(17 << 20))
        with small.read_only(), pytest.raises(OSError, match="Read-only"):
            file.write_bytes(b"")
        small.resize("32m")
        file.write_bytes(bytes(17 << 20))
    assert not file.parent.exists()


def test_missing_server_skips_or_fails_as_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Broken, "programs", ("no-such-program",))
    assert not Broken.available()
    monkeypatch.delenv("GLANCE_TEST_REQUIRE_SERVERS", raising=False)
    with pytest.raises(pytest.skip.Exception, match="no-such-program"):
        Broken.require()
    monkeypatch.setenv("GLANCE_TEST_REQUIRE_SERVERS", "1")
    with pytest.raises(pytest.fail.Exception, match="no-such-program"):
        Broken.require()


def test_ports_are_never_given_twice() -> None:
    ports = [process.free_port() for _ in range(200)]
    assert len(set(ports)) == 200


class TestStandInDog:
    """The stand-in answers as the real program was seen to; see `dog` beside this file."""

    @pytest.fixture(scope="class")
    @staticmethod
    def cluster() -> Any:
        with Sheepdog(stand_in=True) as sheepdog:
            yield sheepdog

    @staticmethod
    def dog(cluster: Sheepdog, *words: str, data: bytes = b"") -> tuple[int, bytes, str]:
        done = subprocess.run(
            [cluster.dog, "vdi", *words, "-a", cluster.address, "-p", str(cluster.port)],
            input=data,
            capture_output=True,
        )
        return done.returncode, done.stdout, done.stderr.decode().strip()

    @pytest.mark.parametrize(
        ("words", "status", "message"),
        [
            (("create", "table", "1M"), 1, "Failed to create VDI table: VDI exists already"),
            (("write", "none"), 1, "Failed to open VDI none (snapshot id: 0 snapshot tag: ): "),
            (("read", "none"), 1, "No VDI found"),
            (("snapshot", "-s", "t", "none"), 1, "No VDI found"),
            (("list", "-r", "none"), 0, ""),
            (("resize", "table", "1K"), 64, "Usage"),
            (("delete", "none"), 0, "No VDI found"),
        ],
    )
    def test_status_and_message(
        self, cluster: Sheepdog, words: tuple[str, ...], status: int, message: str
    ) -> None:
        self.dog(cluster, "create", "table", "1M")
        seen, output, errors = self.dog(cluster, *words)
        assert (seen, output) == (status, b"")
        assert message in errors

    def test_ranges_snapshots_and_clones(self, cluster: Sheepdog) -> None:
        self.dog(cluster, "create", "r", str(len(DATA)))
        assert self.dog(cluster, "write", "r", data=DATA + b"too long")[0] == 0
        assert self.dog(cluster, "snapshot", "-s", "t", "r")[0] == 0
        assert self.dog(cluster, "snapshot", "-s", "t", "r")[0] == 1
        assert self.dog(cluster, "write", "r", "2", "3", data=b"xyz!")[0] == 0
        assert self.dog(cluster, "read", "r", "0", "6")[1] == DATA[:2] + b"xyz" + DATA[5:6]
        assert self.dog(cluster, "read", "-s", "t", "r")[1] == DATA
        assert self.dog(cluster, "clone", "-s", "t", "r", "c")[0] == 0
        assert self.dog(cluster, "delete", "-s", "t", "r")[0] == 0
        assert self.dog(cluster, "read", "c")[1] == DATA

    def test_no_server(self) -> None:
        with Sheepdog(stand_in=True) as own:
            own.kill()
            status, _, errors = self.dog(own, "list", "-r")
        assert status == 2
        assert errors == f"failed to connect to 127.0.0.1:{own.port}: Connection refused"
