"""Bytes in and out of the file store, against what the machine does without a service."""

import hashlib
import os
from collections.abc import Iterator

from tests.bench import streams
from tests.bench.measure import (
    Result,
    alternate,
    at_most,
    memory_kib,
    ratio_at_least,
    seconds_of,
)
from tests.bench.subjects import MIB, Glance, running_glance, wrk
from tests.functional.daemons import OCTETS, RAW
from tests.servers.nginx import Nginx

_HEADERS = {**RAW, **OCTETS}


def downloads(quick: bool) -> Iterator[Result]:
    """One client's download, against nginx's sendfile of the same bytes."""
    size, runs = (64 * MIB, 3) if quick else (512 * MIB, 7)
    content = os.urandom(MIB)
    with running_glance() as glance, Nginx() as nginx:
        path = f"/v1/images/{glance.create(size, content)}"
        nginx.put("image", content * (size // MIB))
        port = int(nginx.url.rstrip("/").rpartition(":")[2])

        def ours() -> float:
            return size / MIB / seconds_of(lambda: streams.download(glance.port, path))

        def yardstick() -> float:
            return size / MIB / seconds_of(lambda: streams.download(port, "/image"))

        yield Result(
            "transfers",
            f"download of {size // MIB} MiB, one client",
            "MiB/s",
            yardstick="nginx sendfile",
            aim=ratio_at_least(0.85),
            **alternate(runs, ours, yardstick, glance.processes),
        )
        yield _head_beside_downloads(glance, path, 2.0 if quick else 6.0)


def _head_beside_downloads(glance: Glance, path: str, seconds: float) -> Result:
    with streams.repeating(4, lambda: streams.download(glance.port, path)):
        values = [
            wrk(glance.port, path, method="HEAD", seconds=seconds, connections=2)["p99"]
            for _ in range(3)
        ]
    return Result(
        "transfers", "p99 of HEAD while four downloads run", "ms", values, aim=at_most(20)
    )


def uploads(quick: bool) -> Iterator[Result]:
    """One client's upload, against MD5 of the same bytes in memory."""
    size, runs = (64 * MIB, 3) if quick else (512 * MIB, 7)
    content = os.urandom(MIB) * (size // MIB)

    def yardstick() -> float:
        return size / MIB / seconds_of(lambda: hashlib.md5(content, usedforsecurity=False))

    for durable in (True, False):
        api = {"glance_store": {"filesystem_store_fsync": durable}}
        with running_glance(api=api) as glance:

            def ours(glance: Glance = glance) -> float:
                made: list[str] = []

                def upload() -> None:
                    made.append(streams.upload(glance.port, content, _HEADERS)["id"])

                taken = seconds_of(upload)
                glance.client.delete(f"/v1/images/{made[0]}")
                return size / MIB / taken

            yield Result(
                "transfers",
                f"upload of {size // MIB} MiB, one client, fsync {'on' if durable else 'off'}",
                "MiB/s",
                yardstick="MD5 in memory",
                aim=ratio_at_least(0.85) if durable else None,
                **alternate(runs, ours, yardstick, glance.processes),
            )


def memory(quick: bool) -> Iterator[Result]:
    """What one worker of each daemon takes when nothing is asked of it."""
    with running_glance() as glance:
        glance.client.get("/v1/images")
        for name, (worker, *_) in glance.processes.items():
            values = [memory_kib(worker)["rss"] / 1024]
            yield Result(
                "memory", f"resident memory, idle {name} worker", "MiB", values, aim=at_most(80)
            )
