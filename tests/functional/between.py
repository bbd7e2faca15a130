"""A proxy between the API and the registry that does to each request what a test says."""

import contextlib
import http.client
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from tests.functional.daemons import free_port

NOT_FORWARDED = ("connection", "transfer-encoding", "date", "content-length")


@dataclass(frozen=True)
class Fate:
    """What becomes of a request. status: it is answered so, and the registry never hears of it.

    before: called first; lost: the registry does its work, and its answer gets lost; silent:
    nobody ever answers.
    """

    status: int | None = None
    body: bytes = b"{}"
    before: Callable[[], object] = lambda: None
    lost: bool = False
    silent: bool = False


PASS = Fate()
Rule = Callable[[str, str], Fate | None]


class Between:
    """`rule(method, path)` decides; None lets a request pass. A context manager."""

    def __init__(self, registry_port: int) -> None:
        self.registry_port = registry_port
        self.port = free_port()
        self.requests: list[tuple[str, str]] = []
        self.freed = threading.Event()
        self._rule: Rule = lambda method, path: None

    @contextlib.contextmanager
    def rule(self, rule: Rule) -> Iterator[None]:
        before, self._rule = self._rule, rule
        self.freed.clear()
        try:
            yield
        finally:
            self._rule = before
            self.freed.set()

    @contextlib.contextmanager
    def refusing(self) -> Iterator[None]:
        """Nobody listens."""
        self._stop()
        try:
            yield
        finally:
            self._start()

    def fate(self, method: str, path: str) -> Fate:
        self.requests.append((method, path))
        return self._rule(method, path) or PASS

    def __enter__(self) -> "Between":
        self._start()
        return self

    def __exit__(self, *_: object) -> None:
        self.freed.set()
        self._stop()

    def _start(self) -> None:
        between = self

        class Handler(_Handler):
            pass

        Handler.between = between
        self._server = _Server(("127.0.0.1", self.port), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()

    def _stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def handle_error(self, *_: object) -> None:
        """A daemon that was killed leaves its connections; that is what is being tested."""


class _Handler(BaseHTTPRequestHandler):
    between: Between
    protocol_version = "HTTP/1.1"

    def handle_any(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        fate = self.between.fate(self.command, self.path)
        # Every request is on its own, so that a proxy that stops leaves no connection behind.
        self.close_connection = True
        fate.before()
        if fate.silent:
            self.between.freed.wait(60)
            return
        if fate.status is not None:
            self._answer(fate.status, [("Content-Type", "application/json")], fate.body)
            return
        upstream = http.client.HTTPConnection("127.0.0.1", self.between.registry_port, timeout=60)
        try:
            upstream.request(self.command, self.path, body or None, dict(self.headers))
            answer = upstream.getresponse()
            content = answer.read()
        except OSError:
            return
        finally:
            upstream.close()
        if not fate.lost:
            self._answer(answer.status, answer.getheaders(), content)

    do_GET = do_POST = do_PUT = do_DELETE = do_HEAD = handle_any

    def _answer(self, status: int, headers: list[tuple[str, str]], content: bytes) -> None:
        self.send_response_only(status)
        for name, value in headers:
            if name.lower() not in NOT_FORWARDED:
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Nothing: the requests are recorded."""
