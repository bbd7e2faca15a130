"""A simulated vCenter: govmomi's simulator behind a small HTTPS front of our own.

The simulator checks no session on datastore access and never fails. The front adds what real
ones do: 401 without a living session, 201 for a new file, 500 with a SOAP fault, and failures
on request.
"""

import http.client
import shutil
import socketserver
import ssl
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from http.cookies import SimpleCookie
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Protocol

from tests.servers.nginx import make_certificate
from tests.servers.process import HOST, Server, free_port, is_listening, servers_directory

SESSION = "vmware_soap_session"
CHUNK = 1 << 16

# What belongs to one connection and is not passed on.
_HOP_BY_HOP = frozenset(("connection", "transfer-encoding", "keep-alive", "host", "expect"))

# Elements that the simulator sends and vSphere 4.1's WSDL, the one to be had, lacks.
_NEWER_REFERENCES = (
    "serviceManager",
    "guestCustomizationManager",
    "datastoreNamespaceManager",
    "guestOperationsManager",
    "overheadMemoryManager",
    "certificateManager",
    "ioFilterManager",
    "vStorageObjectManager",
    "hostSpecManager",
    "cryptoManager",
    "healthUpdateManager",
    "failoverClusterConfigurator",
    "failoverClusterManager",
    "tenantManager",
    "siteInfoManager",
    "storageQueryManager",
)
_NEWER_ELEMENTS = {
    "ServiceContent": dict.fromkeys(_NEWER_REFERENCES, "vim25:ManagedObjectReference"),
    "UserSession": {
        "extensionSession": "xsd:boolean",
        "ipAddress": "xsd:string",
        "userAgent": "xsd:string",
        "callCount": "xsd:long",
    },
    "TaskInfo": {"activationId": "xsd:string"},
    "DatastoreSummary": {"maintenanceMode": "xsd:string"},
}


class VCenter(Server):
    """vCenter at `address` and `port`, together `host`; trust `ca`, describe it by `wsdl`.

    It has the datacenter `datacenter` with the datastore `datastore`, kept in
    `datastore_path`. `answer` makes coming requests fail; `expire_sessions` logs everybody
    out; `requests` has every request so far.
    """

    name = "vcenter"
    programs = ("openssl",)
    install = "vcenter"

    address = HOST
    user = "glance"
    password = "vcenter-pa55"
    datacenter = "DC0"
    datastore = "LocalDS_0"

    def __init__(self) -> None:
        super().__init__()
        self.port = free_port()
        self.host = f"{HOST}:{self.port}"
        self.url = f"https://{self.host}"
        self._simulator_port = free_port()
        self._front: _Front | None = None

    @classmethod
    def missing(cls) -> list[str]:
        built = servers_directory() / "vcsim"
        lacking = [name for name in ("vcsim", "wsdl") if not (built / name).exists()]
        return super().missing() + [f"simulator file {name}" for name in lacking]

    @property
    def ca(self) -> Path:
        return self.directory / "cert.pem"

    @property
    def wsdl(self) -> str:
        """What oslo.vmware calls wsdl_loc: the simulator serves no WSDL."""
        return f"file://{self.directory}/wsdl/vimService.wsdl"

    @property
    def datastore_path(self) -> Path:
        return self.directory / "datastore"

    @property
    def requests(self) -> list[tuple[str, str]]:
        """Method and path of every request since the start or restart."""
        return self._running_front().requests

    def files(self) -> dict[str, int]:
        """Every file in the datastore, by its path there, with its size."""
        root = self.datastore_path
        files = (path for path in root.rglob("*") if path.is_file())
        return {str(path.relative_to(root)): path.stat().st_size for path in files}

    # Faults.

    def answer(self, status: int, times: int = 1, method: str = "", path: str = "/") -> None:
        """Answer coming requests with this status, or close the connection for status 0.

        Counts only requests with that method (any if empty) to a path that starts so:
        "/folder" for datastore files, "/sdk" for the API.
        """
        self._running_front().orders.append(_Order(status, times, method, path))

    def recover(self) -> None:
        """Forget what `answer` ordered and no request has met yet."""
        self._running_front().orders.clear()

    def expire_sessions(self) -> None:
        """Every session opened so far is over; a new login works."""
        self._running_front().expire_sessions()

    def kill(self) -> None:
        self._close_front()
        super().kill()

    # The life of the server.

    def prepare(self) -> None:
        self.datastore_path.mkdir()
        make_certificate(self)
        shutil.copytree(servers_directory() / "vcsim/wsdl", self.directory / "wsdl")
        for name in ("vim-types.xsd", "vim.wsdl"):
            _add_newer_elements(self.directory / "wsdl" / name)

    def launch(self) -> None:
        self.spawn(
            "vcsim",
            servers_directory() / "vcsim/vcsim",
            *("-http", "-l", f"{HOST}:{self._simulator_port}"),
            *("-u", f"{self.user}:{self.password}", "-dir", self.datastore_path),
        )
        self.wait_until(lambda: is_listening(self._simulator_port), "listening")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.ca, self.directory / "key.pem")
        self._front = _Front(self.port, self._simulator_port, context)
        threading.Thread(target=self._front.serve_forever, args=(0.05,), daemon=True).start()

    def shutdown(self) -> None:
        self._close_front()
        super().shutdown()

    def _running_front(self) -> "_Front":
        assert self._front is not None, "vcenter is not running"
        return self._front

    def _close_front(self) -> None:
        if self._front:
            self._front.shutdown()
            self._front.server_close()
            self._front = None


