"""Both daemons as real processes on free ports, in a directory of their own."""

import contextlib
import http.client
import os
import signal
import sqlite3
import ssl
import subprocess
import sys
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from tests.servers.process import free_port as free_port

ROOT = Path(__file__).resolve().parents[2]
REGISTRY_KEY = "functional-registry-key"
START_SECONDS = 30


@dataclass(frozen=True)
class Answer:
    """One HTTP answer; header names are lower-case."""

    status: int
    headers: Mapping[str, str]
    content: bytes

    @property
    def json(self) -> Any:
        return orjson.loads(self.content)

    @property
    def text(self) -> str:
        return self.content.decode()

    @property
    def image(self) -> dict[str, Any]:
        """The image of a successful POST or PUT."""
        assert self.status in (200, 201), f"{self.status}: {self.text}"
        image: dict[str, Any] = self.json["image"]
        return image

    @property
    def names(self) -> list[str | None]:
        """The names in a list of images, in its order."""
        assert self.status == 200, f"{self.status}: {self.text}"
        return [image["name"] for image in self.json["images"]]


def identity(tenant: str | None, *roles: str, user: str | None = None) -> dict[str, str]:
    """What a trusted front end says of a caller."""
    headers = {"X-Identity-Status": "Confirmed", "X-Roles": ",".join(roles)}
    if tenant is not None:
        headers |= {"X-Tenant-Id": tenant, "X-User-Id": user or f"user-of-{tenant}"}
    return headers


T1 = identity("t1")
T2 = identity("t2")
T3 = identity("t3")
ADMIN = identity("adm", "admin")
RAW = {"x-image-meta-disk_format": "raw", "x-image-meta-container_format": "bare"}
OCTETS = {"Content-Type": "application/octet-stream"}


# Values are text, sent as UTF-8, or bytes, sent as they are.
Headers = Mapping[str, str | bytes]


def chunked(content: bytes, size: int = 4096) -> Iterable[bytes]:
    """A body of unknown length: the client sends it in chunks."""
    return (content[start : start + size] for start in range(0, len(content), size))


class Client:
    """One caller of one daemon; a new connection for every request.

    No answer of a daemon may be a 500 or show the server's inside (SEC-037, invariant I-4).
    """

    def __init__(
        self, port: int, headers: Mapping[str, str] = {}, tls: ssl.SSLContext | None = None
    ) -> None:
        self.port = port
        self.headers = dict(headers)
        self.tls = tls

    @property
    def tenant(self) -> str:
        return self.headers["X-Tenant-Id"]

    def request(
        self,
        method: str,
        path: str,
        headers: Headers | None = None,
        body: Any = None,
        *,
        timeout: float = 60,
    ) -> Answer:
        connection = self._connection(timeout)
        try:
            sent: dict[str, str | bytes] = {**self.headers, **(headers or {})}
            encoded = {
                name: value.encode("utf-8") if isinstance(value, str) else value
                for name, value in sent.items()
            }
            connection.request(method, path, body, encoded)
            response = connection.getresponse()
            found = {name.lower(): value for name, value in response.getheaders()}
            answer = Answer(response.status, found, response.read())
        finally:
            connection.close()
        _require_discretion(answer)
        return answer

    def _connection(self, timeout: float) -> http.client.HTTPConnection:
        if self.tls is None:
            return http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        return http.client.HTTPSConnection(
            "localhost", self.port, timeout=timeout, context=self.tls
        )

    def get(self, path: str, headers: Headers | None = None) -> Answer:
        return self.request("GET", path, headers)

    def head(self, path: str, headers: Headers | None = None) -> Answer:
        return self.request("HEAD", path, headers)

    def post(self, path: str, headers: Headers | None = None, body: Any = None) -> Answer:
        return self.request("POST", path, headers, body)

    def put(self, path: str, headers: Headers | None = None, body: Any = None) -> Answer:
        return self.request("PUT", path, headers, body)

    def delete(self, path: str, headers: Headers | None = None) -> Answer:
        return self.request("DELETE", path, headers)

    def mine(self) -> list[dict[str, Any]]:
        """The images of the caller's own tenant: public ones of other tests are listed too."""
        images = self.get("/v1/images/detail").json["images"]
        return [image for image in images if image["owner"] == self.tenant]

    def put_json(self, path: str, body: Any) -> Answer:
        return self.put(path, {"Content-Type": "application/json"}, orjson.dumps(body))


def _require_discretion(answer: Answer) -> None:
    assert answer.status != 500, answer.text
    if answer.status >= 400:
        for inside in (b"Traceback", str(ROOT).encode(), b"SELECT ", b"sqlite"):
            assert inside not in answer.content


