"""`make serve`, from the program that it runs on."""

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.functional.daemons import OCTETS, RAW, ROOT, Client, free_port

READY_SECONDS = 60
STOP_SECONDS = 12

# Text that is no image of any format is no reason for a complaint.
CONTENT = "Größe\n".encode() * 200


class Serve:
    """One run of the program, with what it printed."""

    def __init__(self, home: Path, ports: tuple[int, int], **environment: str) -> None:
        self.home = home
        self.api_port, self.registry_port = ports
        names = {"GLANCE_API_PORT": str(ports[0]), "GLANCE_REGISTRY_PORT": str(ports[1])}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "glance_api.cmd.serve"],
            cwd=ROOT,
            env={**os.environ, "GLANCE_HOME": str(home), **names, **environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            # As a shell starts a script's background job.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN),
        )
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line)

    @property
    def output(self) -> str:
        return "".join(self.lines)

    @property
    def client(self) -> Client:
        return Client(self.api_port)

    def wait_until_ready(self) -> None:
        deadline = time.monotonic() + READY_SECONDS
        while "image-list" not in self.output:
            assert self.process.poll() is None, self.output
            assert time.monotonic() < deadline, self.output
            time.sleep(0.05)

    def stop(self, number: int = signal.SIGINT) -> int:
        """Its exit status."""
        self.process.send_signal(number)
        return self.wait()

    def wait(self) -> int:
        status = self.process.wait(STOP_SECONDS)
        self._reader.join(STOP_SECONDS)
        return status

    def daemons(self) -> set[int]:
        """The processes that run with its configuration."""
        found = set()
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                command = path.read_bytes()
            except OSError:
                continue
            if f"{self.home}/glance-".encode() in command:
                found.add(int(path.parent.name))
        return found


@pytest.fixture
def ports() -> tuple[int, int]:
    return free_port(), free_port()


@pytest.fixture
def serve(tmp_path: Path, ports: tuple[int, int]) -> Iterator[Serve]:
    running = Serve(tmp_path, ports)
    yield running
    if running.process.poll() is None:
        running.process.terminate()
        running.wait()


def test_ctrl_c_stops_everything_and_the_data_stay(
    serve: Serve, tmp_path: Path, ports: tuple[int, int]
) -> None:
    serve.wait_until_ready()
    created = serve.client.post("/v1/images", {**RAW, **OCTETS}, CONTENT)
    assert serve.stop() == 0
    assert serve.output.endswith("Stopping both daemons.\n")
    assert not re.search(r"INFO|WARNING|ERROR", serve.output)
    assert serve.daemons() == set()
    log = (serve.home / "glance-api.log").read_text()
    assert "POST /v1/images" in log
    assert "ERROR" not in log

    again = Serve(tmp_path, ports)
    again.wait_until_ready()
    image_id = created.image["id"]
    try:
        assert again.client.get(f"/v1/images/{image_id}").content == CONTENT
    finally:
        assert again.stop(signal.SIGTERM) == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_it_stops_at_once_while_a_client_is_still_sending(serve: Serve, number: int) -> None:
    """Neither that client nor a second Ctrl-C leaves a daemon behind."""
    serve.wait_until_ready()
    with socket.create_connection(("127.0.0.1", serve.api_port)) as client:
        client.sendall(
            b"POST /v1/images HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n"
            b"Content-Type: application/octet-stream\r\nx-image-meta-disk_format: raw\r\n"
            b"x-image-meta-container_format: bare\r\n\r\nbytes"
        )
        time.sleep(0.5)
        serve.process.send_signal(number)
        time.sleep(0.5)
        assert serve.stop() == 0
    assert serve.daemons() == set()


def test_a_port_that_is_taken_is_named_before_anything_is_started(
    tmp_path: Path, ports: tuple[int, int]
) -> None:
    with socket.create_server(("127.0.0.1", ports[0])):
        serve = Serve(tmp_path, ports)
        assert serve.wait() == 1
    assert f"Port {ports[0]} cannot be used" in serve.output
    assert "GLANCE_API_PORT" in serve.output
    assert list(tmp_path.iterdir()) == []


def test_a_port_that_is_none_is_told(tmp_path: Path, ports: tuple[int, int]) -> None:
    serve = Serve(tmp_path, ports, GLANCE_API_PORT="http")
    assert serve.wait() == 1
    assert serve.output == "GLANCE_API_PORT is not a port: http\n"


def test_a_daemon_that_dies_ends_the_other(serve: Serve) -> None:
    serve.wait_until_ready()
    registry = min(
        pid
        for pid in serve.daemons()
        if b"glance-registry.log" in Path(f"/proc/{pid}/cmdline").read_bytes()
    )
    os.kill(registry, signal.SIGKILL)
    assert serve.wait() == 1
    assert "glance-registry ended" in serve.output
    assert serve.daemons() == set()
