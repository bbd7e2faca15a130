"""Kept-alive HTTP connections from one worker to the registry.

Every request of the API makes one, so what it costs counts: a HEAD took 337 microseconds of the
API with `http.client`, which parses headers as mail, and takes 261 with this. A `requests` session
would add 300.
"""

import contextlib
import logging
import select
import socket
import ssl
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from common import errors
from common.wsgi.bodies import ChunkedReader, LengthReader
from common.wsgi.framing import BadFraming, read_answer_head

LOG = logging.getLogger(__name__)

_CONNECT_TIMEOUT: Final = 5.0

# So many connections are held ready however long nobody needs them; others for these seconds.
_READY: Final = 8
_SURPLUS_SECONDS: Final = 2.0

_MAX_LINE: Final = 64 * 1024
_EVERYTHING: Final = 1 << 62
_BODYLESS: Final = (204, 304)
_IDEMPOTENT: Final = frozenset({"GET", "HEAD"})


@dataclass(frozen=True)
class Endpoint:
    """Where the registry is. timeout: seconds for an answer, None for no limit."""

    host: str
    port: int
    timeout: float | None = 600
    tls: ssl.SSLContext | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    content: bytes


class ConnectionPool:
    """Lends each request a connection of its own and keeps it afterwards.

    The most recently used is lent first, so that a burst's surplus falls idle; it is closed
    after a few seconds.
    """

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._idle: list[_Connection] = []
        self._failure = ""
        self._is_sweeping = False

    def request(
        self,
        method: str,
        path: str,
        body: bytes | None,
        headers: Mapping[str, str],
        timeout: float | None = None,
    ) -> Answer:
        """One exchange. Raises ServiceUnavailable where it fails for any reason.

        timeout: seconds for what cannot wait as long as the endpoint's.

        A read is tried a second time on a new connection; a write never is, since it may have
        been carried out.
        """
        for attempt in (1, 2):
            try:
                connection = _Connection(self._endpoint) if attempt == 2 else self._take()
                answer = self._exchange(connection, method, path, body, headers, timeout)
            except (OSError, BadFraming, errors.ClientDisconnected) as error:
                timed_out = isinstance(error, TimeoutError)
                if attempt == 2 or method not in _IDEMPOTENT or timed_out:
                    self._note_failure(error)
                    raise errors.ServiceUnavailable("The registry cannot be reached.") from error
            else:
                self._failure = ""
                return answer
        raise AssertionError("unreachable")

    def _note_failure(self, error: Exception) -> None:
        """Tell the operator the reason, once for each that there is."""
        reason = str(error) or type(error).__name__
        if reason != self._failure:
            self._failure = reason
            end = self._endpoint
            LOG.info("the registry at %s:%s cannot be reached: %s", end.host, end.port, reason)

    def _exchange(
        self,
        connection: "_Connection",
        method: str,
        path: str,
        body: bytes | None,
        headers: Mapping[str, str],
        timeout: float | None,
    ) -> Answer:
        try:
            if timeout is not None:
                connection.limit(timeout)
            answer = connection.exchange(method, path, body, headers)
            if timeout is not None:
                connection.limit(self._endpoint.timeout)
        except BaseException:
            connection.close()
            raise
        if connection.is_open:
            self._keep(connection)
        return answer

    def _keep(self, connection: "_Connection") -> None:
        connection.idle_since = time.monotonic()
        self._idle.append(connection)
        if len(self._idle) > _READY and not self._is_sweeping:
            self._is_sweeping = True
            threading.Thread(target=self._sweep, daemon=True).start()

    def _sweep(self) -> None:
        """Close what nobody has used for a while, the oldest first, but for a few."""
        while len(self._idle) > _READY:
            time.sleep(_SURPLUS_SECONDS)
            limit = time.monotonic() - _SURPLUS_SECONDS
            for connection in self._idle[:-_READY]:
                if connection.idle_since > limit:
                    break
                with contextlib.suppress(ValueError):  # lent to somebody meanwhile
                    self._idle.remove(connection)
                    connection.close()
        self._is_sweeping = False

    def _take(self) -> "_Connection":
        while self._idle:
            connection = self._idle.pop()
            if connection.is_usable():
                return connection
            connection.close()
        return _Connection(self._endpoint)


class _Connection:
    """Raises OSError, or what framing and bodies raise, where the registry is gone."""

    def __init__(self, end: Endpoint) -> None:
        sock = socket.create_connection((end.host, end.port), _CONNECT_TIMEOUT)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if end.tls is not None:
            sock = end.tls.wrap_socket(sock, server_hostname=end.host)
        sock.settimeout(end.timeout)
        self._sock = sock
        self._file = sock.makefile("rb")
        self._host = f"[{end.host}]:{end.port}" if ":" in end.host else f"{end.host}:{end.port}"
        self.is_open = True
        self.idle_since = 0.0

    def exchange(
        self, method: str, path: str, body: bytes | None, headers: Mapping[str, str]
    ) -> Answer:
        lines = [f"{method} {path} HTTP/1.1", f"Host: {self._host}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        if body is not None:
            lines.append(f"Content-Length: {len(body)}")
        head = "\r\n".join(lines)
        # Nothing that a caller's header holds may begin a line of its own.
        if head.count("\n") != len(lines) - 1 or head.count("\r") != len(lines) - 1:
            raise errors.Invalid("Invalid value: a header holds a line break.")
        self._sock.sendall(f"{head}\r\n\r\n".encode("latin-1") + (body or b""))
        return self._answer()

    def _answer(self) -> Answer:
        if not self._file.peek(1):
            raise ConnectionResetError("it closed the connection")
        head = read_answer_head(self._file, _MAX_LINE)
        if not head.keeps_alive:
            self.is_open = False
        if head.status in _BODYLESS:
            content = b""
        elif head.chunked:
            content = ChunkedReader(self._file).read(_EVERYTHING)
        elif head.length is not None:
            content = LengthReader(self._file, head.length).read(_EVERYTHING)
        else:
            self.is_open = False
            content = self._file.read()
        if not self.is_open:
            self.close()
        return Answer(head.status, content)

    def limit(self, timeout: float | None) -> None:
        """Wait no longer than that for the registry from now on."""
        if self.is_open:
            self._sock.settimeout(timeout)

    def is_usable(self) -> bool:
        """An idle connection with something to read was closed by the registry meanwhile."""
        sock = self._sock
        if isinstance(sock, ssl.SSLSocket):
            # TLS cannot be peeked into, but nothing is due on an idle connection except its end.
            return not select.select([sock], [], [], 0)[0]
        timeout = sock.gettimeout()
        sock.settimeout(0)
        try:
            sock.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return True
        except OSError:
            return False
        finally:
            sock.settimeout(timeout)
        return False

    def close(self) -> None:
        self.is_open = False
        with contextlib.suppress(OSError):
            self._file.close()
            self._sock.close()
