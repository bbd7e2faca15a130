"""Clients of transfers that cost as little as a client can: one system call does the work."""

import contextlib
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from tests.servers.process import HOST

_BUFFER = 1024 * 1024


def connect(port: int) -> socket.socket:
    return socket.create_connection((HOST, port), timeout=600)


def request(method: str, path: str, headers: Mapping[str, str]) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", f"Host: {HOST}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return ("\r\n".join([*lines, "", ""])).encode("latin-1")


def read_head(connection: socket.socket) -> tuple[int, dict[str, str], bytes]:
    """Status, headers by lower-case name, and what came of the body already."""
    data = b""
    while b"\r\n\r\n" not in data:
        piece = connection.recv(65536)
        if not piece:
            raise RuntimeError("the connection was closed before an answer")
        data += piece
    head, _, rest = data.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = {
        name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)
    }
    return int(first.split(" ", 2)[1]), headers, rest


def download(port: int, path: str) -> int:
    """Fetch a body and throw it away; its length."""
    buffer = bytearray(_BUFFER)
    with connect(port) as connection:
        connection.sendall(request("GET", path, {"Connection": "close"}))
        status, headers, rest = read_head(connection)
        length = int(headers["content-length"])
        received = len(rest)
        while received < length and (count := connection.recv_into(buffer)):
            received += count
    if status != 200 or received != length:
        raise RuntimeError(f"download of {path}: {status}, {received} of {length} bytes")
    return length


def upload(port: int, content: bytes, headers: Mapping[str, str]) -> dict[str, Any]:
    """Send content as a new image; the image."""
    length = {"Content-Length": str(len(content)), "Connection": "close"}
    with connect(port) as connection:
        connection.sendall(request("POST", "/v1/images", {**headers, **length}))
        connection.sendall(content)
        status, found, body = read_head(connection)
        while len(body) < int(found["content-length"]):
            body += connection.recv(65536)
    if status != 201:
        raise RuntimeError(f"upload: {status} {body!r}")
    image: dict[str, Any] = json.loads(body)["image"]
    return image


def at_once(count: int, work: Callable[[], object]) -> None:
    """Do work in so many threads at the same time; raises what one of them raised."""
    failures: list[BaseException] = []

    def one() -> None:
        try:
            work()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=one) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]


@contextlib.contextmanager
def repeating(count: int, work: Callable[[], object]) -> Iterator[list[float]]:
    """Do work again and again in so many threads while the block runs; yields when each ended."""
    ends: list[float] = []
    stop = threading.Event()

    def repeat() -> None:
        while not stop.is_set():
            work()
            ends.append(time.perf_counter())

    threads = [threading.Thread(target=repeat) for _ in range(count)]
    for thread in threads:
        thread.start()
    try:
        yield ends
    finally:
        stop.set()
        for thread in threads:
            thread.join()
