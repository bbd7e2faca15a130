"""What bytes on a connection make a request, and what makes the connection end.

SEC-060 to SEC-063, SEC-065, SEC-066, SEC-068; REL-002 to REL-004, REL-010, REL-011.
"""

import hashlib
import sqlite3
import time
import uuid
from contextlib import closing
from urllib.parse import unquote

import orjson
import pytest

from tests.functional.daemons import OCTETS, RAW, Client, Daemon, Service
from tests.functional.steps import (
    active_image,
    create,
    meta,
    path,
    queued_image,
    status_of,
    wait_for_status,
    wait_until,
)
from tests.functional.wire import Wire, head, lines_of

SMUGGLED = "/smuggled-request"


@pytest.fixture(params=["api", "registry"])
def daemon(request: pytest.FixtureRequest, service: Service) -> Daemon:
    found: Daemon = getattr(service, request.param)
    return found


def smuggled() -> bytes:
    """What must never be taken for a request of its own."""
    return head(SMUGGLED)


AMBIGUOUS = [
    pytest.param(["Content-Length: 5", "Transfer-Encoding: chunked"], id="length and coding"),
    pytest.param(["Transfer-Encoding: chunked", "Content-Length: 5"], id="coding and length"),
    pytest.param(["Content-Length: 5", "Content-Length: 5"], id="length twice"),
    pytest.param(["Content-Length: 5", "content-length: 6"], id="two lengths"),
    pytest.param(["Content-Length: 5, 5"], id="list of lengths"),
    pytest.param(["Content-Length: +5"], id="plus"),
    pytest.param(["Content-Length: -1"], id="minus"),
    pytest.param(["Content-Length: 0x5"], id="hexadecimal"),
    pytest.param(["Content-Length: 5_0"], id="underscore in a length"),
    pytest.param([b"Content-Length: \xd9\xa5"], id="other digits"),
    pytest.param(["Content-Length:"], id="empty length"),
    pytest.param([f"Content-Length: {2**63}"], id="2^63"),
    pytest.param(["Transfer-Encoding: gzip"], id="unknown coding"),
    pytest.param(["Transfer-Encoding: chunked, gzip"], id="two codings"),
    pytest.param(["Transfer-Encoding: gzip, chunked"], id="two codings, the last chunked"),
    pytest.param(["Transfer-Encoding: xchunked"], id="nearly chunked"),
    pytest.param(["Transfer-Encoding: \x0bchunked"], id="vertical tab"),
    pytest.param(["Transfer-Encoding:"], id="empty coding"),
    pytest.param(["Transfer-Encoding: chunked"] * 2, id="coding twice"),
    pytest.param(["Content-Length : 5"], id="blank before the colon"),
    pytest.param(["A: b", " Content-Length: 5"], id="folded line"),
    pytest.param(["A: b", "\tContent-Length: 5"], id="line folded by a tab"),
    pytest.param([b"A: b\nContent-Length: 5"], id="bare line feed"),
    pytest.param([b"A: b\rContent-Length: 5"], id="bare carriage return"),
    pytest.param([b"A: b\0c"], id="NUL in a value"),
    pytest.param([b"A\0: b"], id="NUL in a name"),
    pytest.param(["no colon"], id="no colon"),
    pytest.param([": b"], id="no name"),
    pytest.param(["Host: second"], id="two hosts"),
]


@pytest.mark.parametrize("lines", AMBIGUOUS)
def test_whatever_can_be_read_in_two_ways_is_refused(
    daemon: Daemon, lines: list[str | bytes]
) -> None:
    """SEC-061, CVE-2025-58068: and what follows it is never read as a request."""
    with Wire(daemon.port) as wire:
        wire.send(head("/v1/images", *lines, method="POST"), b"0\r\n\r\n", smuggled())
        assert wire.answer().status == 400
        assert wire.rest() == b""
    assert SMUGGLED not in daemon.log


@pytest.mark.parametrize(
    "line",
    [
        "GET /v1/images",
        "GET  /v1/images HTTP/1.1",
        "GET /v1/images HTTP/1.1 ",
        "GET /v1/im ages HTTP/1.1",
        "GET /v1/images HTTP/2.0",
        "GET /v1/images HTTP/0.9",
        "GET /v1/\x01images HTTP/1.1",
        "",
    ],
)
def test_a_malformed_request_line_is_refused(daemon: Daemon, line: str) -> None:
    """SEC-061."""
    with Wire(daemon.port) as wire:
        wire.send(f"{line}\r\nHost: test\r\n\r\n".encode(), smuggled())
        assert wire.answer().status == 400
        assert wire.rest() == b""
    assert SMUGGLED not in daemon.log


