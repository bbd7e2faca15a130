"""curl: each of its ways to send a body, early refusals, resumed and conditional downloads."""

import hashlib
import json
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.functional.audit import audit
from tests.functional.daemons import RAW, T1, Client, Service, running_service
from tests.servers.process import require

MIB = 1024 * 1024
CAP = 4 * MIB

OCTETS = ("-H", "Content-Type: application/octet-stream")
EXPECT = ("-H", "Expect: 100-continue", "--expect100-timeout", "30")
NO_EXPECT = ("-H", "Expect:")


@dataclass(frozen=True)
class Transfer:
    """One curl command: its own account of the last request, the body, and the wire's words."""

    report: dict[str, Any]
    body: bytes
    wire: str

    @property
    def status(self) -> int:
        return int(self.report["http_code"])

    @property
    def sent(self) -> int:
        return int(self.report["size_upload"])

    @property
    def continued(self) -> bool:
        return "< HTTP/1.1 100" in self.wire

    @property
    def closed(self) -> bool:
        return "Closing connection" in self.wire

    @property
    def image(self) -> dict[str, Any]:
        image: dict[str, Any] = json.loads(self.body)["image"]
        return image


class Curl:
    """`curl(path, *options)` as a user of tenant t1, with nothing of a user's own settings."""

    def __init__(self, port: int, home: Path) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.home = home

    def __call__(self, path: str, *options: str, data: bytes | None = None) -> Transfer:
        output = self.home / "curl.out"
        output.unlink(missing_ok=True)
        identity = [word for item in T1.items() for word in ("-H", f"{item[0]}: {item[1]}")]
        target = [] if {"-o", "-O"} & set(options) else ["-o", str(output)]
        done = subprocess.run(
            ["curl", "-q", "-sv", "-w", "%{json}\n", *target, *identity, *options, self.url + path],
            input=data,
            capture_output=True,
            timeout=60,
            env={"PATH": os.environ["PATH"]},
        )
        assert done.returncode == 0, done.stderr.decode(errors="replace")
        body = output.read_bytes() if output.exists() else b""
        return Transfer(
            json.loads(done.stdout.splitlines()[-1]), body, done.stderr.decode(errors="replace")
        )


def meta(**fields: str) -> list[str]:
    headers = {**RAW, **{f"x-image-meta-{name}": value for name, value in fields.items()}}
    return [word for item in headers.items() for word in ("-H", f"{item[0]}: {item[1]}")]


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    require("curl", [] if shutil.which("curl") else ["program curl"], "curl")
    home = tmp_path_factory.mktemp("curl")
    with running_service(home, api={"image_size_cap": CAP}) as running:
        yield running
        audit(running)


@pytest.fixture
def curl(service: Service, tmp_path: Path) -> Curl:
    return Curl(service.api.port, tmp_path)


@pytest.fixture
def t1(service: Service) -> Client:
    return service.t1


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    path = tmp_path / "disk"
    path.write_bytes(os.urandom(3 * MIB + 7))
    return path


@pytest.fixture
def queued(t1: Client) -> str:
    return str(t1.post("/v1/images", RAW).image["id"])


@pytest.fixture
def active(t1: Client) -> tuple[str, bytes]:
    content = os.urandom(200_000)
    headers = {**RAW, "Content-Type": "application/octet-stream"}
    return str(t1.post("/v1/images", headers, content).image["id"]), content


def require_bytes(t1: Client, image: dict[str, Any], content: bytes) -> None:
    assert image["status"] == "active"
    assert image["size"] == len(content)
    assert image["checksum"] == hashlib.md5(content).hexdigest()
    assert t1.get(f"/v1/images/{image['id']}").content == content


def send_until_refused(connection: socket.socket) -> int:
    """Send for ten seconds at most; the number of bytes that the other side, or TCP, took."""
    deadline = time.monotonic() + 10
    sent = 0
    try:
        while time.monotonic() < deadline:
            sent += connection.send(bytes(65536))
    except (BrokenPipeError, ConnectionResetError):
        return sent
    raise AssertionError(f"{sent} bytes were taken and no end was to be seen")