@dataclass
class Daemon:
    """One daemon process; `conf` are lines by section."""

    module: str
    name: str
    home: Path
    port: int
    conf: dict[str, dict[str, Any]]
    process: "subprocess.Popen[bytes] | None" = None
    tls: ssl.SSLContext | None = None

    @property
    def conf_file(self) -> Path:
        return self.home / f"{self.name}.conf"

    @property
    def log(self) -> str:
        path = self.home / f"{self.name}.log"
        return path.read_text() if path.exists() else ""

    def write_conf(self) -> None:
        lines: list[str] = []
        for section, options in self.conf.items():
            lines.append(f"[{section}]")
            for option, value in options.items():
                values = value if isinstance(value, list) else [value]
                lines += [f"{option} = {each}" for each in values]
        self.conf_file.write_text("\n".join(lines) + "\n")

    def start(self, *, wait: bool = True) -> None:
        self.write_conf()
        with open(self.home / f"{self.name}.out", "ab") as out:
            self.process = subprocess.Popen(
                [sys.executable, "-m", self.module, "--config-file", str(self.conf_file)],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                cwd=ROOT,
                start_new_session=True,
            )
        if wait:
            self.wait_until_ready()

    def wait_until_ready(self) -> None:
        assert self.process is not None
        deadline = time.monotonic() + START_SECONDS
        while not self.answers():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"{self.name} did not start:\n{self.output}\n{self.log}")
            time.sleep(0.03)

    @property
    def output(self) -> str:
        return (self.home / f"{self.name}.out").read_text()

    def answers(self) -> bool:
        with contextlib.suppress(OSError):
            client = Client(self.port, tls=self.tls)
            return client.request("GET", "/healthcheck", timeout=2).status == 200
        return False

    def signal(self, number: int) -> None:
        assert self.process is not None
        os.kill(self.process.pid, number)

    def workers(self) -> list[int]:
        """Process ids of the children."""
        assert self.process is not None
        path = f"/proc/{self.process.pid}/task/{self.process.pid}/children"
        return [int(pid) for pid in Path(path).read_text().split()]

    def kill(self) -> None:
        """kill -9 of the whole daemon, workers included."""
        assert self.process is not None
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def begin_stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()

    def stop(self) -> None:
        if self.process is None or self.process.poll() is not None:
            return
        self.begin_stop()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"{self.name} did not stop:\n{self.log}") from None

    def restart(self) -> None:
        self.stop()
        self.start()


@dataclass
class Service:
    """An API and a registry that know each other."""

    home: Path
    api: Daemon
    registry: Daemon
    policy_file: Path
    store: Path
    extra: dict[str, Any] = field(default_factory=dict)

    def client(self, headers: Mapping[str, str] = {}) -> Client:
        return Client(self.api.port, headers, self.api.tls)

    def registry_client(self, headers: Mapping[str, str] = {}) -> Client:
        return Client(self.registry.port, {"X-Glance-Registry-Key": REGISTRY_KEY, **headers})

    @property
    def database(self) -> Path:
        return self.home / "glance.sqlite"

    @property
    def connection(self) -> str:
        """The database's SQLAlchemy URL."""
        return str(self.registry.conf["database"]["connection"])

    @property
    def t1(self) -> Client:
        return self.client(T1)

    @property
    def t2(self) -> Client:
        return self.client(T2)

    @property
    def t3(self) -> Client:
        return self.client(T3)

    @property
    def admin(self) -> Client:
        return self.client(ADMIN)

    def stored_files(self) -> set[str]:
        """Names of everything in the file store, temporary files included."""
        return {path.name for path in self.store.rglob("*") if path.is_file()}

    def caller(self, tenant: str, *roles: str) -> Client:
        """A caller of the API from a tenant that no other test knows."""
        return self.client(identity(f"{tenant}-{uuid.uuid4().hex[:12]}", *roles))

    def set_policy(self, **rules: str) -> None:
        """Change rules for the running daemons; effective when this returns."""
        current = orjson.loads(self.policy_file.read_bytes())
        self.policy_file.write_bytes(orjson.dumps({**current, **rules}))
        time.sleep(0.8)  # longer than the enforcer waits between two looks at the file

    def set_status(self, image_id: str, status: str) -> None:
        """What other versions of the API do, such as deactivating an image."""
        answer = self.registry_client(ADMIN).put_json(
            f"/images/{image_id}", {"image": {"status": status}}
        )
        assert answer.status == 200, answer.text

    def start(self) -> None:
        self.registry.start(wait=False)
        self.api.start(wait=False)
        self.registry.wait_until_ready()
        self.api.wait_until_ready()

    def stop(self) -> None:
        self.api.begin_stop()
        self.registry.stop()
        self.api.stop()

    def reconfigure(
        self,
        api: Mapping[str, Any] | None = None,
        registry: Mapping[str, Any] | None = None,
    ) -> None:
        """Add options, as make_service takes them, and restart the daemons they are for."""
        _add(self.registry.conf, registry)
        _add(self.api.conf, api)
        changed = [
            daemon
            for daemon, options in ((self.registry, registry), (self.api, api))
            if options is not None
        ]
        for daemon in changed:
            daemon.begin_stop()
        for daemon in changed:
            daemon.stop()
            daemon.start(wait=False)
        for daemon in changed:
            daemon.wait_until_ready()


