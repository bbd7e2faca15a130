"""What the service may be made to read: SEC-040, SEC-041, SEC-043, SEC-044, SEC-046."""

import os
import socket
import sqlite3
import statistics
import struct
import time
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path

import pytest

from tests.conformance.web import Page, Web
from tests.functional.conftest import audited_service
from tests.functional.crowd import together
from tests.functional.daemons import RAW, Client, Service
from tests.functional.sources import Sources
from tests.functional.steps import (
    active_image,
    path,
    queued_image,
    status_of,
    upload,
    wait_for_status,
)

SIZING_SECONDS = 0.4
LOCATION, COPY = "x-image-meta-location", "x-glance-api-copy-from"
CONTENT = b"image bytes"


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """Only 127.0.0.1 may be reached; the rest of 127.0.0.0/8 stands for every denied network."""
    rules = {"allowed_networks": "127.0.0.1/32", "sizing_timeout": SIZING_SECONDS}
    home = tmp_path_factory.mktemp("sources")
    with audited_service(home, api={"copy_from": rules}) as running:
        yield running


@pytest.fixture
def canary(tmp_path: Path) -> Path:
    file = tmp_path / str(uuid.uuid4())
    file.write_bytes(b"the operator's own")
    return file


@contextmanager
def listening() -> Iterator[socket.socket]:
    """On every address of this machine; whoever was here would find an answer."""
    with socket.create_server(("", 0), family=socket.AF_INET) as everywhere:
        everywhere.setblocking(False)
        yield everywhere


def is_untouched(listener: socket.socket) -> bool:
    try:
        listener.accept()[0].close()
    except BlockingIOError:
        return True
    return False


DENIED_HOSTS = [
    "127.0.0.2", "2130706434", "0x7f000002", "0177.0.0.2", "127.2", "127.0.2", "0", "0.0.0.0",
    "[::1]", "[::]", "[::ffff:127.0.0.2]", "[::ffff:7f00:2]", "[64:ff9b::7f00:2]", "[::127.0.0.2]",
    "[2002:7f00:2::]", "169.254.169.254", "[fe80::1]", "[fe80::1%25lo]", "224.0.0.1",
    "255.255.255.255", "127.0.0.2.", "127.0.0.1.2", "0x7f.0.0.2", "017700000002", "127.0.0.2%00",
    "localhost@127.0.0.2", "127.0.0.1@127.0.0.2", "127.0.0.1\\@127.0.0.2",
]  # fmt: skip


class TestAddresses:
    """SEC-043, CVE-2017-7200, CVE-2026-34881."""

    @pytest.mark.parametrize("name", [LOCATION, COPY])
    def test_a_denied_address_is_not_reached(self, t1: Client, name: str) -> None:
        with listening() as listener:
            urls = [f"http://{host}:{listener.getsockname()[1]}/x" for host in DENIED_HOSTS]
            posts = [partial(t1.post, "/v1/images", {**RAW, name: url}) for url in urls]
            statuses = [answer.status for answer in together(posts)]
            assert dict(zip(urls, statuses, strict=True)) == dict.fromkeys(urls, 400)
            assert is_untouched(listener)
        assert t1.mine() == []

    @pytest.mark.parametrize("host", ["127.0.0.2", "2130706434", "[::ffff:127.0.0.2]"])
    def test_a_redirect_does_not_lead_there(self, t1: Client, sources: Sources, host: str) -> None:
        """Neither at once nor when the size was told without one."""
        with listening() as listener:
            inside = f"http://{host}:{listener.getsockname()[1]}/x"
            sources.pages["/aside"] = Page(redirect=inside)
            sources.pages["/hop"] = Page(redirect="/aside")
            for page in ("/aside", "/hop"):
                for name in (LOCATION, COPY):
                    assert t1.post("/v1/images", {**RAW, name: sources.url(page)}).status == 400
            sources.pages["/aside"] = Page(CONTENT)
            placed = t1.post("/v1/images", {**RAW, LOCATION: sources.url("/aside")}).image["id"]
            sources.pages["/aside"] = Page(redirect=inside)
            assert t1.get(path(placed)).status == 503
            told = {**RAW, COPY: sources.url("/aside"), "x-image-meta-size": "11"}
            copied = t1.post("/v1/images", told)
            if copied.status == 201:
                wait_for_status(t1, copied.image["id"], "killed")
            assert is_untouched(listener)

    def test_redirects_are_counted(self, t1: Client, sources: Sources) -> None:
        for number in range(7):
            sources.pages[f"/hop{number}"] = Page(redirect=f"/hop{number + 1}")
        sources.pages["/hop7"] = Page(CONTENT)
        assert t1.post("/v1/images", {**RAW, LOCATION: sources.url("/hop2")}).status == 201
        assert t1.post("/v1/images", {**RAW, LOCATION: sources.url("/hop1")}).status == 400

    def test_an_allowed_address_is_reached(self, t1: Client, sources: Sources) -> None:
        assert t1.post("/v1/images", {**RAW, LOCATION: sources.url("/ok")}).status == 201