class _Reader(Protocol):
    """The two methods of a request's body that we need."""

    def read(self, size: int, /) -> bytes: ...
    def readline(self) -> bytes: ...


@dataclass(slots=True)
class _Order:
    """Answer so many matching requests with this status."""

    status: int
    times: int
    method: str
    path: str


class _Front(socketserver.ThreadingTCPServer):
    """Passes requests on to the simulator, unless it has orders to do otherwise."""

    allow_reuse_address = True
    daemon_threads = True
    # A test that ends does not wait for a client that keeps its connection open.
    block_on_close = False

    def __init__(self, port: int, simulator_port: int, context: ssl.SSLContext) -> None:
        self.simulator_port = simulator_port
        self.requests: list[tuple[str, str]] = []
        self.orders: list[_Order] = []
        self._sessions: set[str] = set()
        self._lock = threading.Lock()
        super().__init__((HOST, port), _Handler)
        # The handshake belongs to the connection's thread: a slow client holds up nobody.
        self.socket = context.wrap_socket(
            self.socket, server_side=True, do_handshake_on_connect=False
        )

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that breaks off in the middle is part of the tests."""

    def expire_sessions(self) -> None:
        with self._lock:
            self._sessions.clear()

    def note_session(self, cookie: str) -> None:
        session = _session_of(cookie)
        if session:
            with self._lock:
                self._sessions.add(session)

    def is_alive(self, cookie: str) -> bool:
        return _session_of(cookie) in self._sessions

    def take_order(self, method: str, path: str) -> int | None:
        """Note the request; the status it is to fail with, None if it is to pass."""
        with self._lock:
            self.requests.append((method, path))
            for order in self.orders:
                if order.method in ("", method) and path.startswith(order.path):
                    order.times -= 1
                    if not order.times:
                        self.orders.remove(order)
                    return order.status
        return None


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # Head and body are two writes; without this the second waits 40 ms for the first's ACK.
    disable_nagle_algorithm = True
    server: _Front

    def handle_any(self) -> None:
        status = self.server.take_order(self.command, self.path)
        if status is None and self.path.startswith("/folder") and not self._has_session():
            status = 401
        if status is None:
            self._pass_on()
        elif status:
            # Closing on unread bytes resets the connection, and the answer can be lost with it.
            for _ in self._body() or ():
                pass
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()
        else:
            self.close_connection = True

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = handle_any

    def log_message(self, format: str, *args: object) -> None:
        """`requests` is the log."""

    def _has_session(self) -> bool:
        return self.server.is_alive(self.headers.get("Cookie", ""))

    def _pass_on(self) -> None:
        headers = {
            name: value for name, value in self.headers.items() if name.lower() not in _HOP_BY_HOP
        }
        if not self._has_session():
            # The simulator knows the session still; without it, it answers NotAuthenticated.
            headers.pop("Cookie", None)
        is_new = self.command == "PUT" and self._is_missing()
        simulator = http.client.HTTPConnection(HOST, self.server.simulator_port)
        try:
            chunked = self.headers.get("Transfer-Encoding", "").lower() == "chunked"
            if chunked:
                headers["Transfer-Encoding"] = "chunked"
            simulator.request(
                self.command, self.path, self._body(), headers, encode_chunked=chunked
            )
            response = simulator.getresponse()
            self._reply(response, is_new=is_new)
        finally:
            simulator.close()

    def _is_missing(self) -> bool:
        simulator = http.client.HTTPConnection(HOST, self.server.simulator_port)
        try:
            simulator.request("HEAD", self.path)
            return simulator.getresponse().status == 404
        finally:
            simulator.close()

    def _body(self) -> Iterator[bytes] | None:
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            return _chunks(self.rfile)
        length = int(self.headers.get("Content-Length", 0))
        return _exactly(self.rfile, length) if length else None

    def _reply(self, response: http.client.HTTPResponse, *, is_new: bool) -> None:
        data, status = response.read(CHUNK), response.status
        # Where the simulator always says 200.
        if is_new and status == 200:
            status = 201
        elif self.path.startswith("/sdk") and b":Fault>" in data:
            status = 500
        self.send_response_only(status)
        for name, value in response.getheaders():
            if name.lower() == "set-cookie":
                self.server.note_session(value)
            if name.lower() not in _HOP_BY_HOP:
                self.send_header(name, value)
        if response.getheader("Content-Length") is None and response.status >= 200:
            self.close_connection = True
            self.send_header("Connection", "close")
        self.end_headers()
        while data:
            self.wfile.write(data)
            data = response.read(CHUNK)
        if response.length:
            # The simulator is gone; a client that waits for the rest must hear of it.
            self.close_connection = True


def _session_of(cookie: str) -> str:
    session = SimpleCookie(cookie).get(SESSION)
    return session.value if session else ""


def _exactly(file: _Reader, length: int) -> Iterator[bytes]:
    while length:
        data = file.read(min(CHUNK, length))
        if not data:
            raise ConnectionError("the client broke off")
        length -= len(data)
        yield data


def _chunks(file: _Reader) -> Iterator[bytes]:
    while size := int(file.readline().split(b";")[0], 16):
        yield from _exactly(file, size)
        file.readline()
    while file.readline().strip():
        pass


def _add_newer_elements(path: Path) -> None:
    text = path.read_text()
    for name, elements in _NEWER_ELEMENTS.items():
        start = text.find(f'<complexType name="{name}"')
        if start >= 0:
            end = text.index("</sequence>", start)
            lines = [
                f'<element name="{element}" type="{kind}" minOccurs="0" />'
                for element, kind in elements.items()
            ]
            text = text[:end] + "".join(lines) + text[end:]
    path.write_text(text)
