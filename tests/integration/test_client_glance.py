"""Today's `glance` command, as a user types it, against both daemons without authentication."""

import hashlib
import os
import pty
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.functional.audit import audit
from tests.functional.daemons import RAW, Client, Service, running_service
from tests.functional.sources import CHECKSUM, CONTENT, Sources

PROGRAM = Path(sys.executable).with_name("glance")

# Blanks, umlauts and CJK: what the client sends percent-encoded (decision 11).
NAME = "Größe M, 日本語 の イメージ"


@dataclass
class Glance:
    """The command with the options that make it speak v1 to one service.

    A command that is given no data finds a terminal on its standard input, as a user's does;
    otherwise it would read image data from there.
    """

    port: int

    def run(self, *words: str, data: bytes | None = None) -> "subprocess.CompletedProcess[bytes]":
        argv = [str(PROGRAM), "--os-image-api-version", "1", "--os-auth-token", "x"]
        argv += ["--os-image-url", f"http://127.0.0.1:{self.port}", *words]
        env = {"PATH": os.environ["PATH"], "LANG": "C.UTF-8", "PYTHONUTF8": "1"}
        options: dict[str, Any] = {"capture_output": True, "env": env, "timeout": 60}
        if data is not None:
            return subprocess.run(argv, input=data, **options)
        terminal, stdin = pty.openpty()
        try:
            return subprocess.run(argv, stdin=stdin, **options)
        finally:
            os.close(terminal)
            os.close(stdin)

    def __call__(self, *words: str, data: bytes | None = None) -> str:
        done = self.run(*words, data=data)
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout.decode()

    def show(self, *words: str, data: bytes | None = None) -> dict[str, str]:
        """What a command that prints one image says of it."""
        return {row[0]: row[1] for row in _rows(self(*words, data=data))}

    def names(self, *words: str) -> list[str]:
        """The names of the images a list shows, in its order."""
        return [row[1] for row in _rows(self("image-list", *words))]


def _rows(table: str) -> list[tuple[str, ...]]:
    lines = [line for line in table.splitlines() if line.startswith("| ")]
    cells = [tuple(cell.strip() for cell in line[1:-1].split(" | ")) for line in lines]
    return cells[1:]  # without the headings


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    # Without authentication nobody has a role, so nobody passes the stock rule for publishing.
    policy = {"publicize_image": ""}
    home = tmp_path_factory.mktemp("glance")
    with running_service(home, flavor="", policy=policy) as running:
        yield running
        audit(running)


@pytest.fixture
def glance(service: Service) -> Glance:
    return Glance(service.api.port)


@pytest.fixture
def api(service: Service) -> Client:
    return service.client()


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    path = tmp_path / "disk.img"
    path.write_bytes(os.urandom(300_000))
    return path


@pytest.fixture
def sources() -> Iterator[Sources]:
    running = Sources()
    with running:
        yield running


def create_words(name: str, *more: str) -> list[str]:
    formats = ["--disk-format", "raw", "--container-format", "bare", "--is-public", "True"]
    return ["image-create", "--name", name, *formats, *more]


def test_an_image_lives_from_creation_with_a_progress_bar_to_deletion(
    glance: Glance, api: Client, disk: Path, tmp_path: Path
) -> None:
    words = create_words(NAME, "--file", str(disk), "--progress", "--property", "os_type=Grün 木")
    created = glance.show(*words)
    image_id = created["id"]
    assert (created["name"], created["status"], created["size"]) == (NAME, "active", "300000")
    assert created["checksum"] == hashlib.md5(disk.read_bytes()).hexdigest()

    # As typed, in the command's list and in the JSON of every other client.
    assert glance.names() == [NAME]
    assert glance.names("--name", NAME) == [NAME]
    listed = api.get("/v1/images/detail").json["images"][0]
    assert (listed["name"], listed["properties"]) == (NAME, {"os_type": "Grün 木"})

    assert glance.show("image-show", NAME)["id"] == image_id

    copy = tmp_path / "copy.img"
    glance("image-download", NAME, "--file", str(copy), "--progress")
    assert copy.read_bytes() == disk.read_bytes()

    changed = glance.show("image-update", NAME, "--property", "a=ä ö", "--min-ram", "256")
    assert changed["min_ram"] == "256"
    # Properties that were not named are kept, since the command does not ask for a purge.
    assert changed["Property 'os_type'"] == "Grün 木"
    assert changed["Property 'a'"] == "ä ö"
    purged = glance.show("image-update", image_id, "--purge-props", "--property", "b=1")
    assert {name for name in purged if name.startswith("Property")} == {"Property 'b'"}

    glance("image-delete", NAME)
    assert glance.names() == []
    assert api.get(f"/v1/images/{image_id}").status == 404


def test_a_pipe_and_standard_output_carry_an_image_of_unknown_size(
    glance: Glance, api: Client
) -> None:
    content = os.urandom(2_000_000)
    created = glance.show(*create_words("from a pipe", "--progress"), data=content)
    assert (created["status"], created["size"]) == ("active", "2000000")
    assert created["checksum"] == hashlib.md5(content).hexdigest()
    downloaded = glance.run("image-download", created["id"])
    assert downloaded.stdout == content
    assert glance.show("image-show", created["id"])["name"] == "from a pipe"
    assert api.delete(f"/v1/images/{created['id']}").status == 200


