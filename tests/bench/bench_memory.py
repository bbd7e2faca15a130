"""What a worker takes: idle, and for each transfer whose client is slow."""

import contextlib
import socket
import time
from collections.abc import Callable, Iterator

from tests.bench.measure import Result, at_most, memory_kib
from tests.bench.streams import connect, read_head, request
from tests.bench.subjects import MIB, Glance, running_glance
from tests.functional.daemons import OCTETS, RAW
from tests.servers.process import HOST

_PIECE = 64 * 1024
_PIECES = 64
_SETTLE_SECONDS = 2.0


def memory(quick: bool) -> Iterator[Result]:
    """Resident memory of one worker: idle, with slow downloads of 1 GiB, with slow uploads."""
    size, runs = (64 * MIB, 1) if quick else (1024 * MIB, 3)
    downloads, uploads = (50, 10) if quick else (500, 50)
    yield from _idle(runs)
    yield _growth(
        f"each of {downloads} slow downloads of {size // MIB} MiB",
        downloads,
        runs,
        64,
        lambda glance: _slow_download(glance, glance.create(size, bytes(MIB))),
    )
    yield _growth(f"each of {uploads} slow uploads", uploads, runs, 2048, _slow_upload, _PIECES)


def _idle(runs: int) -> Iterator[Result]:
    found: dict[str, list[float]] = {"api": [], "registry": []}
    for _ in range(runs):
        with running_glance() as glance:
            # One request each, so that nothing is left to be made on first use.
            glance.client.head(f"/v1/images/{glance.create_records(1)}")
            for name, pids in glance.processes.items():
                found[name].append(memory_kib(pids[0])["rss"] / 1024)
    for name, values in found.items():
        yield Result(
            "memory", f"resident memory of an idle {name} worker", "MiB", values, aim=at_most(80)
        )


def _growth(
    what: str,
    count: int,
    runs: int,
    aim: float,
    prepare: Callable[[Glance], Callable[[], socket.socket]],
    pieces: int = 0,
) -> Result:
    """Resident KiB more for each of count transfers that have begun and do not go on."""
    values = []
    for _ in range(runs):
        with running_glance() as glance, contextlib.ExitStack() as stack:
            begin = prepare(glance)
            worker = glance.processes["api"][0]
            before = memory_kib(worker)["rss"]
            connections = [stack.enter_context(begin()) for _ in range(count)]
            for _ in range(pieces):
                for connection in connections:
                    connection.sendall(bytes(_PIECE))
            time.sleep(_SETTLE_SECONDS)
            values.append((memory_kib(worker)["rss"] - before) / count)
    return Result("memory", what, "KiB", values, aim=at_most(aim))


def _slow_download(glance: Glance, image_id: str) -> Callable[[], socket.socket]:
    def begin() -> socket.socket:
        connection = socket.socket()
        # As little in flight as a slow line has.
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
        connection.connect((HOST, glance.port))
        connection.sendall(request("GET", f"/v1/images/{image_id}", {}))
        status, _, _ = read_head(connection)
        assert status == 200
        return connection

    return begin


def _slow_upload(glance: Glance) -> Callable[[], socket.socket]:
    def begin() -> socket.socket:
        connection = connect(glance.port)
        named = {**RAW, **OCTETS, "x-image-meta-name": "slow", "Content-Length": str(1024 * MIB)}
        connection.sendall(request("POST", "/v1/images", named))
        return connection

    return begin
