"""glance-replicator between two services (REL-098)."""

import http.server
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.functional.daemons import OCTETS, RAW, ROOT, Service, running_service

ID = "6d3e5ab0-6bbd-4d0c-8dbe-0f3ba7a5a5c1"
ABSENT = "00000000-0000-4000-8000-00000000000a"
NAME = "Zoë's image"


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """Everybody is an admin, so that the replicator needs no Keystone."""
    with running_service(tmp_path_factory.mktemp("source"), flavor="") as service:
        queued = {"x-image-meta-name": "queued", "x-image-meta-id": ABSENT}
        assert service.client().post("/v1/images", queued).status == 201
        headers = {
            **RAW,
            **OCTETS,
            "x-image-meta-id": ID,
            "x-image-meta-name": NAME,
            "x-image-meta-owner": "t1",
            "x-image-meta-property-kernel_id": "kérnel",
        }
        assert service.client().post("/v1/images", headers, b"x" * 200_000).status == 201
        yield service


@pytest.fixture
def target(tmp_path: Path) -> Iterator[Service]:
    with running_service(tmp_path / "target", flavor="") as service:
        yield service


def replicate(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "glance_api.cmd.replicator", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=ROOT,
    )


def address(service: Service) -> str:
    return f"127.0.0.1:{service.api.port}"


def test_size_counts_active_images_and_their_bytes(source: Service) -> None:
    done = replicate("size", address(source))
    assert done.stdout == "Total size is 200000 bytes across 1 images\n", done.stderr


def test_a_dump_can_be_loaded_elsewhere_and_is_the_same_there(
    source: Service, target: Service, tmp_path: Path
) -> None:
    dump = tmp_path / "dump"
    dump.mkdir()
    assert replicate("dump", address(source), dump).returncode == 0
    assert {path.name for path in dump.iterdir()} == {ID, f"{ID}.img", ABSENT}
    assert json.loads((dump / ID).read_text())["name"] == NAME

    loaded = replicate("load", address(target), dump)
    assert loaded.returncode == 0, loaded.stderr
    got = target.client().get(f"/v1/images/{ID}")
    assert got.content == b"x" * 200_000
    assert got.headers["x-image-meta-name"].encode("latin-1").decode() == NAME
    assert got.headers["x-image-meta-owner"] == "t1"
    assert target.client().head(f"/v1/images/{ABSENT}").status == 404
    assert replicate("compare", address(source), address(target)).stdout == ""


def test_an_image_dumped_already_stays_as_it_is(source: Service, tmp_path: Path) -> None:
    (tmp_path / ID).write_text("mine")
    assert replicate("dump", "-m", address(source), tmp_path).returncode == 0
    assert (tmp_path / ID).read_text() == "mine"
    assert {path.name for path in tmp_path.iterdir()} == {ID, ABSENT}


def test_a_live_copy_brings_bytes_once_and_metadata_whenever_it_changes(
    source: Service, target: Service
) -> None:
    servers = address(source), address(target)
    assert f"Image {ID} is missing" in replicate("compare", *servers).stdout
    assert replicate("livecopy", "-m", *servers).returncode == 0
    assert target.client().head(f"/v1/images/{ID}").status == 404
    assert replicate("livecopy", *servers).returncode == 0
    assert target.client().get(f"/v1/images/{ID}").content == b"x" * 200_000

    changed = {"x-image-meta-name": "other", "x-image-meta-property-new": "1"}
    assert target.client().put(f"/v1/images/{ID}", changed).status == 200
    found = replicate("compare", *servers).stdout
    assert f"field name differs (source: {NAME}, destination: other)" in found
    assert "field property-new differs" in found
    assert "name" not in replicate("compare", "-D", "name updated_at", *servers).stdout
    assert replicate("livecopy", *servers).returncode == 0
    assert replicate("compare", *servers).stdout == ""


class Stub(http.server.BaseHTTPRequestHandler):
    """A server whose every id is taken invisibly, or whose only image is not what it says."""

    asked: list[str]
    image: dict[str, object]
    body: bytes

    def do_HEAD(self) -> None:
        self._answer(404)

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self._answer(409)

    def do_GET(self) -> None:
        if self.path.startswith("/v1/images/detail"):
            images = [] if "marker" in self.path else [self.image]
            self._answer(200, json.dumps({"images": images}).encode())
        else:
            # Fewer bytes than promised, as when the connection breaks.
            self._answer(200, self.body, len(self.body) + 5)

    def _answer(self, status: int, body: bytes = b"", length: int | None = None) -> None:
        self.asked.append(f"{self.command} {self.headers.get('X-Auth-Token')}")
        self.send_response(status)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        return None


@pytest.fixture
def stub() -> Iterator[tuple[str, type[Stub]]]:
    class Handler(Stub):
        asked: list[str] = []

    server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    yield f"127.0.0.1:{server.server_port}", Handler
    server.shutdown()
    thread.join()
    server.server_close()


def test_an_id_that_is_taken_invisibly_is_reported_and_the_run_goes_on(
    source: Service, stub: tuple[str, type[Stub]]
) -> None:
    """MW-060."""
    server, handler = stub
    done = replicate("livecopy", "-S", "slave-token", address(source), server)
    assert done.returncode == 0
    assert f"image {ID} is already there" in done.stderr
    assert handler.asked == ["HEAD slave-token", "POST slave-token", "HEAD slave-token"]


def test_an_image_that_breaks_off_is_not_kept(stub: tuple[str, type[Stub]], tmp_path: Path) -> None:
    server, handler = stub
    handler.image = {"id": ID, "status": "active", "size": 10, "checksum": None}
    handler.body = b"12345"
    done = replicate("dump", server, tmp_path)
    assert done.returncode == 1
    assert "ends 5 bytes early" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_an_id_that_is_a_path_is_refused(stub: tuple[str, type[Stub]], tmp_path: Path) -> None:
    server, handler = stub
    handler.image = {"id": "../escaped", "status": "queued", "size": 0}
    (tmp_path / "inside").mkdir()
    done = replicate("dump", server, tmp_path / "inside")
    assert done.returncode == 1
    assert "no UUID" in done.stderr
    assert not (tmp_path / "escaped").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["size", "host"], "ERROR: 'host'"),
        (["size", "host:0"], "ERROR: 'host:0'"),
        (["size", "ho st:1"], "ERROR:"),
        (["size", "[::1]:1"], "ERROR: ::1:1"),
        (["foo"], "Unknown command: foo"),
        (["help", "foo"], "Unknown command: foo"),
        (["dump"], "ERROR: too few arguments"),
        (["livecopy", "127.0.0.1:1"], "ERROR: too few arguments"),
    ],
)
def test_what_cannot_be_done_is_refused(arguments: list[str], message: str) -> None:
    """MW-059."""
    refused = replicate(*arguments)
    assert refused.returncode == 1
    assert message in refused.stderr


@pytest.mark.parametrize("arguments", [[], ["help"], ["help", "dump"]])
def test_help_is_given(arguments: list[str]) -> None:
    given = replicate(*arguments)
    assert given.returncode == 0
    assert given.stdout.startswith("glance-replicator ")
