"""No secret gets out: I-3 with canaries in every password, key and URL (SEC-030 to SEC-034)."""

import base64
import os
import signal
import sqlite3
import stat
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

import pytest

from tests.conformance.web import Page
from tests.functional.conftest import audited_service
from tests.functional.daemons import (
    OCTETS,
    RAW,
    REGISTRY_KEY,
    Answer,
    Client,
    Service,
    running_service,
)
from tests.functional.sources import Sources
from tests.functional.steps import (
    active_image,
    meta,
    path,
    queued_image,
    wait_for_status,
    wait_until,
)

CANARY = "cänary/pass+word"
MARK = "c4n4ry"
METADATA_KEY = f"{MARK}-metadata-key-of-32-bytes-x"[:32]
COPY = "x-glance-api-copy-from"
LOCATION = "x-image-meta-location"


def secrets() -> set[str]:
    """Every secret of the service under test, in every spelling it may be found in."""
    plain = {CANARY, MARK, METADATA_KEY, REGISTRY_KEY}
    encoded = {quote(each, safe="") for each in plain}
    return plain | encoded | {base64.b64encode(each.encode()).decode() for each in plain}


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    options = {
        "metadata_encryption_key": METADATA_KEY,
        "admin_password": MARK,
        "oslo_messaging_notifications": {"driver": "log"},
        "copy_from": {"sizing_timeout": 0.2, "idle_timeout": 1, "retries": 0},
    }
    registry = {"admin_password": MARK}
    with running_service(tmp_path_factory.mktemp("secrets"), api=options, registry=registry) as up:
        yield up
        # With debug, as here, options are logged at every start.
        for daemon in (up.registry, up.api):
            daemon.signal(signal.SIGHUP)
            wait_until(lambda daemon=daemon: "reloading the configuration" in daemon.log)
        require_silence(up)


def require_silence(service: Service) -> None:
    """I-3 and I-4 over everything that the daemons have written anywhere."""
    written = [service.api.log, service.registry.log, service.api.output, service.registry.output]
    with closing(sqlite3.connect(f"file:{service.database}?mode=ro", uri=True)) as database:
        written += [line for line in database.iterdump() if line.startswith("INSERT")]
    written += process_titles(service)
    for secret in secrets():
        assert not any(secret in text for text in written), secret
    assert not any("Traceback" in text or "status: 500" in text for text in written[:4])


def process_titles(service: Service) -> list[str]:
    found = []
    for daemon in (service.api, service.registry):
        assert daemon.process is not None
        for pid in (daemon.process.pid, *daemon.workers()):
            found.append(Path(f"/proc/{pid}/cmdline").read_text())
    return found


def require_discretion(answer: Answer, sources: Sources) -> None:
    """SEC-030: not a word of where the bytes are."""
    said = answer.content.decode("latin-1") + str(answer.headers)
    for hidden in (*secrets(), f":{sources.port}", "user-of-the-store", "location_data"):
        assert hidden not in said
    assert "x-image-meta-location" not in answer.headers
    assert '"location"' not in said


def secret_url(sources: Sources, page: str) -> str:
    place = sources.url(page).removeprefix("http://")
    return f"http://user-of-the-store:{quote(CANARY, safe='')}@{place}?signature={MARK}"


@pytest.fixture
def located(t1: Client, sources: Sources) -> str:
    """An image whose bytes are behind a URL with a password and a signature."""
    sources.pages[f"/ok?signature={MARK}"] = Page(b"remote bytes")
    answer = t1.post("/v1/images", {**RAW, LOCATION: secret_url(sources, "/ok")})
    require_discretion(answer, sources)
    image_id: str = answer.image["id"]
    return image_id


def test_a_location_is_used_and_never_shown(
    t1: Client, admin: Client, sources: Sources, located: str
) -> None:
    """SEC-030, CVE-2013-0212; SEC-032: the database has it encrypted."""
    for caller in (t1, admin):
        for answer in (
            caller.get(path(located)),
            caller.head(path(located)),
            caller.get("/v1/images"),
            caller.get("/v1/images/detail"),
            caller.put(path(located), meta(name="n")),
        ):
            assert answer.status == 200
            require_discretion(answer, sources)
    assert t1.get(path(located)).content == b"remote bytes"
    require_discretion(t1.delete(path(located)), sources)


@pytest.mark.parametrize(
    "page",
    [
        Page(status=401), Page(status=403), Page(status=404), Page(status=500), Page(status=503),
        Page(b"remote bytes", cuts=[0] * 99), Page(b"remote bytes", stalls=0),
        Page(redirect="ftp://user-of-the-store:c4n4ry@elsewhere/"), Page(b"other", etag=None),
    ],
    ids=["401", "403", "404", "500", "503", "reset", "stall", "redirect", "changed"],
)  # fmt: skip
def test_a_source_that_fails_is_not_shown(
    t1: Client, sources: Sources, located: str, page: Page
) -> None:
    """SEC-030: neither to a reader nor to who names it."""
    sources.pages[f"/ok?signature={MARK}"] = page
    download = t1.get(path(located))
    assert download.status in (404, 503)
    require_discretion(download, sources)
    for name in (LOCATION, COPY):
        answer = t1.post("/v1/images", {**RAW, name: secret_url(sources, "/ok")})
        require_discretion(answer, sources)
        if answer.status == 201 and name == COPY:
            wait_for_status(t1, answer.image["id"], "killed", "active")


