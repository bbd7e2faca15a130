"""Whatever is sent, no daemon answers 500, hangs or grows (I-4, I-5, I-6; REL-060).

SEC-061, SEC-063, SEC-067, SEC-076: headers, URLs, query strings and JSON, on both daemons.
"""

import os
import string
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_from_bytes, urlencode

import hypothesis
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.functional.audit import audit
from tests.functional.conftest import audited_service
from tests.functional.daemons import RAW, Answer, Client, Service
from tests.functional.steps import create, path, wait_until
from tests.functional.wire import Wire, lines_of

SECONDS = 10.0
MEBIBYTE = 1024 * 1024

fuzzing = hypothesis.settings(
    max_examples=120,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(hypothesis.HealthCheck),
)

# What has broken parsers before, beside what nobody has thought of.
NASTY = [
    "", " ", "\0", "\n", "%", "%00", "%zz", "%ff", "'", '"', "\\", "../..", "//", ";", "None",
    "null", "nan", "inf", "-0", "1e999", "0x10", "\u0661", "9" * 400, str(2**63),
    str(-(2**63) - 1), "true", "in:", "in:\"a", "eq:", "a" * 300, "é" * 300, "\ud7ff", "\uffff",
    "😀", "é" * 40_000, "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00", "1" * 5000,
    "0001-01-01", "9999-12-31T23:59:59Z", "2000-01-01T00:00:00+99:99", "2000-02-30", "T", "--",
]  # fmt: skip
texts = st.sampled_from(NASTY) | st.text(max_size=60)
PARAMETERS = [
    "name", "status", "container_format", "disk_format", "size_min", "size_max", "min_ram",
    "min_disk", "protected", "is_public", "changes-since", "property-x", "property-", "marker",
    "limit", "sort_key", "sort_dir", "deleted", "owner", "",
]  # fmt: skip
FIELDS = [
    "id", "name", "status", "size", "virtual_size", "disk_format", "container_format", "min_disk",
    "min_ram", "is_public", "protected", "owner", "checksum", "location", "store", "created_at",
    "updated_at", "deleted_at", "deleted", "copy_from", "uri", "property-a", "property-",
    "property-a-b_c", "locations", "",
]  # fmt: skip
anything = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=12,
)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    options = {"limits": {"header_timeout": 5}}
    home = tmp_path_factory.mktemp("fuzz")
    with audited_service(home, api=options, registry=options) as running:
        yield running


@pytest.fixture(scope="module")
def caller(service: Service) -> Client:
    return service.caller("t1")


@pytest.fixture(scope="module")
def administrator(service: Service) -> Client:
    return service.registry_client(service.caller("adm", "admin").headers)


@pytest.fixture(scope="module")
def image_id(caller: Client) -> str:
    found: str = create(caller).image["id"]
    return found


@pytest.fixture(autouse=True, scope="module")
def no_growth(service: Service, image_id: str) -> Iterator[None]:
    """I-5 and I-6, over everything in this module."""
    before = usage(service)
    yield
    audit(service)
    wait_until(lambda: usage(service)[0] <= before[0] + 20)
    assert usage(service)[1] < before[1] + 60 * MEBIBYTE


def usage(service: Service) -> tuple[int, int]:
    """Open descriptors and resident bytes of all workers."""
    descriptors = resident = 0
    for pid in (*service.api.workers(), *service.registry.workers()):
        descriptors += len(os.listdir(f"/proc/{pid}/fd"))
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        resident += pages * os.sysconf("SC_PAGE_SIZE")
    return descriptors, resident


def require_sense(
    caller: Client, method: str, target: str, headers: Any = None, body: Any = None
) -> Answer:
    """`Client` refuses a 500 by itself, and a traceback; a hang ends in a TimeoutError."""
    answer = caller.request(method, target, headers, body, timeout=SECONDS)
    assert answer.status in {200, 201, 204, 300, 302, 400, 401, 403, 404, 405, 409, 413, 414, 501}
    return answer


