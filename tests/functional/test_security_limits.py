"""What one caller may take from the others: SEC-067, SEC-070 to SEC-072, SEC-074 to SEC-079."""

import hashlib
import statistics
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from urllib.parse import urlencode

import pytest

from tests.conformance.web import Page
from tests.functional.conftest import audited_service
from tests.functional.crowd import together
from tests.functional.daemons import OCTETS, RAW, Answer, Client, Service, chunked
from tests.functional.sources import Sources
from tests.functional.steps import (
    HalfUpload,
    active_image,
    create,
    meta,
    path,
    queued_image,
    status_of,
    upload,
    wait_for_status,
    wait_until,
)
from tests.functional.wire import Wire, head, lines_of

MIB = 1024 * 1024
HEADER_SECONDS = 2
IDLE_SECONDS = 3


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    options = {
        "workers": 4,
        "image_size_cap": MIB,
        "user_storage_quota": "4MB",
        "client_socket_timeout": IDLE_SECONDS,
        "limits": {"header_timeout": HEADER_SECONDS, "copies_per_worker": 2},
        "copy_from": {"allowed_networks": "127.0.0.0/8", "sizing_timeout": 1},
    }
    registry = {"limits": {"images_per_tenant": 40, "queued_images_per_tenant": 30}}
    home = tmp_path_factory.mktemp("limits")
    with audited_service(home, api=options, registry=registry) as running:
        yield running


class Scales(threading.Thread):
    """Weighs the store again and again; a context manager. `growth`: the most there was above
    what was there at first, files included that have no name yet."""

    def __init__(self, service: Service) -> None:
        super().__init__(daemon=True)
        self.growth = 0
        self._store = service.store
        self._workers = service.api.workers()
        self._before = self._weight()
        self._done = threading.Event()

    def run(self) -> None:
        while not self._done.wait(0.01):
            self.growth = max(self.growth, self._weight() - self._before)

    def _weight(self) -> int:
        total = sum(map(_size, self._store.iterdir()))
        for worker in self._workers:
            descriptors = Path(f"/proc/{worker}/fd").iterdir()
            total += sum(_size(each) for each in descriptors if self._is_unnamed(each))
        return total

    def _is_unnamed(self, descriptor: Path) -> bool:
        try:
            target = str(descriptor.readlink())
        except FileNotFoundError:
            return False
        return target.startswith(str(self._store)) and target.endswith(" (deleted)")

    def __enter__(self) -> "Scales":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self.join()


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except FileNotFoundError:
        return 0


