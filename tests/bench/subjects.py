"""What is measured: the service with its default options, and the yardsticks beside it."""

import contextlib
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.functional.daemons import OCTETS, RAW, ROOT, Client, Daemon, Service, running_service
from tests.servers.process import HOST, find_program, free_port, is_listening

PROPERTIES = {
    "x-image-meta-property-distro": "Ubuntu 10.04 LTS",
    "x-image-meta-property-arch": "x86",
}
MIB = 2**20

_WRK_SCRIPT = """
wrk.method = "%s"
done = function(summary, latency, requests)
  local errors = summary.errors
  io.write(string.format("{\\"rate\\": %%f, \\"p50\\": %%f, \\"p99\\": %%f, \\"failed\\": %%d}\\n",
    summary.requests / summary.duration * 1e6,
    latency:percentile(50) / 1e3, latency:percentile(99) / 1e3,
    errors.connect + errors.read + errors.write + errors.status + errors.timeout))
end
"""


class Missing(RuntimeError):
    """Something that a case needs is not installed; the message names it and the remedy."""


def require(program: str) -> str:
    path = find_program(program)
    if path is None:
        raise Missing(f"{program} is not installed: bash tests/servers/install.sh nginx")
    return path


@dataclass
class Glance:
    """A running service without authentication, its callers and its processes."""

    service: Service

    @property
    def port(self) -> int:
        return self.service.api.port

    @property
    def client(self) -> Client:
        return self.service.client()

    @property
    def processes(self) -> dict[str, list[int]]:
        """The workers, which do all the work."""
        return {"api": self.service.api.workers(), "registry": self.service.registry.workers()}

    def create(self, size: int, content: bytes) -> str:
        """An image of so many bytes, content repeated; its id."""
        headers = {**RAW, **OCTETS, **PROPERTIES, "x-image-meta-name": "bench"}
        repeated = (content[: min(len(content), size - at)] for at in range(0, size, len(content)))
        length = {"Content-Length": str(size)}
        answer = self.client.request("POST", "/v1/images", {**headers, **length}, repeated)
        return str(answer.image["id"])

    def create_records(self, count: int) -> str:
        """So many images that need no bytes; the id of the last."""
        for number in range(count):
            named = {"x-image-meta-name": f"image-{number}", "x-image-meta-size": "5368709120"}
            answer = self.client.post(
                "/v1/images", {**RAW, **PROPERTIES, **named, "x-image-meta-is_public": "True"}
            )
        return str(answer.image["id"])


@contextlib.contextmanager
def running_glance(
    *,
    workers: int = 1,
    api: Mapping[str, Any] | None = None,
) -> Iterator[Glance]:
    """The service as it comes, with SQLite and the file store, in a directory of its own."""
    shared = {"debug": False, "workers": workers}
    with (
        tempfile.TemporaryDirectory(prefix="glance-bench-") as home,
        running_service(
            Path(home),
            flavor="",
            api={**shared, **(api or {})},
            registry=shared,
            policy={"publicize_image": ""},
        ) as service,
    ):
        yield Glance(service)


@contextlib.contextmanager
def floor_servers() -> Iterator[tuple[int, dict[str, list[int]]]]:
    """The two bare servers: the front's port, and their process ids."""
    ports = free_port(), free_port()
    started: dict[str, subprocess.Popen[bytes]] = {}
    try:
        for side in ("back", "front"):
            words = [sys.executable, "-W", "ignore", "-m", "tests.bench.floor", side]
            started[side] = subprocess.Popen([*words, *map(str, ports)], cwd=ROOT)
        for port in ports:
            while not is_listening(port):
                if any(process.poll() is not None for process in started.values()):
                    raise RuntimeError("a yardstick server ended")
        yield ports[0], {side: [process.pid] for side, process in started.items()}
    finally:
        for process in started.values():
            process.terminate()
            process.wait()


def wrk(
    port: int,
    path: str,
    *,
    method: str = "GET",
    seconds: float = 3,
    connections: int = 8,
    headers: Mapping[str, str] = {},
) -> dict[str, float]:
    """Requests a second and percentiles in milliseconds, over kept-alive connections."""
    program = require("wrk")
    words = [program, "-t", "1", "-c", str(connections), "-d", f"{seconds:g}s", "--latency"]
    for name, value in headers.items():
        words += ["-H", f"{name}: {value}"]
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        script.write(_WRK_SCRIPT % method)
        script.flush()
        url = f"http://{HOST}:{port}{path}"
        found = subprocess.run(
            [*words, "-s", script.name, url], check=True, capture_output=True, text=True
        )
    measured: dict[str, float] = json.loads(found.stdout.splitlines()[-1])
    if measured["failed"]:
        raise RuntimeError(f"{measured['failed']:.0f} requests failed: {found.stdout}")
    return measured


def daemon_pids(daemons: Sequence[Daemon]) -> list[int]:
    return [pid for daemon in daemons for pid in daemon.workers()]


def free_bytes(path: Path) -> int:
    return shutil.disk_usage(path).free