@pytest.mark.parametrize(
    "url",
    [
        "ftp://user-of-the-store:{}@host/x",
        "file://user-of-the-store:{}@/etc/passwd",
        "swift+https://user-of-the-store:{}@host/c/o",
        "swift+config://{}/c/o@x",
        "http:/user-of-the-store:{}@host",
        "user-of-the-store:{}@host/x",
        "//user-of-the-store:{}@host/x",
        "http://user-of-the-store:{}@169.254.169.254/x",
        "http://user-of-the-store:{}@host:bad/x",
        "http://user-of-the-store:{}@[::1/x",
        "http://user-of-the-store:{}@a@b/x",
        " http://user-of-the-store:{}@host/x",
        "http://user-of-the-store:{}@nowhere.invalid/x",
        "ftp://host/x?signature={}",
        "HTTP://user-of-the-store:{}@host/x",
    ],
)
@pytest.mark.parametrize("header", [LOCATION, COPY])
def test_a_refused_url_is_not_repeated(t1: Client, sources: Sources, url: str, header: str) -> None:
    """SEC-030, SEC-031, SEC-040: nor logged, nor sent to whoever listens."""
    named = {**RAW, header: url.format(MARK)}
    for answer in (t1.post("/v1/images", named), t1.put(path(queued_image(t1)), named)):
        assert answer.status == 400
        require_discretion(answer, sources)


def test_an_unreadable_location_fails_cleanly(
    service: Service, t1: Client, sources: Sources, located: str
) -> None:
    """SEC-032: one changed byte of what the database holds."""
    with closing(sqlite3.connect(service.database)) as database, database:
        ((sealed,),) = database.execute(
            "select value from image_locations where image_id = ?", (located,)
        )
        middle = len(sealed) // 2
        other = "A" if sealed[middle] != "A" else "B"
        database.execute(
            "update image_locations set value = ? where image_id = ?",
            (sealed[:middle] + other + sealed[middle + 1 :], located),
        )
    answer = t1.get(path(located))
    assert answer.status == 503
    require_discretion(answer, sources)


def test_tokens_stay_at_home(service: Service, t1: Client, sources: Sources) -> None:
    """SEC-037: whoever is asked for bytes learns nothing of the caller."""
    sources.pages["/plain"] = Page(b"bytes")
    token = {"X-Auth-Token": MARK, "X-Service-Token": MARK, "Cookie": f"session={MARK}"}
    before = len(sources.requests)
    url = sources.url("/plain")
    copied = t1.post("/v1/images", {**RAW, **token, COPY: url}).image["id"]
    wait_for_status(t1, copied, "active")
    placed = t1.post("/v1/images", {**RAW, **token, LOCATION: url}).image["id"]
    assert t1.get(path(placed), token).content == b"bytes"
    received = sources.requests[before:]
    assert received
    for _, _, headers in received:
        assert MARK not in str(headers)
        assert t1.tenant not in str(headers)
        assert not any(name.lower().startswith(("x-", "cookie")) for name in headers)


def test_files_are_not_for_everybody(tmp_path_factory: pytest.TempPathFactory) -> None:
    """SEC-034: whatever the umask at the start."""
    home = tmp_path_factory.mktemp("umask")
    before = os.umask(0)
    try:
        # Named, so that glance-manage makes it here.
        with audited_service(home, connection=f"sqlite:///{home}/glance.sqlite") as service:
            active_image(service.t1, b"bytes")
            made = [*service.store.rglob("*"), *home.glob("*.log"), *home.glob("*.sqlite*")]
            assert len(made) >= 4
            assert [file for file in made if stat.S_IMODE(file.stat().st_mode) & 0o007] == []
    finally:
        os.umask(before)


def test_a_name_is_text_and_nothing_else(service: Service, t1: Client) -> None:
    """SEC-038, CVE-2015-3988."""
    name = "<script>alert(1)</script>"
    image_id = active_image(t1, b"<html>", name=name)
    shown = t1.get(path(image_id))
    assert shown.headers["content-type"].startswith("application/octet-stream")
    assert shown.headers["x-content-type-options"] == "nosniff"
    refused = t1.get(f"/v1/images/{quote(name)}", {"Accept": "text/html"})
    assert refused.status == 404
    assert "<script>" not in refused.text
    hostile = {"User-Agent": name, "X-Image-Meta-Name": name, **OCTETS}
    assert t1.put(path(image_id), hostile, b"x").status == 409
    for line in service.api.log.splitlines():
        assert line[:2] == "20", "one event is one line"