class TestConnections:
    @pytest.mark.parametrize("port", ["api", "registry"])
    def test_bytes(self, service: Service, port: str) -> None:
        """Anything at all: an answer that is one, or none."""

        @fuzzing
        @given(
            start=st.binary(max_size=40)
            | st.sampled_from([b"GET / HTTP/1.1\r\n", b"POST /v1/images HTTP/1.1\r\nHost: x\r\n"]),
            lines=st.lists(st.binary(max_size=60), max_size=5),
            end=st.sampled_from([b"\r\n\r\n", b"\n\n", b"", b"\r\n\r\n0\r\n\r\n"]),
        )
        def send(start: bytes, lines: list[bytes], end: bytes) -> None:
            with Wire(getattr(service, port).port) as wire:
                wire.send(start + b"\r\n".join(lines) + end)
                wire.socket.shutdown(1)
                said = wire.rest(SECONDS)
            require_http(said)

        send()

    def test_framing(self, service: Service, caller: Client) -> None:
        """Lengths, codings, chunks and expectations in every combination."""
        fields = st.sampled_from(
            [
                b"Content-Length: 5", b"Content-Length: 0", b"Content-Length: -5", b"Expect: x",
                b"Content-Length: 99999999999999999999", b"Transfer-Encoding: chunked",
                b"Transfer-Encoding: identity", b"Expect: 100-continue", b"Connection: close",
                b"Connection: keep-alive, Upgrade", b"Upgrade: h2c", b"TE: trailers",
                b"Content-Type: application/octet-stream", b"Trailer: X-Roles", b"Host:",
                b"x-image-meta-disk_format: raw", b"x-image-meta-container_format: bare",
            ]
        )  # fmt: skip
        bodies = st.sampled_from(
            [b"", b"hello", b"5\r\nhello\r\n0\r\n\r\n", b"5\r\nhel", b"zz\r\n", b"0\r\n\r\n" * 2]
        )

        @fuzzing
        @given(method=st.sampled_from([b"POST", b"PUT", b"GET"]),
               lines=st.lists(fields, max_size=6), body=bodies)  # fmt: skip
        def send(method: bytes, lines: list[bytes], body: bytes) -> None:
            known = [line.encode() for line in lines_of(caller.headers)]
            head = b"\r\n".join([method + b" /v1/images HTTP/1.1", *known, *lines, b"", b""])
            with Wire(service.api.port) as wire:
                wire.send(head + body)
                wire.socket.shutdown(1)
                require_http(wire.rest(SECONDS))

        send()


def require_http(said: bytes) -> None:
    if said:
        line = said.partition(b"\r\n")[0].split(b" ")
        assert line[0] == b"HTTP/1.1"
        assert line[1] != b"500"
        assert b"Traceback" not in said


class TestTargets:
    def test_paths(self, caller: Client, administrator: Client) -> None:
        pieces = st.sampled_from(
            ["v1", "v1.0", "v2", "images", "detail", "members", "shared-images", "leases", "..", ""]
        ) | texts.map(lambda text: quote(text, safe=""))
        raw = st.binary(max_size=8).map(lambda each: quote_from_bytes(each, safe=""))

        @fuzzing
        @given(method=st.sampled_from(["GET", "HEAD", "PUT", "POST", "DELETE"]),
               segments=st.lists(pieces | raw, max_size=5))  # fmt: skip
        def ask(method: str, segments: list[str]) -> None:
            target = "/" + "/".join(segments)
            for client, prefix in ((caller, ""), (caller, "/v1/images"), (administrator, "")):
                if len(prefix + target) < 16_000:
                    require_sense(client, method, prefix + target)

        ask()

    @pytest.mark.parametrize("name", PARAMETERS)
    def test_every_parameter(self, caller: Client, administrator: Client, name: str) -> None:
        for value in NASTY:
            query = urlencode([(name, value)], errors="surrogatepass")[:12_000]
            require_sense(caller, "GET", f"/v1/images?{query}")
            require_sense(administrator, "GET", f"/images?{query}")

    def test_queries(self, caller: Client, administrator: Client) -> None:
        names = st.sampled_from(PARAMETERS)

        @fuzzing
        @given(pairs=st.lists(st.tuples(names, texts), max_size=6), detail=st.booleans())
        def ask(pairs: list[tuple[str, str]], detail: bool) -> None:
            query = urlencode(pairs, errors="surrogatepass")[:12_000]
            for client, prefix in ((caller, "/v1/images"), (administrator, "/images")):
                require_sense(client, "GET", f"{prefix}{'/detail' if detail else ''}?{query}")

        ask()

    def test_undecodable_queries(self, caller: Client, administrator: Client) -> None:
        @fuzzing
        @given(query=st.text(string.hexdigits + '%&=;+-:,"', max_size=60))
        def ask(query: str) -> None:
            require_sense(caller, "GET", f"/v1/images?name={query}")
            require_sense(administrator, "GET", f"/images?name={query}")

        ask()