@pytest.mark.parametrize("host", ["a b", "evil.example/path", "a@b", "a?b", "a#b", '"', "[::1"])
def test_a_host_that_is_none_is_refused(daemon: Daemon, host: str) -> None:
    """SEC-062: links are built from it."""
    with Wire(daemon.port) as wire:
        wire.send(head("/versions", host=host))
        assert wire.answer().status == 400


@pytest.mark.parametrize("host", ["glance", "a.example:9292", "127.0.0.1", "[::1]:9292", "_a-b.c"])
def test_a_host_that_is_one_is_accepted(service: Service, host: str) -> None:
    with Wire(service.api.port) as wire:
        answer = wire.send(head("/versions", host=host)).answer()
    assert answer.json["versions"][0]["links"][0]["href"] == f"http://{host}/v1/"


@pytest.mark.parametrize(
    "chunks",
    [
        b"-5\r\nhello\r\n0\r\n\r\n",
        b"+5\r\nhello\r\n0\r\n\r\n",
        b"0x5\r\nhello\r\n0\r\n\r\n",
        b" 5\r\nhello\r\n0\r\n\r\n",
        b"5\nhello\r\n0\r\n\r\n",
        b"5\r\nhello!!\r\n0\r\n\r\n",
        b"5;\0\r\nhello\r\n0\r\n\r\n",
        b"\r\n",
        b"fffffffffffffffff\r\n",
        b"5\r\nhello\r\n0\r\nTrailer: a\nb\r\n\r\n",
    ],
)
def test_loose_chunks_are_refused_and_end_the_connection(
    service: Service, t1: Client, chunks: bytes
) -> None:
    """SEC-061, REL-004: the image is killed and no bytes stay."""
    image_id = str(uuid.uuid4())
    headers = {**t1.headers, **RAW, **OCTETS, "x-image-meta-id": image_id}
    lines = [*lines_of(headers), "Transfer-Encoding: chunked"]
    with Wire(service.api.port) as wire:
        wire.send(head("/v1/images", *lines, method="POST"), chunks, smuggled())
        assert wire.answer().status == 400
        assert wire.rest() == b""
    assert SMUGGLED not in service.api.log
    assert status_of(t1, image_id) == "killed"
    assert image_id not in service.stored_files()


def test_trailers_are_thrown_away(service: Service, t1: Client) -> None:
    """SEC-061, CVE-2025-58068: they give no rights, and what follows is the next request."""
    lines = [*lines_of({**t1.headers, **RAW, **OCTETS}), "Transfer-Encoding: chunked"]
    upload = b"5\r\nhello\r\n0\r\nX-Roles: admin\r\nContent-Length: 99\r\n\r\n"
    with Wire(service.api.port) as wire:
        wire.send(head("/v1/images", *lines, "x-image-meta-is_public: true", method="POST"), upload)
        assert wire.answer().status == 403
    with Wire(service.api.port) as wire:
        wire.send(head("/v1/images", *lines, method="POST"), upload)
        assert wire.answer().status == 201
        wire.send(head("/v1/images?limit=1", *lines_of(t1.headers)))
        assert wire.answer().status == 200


def test_an_older_protocol_has_no_chunks(daemon: Daemon) -> None:
    """SEC-061."""
    request = b"POST /v1/images HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    with Wire(daemon.port) as wire:
        assert wire.send(request).answer().status == 400
        assert wire.rest() == b""


def test_an_unread_body_is_never_the_next_request(daemon: Daemon) -> None:
    """SEC-061: an early answer ends the connection."""
    hidden = smuggled()
    for framing, body in (
        (f"Content-Length: {len(hidden)}", hidden),
        ("Transfer-Encoding: chunked", b"%x\r\n%b\r\n0\r\n\r\n" % (len(hidden), hidden)),
    ):
        with Wire(daemon.port) as wire:
            wire.send(head("/v1/images", framing, method="POST"), body, smuggled())
            assert wire.answer().status == 401
            assert wire.rest() == b""
    assert SMUGGLED not in daemon.log


def test_requests_may_follow_each_other_without_waiting(service: Service, t1: Client) -> None:
    request = head("/v1/images?limit=1", *lines_of(t1.headers))
    with Wire(service.api.port) as wire:
        wire.send(request * 3)
        assert [wire.answer().status for _ in range(3)] == [200] * 3


