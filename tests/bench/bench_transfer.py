"""Bytes in and out of the file store, one client and several, against what moves them at best."""

import contextlib
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

from tests.bench.measure import Result, alternate, at_most, children, ratio_at_least, seconds_of
from tests.bench.streams import at_once, download, repeating, upload
from tests.bench.subjects import MIB, Glance, require, running_glance, wrk
from tests.functional.daemons import OCTETS, RAW
from tests.servers.nginx import Nginx

_HEADERS = {**RAW, **OCTETS, "x-image-meta-name": "bench"}
_NGINX = "nginx, sendfile of the same file"
_MD5 = "MD5 of the same bytes in memory"


def _content(size: int) -> bytes:
    return os.urandom(MIB) * (size // MIB)


@contextlib.contextmanager
def _nginx(glance: Glance, image_id: str, workers: int) -> Iterator[tuple[Nginx, str]]:
    require("nginx")
    with Nginx(workers=workers) as nginx:
        (nginx.root / "image").write_bytes((glance.service.store / image_id).read_bytes())
        yield nginx, "/image"


def _downloads(what: str, size: int, runs: int, workers: int, clients: int) -> Result:
    with running_glance(workers=workers) as glance:
        image_id = str(upload(glance.port, _content(size), _HEADERS)["id"])
        with _nginx(glance, image_id, workers) as (nginx, path):

            def rate(port: int, path: str) -> float:
                wall = seconds_of(lambda: at_once(clients, lambda: download(port, path)))
                return clients * size / MIB / wall

            measured = alternate(
                runs,
                lambda: rate(glance.port, f"/v1/images/{image_id}"),
                lambda: rate(nginx.port, path),
                glance.processes,
                {"nginx": children(nginx.process("nginx").pid)},
            )
    return Result("download", what, "MiB/s", yardstick=_NGINX, aim=ratio_at_least(0.85), **measured)


def downloads(quick: bool) -> Iterator[Result]:
    """Download of one image, by one client and by eight."""
    size, runs = (64 * MIB, 3) if quick else (512 * MIB, 9)
    yield _downloads(f"download {size // MIB} MiB, one client", size, runs, 1, 1)
    yield _downloads(
        f"download {size // MIB} MiB, two workers, 8 clients", size, (runs + 1) // 2, 2, 8
    )


class _Uploads:
    """Uploads of the same bytes again and again; what each leaves is removed after it."""

    def __init__(self, glance: Glance, content: bytes, clients: int) -> None:
        self._glance = glance
        self._content = content
        self._clients = clients
        self._created: list[str] = []

    def rate(self) -> float:
        def one() -> None:
            self._created.append(upload(self._glance.port, self._content, _HEADERS)["id"])

        wall = seconds_of(lambda: at_once(self._clients, one))
        return self._clients * len(self._content) / MIB / wall

    def md5(self) -> float:
        """As many hashes at once as there are uploads, on as many processors as there are."""
        hashes = seconds_of(
            lambda: at_once(self._clients, lambda: hashlib.md5(self._content).digest())
        )
        return self._clients * len(self._content) / MIB / hashes

    @contextlib.contextmanager
    def cleaned_up(self) -> Iterator[None]:
        yield
        while self._created:
            self._glance.client.delete(f"/v1/images/{self._created.pop()}")
        # What is still to be written must not slow down the next run.
        os.sync()


def _uploads(what: str, size: int, runs: int, workers: int, clients: int, fsync: bool) -> Result:
    option = {"glance_store": {"filesystem_store_fsync": fsync}}
    with running_glance(workers=workers, api=option) as glance:
        uploads = _Uploads(glance, _content(size), clients)
        measured = alternate(
            runs, uploads.rate, uploads.md5, glance.processes, between=uploads.cleaned_up
        )
    aim = ratio_at_least(0.85) if fsync and clients == 1 else None
    return Result("upload", what, "MiB/s", yardstick=_MD5, aim=aim, **measured)


def uploads(quick: bool) -> Iterator[Result]:
    """Upload of one image, durable and not, by one client and by eight."""
    size, runs = (64 * MIB, 3) if quick else (512 * MIB, 9)
    what = f"upload {size // MIB} MiB"
    yield _uploads(f"{what}, one client", size, runs, 1, 1, True)
    yield _uploads(f"{what}, one client, filesystem_store_fsync off", size, runs, 1, 1, False)
    few = (runs + 1) // 2
    yield _uploads(f"{what} in all, two workers, 8 clients", size // 8, few, 2, 8, True)


def latency(quick: bool) -> Iterator[Result]:
    """HEAD by one client while four downloads run: of files in memory, and of cold ones."""
    size, runs, seconds = (64 * MIB, 3, 1.0) if quick else (512 * MIB, 5, 4.0)
    with running_glance() as glance:
        ids = [str(upload(glance.port, _content(size), _HEADERS)["id"]) for _ in range(4)]
        path = f"/v1/images/{ids[0]}"

        def p99() -> float:
            return wrk(glance.port, path, method="HEAD", seconds=seconds, connections=1)["p99"]

        def under_load(cold: bool) -> float:
            waiting = list(ids)

            def one() -> None:
                image_id = waiting.pop()
                if cold:
                    _forget(glance.service.store / image_id)
                download(glance.port, f"/v1/images/{image_id}")
                waiting.append(image_id)

            with repeating(4, one):
                return p99()

        for cold in (False, True):
            kind = "cold files" if cold else "files in memory"
            measured = alternate(runs, lambda cold=cold: under_load(cold), p99, glance.processes)
            yield Result(
                "latency",
                f"p99 of HEAD while four downloads of {kind} run",
                "ms",
                yardstick="nothing else running",
                aim=at_most(20),
                **measured,
            )


def _forget(path: Path) -> None:
    """Drop a file from the page cache."""
    with path.open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
