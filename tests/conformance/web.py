"""A small web server whose answers a test decides, page by page, and stores that may reach it."""

import contextlib
import ipaddress
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

from glance_store import Store
from glance_store.outbound import Outbound, OutboundRules


@dataclass
class Page:
    """What is at one path.

    cuts: how many bytes the first, second, ... GET gets before the connection breaks. stalls:
    after how many bytes a GET's answer pauses until the server stops.
    """

    content: bytes = b""
    status: int = 200
    head_status: int | None = None
    tells_length: bool = True
    chunked: bool = False
    ranges: bool = True
    etag: str | None = '"one"'
    redirect: str | None = None
    cuts: list[int] = field(default_factory=list)
    stalls: int | None = None
    cookie: str | None = None


class Web:
    """`with Web() as web: web.pages["/a"] = Page(...); web.url("/a")`."""

    def __init__(self, host: str = "127.0.0.1", tls: ssl.SSLContext | None = None) -> None:
        self.host = host
        self.pages: dict[str, Page] = {}
        self.requests: list[tuple[str, str, dict[str, str]]] = []
        self.stopping = threading.Event()
        self._tls = tls
        self._port = 0

    def __enter__(self) -> Self:
        self._start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stopping.set()
        self._stop()

    @property
    def port(self) -> int:
        return self._port

    def url(self, path: str, host: str | None = None) -> str:
        scheme = "https" if self._tls else "http"
        return f"{scheme}://{host or self.host}:{self._port}{path}"

    @contextlib.contextmanager
    def stopped(self) -> Iterator[None]:
        self._stop()
        try:
            yield
        finally:
            self._start()

    def _start(self) -> None:
        web = self

        class Handler(_Handler):
            pass

        Handler.web = web
        self._server = _Server((self.host, self._port), Handler)
        if self._tls:
            self._server.socket = self._tls.wrap_socket(self._server.socket, server_side=True)
        self._port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()

    def _stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        """A client that leaves early is none."""


class _Handler(BaseHTTPRequestHandler):
    web: Web

    def do_GET(self) -> None:
        self._answer(lambda page, start, end: self._send(page, start, end))

    def do_HEAD(self) -> None:
        self._answer(None)

    def _answer(self, send: Callable[[Page, int, int], None] | None) -> None:
        self.web.requests.append((self.command, self.path, dict(self.headers)))
        page = self.web.pages.get(self.path, Page(status=404))
        status = page.status
        if send is None and page.head_status is not None:
            status = page.head_status
        start, end = 0, len(page.content)
        wanted = self.headers.get("Range")
        validator = self.headers.get("If-Range")
        same = validator is None or validator == page.etag
        if wanted and page.ranges and send and status == 200 and same:
            first, _, last = wanted.removeprefix("bytes=").partition("-")
            start, end = int(first), min(int(last) + 1 if last else end, end)
            status = 206 if start < len(page.content) else 416
        self.send_response(302 if page.redirect else status)
        if page.redirect:
            self.send_header("Location", page.redirect)
        if status == 206:
            self.send_header("Content-Range", f"bytes {start}-{end - 1}/{len(page.content)}")
        if status == 416:
            self.send_header("Content-Range", f"bytes */{len(page.content)}")
        if page.etag:
            self.send_header("ETag", page.etag)
        if page.cookie:
            self.send_header("Set-Cookie", page.cookie)
        if page.chunked:
            self.send_header("Transfer-Encoding", "chunked")
        elif page.tells_length and status in (200, 206):
            self.send_header("Content-Length", str(end - start))
        self.end_headers()
        if send is not None and status in (200, 206):
            send(page, start, end)

    def _send(self, page: Page, start: int, end: int) -> None:
        stop = end
        if page.cuts:
            stop = min(start + page.cuts.pop(0), end)
        if page.stalls is not None:
            stop = min(stop, start + page.stalls)
        content = page.content[start:stop]
        if page.chunked:
            content = b"%x\r\n%b\r\n" % (len(content), content) if content else b""
            content += b"0\r\n\r\n" if stop == end else b""
        self.wfile.write(content)
        self.wfile.flush()
        while page.stalls is not None and not self.web.stopping.is_set():
            time.sleep(0.02)
        if stop < end:
            self.connection.shutdown(socket.SHUT_RDWR)

    def log_message(self, *_: object) -> None:
        """Nothing: the requests are recorded."""


def reaching(store: Store, **rules: Any) -> Store:
    """store, allowed to reach 127.0.0.1 and, unless rules say otherwise, never trying twice."""
    networks = (ipaddress.ip_network("127.0.0.1/32"),)
    store.outbound = Outbound(
        OutboundRules(**{"allowed_networks": networks, "retries": 0, "idle_timeout": 5.0} | rules)
    )
    return store
