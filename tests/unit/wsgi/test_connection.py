"""What a client gets to see on one connection, without any socket."""

import io
import logging
from collections.abc import Iterable, Iterator
from typing import Any

import pytest

from common.wsgi.connection import Connection, ServerSettings
from common.wsgi.faults import Application, FaultFilter
from common.wsgi.resource import Request

HELLO = b"hello"
GET = b"GET /a%20b?c=d HTTP/1.1\r\nHost: x\r\nX-One: 1\r\nx-one: 2\r\nx_one: 3\r\n\r\n"


class FakeSocket:
    """A client that has said everything and listens."""

    def __init__(self, said: bytes) -> None:
        self.said = io.BytesIO(said)
        self.heard = b""
        self.half_closed = False
        self.drained = False
        self._timeout: float | None = 900

    def makefile(self, *_: Any) -> io.BufferedReader:
        return io.BufferedReader(self.said)  # type: ignore[arg-type]

    def sendall(self, data: bytes) -> None:
        self.heard += bytes(data)

    def recv(self, size: int) -> bytes:
        piece = self.said.read(size)
        self.drained = not piece
        return piece

    def shutdown(self, _how: int) -> None:
        self.half_closed = True

    def settimeout(self, timeout: float | None) -> None:
        self._timeout = timeout

    def gettimeout(self) -> float | None:
        return self._timeout

    def setsockopt(self, *_: int) -> None:
        pass

    def getsockname(self) -> tuple[str, int]:
        return "127.0.0.1", 9292


