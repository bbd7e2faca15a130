"""One request and its answer, as WSGI has them."""

import contextlib
import io
import socket
import time
from collections.abc import Callable, Iterable
from email.utils import formatdate
from functools import lru_cache
from typing import Any, Final, Protocol
from urllib.parse import unquote

from common import errors
from common.wsgi import access_log
from common.wsgi.bodies import BufferedReader, ChunkedReader, LengthReader, RatedReader
from common.wsgi.faults import Application
from common.wsgi.framing import RequestHead

# Up to this much of a body is copied behind its head, to leave in one segment.
_JOINED: Final = 64 * 1024

_BODYLESS: Final = ("1", "204", "304")


class Peer(Protocol):
    """The connection that a request came by."""

    sock: socket.socket
    # The part of the WSGI environment that is the same for all its requests.
    constants: dict[str, Any]
    keepalive: bool
    min_transfer_rate: int
    is_stopping: bool

    @property
    def rfile(self) -> BufferedReader: ...


class Exchange:
    """One request and its answer."""

    def __init__(self, connection: Peer, head: RequestHead, site: Application) -> None:
        self.connection = connection
        self.head = head
        self.site = site
        self.keeps = connection.keepalive and head.keeps_alive
        self.body = RequestBody(connection, head)
        self._status = ""
        self._headers: list[tuple[str, str]] = []
        self._started = False
        self._chunked = False
        self._sent = 0

    def run(self) -> None:
        started = time.time()
        try:
            self._answer()
        except Exception as error:
            self.keeps = False
            access_log.cut(error)
            if not self._started:
                self.start_response("500 Internal Server Error", [("Content-Length", "0")])
                with contextlib.suppress(OSError):
                    self.write(b"")
        finally:
            address = self.connection.constants["REMOTE_ADDR"]
            wall = time.time() - started
            access_log.answered(address, self.head.line, self._status[:3], self._sent, wall)

    def _answer(self) -> None:
        chunks = self.site(self._environ(), self.start_response)
        try:
            if not self._started and isinstance(chunks, list | tuple):
                self._add_length(sum(map(len, chunks)))
            for chunk in chunks:
                if chunk:
                    self.write(chunk)
            if not self._started:
                self.write(b"")
            if self._chunked:
                self._send(b"0\r\n\r\n")
        finally:
            if hasattr(chunks, "close"):
                chunks.close()

    def start_response(
        self, status: str, headers: list[tuple[str, str]], exc_info: Any = None
    ) -> Callable[[bytes], None]:
        """WSGI's."""
        if exc_info is not None and self._started:
            raise exc_info[1].with_traceback(exc_info[2])
        self._status, self._headers = status, headers
        # Whatever is left of the request's body would be taken for the next request.
        if self.body.unread or self.connection.is_stopping:
            self.keeps = False
        return self.write

    def write(self, chunk: bytes) -> None:
        """WSGI's; the first call sends the head, also with nothing."""
        pieces = [] if self._started else [self._start()]
        if chunk and not self._is_bodyless:
            pieces += [b"%x\r\n" % len(chunk), chunk, b"\r\n"] if self._chunked else [chunk]
        if sum(map(len, pieces)) <= _JOINED:
            pieces = [b"".join(pieces)]
        for piece in pieces:
            self._send(piece)

    def _send(self, data: bytes) -> None:
        self._sent += len(data)
        # What one call could not send is cut off a memoryview without a copy.
        self.connection.sock.sendall(memoryview(data))

    @property
    def _is_bodyless(self) -> bool:
        return self.head.method == "HEAD" or self._status.startswith(_BODYLESS)

    def _add_length(self, length: int) -> None:
        if not self._is_bodyless and not _names(self._headers, "content-length"):
            self._headers = [*self._headers, ("Content-Length", str(length))]

    def _start(self) -> bytes:
        """The head of the answer, which is now under way."""
        headers = self._headers
        lines = [f"HTTP/1.1 {self._status}", *(f"{name}: {value}" for name, value in headers)]
        if not _names(headers, "date"):
            lines.append(_date_line(int(time.time())))
        if not self._is_bodyless and not _names(headers, "content-length"):
            self._chunked = self.head.version == "HTTP/1.1"
            if self._chunked:
                lines.append("Transfer-Encoding: chunked")
            else:
                self.keeps = False
        if not self.keeps:
            lines.append("Connection: close")
        elif self.head.asks_keep_alive:
            lines.append("Connection: keep-alive")
        head = "\r\n".join(lines)
        # Nothing that a header holds may begin a line of its own.
        if head.count("\n") != len(lines) - 1 or head.count("\r") != len(lines) - 1:
            raise ValueError("a header of the answer holds a line break")
        self._started = True
        return f"{head}\r\n\r\n".encode("latin-1")

    def _environ(self) -> dict[str, Any]:
        head = self.head
        path, _, query = head.target.partition("?")
        if path.startswith("//"):
            # `//host/x` is a path with an empty segment, never a host (SEC-062).
            path = "/" + path.lstrip("/")
        environ = {
            **self.connection.constants,
            "REQUEST_METHOD": head.method,
            "PATH_INFO": unquote(path, encoding="latin-1") if "%" in path else path,
            "QUERY_STRING": query,
            "SERVER_PROTOCOL": head.version,
            "wsgi.input": self.body,
            "headers_raw": head.fields,
        }
        for name, value in head.fields:
            key = _environ_key(name)
            if key is None:
                continue
            environ[key] = f"{environ[key]},{value}" if key in environ else value
        return environ


class RequestBody(io.RawIOBase):
    """`wsgi.input`: raises ClientDisconnected where the body is cut off instead of ending."""

    def __init__(self, connection: Peer, head: RequestHead) -> None:
        self._connection = connection
        # The client waits for a 100 before it sends anything.
        self.is_awaited = head.expects_continue
        self._is_interrupted = False
        rate = connection.min_transfer_rate
        source = RatedReader(connection.rfile, rate) if rate else connection.rfile
        self._reader: ChunkedReader | LengthReader = (
            ChunkedReader(source) if head.chunked else LengthReader(source, head.length)
        )

    @property
    def unread(self) -> bool:
        """Whether part of the request's body has not been read yet, or never can be."""
        return self._is_interrupted or not self._reader.ended

    def read(self, size: int | None = -1, /) -> bytes:
        try:
            if self.is_awaited and self.unread:
                self.is_awaited = False
                self._connection.sock.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
            return self._reader.read(size if size is not None and size >= 0 else 1 << 62)
        except OSError:
            raise errors.ClientDisconnected() from None

    def interrupt(self) -> None:
        """Wake a read that waits for the client, from another thread. What the client sends is
        lost from now on, so the answer to this request is the connection's last one."""
        self._is_interrupted = True
        with contextlib.suppress(OSError):  # already gone, and the read with it
            self._connection.sock.shutdown(socket.SHUT_RD)


@lru_cache(maxsize=1024)
def _environ_key(name: str) -> str | None:
    """Names with underscores are left out: two headers must not look like one (SEC-060)."""
    if "_" in name:
        return None
    key = name.upper().replace("-", "_")
    return key if key in ("CONTENT_TYPE", "CONTENT_LENGTH") else f"HTTP_{key}"


def _names(headers: Iterable[tuple[str, str]], wanted: str) -> bool:
    return any(len(name) == len(wanted) and name.lower() == wanted for name, _ in headers)


@lru_cache(maxsize=1)
def _date_line(second: int) -> str:
    return f"Date: {formatdate(second, usegmt=True)}"