class TestHeaders:
    @pytest.mark.parametrize("name", FIELDS)
    def test_every_field(self, caller: Client, image_id: str, name: str) -> None:
        for value in NASTY:
            line = _line(value.encode("utf-8", "surrogatepass"))
            require_sense(caller, "PUT", path(image_id), {f"x-image-meta-{name}": line})

    def test_metadata(self, caller: Client, image_id: str) -> None:
        names = st.sampled_from(FIELDS)
        values = texts.map(lambda text: text.encode("utf-8", "surrogatepass")) | st.binary(
            max_size=30
        )
        agents = st.sampled_from(["python-glanceclient", "curl"])

        @fuzzing
        @given(fields=st.dictionaries(names, values, max_size=5), agent=agents, new=st.booleans())
        def send(fields: dict[str, bytes], agent: str, new: bool) -> None:
            headers = {f"x-image-meta-{name}": _line(value) for name, value in fields.items()}
            headers |= {"User-Agent": agent}
            target = "/v1/images" if new else path(image_id)
            answer = require_sense(caller, "POST" if new else "PUT", target, headers)
            if new and answer.status == 201:
                shown = caller.head(path(answer.image["id"]))
                assert shown.status == 200
                assert caller.delete(path(answer.image["id"])).status in (200, 403)

        send()

    def test_everything_else(self, caller: Client, administrator: Client, image_id: str) -> None:
        names = st.sampled_from(
            [
                "Range", "If-Range", "If-None-Match", "Accept", "Accept-Encoding", "User-Agent",
                "X-Openstack-Request-Id", "Content-Type", "X-Roles", "X-Tenant-Id", "X-User-Id",
                "X-Identity-Status", "X-Service-Catalog", "X-Auth-Token", "Origin",
                "Access-Control-Request-Method", "X-Glance-Registry-Purge-Props",
                "x-glance-api-copy-from", "X-Glance-Lease", "Cookie", "Host",
            ]
        )  # fmt: skip
        values = texts.map(lambda text: text.encode("utf-8", "surrogatepass"))
        methods = st.sampled_from(["GET", "HEAD", "OPTIONS", "PUT"])

        @fuzzing
        @given(fields=st.dictionaries(names, values, max_size=4), method=methods)
        def send(fields: dict[str, bytes], method: str) -> None:
            headers = {name: _line(value) for name, value in fields.items()}
            for client, target in (
                (caller, path(image_id)),
                (caller, "/v1/images?limit=2"),
                (administrator, f"/images/{image_id}"),
            ):
                answer = client.request(method, target, headers, timeout=SECONDS)
                assert answer.status < 500 or answer.status == 501

        send()


def _line(value: bytes) -> bytes:
    """What http.client agrees to send; test_bytes sends the rest."""
    return value.replace(b"\r", b"").replace(b"\n", b"")[:15_000]


class TestDocuments:
    def test_images(self, administrator: Client, image_id: str) -> None:
        members = st.sampled_from(
            [
                "id", "name", "status", "size", "virtual_size", "disk_format", "container_format",
                "min_disk", "min_ram", "is_public", "protected", "owner", "checksum", "location",
                "location_data", "properties", "deleted", "created_at", "os_hash_algo",
            ]
        )  # fmt: skip
        documents = st.dictionaries(members, anything, max_size=5)
        beside = st.dictionaries(st.sampled_from(["lease", "from_state", "end_lease"]), anything)

        @fuzzing
        @given(document=documents, others=beside, new=st.booleans())
        def send(document: dict[str, Any], others: dict[str, Any], new: bool) -> None:
            # A record whose bytes are elsewhere, or being brought, is no document's to invent.
            document = {name: document[name] for name in document if "location" not in name}
            body = _json({"image": document, **others})
            target = "/images" if new else f"/images/{image_id}"
            if body is not None:
                answer = require_sense(administrator, "POST" if new else "PUT", target, None, body)
                if new and answer.status == 200:
                    administrator.delete(f"/images/{answer.json['image']['id']}")

        send()

    def test_members_and_leases(self, caller: Client, administrator: Client, image_id: str) -> None:
        entries = st.fixed_dictionaries(
            {}, optional={"member_id": anything, "can_share": anything, "member": anything}
        )
        documents = (
            anything
            | st.fixed_dictionaries({"memberships": st.lists(entries, max_size=3) | anything})
            | st.fixed_dictionaries({"member": anything})
            | st.fixed_dictionaries(
                {"leases": anything, "seconds": anything, "quota": anything},
                optional={"token": anything, "worker": anything, "expected_worker": anything},
            )
        )

        @fuzzing
        @given(document=documents)
        def send(document: Any) -> None:
            body = _json(document)
            if body is None:
                return
            for client, method, target in (
                (caller, "PUT", f"{path(image_id)}/members"),
                (caller, "PUT", f"{path(image_id)}/members/x"),
                (administrator, "PUT", f"/images/{image_id}/members"),
                (administrator, "PUT", f"/images/{image_id}/members/x"),
                (administrator, "PUT", "/leases"),
                (administrator, "POST", "/leases/1/claim"),
                (administrator, "DELETE", "/leases/nobodys"),
            ):
                require_sense(client, method, target, None, body)

        send()

    def test_no_documents(self, caller: Client, administrator: Client, image_id: str) -> None:
        @fuzzing
        @given(body=st.binary(max_size=60) | st.text('{}[]",:0123abc\\u', max_size=40))
        def send(body: bytes | str) -> None:
            content = body if isinstance(body, bytes) else body.encode()
            require_sense(caller, "PUT", f"{path(image_id)}/members", None, content)
            require_sense(administrator, "PUT", f"/images/{image_id}", None, content)
            require_sense(administrator, "POST", "/images", None, content)

        send()


def _json(document: Any) -> bytes | None:
    """None for what JSON has no words for."""
    try:
        return orjson.dumps(document)
    except TypeError:
        return None


def test_both_daemons_are_as_well_as_before(service: Service, caller: Client) -> None:
    assert caller.post("/v1/images", RAW).status == 201
    assert service.registry_client(caller.headers).get("/images").status == 200