class TestBytes:
    @pytest.mark.parametrize("as_chunks", [False, True])
    def test_uploads_at_the_same_time_share_one_quota(
        self, service: Service, t1: Client, as_chunks: bool
    ) -> None:
        """SEC-071, CVE-2014-9623: ten of 1 MiB against 4 MiB, over four workers."""
        content = b"x" * MIB

        def send() -> int:
            return upload(t1, chunked(content, 70_000) if as_chunks else content).status

        with Scales(service) as scales:
            statuses = together([send] * 10)
        assert set(statuses) <= {201, 413}
        stored = sum(image["size"] for image in t1.mine() if image["status"] == "active")
        if as_chunks:
            # Each reserves ahead of its bytes, so that fewer than four may find room.
            assert 1 <= statuses.count(201) <= 4
        else:
            assert statuses.count(201) == 4
        assert stored == statuses.count(201) * MIB
        # What the quota admits, and no more than a piece of what it does not.
        assert 0 < scales.growth <= 4 * MIB + 10 * MIB // 2
        for image in t1.mine():
            t1.delete(path(image["id"]))
        assert upload(t1, content).status == 201

    def test_deleting_during_uploads_frees_nothing_early(
        self, service: Service, t1: Client
    ) -> None:
        """SEC-071, CVE-2015-5286: the quota is held until the upload and its bytes are gone."""
        with Scales(service) as scales:
            for _ in range(4):
                self._begin_and_delete(t1, 10)
        assert 0 < scales.growth <= 4 * MIB
        for image in t1.mine():
            t1.delete(path(image["id"]))
        assert [upload(t1, b"x" * MIB).status for _ in range(5)] == [201] * 4 + [413]

    def _begin_and_delete(self, caller: Client, count: int) -> None:
        ids = [str(uuid.uuid4()) for _ in range(count)]
        with ExitStack() as stack:
            halves = []
            for image_id in ids:
                headers = {**RAW, **OCTETS, **meta(id=image_id)}
                half = HalfUpload(caller, "POST", "/v1/images", headers, MIB)
                halves.append(stack.enter_context(half))
                half.send(b"x" * (MIB // 2))
                wait_until(partial(self._is_deleted, caller, image_id))
            assert {half.answer().status for half in halves} == {412, 413}

    def _is_deleted(self, caller: Client, image_id: str) -> bool:
        return caller.delete(path(image_id)).status == 200

    def test_no_byte_past_a_bound_reaches_the_store(self, service: Service, t1: Client) -> None:
        """SEC-070, CVE-2014-5356: by length, by chunks, and beside a declared size."""
        with Scales(service) as scales:
            assert upload(t1, b"x" * (MIB + 1)).status == 400
            image_id = str(uuid.uuid4())
            assert upload(t1, chunked(b"x" * 2 * MIB), id=image_id).status == 413
            assert status_of(t1, image_id) == "killed"
            liar = str(uuid.uuid4())
            answer = upload(t1, chunked(b"x" * 2 * MIB), id=liar, size="10")
            assert answer.status == 400
            assert status_of(t1, liar) == "killed"
        assert scales.growth <= MIB
        assert service.stored_files().isdisjoint({image_id, liar})


class TestImages:
    """SEC-074, CVE-2016-8611."""

    def test_an_owner_has_so_many_images(self, t1: Client, t2: Client) -> None:
        answers = [create(t1, size="0").status for _ in range(41)]
        assert answers == [201] * 40 + [413]
        assert upload(t1).status == 413
        assert create(t2, size="0").status == 201
        victim = t1.mine()[0]["id"]
        assert t1.delete(path(victim)).status == 200
        assert [create(t1, size="0").status for _ in range(2)] == [201, 413]

    def test_and_so_many_without_data(self, t1: Client) -> None:
        ids = [queued_image(t1) for _ in range(30)]
        refused = create(t1)
        assert refused.status == 413
        assert "30 images without data" in refused.text
        assert t1.put(path(ids[0]), OCTETS, b"data").status == 200
        assert [create(t1).status for _ in range(2)] == [201, 413]

    def test_creations_at_the_same_time_do_not_pass_together(self, t1: Client) -> None:
        statuses = [answer.status for answer in together([partial(create, t1)] * 40)]
        assert (statuses.count(201), statuses.count(413)) == (30, 10)


class TestMetadata:
    """SEC-075."""

    def test_it_is_bounded(self, t1: Client) -> None:
        many = {f"property-p{number}": "v" for number in range(129)}
        assert create(t1, **many).status == 413
        assert create(t1, name="n" * 256).status == 400
        assert create(t1, name="n" * 255).status == 201
        assert create(t1, **{"property-x": "v" * 20_000}).status == 400
        assert create(t1, **{"property-" + "n" * 256: "v"}).status == 400
        total = {f"property-p{number}": "v" * 15_000 for number in range(30)}
        assert create(t1, **total).status == 400

    def test_a_query_is_bounded(self, service: Service, t1: Client) -> None:
        """SEC-076."""
        for target in ("/v1/images", "/v1/images/detail"):
            assert t1.get(f"{target}?limit=1000000000").status == 200
            for query in (
                "limit=-1", "limit=x", "sort_key=nothing", "sort_key=owner", "sort_dir=sideways",
                "marker=x", "size_min=x", "changes-since=yesterday", "size_max=" + "9" * 30,
                urlencode([(f"property-{number}", "v") for number in range(200)]),
            ):  # fmt: skip
                assert t1.get(f"{target}?{query}").status == 400
        assert t1.get("/v1/images?name=" + "x" * 20_000).status == 414


def nested(depth: int) -> bytes:
    return b'{"memberships": ' + b"[" * depth + b"]" * depth + b"}"


class TestDocuments:
    """SEC-067: read quickly, or refused quickly, on both daemons."""

    @pytest.mark.parametrize(
        "body",
        [
            b"[]", b'"x"', b"1", b"null", b"{", b"\xff\xfe", b'{"memberships": "x"}', b"{}",
            b'{"memberships": [1]}', b'{"memberships": [{"member_id": 1}]}', b"NaN",
            b'{"memberships": [{"member_id": "\xff"}]}', b'{"memberships": [{"x": "y"}]}',
            b'{"memberships": [{"member_id": "\\ud800"}]}', nested(100), nested(10_000),
            nested(1_000_000), b'{"memberships": [{"member_id": "' + b"m" * 300 + b'"}]}',
        ],
        ids=lambda body: body[:30].decode("latin-1"),
    )  # fmt: skip
    def test_a_document_is_what_it_should_be(
        self, service: Service, t1: Client, body: bytes
    ) -> None:
        image_id = queued_image(t1)
        started = time.monotonic()
        kind = {"Content-Type": "application/json"}
        assert t1.put(f"{path(image_id)}/members", kind, body).status == 400
        registry = service.registry_client(t1.headers)
        for method, target in (
            ("PUT", f"/images/{image_id}/members"), ("PUT", f"/images/{image_id}"),
            ("POST", "/images"), ("PUT", "/leases"),
        ):  # fmt: skip
            assert registry.request(method, target, kind, body).status in (400, 413)
        assert time.monotonic() - started < 10

    def test_a_hundred_mebibytes_are_not_read(self, service: Service, t1: Client) -> None:
        image_id = queued_image(t1)
        lines = lines_of({**t1.headers, "X-Glance-Registry-Key": "functional-registry-key"})
        for port, target in (
            (service.api.port, f"{path(image_id)}/members"),
            (service.registry.port, f"/images/{image_id}"),
        ):
            sent = 0
            with Wire(port) as wire:
                wire.send(head(target, *lines, f"Content-Length: {100 * MIB}", method="PUT"))
                try:
                    while sent < 100 * MIB:
                        sent += wire.socket.send(b" " * 65536)
                except OSError:
                    pass
                assert wire.answer().status in (400, 413)
            assert sent < 30 * MIB


@contextmanager
def slow_connections(port: int, count: int) -> Iterator[list[Wire]]:
    """Half of them say nothing, the others begin a request and never end it."""
    with ExitStack() as stack:
        wires = []
        for number in range(count):
            wire = stack.enter_context(Wire(port))
            if number % 2:
                wire.send(b"GET /v1/images HTTP/1.1\r\nX-Slow: ")
            wires.append(wire)
        yield wires


class TestConnections:
    """SEC-077."""

    def test_two_thousand_slow_ones_keep_nobody_out(self, service: Service, t1: Client) -> None:
        image_id = active_image(t1)
        with slow_connections(service.api.port, 2000) as wires:
            for _ in range(10):
                started = time.monotonic()
                assert t1.get(path(image_id)).status == 200
                assert time.monotonic() - started < 8
            deadline = time.monotonic() + IDLE_SECONDS + 10
            for wire in wires:
                assert wire.rest(max(deadline - time.monotonic(), 0.1)) == b""
        assert t1.get(path(image_id)).status == 200

    def test_a_dripped_header_meets_the_deadline(self, service: Service) -> None:
        """Byte by byte, each within the idle limit."""
        with Wire(service.api.port) as wire:
            started = time.monotonic()
            for byte in head("/v1/images", *(f"X-Slow-{n}: value" for n in range(50))):
                try:
                    wire.send(bytes([byte]))
                except OSError:
                    break
                if wire_is_closed(wire):
                    break
            assert time.monotonic() - started < HEADER_SECONDS + 3
            assert wire.rest() == b""

    def test_a_client_that_takes_nothing_is_left(self, service: Service, t1: Client) -> None:
        """And holds nobody up meanwhile."""
        image_id = active_image(t1, b"x" * MIB)
        with ExitStack() as stack:
            for _ in range(40):
                wire = stack.enter_context(Wire(service.api.port))
                wire.send(head(path(image_id), *lines_of(t1.headers)))
            started = time.monotonic()
            assert t1.get(path(image_id)).status == 200
            assert time.monotonic() - started < 3

    def test_an_upload_that_stalls_is_ended(self, service: Service, t1: Client) -> None:
        image_id = queued_image(t1)
        with HalfUpload.to(t1, image_id, 1000, b"x") as half:
            started = time.monotonic()
            wait_for_status(t1, image_id, "killed")
            assert time.monotonic() - started < IDLE_SECONDS + 5
            half.close()
        assert image_id not in service.stored_files()


def wire_is_closed(wire: Wire) -> bool:
    wire.socket.settimeout(0.05)
    try:
        return wire.socket.recv(1) == b""
    except TimeoutError:
        return False
    finally:
        wire.socket.settimeout(20)


class TestTurns:
    def test_one_tenants_copies_do_not_keep_anothers_waiting(
        self, service: Service, t1: Client, t2: Client, sources: Sources
    ) -> None:
        """SEC-079: two run at a time in each worker; thirty more wait."""
        sources.pages["/many"] = Page(b"x" * 1000)
        copy = {**RAW, "x-glance-api-copy-from": sources.url("/many")}
        together([partial(t1.post, "/v1/images", copy)] * 25)
        single = t2.post("/v1/images", copy).image["id"]
        started = time.monotonic()
        assert wait_for_status(t2, single, "active", "killed") == "active"
        assert time.monotonic() - started < 5
        for image in t1.mine():
            wait_for_status(t1, image["id"], "active")

    def test_hashing_and_storing_hold_nobody_up(self, service: Service, t1: Client) -> None:
        """SEC-081, REL-082: short requests beside eight uploads at full speed."""
        stop = threading.Event()
        owners = [service.caller(f"busy{number}") for number in range(8)]
        content = hashlib.shake_128(b"seed").digest(MIB)

        def keep_uploading(owner: Client) -> int:
            count = 0
            while not stop.is_set():
                assert owner.delete(path(active_image(owner, content))).status == 200
                count += 1
            return count

        def look() -> list[float]:
            waits = []
            try:
                for _ in range(40):
                    started = time.monotonic()
                    assert t1.get("/v1/images?limit=5").status == 200
                    waits.append(time.monotonic() - started)
                    time.sleep(0.02)
            finally:
                stop.set()
            return waits

        found = together([look, *(partial(keep_uploading, owner) for owner in owners)])
        waits, counts = found[0], found[1:]
        assert isinstance(waits, list)
        assert all(counts)
        assert statistics.median(waits) < 0.25
        assert max(waits) < 3


@pytest.fixture(scope="class")
def rated(service: Service) -> None:
    service.reconfigure({"workers": 1, "limits": {"requests_per_second_per_tenant": 20}})


@pytest.mark.usefixtures("rated")
class TestRate:
    """SEC-074: requests a second of one tenant."""

    def test_a_flood_is_answered_with_429(self, t1: Client, t2: Client) -> None:
        def ask(caller: Client) -> Answer:
            return caller.get("/v1/images?limit=1")

        answers = together([partial(ask, t1)] * 100)
        refused = [answer for answer in answers if answer.status == 429]
        assert 20 <= len(refused) <= 70
        assert {answer.headers["retry-after"] for answer in refused} == {"5"}
        assert [ask(t2).status for _ in range(5)] == [200] * 5
        time.sleep(0.5)
        assert ask(t1).status == 200