class TestBodies:
    def test_a_file_is_put(self, curl: Curl, t1: Client, queued: str, disk: Path) -> None:
        """-T FILE: a length, and Expect because the body is large."""
        put = curl(f"/v1/images/{queued}", "-T", str(disk), *OCTETS)
        assert put.status == 200
        assert put.continued
        require_bytes(t1, put.image, disk.read_bytes())

    def test_standard_input_is_put_in_chunks(
        self, curl: Curl, t1: Client, queued: str, disk: Path
    ) -> None:
        content = disk.read_bytes()
        put = curl(f"/v1/images/{queued}", "-T", "-", *OCTETS, data=content)
        assert put.status == 200
        assert "Transfer-Encoding: chunked" in put.wire
        require_bytes(t1, put.image, content)

    def test_a_file_is_posted(self, curl: Curl, t1: Client, disk: Path) -> None:
        words = ["--data-binary", f"@{disk}", *OCTETS, *meta(name="posted")]
        post = curl("/v1/images", *words)
        assert post.status == 201
        assert post.image["name"] == "posted"
        require_bytes(t1, post.image, disk.read_bytes())

    @pytest.mark.parametrize("size", [1, 4096, 65535, 65537, MIB])
    def test_a_post_in_chunks(self, curl: Curl, t1: Client, disk: Path, size: int) -> None:
        """REL-003: chunked bodies of every size arrive whole."""
        content = disk.read_bytes()[:size]
        words = ["--data-binary", "@-", "-H", "Transfer-Encoding: chunked", *OCTETS, *meta()]
        post = curl("/v1/images", *words, data=content)
        assert post.status == 201
        require_bytes(t1, post.image, content)

    def test_http_1_0_is_served(self, curl: Curl, t1: Client, disk: Path) -> None:
        post = curl("/v1/images", "-0", "--data-binary", f"@{disk}", *OCTETS, *meta())
        assert post.status == 201
        assert curl(f"/v1/images/{post.image['id']}", "-0").body == disk.read_bytes()

    def test_a_form_is_not_an_image(self, curl: Curl, t1: Client, service: Service) -> None:
        """curl's own default for the content type; nothing is stored."""
        before = service.stored_files()
        post = curl("/v1/images", "--data-binary", "some bytes", *meta())
        assert post.status == 400
        assert "application/octet-stream" in post.body.decode()
        assert service.stored_files() == before

    def test_no_body_and_a_size_of_zero(self, curl: Curl, t1: Client) -> None:
        """REL-012: nothing is queued, a declared zero is active."""
        assert curl("/v1/images", "-X", "POST", *meta()).image["status"] == "queued"
        empty = curl("/v1/images", "-X", "POST", *meta(size="0")).image
        assert (empty["status"], empty["size"]) == ("active", 0)
        answer = curl(f"/v1/images/{empty['id']}")
        assert (answer.status, answer.body) == (200, b"")
        assert "< content-length: 0" in answer.wire.lower()


class TestEarlyRefusals:
    """REL-011: everything is decided before the body is asked for."""

    def test_a_wanted_body_is_asked_for(self, curl: Curl, t1: Client, disk: Path) -> None:
        post = curl("/v1/images", "--data-binary", f"@{disk}", *EXPECT, *OCTETS, *meta())
        assert (post.status, post.continued) == (201, True)
        require_bytes(t1, post.image, disk.read_bytes())

    def test_a_caller_without_a_name_sends_nothing(self, curl: Curl, disk: Path) -> None:
        words = ["--data-binary", f"@{disk}", "-H", "X-Identity-Status: Invalid"]
        post = curl("/v1/images", *words, *EXPECT, *OCTETS, *meta())
        assert (post.status, post.continued, post.sent, post.closed) == (401, False, 0, True)

    def test_more_than_the_cap_is_not_sent(self, curl: Curl, tmp_path: Path) -> None:
        large = tmp_path / "large"
        with large.open("wb") as file:
            file.truncate(CAP + 1)
        post = curl("/v1/images", "-X", "POST", "-T", str(large), *EXPECT, *OCTETS, *meta())
        assert (post.status, post.continued, post.sent, post.closed) == (400, False, 0, True)

    def test_nothing_is_sent_to_an_active_image(
        self, curl: Curl, active: tuple[str, bytes], disk: Path
    ) -> None:
        put = curl(f"/v1/images/{active[0]}", "-T", str(disk), *EXPECT, *OCTETS)
        assert (put.status, put.continued, put.sent, put.closed) == (409, False, 0, True)
        assert curl(f"/v1/images/{active[0]}").body == active[1]

    def test_nothing_is_sent_to_an_image_that_is_not_there(self, curl: Curl, disk: Path) -> None:
        path = "/v1/images/00000000-0000-0000-0000-000000000000"
        put = curl(path, "-T", str(disk), *EXPECT, *OCTETS)
        assert (put.status, put.continued, put.sent) == (404, False, 0)

    def test_a_client_that_sends_without_waiting_hears_the_refusal(
        self, curl: Curl, service: Service, tmp_path: Path
    ) -> None:
        """REL-010, with a file of 10 GiB."""
        huge = tmp_path / "huge"
        with huge.open("wb") as file:
            file.truncate(10 * 1024 * MIB)
        before = service.stored_files()
        started = time.monotonic()
        post = curl("/v1/images", "-X", "POST", "-T", str(huge), *NO_EXPECT, *OCTETS, *meta())
        assert post.status == 400
        assert time.monotonic() - started < 5
        # What the server read on, and what the two sockets held.
        assert post.sent < 16 * MIB
        assert service.stored_files() == before

    def test_a_client_that_never_stops_sending_is_cut_off(self, service: Service) -> None:
        """REL-010: the answer is there to be read, the server reads little more and closes."""
        head = "POST /v1/images HTTP/1.1\r\nHost: x\r\nContent-Type: application/octet-stream\r\n"
        head += f"Content-Length: {10 * 1024 * MIB}\r\n"
        head += "".join(f"{name}: {value}\r\n" for name, value in {**T1, **RAW}.items())
        with socket.create_connection(("127.0.0.1", service.api.port)) as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)
            connection.sendall(head.encode() + b"\r\n")
            started = time.monotonic()
            sent = send_until_refused(connection)
        assert time.monotonic() - started < 5
        assert sent < 16 * MIB

    def test_a_slow_reader_of_a_refusal_reads_it(self, service: Service) -> None:
        """REL-010: what was sent before the answer was looked at does not destroy it."""
        head = "POST /v1/images HTTP/1.1\r\nHost: x\r\nContent-Type: application/octet-stream\r\n"
        head += f"Content-Length: {CAP + 1}\r\n"
        head += "".join(f"{name}: {value}\r\n" for name, value in {**T1, **RAW}.items())
        with socket.create_connection(("127.0.0.1", service.api.port)) as connection:
            connection.sendall(head.encode() + b"\r\n" + bytes(2 * MIB))
            time.sleep(0.3)
            answer = b"".join(iter(lambda: connection.recv(65536), b""))
        assert answer.startswith(b"HTTP/1.1 400 ")
        assert b"onnection: close" in answer


