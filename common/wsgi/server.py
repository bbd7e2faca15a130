"""One worker: accepts connections and serves a WSGI application on the event loop.

With `sendfile.py` and the daemons' `cmd` modules, the only code that knows which event loop
that is. Requests are framed by `framing.py`, not by the server underneath, which is laxer.
"""

import contextlib
import logging
import os
import signal
import socket
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import eventlet
import eventlet.wsgi
from eventlet import greenio, patcher
from eventlet.hubs import trampoline

from common import concurrency, log
from common.native import NativeThreads
from common.wsgi.access_log import ServerLog
from common.wsgi.faults import Application
from common.wsgi.framing import (
    BadFraming,
    ChunkedReader,
    LengthReader,
    RatedReader,
    read_headers,
)
from common.wsgi.sendfile import PLAIN_SOCKET

LOG = logging.getLogger(__name__)

CONNECTION: Final = "glance.connection"

_MAX_REQUEST_LINE: Final = 16384
_MAX_HEADERS: Final = 256 * 1024

# After an early answer the client may still be sending. Reading on for a while lets it see the
# answer before the connection goes (REL-010).
_LINGER_BYTES: Final = 3 * 1024 * 1024
_LINGER_SECONDS: Final = 3.0

# A stopping worker gives a kept-alive connection this long to bring a request that is already
# on its way.
_DRAIN_IDLE_SECONDS: Final = 1.0


@dataclass(frozen=True)
class ServerSettings:
    """What a worker needs to know about connections; times in seconds, sizes in bytes."""

    max_header_line: int = 16384
    keepalive: bool = True
    socket_timeout: float | None = 900
    header_timeout: float = 60
    max_connections: int = 4096
    max_connections_per_peer: int = 0
    min_transfer_rate: int = 0
    graceful_timeout: float = 60
    access_log: bool = True


def native_threads() -> NativeThreads:
    """Blocking work in native threads, while other requests go on."""
    return NativeThreads(
        patcher.original("threading"),
        patcher.original("queue"),
        lambda descriptor: trampoline(descriptor, read=True),
    )