class TestFieldNames:
    """SEC-060."""

    def test_v1s_own_names_have_underscores(self, t1: Client) -> None:
        fields = {
            "x-image-meta-disk_format": "raw",
            "x-image-meta-container_format": "bare",
            "x-image-meta-property-os_type": "linux",
        }
        for headers in (fields, {name.replace("_", "-"): fields[name] for name in fields}):
            image = t1.post("/v1/images", headers).image
            assert (image["disk_format"], image["container_format"]) == ("raw", "bare")
            assert image["properties"] == {"os_type": "linux"}

    def test_two_spellings_of_one_field_are_refused(self, t1: Client) -> None:
        twice = {"x-image-meta-disk_format": "raw", "x-image-meta-disk-format": "raw"}
        assert t1.post("/v1/images", twice).status == 400
        same = {"x-image-meta-property-a_b": "1", "X-Image-Meta-Property-A-B": "1"}
        assert t1.post("/v1/images", same).status == 400

    @pytest.mark.parametrize("field", ["locations", "location_data", "tags", "", "status_"])
    def test_an_unknown_field_is_refused(self, t1: Client, field: str) -> None:
        assert create(t1, **{field: "x"}).status == 400

    @pytest.mark.parametrize("name", ["X_Roles", "x_roles", "X-Roles_", "HTTP_X_ROLES", "X_ROLES"])
    def test_other_names_with_underscores_mean_nothing(
        self, service: Service, t1: Client, name: str
    ) -> None:
        assert t1.post("/v1/images", {name: "admin", **meta(is_public="true")}).status == 403
        foreign = create(service.caller("t9")).image["id"]
        assert t1.get(path(foreign), {name: "admin"}).status == 404
        key = service.registry_client(t1.headers)
        assert key.get(f"/images/{foreign}", {name: "admin"}).status == 404

    @pytest.mark.parametrize("name", ["Content_Length", "Transfer_Encoding", "X_Identity_Status"])
    def test_framing_and_identity_have_one_spelling(self, service: Service, name: str) -> None:
        with Wire(service.api.port) as wire:
            wire.send(head("/v1/images", f"{name}: 5", "X-Tenant-Id: t1", method="POST"))
            assert wire.answer().status == 401


class TestHosts:
    """SEC-062: no answer leads to another host unless the caller has named it as ours."""

    @pytest.mark.parametrize(
        "target",
        [
            "//evil.example/v1",
            "//evil.example/v1/",
            "///evil.example//v1",
            "/%09/evil.example",
            "/%2f/evil.example/v1",
            "/\\evil.example/v1",
            "http://evil.example/v1",
            "/v1",
            "/v1.0",
        ],
    )
    def test_a_path_is_a_path(self, service: Service, target: str) -> None:
        with Wire(service.api.port) as wire:
            answer = wire.send(head(target)).answer()
        assert answer.status in (300, 302, 400, 401, 404)
        assert answer.headers.get("location", "/v1/") == "/v1/"
        assert "evil" not in answer.text

    def test_forwarded_headers_are_not_believed(self, service: Service, t1: Client) -> None:
        """SEC-066: unless enable_proxy_headers_parsing says that a proxy sets them."""
        forged = {
            "X-Forwarded-Proto": "https",
            "X-Forwarded-Host": "evil.example",
            "X-Forwarded-For": "203.0.113.9",
            "X-Forwarded-Prefix": "/evil",
            "Forwarded": "for=203.0.113.9;host=evil.example;proto=https",
            "X-Real-Ip": "203.0.113.9",
            "X-Original-Url": "/evil",
        }
        versions = t1.get("/versions", forged)
        assert "evil" not in versions.text
        assert "https" not in versions.text
        created = t1.post("/v1/images", {**RAW, **forged})
        assert created.headers["location"].startswith(f"http://127.0.0.1:{service.api.port}/v1/")
        assert "203.0.113.9" not in service.api.log
        assert "evil.example" not in service.registry.log