STOCK_POLICY = orjson.loads((ROOT / "etc" / "policy.json").read_bytes())


def make_service(
    home: Path,
    *,
    flavor: str = "trusted-auth",
    api: Mapping[str, Any] | None = None,
    registry: Mapping[str, Any] | None = None,
    connection: str | None = None,
    policy: Mapping[str, str] | None = None,
) -> Service:
    """Configure a service below home; nothing is started yet.

    api and registry are extra options: `{"option": value}` for DEFAULT, `{"section": {...}}` for
    others. Users may register locations here (V1-IMG cases are written against Mitaka's policy).
    """
    store = home / "images"
    store.mkdir(parents=True)
    policy_file = home / "policy.json"
    rules = {**STOCK_POLICY, "set_image_location": "", **(policy or {})}
    policy_file.write_bytes(orjson.dumps(rules))
    database = connection or f"sqlite:///{home}/glance.sqlite"
    ports = free_port(), free_port()
    shared: dict[str, dict[str, Any]] = {
        "paste_deploy": {"flavor": flavor},
        "oslo_policy": {"policy_file": policy_file},
        "database": {"connection": database},
    }
    registry_conf: dict[str, dict[str, Any]] = {
        "DEFAULT": {
            "bind_host": "127.0.0.1",
            "bind_port": ports[0],
            "workers": 1,
            "registry_auth_key": REGISTRY_KEY,
            "debug": True,
            "log_file": home / "registry.log",
        },
        **{name: dict(options) for name, options in shared.items()},
    }
    api_conf: dict[str, dict[str, Any]] = {
        "DEFAULT": {
            "bind_host": "127.0.0.1",
            "bind_port": ports[1],
            "workers": 1,
            "registry_host": "127.0.0.1",
            "registry_port": ports[0],
            "registry_auth_key": REGISTRY_KEY,
            "send_identity_headers": True,
            "debug": True,
            "log_file": home / "api.log",
        },
        "glance_store": {"stores": "file,http", "filesystem_store_datadir": store},
        "copy_from": {"allowed_networks": "127.0.0.0/8"},
        **{name: dict(options) for name, options in shared.items()},
    }
    _add(registry_conf, registry)
    _add(api_conf, api)
    return Service(
        home,
        Daemon("glance_api.cmd.api", "api", home, ports[1], api_conf),
        Daemon("glance_registry.cmd.registry", "registry", home, ports[0], registry_conf),
        policy_file,
        store,
    )


def _add(conf: dict[str, dict[str, Any]], extra: Mapping[str, Any] | None) -> None:
    for name, value in (extra or {}).items():
        if isinstance(value, Mapping):
            conf.setdefault(name, {}).update(value)
        else:
            conf["DEFAULT"][name] = value


def _db_sync(service: Service) -> None:
    service.registry.write_conf()
    manage = [sys.executable, "-m", "glance_api.cmd.manage"]
    options = ["--config-file", str(service.registry.conf_file)]
    subprocess.run([*manage, *options, "db_sync"], check=True, cwd=ROOT, capture_output=True)


_empty_database = b""


def _prepare_database(service: Service, connection: str | None) -> None:
    """Build the schema; of SQLite databases, which are all alike, only the first one."""
    global _empty_database
    if connection is not None:
        return _db_sync(service)
    if _empty_database:
        service.database.write_bytes(_empty_database)
        return None
    _db_sync(service)
    with contextlib.closing(sqlite3.connect(service.database)) as database:
        _empty_database = database.serialize()
    return None


@contextlib.contextmanager
def running_service(
    home: Path, *, connection: str | None = None, **options: Any
) -> Iterator[Service]:
    """A service that is up inside the block, on a database that is ready."""
    service = make_service(home, connection=connection, **options)
    with running(service, connection):
        yield service


@contextlib.contextmanager
def running(service: Service, connection: str | None = None) -> Iterator[None]:
    """service is up inside the block; connection is what make_service was given."""
    _prepare_database(service, connection)
    try:
        service.start()
        yield
    finally:
        service.stop()