def test_refusals_and_failures_look_alike(t1: Client) -> None:
    """SEC-044: open and HTTP, open and mute, closed, forbidden: one answer, at one time."""
    with Web() as web, socket.create_server(("127.0.0.1", 0)) as mute, listening() as elsewhere:
        web.pages["/x"] = Page(status=403)
        with socket.create_server(("127.0.0.1", 0)) as closing_soon:
            closed = closing_soon.getsockname()[1]
        urls = [
            web.url("/x"),
            f"http://127.0.0.1:{mute.getsockname()[1]}/x",
            f"http://127.0.0.1:{closed}/x",
            f"http://127.0.0.2:{elsewhere.getsockname()[1]}/x",
            f"http://127.2:{elsewhere.getsockname()[1]}/x",
        ]
        answers, medians = set(), []
        for url in urls:
            times = []
            for _ in range(3):
                started = time.monotonic()
                answer = t1.post("/v1/images", {**RAW, COPY: url})
                times.append(time.monotonic() - started)
                answers.add((answer.status, answer.content))
            medians.append(statistics.median(times))
    assert len(answers) == 1
    assert min(medians) >= SIZING_SECONDS
    # Far below what connecting in vain, or waiting for an answer, would differ by.
    assert max(medians) - min(medians) < SIZING_SECONDS / 2


class TestSchemes:
    """SEC-040, CVE-2014-9493, CVE-2015-1195."""

    @pytest.mark.parametrize(
        "url",
        [
            "file://{}", "FILE://{}", "File://{}", "file:{}", "file:/{}", " file://{}",
            "file://localhost{}", "filesystem://{}", "filesystem:{}", "\tfile://{}", "file:///..{}",
            "swift+config://ref/c/o", "swiftx://h/c/o", "httpx://h/x", "http+file://{}", "//host/x",
            "cinder://id", "rbd://pool/image/snap", "gridfs://id", "vsphere://host/folder/x",
            "sheepdog://h:1:id", "memory://x", "", "http:", "http://", "http:///x", "https://",
            "http://:80/x", "data:text/plain,x", "javascript:x", "{}", "http://h:99999/x",
            "http://[/x", "http://h:-1/x",
        ],
    )  # fmt: skip
    def test_only_listed_schemes_are_read(self, t1: Client, canary: Path, url: str) -> None:
        image_id = queued_image(t1)
        for name in (LOCATION, COPY):
            headers = {**RAW, name: url.format(canary)}
            for answer in (t1.post("/v1/images", headers), t1.put(path(image_id), headers)):
                # A header sent empty names no source.
                assert answer.status == 400 or (not url and answer.status in (200, 201))
        assert status_of(t1, image_id) == "queued"
        for image in t1.mine():
            assert image["status"] == "queued"
            assert t1.delete(path(image["id"])).status == 200
        assert canary.read_bytes() == b"the operator's own"


@contextmanager
def relocated(service: Service, image_id: str, url: str) -> Iterator[None]:
    """As an older service, or somebody with a hand on the database, may have left it."""
    with closing(sqlite3.connect(service.database)) as database:
        with database:
            ((before,),) = database.execute(
                "select value from image_locations where image_id = ?", (image_id,)
            )
            _set_location(database, image_id, url)
        try:
            yield
        finally:
            with database:
                _set_location(database, image_id, before)


def _set_location(database: sqlite3.Connection, image_id: str, url: str) -> None:
    database.execute("update image_locations set value = ? where image_id = ?", (url, image_id))