def test_data_may_follow_the_creation(glance: Glance, api: Client, disk: Path) -> None:
    queued = glance.show(*create_words("later"))
    assert (queued["status"], queued["size"]) == ("queued", "0")
    uploaded = glance.show("image-update", "later", "--file", str(disk), "--progress")
    assert (uploaded["status"], uploaded["size"]) == ("active", "300000")
    refused = glance.run("image-update", "later", "--file", str(disk))
    assert refused.returncode == 1
    assert b"Unable to upload image data to an image which is active" in refused.stderr
    assert api.delete(f"/v1/images/{queued['id']}").status == 200


def test_a_broken_download_is_told(
    glance: Glance, service: Service, disk: Path, tmp_path: Path
) -> None:
    image_id = glance.show(*create_words("damaged", "--file", str(disk)))["id"]
    stored = service.store / image_id
    stored.write_bytes(b"other bytes".ljust(300_000))
    answer = glance.run("image-download", image_id, "--file", str(tmp_path / "copy"))
    assert answer.returncode == 1
    assert b"checksum" in answer.stderr.lower()
    stored.write_bytes(disk.read_bytes())
    glance("image-delete", image_id)


def test_images_come_from_locations_and_by_copying(
    glance: Glance, api: Client, sources: Sources, tmp_path: Path
) -> None:
    url = sources.url("/ok")
    located = glance.show(*create_words("located", "--location", url))
    assert (located["status"], located["size"]) == ("active", str(len(CONTENT)))
    copied = glance.show(*create_words("copied", "--copy-from", url))
    assert copied["status"] in ("queued", "saving", "active")
    deadline = time.monotonic() + 20
    while (shown := glance.show("image-show", copied["id"]))["status"] != "active":
        assert time.monotonic() < deadline, shown
    assert (shown["size"], shown["checksum"]) == (str(len(CONTENT)), CHECKSUM)
    for image in (located, copied):
        target = tmp_path / image["name"]
        glance("image-download", image["id"], "--file", str(target))
        assert target.read_bytes() == CONTENT
    glance("image-delete", located["id"], copied["id"])
    assert api.get("/v1/images").names == []
    assert sources.pages["/ok"].content == CONTENT  # a source is not ours to delete


def test_lists_page_filter_and_sort(glance: Glance, api: Client, service: Service) -> None:
    """More images than the twenty of one page; filters as the command passes them on."""
    made = []
    for number in range(25):
        headers = {
            **RAW,
            "x-image-meta-name": f"page-{number:02}",
            "x-image-meta-is_public": str(number % 5 != 4),
            "x-image-meta-property-kind": "even" if number % 2 == 0 else "odd",
        }
        body = b"x" * number if number else None
        made.append(api.post("/v1/images", headers | _octets(body), body).image["id"])
    public = [f"page-{number:02}" for number in range(25) if number % 5 != 4]
    every = [f"page-{number:02}" for number in range(25)]

    assert glance.names("--all-tenants") == every
    assert f"marker={made[19]}" in service.api.log
    assert glance.names("--page-size", "7") == public
    assert glance.names("--is-public", "False") == [name for name in every if name not in public]
    assert glance.names("--sort-key", "size", "--sort-dir", "desc") == public[::-1]
    assert glance.names("--size-min", "7", "--size-max", "12", "--all-tenants") == every[7:13]
    assert glance.names("--property-filter", "kind=odd", "--all-tenants") == every[1::2]
    assert glance.names("--status", "queued") == ["page-00"]
    assert glance.names("--disk-format", "vdi") == []
    assert glance.names("--owner", "", "--sort-dir", "desc") == every[::-1]
    glance("image-delete", *made[:3])
    assert glance.names("--all-tenants", "--page-size", "5") == every[3:]
    for image_id in made[3:]:
        assert api.delete(f"/v1/images/{image_id}").status == 200


def _octets(body: bytes | None) -> dict[str, str]:
    return {"Content-Type": "application/octet-stream"} if body else {}


def test_images_are_shared_with_members(glance: Glance, api: Client) -> None:
    image_id = glance.show(*create_words("shared"))["id"]
    glance("member-create", "shared", "tenant-1")
    glance("member-create", image_id, "tenant-2", "--can-share")
    members = _rows(glance("member-list", "--image-id", image_id))
    assert sorted(members) == [(image_id, "tenant-1", ""), (image_id, "tenant-2", "True")]
    assert _rows(glance("member-list", "--tenant-id", "tenant-2")) == [
        (image_id, "tenant-2", "True")
    ]
    glance("member-delete", "shared", "tenant-1")
    assert [row[1] for row in _rows(glance("member-list", "--image-id", image_id))] == ["tenant-2"]
    assert api.delete(f"/v1/images/{image_id}").status == 200


def test_a_refusal_is_shown_in_words(glance: Glance, api: Client) -> None:
    created = glance.show(*create_words("kept", "--is-protected", "True"))
    kept = glance.run("image-delete", "kept")
    assert b"Image is protected" in kept.stdout + kept.stderr
    missing = glance.run("image-show", "no such image")
    assert missing.returncode == 1
    assert b"No image with a name or ID of" in missing.stderr
    bad = glance.run("image-create", "--name", "bad", "--disk-format", "floppy")
    assert bad.returncode == 1
    assert b"disk format" in bad.stderr.lower()
    assert api.get("/v1/images").names == ["kept"]
    glance("image-update", created["id"], "--is-protected", "False")
    glance("image-delete", "kept")
