"""One client connection: requests in, answers out, in straight lines and without a loop's name.

It is given a socket whose calls wait as the event loop wants them to. The server that comes with
that loop frames requests laxer than `framing.py`, and costs more: with it a HEAD took 490
microseconds of the API and 517 of the registry, with this 388 and 426.
"""

import contextlib
import io
import socket
import sys
import time
from dataclasses import dataclass
from typing import Any, Final, cast

from common import log
from common.wsgi.exchange import Exchange
from common.wsgi.faults import Application
from common.wsgi.framing import BadFraming, RequestHead, RequestLineTooLong, read_head

# Set for a connection whose socket may be written to directly.
PLAIN_SOCKET: Final = "glance.plain_socket"

# After an early answer the client may still be sending. Reading on for a while lets it see the
# answer before the connection goes (REL-010).
_LINGER_BYTES: Final = 3 * 1024 * 1024
_LINGER_SECONDS: Final = 3.0

# Whole requests without a body are smaller, mostly; a body passes by it.
_BUFFER: Final = 8 * 1024


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


class Connection:
    """Answers the requests of one client until either side has had enough."""

    def __init__(
        self,
        sock: socket.socket,
        peer: Any,
        site: Application,
        settings: ServerSettings,
        *,
        tls: bool,
    ) -> None:
        self.peer = peer
        self.idle = True
        # Whoever sets this lets the request under way be the last.
        self.is_stopping = False
        self.settings = settings
        self.keepalive = settings.keepalive
        self.min_transfer_rate = settings.min_transfer_rate
        self.site = site
        self.sock = sock
        self.rfile = cast(io.BufferedReader, sock.makefile("rb", _BUFFER))
        self.constants = _constants(sock, peer, tls)
        with contextlib.suppress(OSError):
            # Head and body may leave as two segments; without this a kept-alive client waits
            # 40 ms for the second (decision 14).
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def serve(self) -> None:
        """Raises OSError where the client is gone or too slow."""
        try:
            while self._serve_one():
                self.idle = True
        finally:
            self.rfile.close()

    def _serve_one(self) -> bool:
        """Answer the next request; whether another may follow."""
        # The idle limit covers the wait for a request, the header deadline the request: a client
        # that drips one byte at a time meets the second.
        if self._has_ended():
            return False
        self.idle = False
        try:
            head = self._read_head()
        except RequestLineTooLong as error:
            return self._refuse("414 URI Too Long", error.message)
        except BadFraming as error:
            return self._refuse("400 Bad Request", error.message)
        exchange = Exchange(self, head, self.site)
        try:
            exchange.run()
        finally:
            log.unbind()
        if exchange.body.unread and not exchange.body.is_awaited:
            self._linger()
        return exchange.keeps

    def _has_ended(self) -> bool:
        try:
            return not self.rfile.peek(1)
        except ValueError:
            return True  # an idle TLS connection that has been shut down from our side

    def _read_head(self) -> RequestHead:
        settings = self.settings
        deadline = time.monotonic() + settings.header_timeout

        def wait() -> None:
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError
            self.sock.settimeout(min(left, settings.socket_timeout or left))

        head = read_head(self.rfile, settings.max_header_line, wait)
        if self.sock.gettimeout() != settings.socket_timeout:
            self.sock.settimeout(settings.socket_timeout)
        return head

    def _refuse(self, status: str, message: str) -> bool:
        content = message.encode() + b"\n"
        head = f"HTTP/1.1 {status}\r\nContent-Type: text/plain; charset=UTF-8\r\n"
        head += f"Content-Length: {len(content)}\r\nConnection: close\r\n\r\n"
        with contextlib.suppress(OSError):
            self.sock.sendall(head.encode() + content)
            self._linger()
        return False

    def _linger(self) -> None:
        """Let the client see the answer: stop sending, then read on for a bounded while."""
        deadline = time.monotonic() + _LINGER_SECONDS
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_WR)
            left = _LINGER_BYTES
            while left > 0 and (wait := deadline - time.monotonic()) > 0:
                self.sock.settimeout(wait)
                count = len(self.sock.recv(65536))
                if not count:
                    return
                left -= count


def _constants(sock: socket.socket, peer: Any, tls: bool) -> dict[str, Any]:
    """The part of the WSGI environment that is the same for every request of a connection."""
    here = sock.getsockname()
    constants = {
        "SCRIPT_NAME": "",
        "SERVER_NAME": str(here[0]),
        "SERVER_PORT": str(here[1]),
        "REMOTE_ADDR": str(peer[0]),
        "REMOTE_PORT": str(peer[1]),
        "GATEWAY_INTERFACE": "CGI/1.1",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "https" if tls else "http",
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
    }
    return {**constants, "HTTPS": "on"} if tls else {**constants, PLAIN_SOCKET: sock}