class TestFiles:
    """SEC-041: the file store serves and removes its own regular files, and nothing else."""

    @pytest.mark.parametrize(
        "url", ["file://{0}", "filesystem://{0}", "file://{1}/../{2}", "file://{1}/./../{2}"]
    )
    def test_a_location_outside_is_not_read(
        self, service: Service, t1: Client, canary: Path, url: str
    ) -> None:
        image_id = active_image(t1, CONTENT)
        beyond = os.path.relpath(canary, service.store.parent)
        with relocated(service, image_id, url.format(canary, service.store, beyond)):
            assert t1.get(path(image_id)).status == 404
        assert t1.get(path(image_id)).content == CONTENT

    def test_nor_removed(self, service: Service, t1: Client, canary: Path) -> None:
        image_id = active_image(t1, CONTENT)
        with relocated(service, image_id, f"file://{canary}"):
            assert t1.delete(path(image_id)).status in (200, 404)
        assert canary.exists()
        (service.store / image_id).unlink(missing_ok=True)

    def test_a_link_is_not_followed(self, service: Service, t1: Client, canary: Path) -> None:
        image_id = active_image(t1, CONTENT)
        file = service.store / image_id
        file.unlink()
        file.symlink_to(canary)
        for headers in ({}, {"Range": "bytes=0-3"}):
            answer = t1.get(path(image_id), headers)
            assert answer.status in (404, 503)
            assert b"operator" not in answer.content
        assert t1.delete(path(image_id)).status == 200
        assert not file.is_symlink()
        assert canary.read_bytes() == b"the operator's own"

    def test_a_linked_directory_is_not_followed(
        self, service: Service, t1: Client, tmp_path: Path
    ) -> None:
        image_id = active_image(t1, CONTENT)
        (tmp_path / image_id).write_bytes(b"the operator's own")
        link = service.store / "link"
        link.symlink_to(tmp_path)
        try:
            with relocated(service, image_id, f"file://{link}/{image_id}"):
                assert t1.get(path(image_id)).status == 404
        finally:
            link.unlink()

    def test_a_pipe_stalls_nobody(self, service: Service, t1: Client) -> None:
        image_id = active_image(t1, CONTENT)
        file = service.store / image_id
        file.unlink()
        os.mkfifo(file)
        started = time.monotonic()
        assert t1.get(path(image_id)).status in (404, 503)
        assert t1.get("/v1/images?limit=1").status == 200
        assert time.monotonic() - started < 5
        assert t1.delete(path(image_id)).status == 200
        assert not file.exists()

    def test_a_directory_is_no_image(self, service: Service, t1: Client) -> None:
        image_id = active_image(t1, CONTENT)
        file = service.store / image_id
        file.unlink()
        file.mkdir()
        assert t1.get(path(image_id)).status in (404, 503)
        file.rmdir()
        assert t1.delete(path(image_id)).status == 200


def qcow2(backing: int = 0, features: int = 0) -> bytes:
    header = struct.pack(">4sIQIIQ", b"QFI\xfb", 3, backing, 9, 16, 1 << 20)
    return (header.ljust(72, b"\0") + struct.pack(">Q", features)).ljust(200_000, b"\0")


class TestContent:
    """SEC-046, CVE-2024-32498 and its kin."""

    @pytest.mark.parametrize("declared", ["qcow2", "raw", "iso"])
    @pytest.mark.parametrize(
        "content",
        [qcow2(backing=104), qcow2(features=0b100), qcow2(features=1 << 60)],
        ids=["backing file", "data file", "unknown feature"],
    )
    def test_what_makes_a_reader_open_other_files_is_refused(
        self, service: Service, t1: Client, content: bytes, declared: str
    ) -> None:
        image_id = str(uuid.uuid4())
        answer = upload(t1, content, id=image_id, disk_format=declared)
        assert answer.status == 400
        assert status_of(t1, image_id) == "killed"
        assert image_id not in service.stored_files()

    def test_a_copy_is_looked_at_too(self, service: Service, t1: Client, sources: Sources) -> None:
        sources.pages["/unsafe"] = Page(qcow2(backing=104))
        headers = {**RAW, COPY: sources.url("/unsafe")}
        image_id = t1.post("/v1/images", headers).image["id"]
        wait_for_status(t1, image_id, "killed")
        assert image_id not in service.stored_files()

    def test_a_plain_one_is_accepted(self, t1: Client) -> None:
        assert upload(t1, qcow2(), disk_format="qcow2").status == 201
        assert upload(t1, b"\x55\xaa" * 1000, disk_format="raw").status == 201