def hello(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    start_response("200 OK", [("Content-Length", "5")])
    return [HELLO]


def converse(
    said: bytes, site: Application = hello, *, stopping: bool = False, **settings: Any
) -> FakeSocket:
    sock = FakeSocket(said)
    peer = ("127.0.0.2", 4711)
    connection = Connection(sock, peer, site, ServerSettings(**settings), tls=False)  # type: ignore[arg-type]
    connection.is_stopping = stopping
    connection.serve()
    return sock


def answers(heard: bytes) -> list[tuple[bytes, bytes]]:
    """Heads and bodies; every body is `hello` or nothing."""
    found = []
    while heard:
        head, _, heard = heard.partition(b"\r\n\r\n")
        body = HELLO if heard.startswith(HELLO) else b""
        heard = heard[len(body) :]
        found.append((head, body))
    return found


def test_requests_of_one_connection_are_answered_one_after_the_other() -> None:
    found = answers(converse(GET * 3).heard)
    assert [body for _, body in found] == [HELLO] * 3
    assert not any(b"connection" in head.lower() for head, _ in found)


def test_the_application_sees_the_request_as_wsgi_says() -> None:
    seen: dict[str, Any] = {}

    def site(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        seen.update(environ)
        return hello(environ, start_response)

    converse(GET, site)
    assert (seen["PATH_INFO"], seen["QUERY_STRING"]) == ("/a b", "c=d")
    assert (seen["SERVER_PORT"], seen["REMOTE_ADDR"]) == ("9292", "127.0.0.2")
    # SEC-060: a name with an underscore is not mistaken for one with a hyphen.
    assert seen["HTTP_X_ONE"] == "1,2"
    assert ("x_one", "3") in seen["headers_raw"]


def test_the_head_of_an_answer_has_no_body() -> None:
    assert answers(converse(GET.replace(b"GET", b"HEAD")).heard)[0][1] == b""


def test_a_list_of_bytes_gets_its_length() -> None:
    def site(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        start_response("200 OK", [])
        return [b"hel", b"lo"]

    head, body = answers(converse(GET, site).heard)[0]
    assert b"Content-Length: 5" in head
    assert body == HELLO


def unknown(environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
    start_response("200 OK", [])
    return iter([b"hel", b"", b"lo"])


def test_a_body_of_unknown_length_is_chunked() -> None:
    head, _, body = converse(GET, unknown).heard.partition(b"\r\n\r\n")
    assert b"Transfer-Encoding: chunked" in head
    assert body == b"3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n"


def test_a_body_of_unknown_length_ends_with_the_connection_for_an_old_client() -> None:
    old = b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"
    head, body = answers(converse(old + old, unknown).heard)[0]
    assert b"Connection: close" in head
    assert body == HELLO


def test_an_old_client_that_asks_for_it_keeps_its_connection() -> None:
    old = b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"
    found = answers(converse(old + old).heard)
    assert [b"Connection: keep-alive" in head for head, _ in found] == [True, True]


@pytest.mark.parametrize("options", [{"stopping": True}, {"keepalive": False}])
def test_a_server_that_wants_to_part_says_so_and_does(options: dict[str, bool]) -> None:
    found = answers(converse(GET * 2, **options).heard)
    assert [b"Connection: close" in head for head, _ in found] == [True]


def test_what_fails_before_its_answer_is_a_500_and_ends_the_connection() -> None:
    def site(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        raise RuntimeError("a secret")

    found = answers(converse(GET * 2, site).heard)
    assert len(found) == 1
    assert found[0][0].startswith(b"HTTP/1.1 500 ")
    assert b"secret" not in found[0][0]


def test_what_fails_within_its_answer_is_cut_off_visibly() -> None:
    def site(environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [])
        yield b"hel"
        raise RuntimeError

    heard = converse(GET * 2, site).heard
    assert heard.endswith(b"3\r\nhel\r\n")


def test_no_header_of_an_answer_begins_a_line_of_its_own() -> None:
    def site(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        start_response("200 OK", [("X-Name", "a\r\nSet-Cookie: b")])
        return []

    heard = converse(GET, site).heard
    assert heard.startswith(b"HTTP/1.1 500 ")
    assert b"Cookie" not in heard


POST = b"POST / HTTP/1.1\r\nContent-Length: 4\r\n\r\nbody"


def test_a_body_nobody_read_is_never_taken_for_a_request() -> None:
    sock = converse(POST + GET)
    found = answers(sock.heard)
    assert len(found) == 1
    assert b"Connection: close" in found[0][0]
    # REL-010: what is still coming is read, so that the client sees its answer.
    assert sock.half_closed
    assert sock.drained


def test_a_body_that_was_read_makes_room_for_the_next_request() -> None:
    bodies: list[bytes] = []

    def site(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        bodies.append(environ["wsgi.input"].read())
        return hello(environ, start_response)

    assert len(answers(converse(POST + POST, site).heard)) == 2
    assert bodies == [b"body", b"body"]


EXPECT = b"POST / HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n"


def test_a_client_that_leaves_its_body_is_no_fault_of_ours(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """REL-002, SEC-067: whoever reads the body is told so, and nothing is a 500."""

    def read(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        Request(environ).read_json()
        raise AssertionError("the body is not there")

    def reset(*_: Any) -> bytes:
        raise ConnectionResetError

    monkeypatch.setattr("common.wsgi.bodies.LengthReader.read", reset)
    caplog.set_level(logging.INFO)
    sock = converse(b"PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n", FaultFilter(read))
    assert sock.heard.startswith(b"HTTP/1.1 400 ")
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_a_client_is_told_to_go_on_when_its_body_is_wanted() -> None:
    def site(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        environ["wsgi.input"].read(2)
        environ["wsgi.input"].read(2)
        return hello(environ, start_response)

    heard = converse(EXPECT + b"body", site).heard
    assert heard.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n")
    assert heard.count(b"100 Continue") == 1


def test_a_client_that_waits_in_vain_is_not_waited_for() -> None:
    sock = converse(EXPECT)
    assert b"100 Continue" not in sock.heard
    assert b"Connection: close" in sock.heard
    assert not sock.half_closed


def test_a_malformed_request_is_refused_in_words() -> None:
    assert converse(b"GET /\r\n\r\n").heard.startswith(b"HTTP/1.1 400 ")
    assert converse(b"GET /" + b"x" * 20000).heard.startswith(b"HTTP/1.1 414 ")


def test_every_answer_is_a_line_in_the_access_log(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "eventlet.wsgi.server"):
        heard = converse(GET).heard
    line = caplog.records[0].getMessage()
    assert line.startswith('127.0.0.2 "GET /a%20b?c=d HTTP/1.1" status: 200 ')
    assert f"len: {len(heard)} time: 0." in line