class TestControlCharacters:
    """SEC-063."""

    @pytest.mark.parametrize("character", [chr(code) for code in (*range(9), 10, 11, 13, 27, 127)])
    def test_no_header_takes_one(self, service: Service, t1: Client, character: str) -> None:
        for name in ("name", "property-a"):
            line = f"x-image-meta-{name}: a{character}X-Evil: 1"
            with Wire(service.api.port) as wire:
                wire.send(head("/v1/images", *lines_of(t1.headers), line, method="POST"))
                assert wire.answer().status == 400

    @pytest.mark.parametrize("code", ["%0D%0AX-Evil:%201", "%00", "%1B", "%7F"])
    def test_no_encoded_header_takes_one(self, admin: Client, code: str) -> None:
        """Those that python-glanceclient percent-encodes (decision 11)."""
        agent = {"User-Agent": "python-glanceclient"}
        for name in ("name", "property-a", "owner", "checksum"):
            answer = admin.post("/v1/images", {**agent, **meta(**{name: f"a{code}"})})
            assert answer.status == 400

    @pytest.mark.parametrize("code", ["%0D%0AX-Evil:%201", "%00", "%1B", "%7F"])
    def test_no_member_has_one(self, t1: Client, code: str) -> None:
        url = f"{path(queued_image(t1))}/members"
        assert t1.put(f"{url}/a{code}").status == 400
        entry = {"member_id": f"a{unquote(code)}"}
        assert t1.put_json(url, {"memberships": [entry]}).status == 400

    def test_the_registry_takes_none(self, root: Client) -> None:
        for document in (
            {"name": "a\r\nX-Evil: 1"},
            {"properties": {"a\r\nX-Evil": "1"}},
            {"properties": {"a": "1\0"}},
            {"owner": "a\n"},
        ):
            image = {"image": {"status": "queued", **document}}
            assert root.post("/images", body=orjson.dumps(image)).status == 400

    def test_what_an_old_database_holds_cannot_split_an_answer(
        self, service: Service, t1: Client
    ) -> None:
        image_id = active_image(t1, name="plain", **{"property-a": "plain"})
        _plant(service, image_id, "a\r\nX-Evil: 1")
        for answer in (t1.head(path(image_id)), t1.get(path(image_id))):
            assert answer.status == 200
            assert "x-evil" not in answer.headers
            assert answer.headers["x-image-meta-name"] == "a%0D%0AX-Evil: 1"
            assert answer.headers["x-image-meta-property-a"] == "a%0D%0AX-Evil: 1"


class TestRequestId:
    """SEC-065."""

    def test_a_good_one_is_kept(self, t1: Client) -> None:
        for given, kept in (("abc-1._X", "req-abc-1._X"), ("req-abc", "req-abc")):
            answer = t1.get("/v1/images?limit=1", {"X-Openstack-Request-Id": given})
            assert answer.headers["x-openstack-request-id"] == kept

    @pytest.mark.parametrize("given", ["a b", "a;b", "<script>", "ä", "a%0Ab", "req-x y"])
    def test_a_forged_one_is_replaced(self, service: Service, t1: Client, given: str) -> None:
        answer = t1.get("/v1/images?limit=1", {"X-Openstack-Request-Id": given})
        assert answer.status == 200
        assert given not in answer.headers["x-openstack-request-id"]

    def test_a_long_one_is_refused(self, service: Service, t1: Client) -> None:
        for length, status in ((64, 200), (65, 431), (16_000, 431), (17_000, 400)):
            given = "z" * length
            answer = t1.get("/v1/images?limit=1", {"X-Openstack-Request-Id": given})
            assert answer.status == status
            if status != 200:
                assert given not in answer.text
        assert "z" * 65 not in service.api.log


def test_answers_tell_no_versions(daemon: Daemon, t1: Client) -> None:
    """SEC-068."""
    client = Client(daemon.port, t1.headers)
    for target in ("/", "/healthcheck", "/versions", "/v1/images", "/nothing"):
        headers = client.get(target).headers
        assert "server" not in headers
        assert "x-powered-by" not in headers
        assert "access-control-allow-origin" not in headers
        said = " ".join(headers.values()).lower()
        assert not any(word in said for word in ("python", "eventlet", "webob", "wsgi"))


