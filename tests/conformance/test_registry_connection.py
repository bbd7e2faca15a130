"""The API's connections to the registry, against a server that says what the test wants."""

import socket
import threading
import time
from collections.abc import Iterator, Sequence

import pytest

from common import errors
from common.context import RequestContext
from glance_api import registry_connection
from glance_api.registry_client import Identity, RegistryClient
from glance_api.registry_connection import Answer, ConnectionPool, Endpoint

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class Scripted:
    """Accepts connections one after the other; each has a list of what it says to requests."""

    def __init__(self, *connections: Sequence[bytes]) -> None:
        self.heard: list[bytes] = []
        self._connections = connections
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        self.pool = ConnectionPool(Endpoint("127.0.0.1", self._listener.getsockname()[1], 10))

    def _run(self) -> None:
        for answers in self._connections:
            connection, _ = self._listener.accept()
            with connection:
                for answer in answers:
                    self.heard.append(connection.recv(65536))
                    connection.sendall(answer)

    def get(self) -> Answer:
        return self.pool.request("GET", "/images", None, {"X-A": "b"})

    def close(self) -> None:
        self._thread.join(10)
        self._listener.close()
        assert not self._thread.is_alive()


@pytest.fixture
def scripted(request: pytest.FixtureRequest) -> Iterator[Scripted]:
    server = Scripted(*request.param)
    yield server
    server.close()


def script(*connections: Sequence[bytes]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("scripted", [connections], indirect=True)


@script([OK, OK])
def test_a_connection_is_used_again(scripted: Scripted) -> None:
    assert [scripted.get(), scripted.get()] == [Answer(200, b"ok")] * 2
    assert scripted.heard[1].startswith(b"GET /images HTTP/1.1\r\nHost: 127.0.0.1:")
    assert b"\r\nX-A: b\r\n" in scripted.heard[1]


@script(
    [
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\no\r\n1\r\nk\r\n0\r\n\r\n",
        b"HTTP/1.1 103 Early Hints\r\nLink: <a>\r\n\r\n" + OK,
        b"HTTP/1.1 204 No Content\r\n\r\n",
        OK,
    ]
)
def test_a_body_ends_where_the_answer_says(scripted: Scripted) -> None:
    found = [scripted.get() for _ in range(4)]
    assert [answer.content for answer in found] == [b"ok", b"ok", b"", b"ok"]


@script([b"HTTP/1.0 200 OK\r\n\r\nok"], [b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nok"], [OK])
def test_a_body_without_a_length_ends_with_its_connection(scripted: Scripted) -> None:
    assert [scripted.get().content for _ in range(3)] == [b"ok", b"ok", b"ok"]


@script([b""], [OK])
def test_a_read_whose_connection_breaks_is_tried_once_more(scripted: Scripted) -> None:
    assert scripted.get() == Answer(200, b"ok")


@script([b""])
def test_a_write_whose_connection_breaks_is_not_repeated(scripted: Scripted) -> None:
    with pytest.raises(errors.ServiceUnavailable):
        scripted.pool.request("PUT", "/images/x", b"{}", {})


@script([OK], [OK])
def test_a_connection_that_ended_while_idle_is_noticed_before_a_write(scripted: Scripted) -> None:
    scripted.get()
    while scripted.pool._idle[0].is_usable():
        pass
    assert scripted.pool.request("PUT", "/images/x", b"{}", {}) == Answer(200, b"ok")


def test_leases_are_not_lost_to_a_connection_that_has_gone_silent() -> None:
    """REL-009, REL-050: a renewal gives up in time to be tried again, and others still wait."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        end = Endpoint("127.0.0.1", listener.getsockname()[1], 600)
        client = RegistryClient(ConnectionPool(end), Identity())
        began = time.monotonic()
        with pytest.raises(errors.ServiceUnavailable):
            client.renew(RequestContext(), {"token": None}, seconds=1)
        assert time.monotonic() - began < 10


@script([OK, OK])
def test_a_timeout_is_for_one_request(scripted: Scripted) -> None:
    scripted.pool.request("GET", "/leases", None, {}, timeout=5)
    (connection,) = scripted.pool._idle
    assert connection._sock.gettimeout() == 10
    scripted.get()


def test_what_a_burst_leaves_over_is_closed_but_for_a_few(monkeypatch: pytest.MonkeyPatch) -> None:
    """I-5: descriptors go back to what they were."""
    monkeypatch.setattr(registry_connection, "_READY", 2)
    monkeypatch.setattr(registry_connection, "_SURPLUS_SECONDS", 0.05)
    together = threading.Barrier(6)
    open_now: set[int] = set()

    def answer(connection: socket.socket) -> None:
        with connection:
            open_now.add(connection.fileno())
            number = connection.fileno()
            while connection.recv(65536):
                together.wait(10)
                connection.sendall(OK)
            open_now.discard(number)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        pool = ConnectionPool(Endpoint("127.0.0.1", listener.getsockname()[1], 10))
        callers = [
            threading.Thread(target=pool.request, args=("GET", "/", None, {})) for _ in range(6)
        ]
        for caller in callers:
            caller.start()
        for _ in callers:
            threading.Thread(target=answer, args=(listener.accept()[0],), daemon=True).start()
        for caller in callers:
            caller.join(10)
        assert len(open_now) == 6
        deadline = time.monotonic() + 10
        while len(open_now) > 2:
            assert time.monotonic() < deadline
            time.sleep(0.01)


@pytest.mark.parametrize(
    "scripted",
    [
        pytest.param(([said], [said]), id=str(said))
        for said in (
            b"nonsense\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok",
            b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok",
            b"HTTP/1.1 200 OK\r\nContent-Length",
        )
    ],
    indirect=True,
)
def test_an_answer_that_is_none_is_a_registry_that_is_away(scripted: Scripted) -> None:
    with pytest.raises(errors.ServiceUnavailable):
        scripted.get()


@script([])
def test_no_header_begins_a_line_of_its_own(scripted: Scripted) -> None:
    with pytest.raises(errors.Invalid):
        scripted.pool.request("GET", "/images", None, {"X-Tenant-Id": "a\r\nX-Roles: admin"})
