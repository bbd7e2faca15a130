"""A connection on which a test writes bytes of its own choosing, and reads what comes back."""

import socket
import time
from collections.abc import Mapping
from typing import Self

from tests.functional.daemons import Answer

# Longer than a daemon lingers over a body that nobody reads.
CLOSE_SECONDS = 8.0


def head(target: str, *lines: str | bytes, method: str = "GET", host: str = "test") -> bytes:
    """A request up to its empty line; lines are sent as they are."""
    parts = [f"{method} {target} HTTP/1.1", f"Host: {host}", *lines, "", ""]
    return b"\r\n".join(part.encode() if isinstance(part, str) else part for part in parts)


def lines_of(headers: Mapping[str, str]) -> list[str]:
    return [f"{name}: {value}" for name, value in headers.items()]


class Wire:
    """One connection; a context manager."""

    def __init__(self, port: int, *, timeout: float = 20) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=timeout)
        self._unread = b""

    def send(self, *pieces: bytes) -> Self:
        for piece in pieces:
            self.socket.sendall(piece)
        return self

    def answer(self, method: str = "GET") -> Answer:
        """The next answer; a 100 is one of its own."""
        lines = self._until(b"\r\n\r\n").decode("latin-1").split("\r\n")
        status = int(lines[0].split(" ")[1])
        pairs = (line.partition(":") for line in lines[1:])
        headers = {name.lower(): value.strip() for name, _, value in pairs}
        without_body = method == "HEAD" or status in (100, 204, 304)
        length = 0 if without_body else int(headers["content-length"])
        return Answer(status, headers, self._exactly(length))

    def rest(self, within: float = CLOSE_SECONDS) -> bytes:
        """Everything until the other side closes. Raises TimeoutError if it does not in time."""
        deadline = time.monotonic() + within
        found, self._unread = self._unread, b""
        while True:
            self.socket.settimeout(max(deadline - time.monotonic(), 0.001))
            try:
                piece = self.socket.recv(65536)
            except ConnectionResetError:
                return found
            if not piece:
                return found
            found += piece

    def reset(self) -> None:
        """Close without a farewell: what is under way is dropped."""
        at_once = b"\x01\0\0\0\0\0\0\0"
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, at_once)
        self.socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def _until(self, end: bytes) -> bytes:
        while end not in self._unread:
            self._receive()
        found, _, self._unread = self._unread.partition(end)
        return found

    def _exactly(self, length: int) -> bytes:
        while len(self._unread) < length:
            self._receive()
        found, self._unread = self._unread[:length], self._unread[length:]
        return found

    def _receive(self) -> None:
        piece = self.socket.recv(65536)
        if not piece:
            raise EOFError("the connection was closed before the answer was complete")
        self._unread += piece