class _Input(eventlet.wsgi.Input):
    """`wsgi.input` that raises where the body is cut off instead of ending early."""

    def __init__(self, *args: Any, min_rate: int, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        reader = RatedReader(self.rfile, min_rate) if min_rate else self.rfile
        self._body = (
            ChunkedReader(reader)
            if self.chunked_input
            else LengthReader(reader, self.content_length or 0)
        )

    @property
    def unread(self) -> bool:
        """Whether part of the request's body has not been read yet."""
        return not self._body.ended

    def read(self, length: int | None = None) -> bytes:
        if self.unread and self.should_send_hundred_continue:
            self.send_hundred_continue_response()
            self.is_hundred_continue_response_sent = True
        size = length if length is not None and length >= 0 else 1 << 62
        content = self._body.read(size)
        self.position += len(content)
        return content

    def discard(self, buffer_size: int = 0) -> None:
        """The rest of a body nobody read is the connection's business; see `_Connection`."""


class _Connection(eventlet.wsgi.HttpProtocol):
    """One client connection."""

    server: "_Server"

    def setup(self) -> None:
        super().setup()
        with contextlib.suppress(OSError):
            # Header and body leave as two segments; without this a kept-alive client waits
            # 40 ms for the second (decision 14).
            self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def handle_one_request(self) -> None:
        try:
            # The idle limit covers the wait for a request, the header deadline the request: a
            # client that drips one byte at a time meets the second.
            if self._has_ended():
                self.close_connection = True
                return
            self.conn_state[2] = eventlet.wsgi.STATE_REQUEST
            with eventlet.Timeout(self.server.settings.header_timeout):
                read = self._read_request()
        except (OSError, eventlet.Timeout):
            self.close_connection = True
            return
        if read:
            self._respond()

    def _has_ended(self) -> bool:
        try:
            return not self.rfile.peek(1)
        except ValueError:
            return True  # an idle TLS connection that has been shut down from our side

    def _read_request(self) -> bool:
        self.raw_requestline = self.rfile.readline(_MAX_REQUEST_LINE)
        if len(self.raw_requestline) >= _MAX_REQUEST_LINE:
            self._refuse("414 URI Too Long", "The request line is too long.")
            return False
        try:
            return bool(self.parse_request())
        except BadFraming as error:
            self._refuse("400 Bad Request", error.message)
            return False

    def parse_request(self) -> bool:
        line = self.raw_requestline
        words = line.rstrip(b"\r\n").decode("latin-1").split(" ")
        if not line.endswith(b"\r\n") or len(words) != 3 or not all(words):
            raise BadFraming("The request line is malformed.")
        self.command, self.path, self.request_version = words
        if self.request_version not in ("HTTP/1.1", "HTTP/1.0"):
            raise BadFraming("The protocol version is not supported.")
        if any(character < "!" or character == "\x7f" for character in self.path + self.command):
            raise BadFraming("The request line is malformed.")
        self.requestline = line[:-2].decode("latin-1")
        settings = self.server.settings
        self.headers = read_headers(self.rfile, settings.max_header_line, _MAX_HEADERS)
        if self.request_version == "HTTP/1.0" and self.headers.get("transfer-encoding"):
            # A peer of that version takes the chunks for what they are in (RFC 9112, 6.1).
            raise BadFraming("HTTP/1.0 has no transfer codings.")
        asked = (self.headers.get("connection") or "").lower()
        self.close_connection = asked == "close" or (
            self.request_version == "HTTP/1.0" and asked != "keep-alive"
        )
        return True

    def _refuse(self, status: str, message: str) -> None:
        content = message.encode() + b"\n"
        head = f"HTTP/1.1 {status}\r\nContent-Type: text/plain; charset=UTF-8\r\n"
        head += f"Content-Length: {len(content)}\r\nConnection: close\r\n\r\n"
        self.close_connection = True
        with contextlib.suppress(OSError):
            self.wfile.write(head.encode() + content)
            self.wfile.flush()
            self._linger(None)

    def get_environ(self) -> dict[str, Any]:
        environ: dict[str, Any] = super().get_environ()
        old = environ["wsgi.input"]
        environ["wsgi.input"] = environ["eventlet.input"] = self.input = _Input(
            old.rfile,
            old.content_length,
            old.get_socket(),
            wfile=old.wfile,
            wfile_line=old.wfile_line,
            chunked_input=old.chunked_input,
            min_rate=self.server.settings.min_transfer_rate,
        )
        environ[CONNECTION] = self
        if self.path.startswith("//"):
            # `//host/x` is a path with an empty segment, never a host (SEC-062).
            environ["PATH_INFO"] = "/" + environ["PATH_INFO"].lstrip("/")
        if not isinstance(self.connection, ssl.SSLSocket):
            environ[PLAIN_SOCKET] = self.connection
        return environ

    def _respond(self) -> None:
        self.environ = self.get_environ()
        self.application = self._answer
        self.server.outstanding_requests += 1
        try:
            self.handle_one_response()
            if self.input.unread:
                self._linger(self.input)
        except (OSError, eventlet.Timeout):
            self.close_connection = True
        finally:
            self.server.outstanding_requests -= 1
            log.unbind()
            # The request's objects would otherwise live as long as the idle connection.
            del self.environ, self.input

    def _answer(self, environ: dict[str, Any], start_response: Any) -> Any:
        def start(*args: Any, **kwargs: Any) -> Any:
            if self.input.unread or self.server.draining or not self.server.settings.keepalive:
                self.close_connection = True
            return start_response(*args, **kwargs)

        return self.server.site(environ, start)

    def _linger(self, unread: _Input | None) -> None:
        """Let the client see the answer: stop sending, then read on for a bounded while."""
        if unread is not None and unread.should_send_hundred_continue:
            return  # the client waits for a 100 that never comes; it sends nothing
        self.wfile.flush()
        with contextlib.suppress(OSError, eventlet.Timeout), eventlet.Timeout(_LINGER_SECONDS):
            self.connection.shutdown(socket.SHUT_WR)
            left = _LINGER_BYTES
            while left > 0 and (count := len(self.connection.recv(65536))):
                left -= count


class _Server(eventlet.wsgi.Server):
    """What connections share."""

    def __init__(self, listener: socket.socket, site: Application, settings: ServerSettings):
        super().__init__(
            listener,
            listener.getsockname(),
            site,
            log=ServerLog(eventlet.Timeout),
            protocol=_Connection,
            log_x_forwarded_for=False,
            keepalive=settings.keepalive,
            log_output=settings.access_log,
            log_format='%(client_ip)s "%(request_line)s" status: %(status_code)s '
            "len: %(body_length)s time: %(wall_seconds).6f",
            debug=False,
            socket_timeout=settings.socket_timeout,
        )
        self.site = site
        self.settings = settings
        self.capitalize_response_headers = False
        self.draining = False


class Worker:
    """Serves one listening socket until told to stop."""

    def __init__(
        self,
        listener: socket.socket,
        site: Application,
        settings: ServerSettings,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._listener = greenio.GreenSocket(listener)
        self._settings = settings
        self._tls = tls
        self._server = _Server(self._listener, site, settings)
        if tls is not None:
            self._server.environ = {"wsgi.url_scheme": "https", "HTTPS": "on"}
        self._pool = eventlet.GreenPool(settings.max_connections)
        self._connections: dict[int, list[Any]] = {}

    def run(self, stop_requested: Callable[[], object], finish: Callable[[], object]) -> None:
        """Serve until stop_requested returns, then let what is running end.

        finish is called once no request is running, for background work to end too; both have
        graceful_timeout seconds together.
        """
        accepting = eventlet.spawn(self._accept)
        stop_requested()
        accepting.kill()
        self._listener.close()
        with eventlet.Timeout(self._settings.graceful_timeout, False):
            self._drain()
            finish()

    def _accept(self) -> None:
        while True:
            try:
                client, address = self._listener.accept()
                if self._is_at_limit(address):
                    client.close()
                    continue
            except OSError as error:
                LOG.warning("accepting a connection failed: %s", error.strerror)
                eventlet.sleep(0.1)
                continue
            self._pool.spawn_n(self._serve, client, address)

    def _is_at_limit(self, address: Any) -> bool:
        limit = self._settings.max_connections_per_peer
        peers = (state[0] for state in self._connections.values())
        return bool(limit) and sum(peer[0] == address[0] for peer in peers) >= limit

    def _serve(self, client: Any, address: Any) -> None:
        state = [address, client, eventlet.wsgi.STATE_IDLE]
        self._connections[id(state)] = state
        try:
            client.settimeout(self._settings.socket_timeout)
            if self._tls is not None:
                with eventlet.Timeout(self._settings.header_timeout):
                    client = state[1] = self._tls.wrap_socket(
                        client, server_side=True, do_handshake_on_connect=False
                    )
                    client.do_handshake()
            self._server.process_request(state)
        except (OSError, eventlet.Timeout):
            LOG.debug("a connection from %s ended early", address[0] if address else "?")
        except Exception:
            LOG.exception("a connection failed")
        finally:
            del self._connections[id(state)]
            greenio.shutdown_safe(client)
            client.close()

    def _drain(self) -> None:
        self._server.draining = True
        deadline = time.monotonic() + _DRAIN_IDLE_SECONDS
        while self._connections:
            if time.monotonic() > deadline:
                for state in list(self._connections.values()):
                    if state[2] == eventlet.wsgi.STATE_IDLE:
                        greenio.shutdown_safe(state[1])
            eventlet.sleep(0.02)


def run_worker(
    listener: socket.socket,
    site: Application,
    settings: ServerSettings,
    *,
    tls: ssl.SSLContext | None = None,
    parent: int | None = None,
    started: Callable[[], object] = lambda: None,
    finish: Callable[[], object] = lambda: None,
) -> None:
    """Be a worker process: returns after SIGTERM or SIGHUP, or when the parent is gone.

    parent: the reading end of a pipe that the parent process keeps open. started is called on
    the event loop before the first request; finish when the last one has ended.
    """
    eventlet.hubs.use_hub()
    concurrency.install(native_threads())
    reading, writing = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: None)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    stop = eventlet.event.Event()

    def watch(descriptor: int) -> None:
        trampoline(descriptor, read=True)
        if not stop.ready():
            stop.send(None)

    eventlet.spawn_n(watch, reading)
    if parent is not None:
        eventlet.spawn_n(watch, parent)
    started()
    Worker(listener, site, settings, tls).run(stop.wait, finish)