class TestDownloads:
    def test_an_interrupted_download_is_resumed(
        self, curl: Curl, active: tuple[str, bytes], tmp_path: Path
    ) -> None:
        image_id, content = active
        target = tmp_path / "target"
        target.write_bytes(content[:70_000])
        resumed = curl(f"/v1/images/{image_id}", "-C", "-", "-o", str(target))
        assert resumed.status == 206
        assert target.read_bytes() == content
        assert int(resumed.report["size_download"]) == 130_000

    @pytest.mark.parametrize(
        ("words", "start", "stop"), [("0-9", 0, 10), ("199990-", 199_990, None), ("-5", -5, None)]
    )
    def test_a_range(
        self, curl: Curl, active: tuple[str, bytes], words: str, start: int, stop: int | None
    ) -> None:
        answer = curl(f"/v1/images/{active[0]}", "-r", words)
        assert (answer.status, answer.body) == (206, active[1][start:stop])

    def test_a_range_beyond_the_end(self, curl: Curl, active: tuple[str, bytes]) -> None:
        answer = curl(f"/v1/images/{active[0]}", "-r", "200000-")
        assert answer.status == 416
        assert "content-range: bytes */200000" in answer.wire.lower()

    def test_a_download_that_is_there_already_is_not_repeated(
        self, curl: Curl, active: tuple[str, bytes], tmp_path: Path
    ) -> None:
        path = f"/v1/images/{active[0]}"
        tag = tmp_path / "etag"
        assert curl(path, "--etag-save", str(tag)).body == active[1]
        same = curl(path, "--etag-compare", str(tag))
        assert (same.status, same.body) == (304, b"")
        checksum = hashlib.md5(active[1]).hexdigest()
        assert curl(path, "-H", f'If-None-Match: "{checksum}"').status == 304
        other = curl(path, "-H", f'If-None-Match: "{"0" * 32}"')
        assert (other.status, other.body) == (200, active[1])

    def test_one_connection_carries_many_requests(
        self, curl: Curl, active: tuple[str, bytes]
    ) -> None:
        url = f"{curl.url}/v1/images/{active[0]}"
        words = [word for _ in range(3) for word in ("-o", os.devnull, url)]
        answer = curl("/v1/images", *words, "-o", os.devnull)
        assert answer.wire.count("Connected to 127.0.0.1") == 1
        assert answer.wire.count("Re-using existing connection") == 3

    def test_metadata_alone(self, curl: Curl, active: tuple[str, bytes]) -> None:
        answer = curl(f"/v1/images/{active[0]}", "-I")
        assert answer.status == 200
        assert "x-image-meta-size: 200000" in answer.wire