class TestCutBodies:
    def test_a_body_that_ends_early_kills(self, service: Service, t1: Client) -> None:
        """REL-002: within five seconds, and without a traceback (I-4)."""
        image_id = queued_image(t1)
        lines = [*lines_of({**t1.headers, **OCTETS}), "Content-Length: 100000"]
        with Wire(service.api.port) as wire:
            wire.send(head(path(image_id), *lines, method="PUT"), b"x" * 5000)
            wait_for_status(t1, image_id, "saving")
        left = time.monotonic()
        wait_for_status(t1, image_id, "killed")
        assert time.monotonic() - left < 5
        assert image_id not in service.stored_files()
        logged = f'"PUT /v1/images/{image_id} HTTP/1.1" status: 400'
        wait_until(lambda: logged in service.api.log)

    @pytest.mark.parametrize(
        "chunks",
        [b"5\r\nhello\r\n", b"5\r\nhello\r\nff", b"5\r\nhello\r\nff\r\nmore", b"5\r\nhello\r\n0"],
        ids=["before a size", "in a size", "in a chunk", "before the end"],
    )
    def test_an_unfinished_chunked_body_kills(
        self, service: Service, t1: Client, chunks: bytes
    ) -> None:
        """REL-004."""
        image_id = queued_image(t1)
        lines = [*lines_of({**t1.headers, **OCTETS}), "Transfer-Encoding: chunked"]
        with Wire(service.api.port) as wire:
            wire.send(head(path(image_id), *lines, method="PUT"), chunks)
            wait_for_status(t1, image_id, "saving")
        wait_for_status(t1, image_id, "killed")
        assert image_id not in service.stored_files()

    @pytest.mark.parametrize("size", [1, 4096, 65535, 65536, 65537, 10 * 1024 * 1024])
    def test_a_chunked_body_arrives_whole(self, service: Service, t1: Client, size: int) -> None:
        """REL-003: in pieces of odd sizes, with extensions."""
        content = hashlib.shake_128(str(size).encode()).digest(size)
        pieces, step = [], max(1, size // 7 + 1)
        for start in range(0, size, step):
            piece = content[start : start + step]
            pieces.append(b"%X;a=b\r\n%b\r\n" % (len(piece), piece))
        lines = [*lines_of({**t1.headers, **RAW, **OCTETS}), "Transfer-Encoding: chunked"]
        with Wire(service.api.port) as wire:
            wire.send(head("/v1/images", *lines, method="POST"), *pieces, b"0\r\n\r\n")
            image = wire.answer().image
        assert image["size"] == size
        assert image["checksum"] == hashlib.md5(content).hexdigest()


class TestEarlyAnswers:
    """REL-010, REL-011: what can be refused is refused before the bytes have been sent."""

    def test_a_client_that_does_not_wait_reads_its_refusal(
        self, service: Service, t1: Client
    ) -> None:
        """REL-010: of ten TiB the daemon reads a few MiB; then it closes."""
        lines = lines_of({**t1.headers, **RAW, **OCTETS})
        sent, piece = 0, b"x" * 65536
        with Wire(service.api.port) as wire:
            wire.send(head("/v1/images", *lines, f"Content-Length: {10 * 2**40}", method="POST"))
            started = time.monotonic()
            try:
                while True:
                    sent += wire.socket.send(piece)
                    assert time.monotonic() - started < 5
            except OSError:
                pass
            assert wire.answer().status == 400
        # The kernel's buffers on both sides hold some of it.
        assert sent < 16 * 1024 * 1024

    @pytest.mark.parametrize(
        ("who", "length", "status"),
        [("nobody", 100, 401), ("t1", 10 * 2**40, 400), ("t1", 100, 409), ("t2", 100, 404)],
    )
    def test_nobody_is_asked_for_a_body_that_is_not_wanted(
        self, request: pytest.FixtureRequest, t1: Client, who: str, length: int, status: int
    ) -> None:
        """REL-011: no 100 is on the wire, and the connection ends."""
        image_id = active_image(t1)
        headers = {} if who == "nobody" else request.getfixturevalue(who).headers
        lines = [*lines_of({**headers, **OCTETS, "Expect": "100-continue"})]
        with Wire(t1.port) as wire:
            wire.send(head(path(image_id), *lines, f"Content-Length: {length}", method="PUT"))
            assert wire.answer().status == status
            assert wire.rest() == b""

    def test_a_body_that_is_wanted_is_asked_for(self, t1: Client) -> None:
        """REL-011."""
        lines = lines_of({**t1.headers, **RAW, **OCTETS, "Expect": "100-continue"})
        with Wire(t1.port) as wire:
            wire.send(head("/v1/images", *lines, "Content-Length: 5", method="POST"))
            assert wire.answer().status == 100
            assert wire.send(b"hello").answer().image["size"] == 5


def _plant(service: Service, image_id: str, text: str) -> None:
    """What an older service, without these checks, may have left in its database."""
    with closing(sqlite3.connect(service.database)) as connection, connection:
        connection.execute("update images set name = ? where id = ?", (text, image_id))
        connection.execute(
            "update image_properties set value = ? where image_id = ?", (text, image_id)
        )
