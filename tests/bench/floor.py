"""The yardstick for metadata requests: two bare eventlet servers in a row.

The front answers by asking the back over a kept-alive connection, parsing its JSON and writing
the answer out; the back returns JSON that was made once. No routing, no policy, no database, no
log: what two daemons of this shape cost at the least in this interpreter.

    python -m tests.bench.floor front|back FRONT_PORT BACK_PORT
"""

# ruff: noqa: E402  # the standard library is replaced before anything else uses it
import eventlet

eventlet.monkey_patch()

import http.client
import json
import queue
import socket
import sys
from collections.abc import Callable, Iterable
from typing import Any

import eventlet.wsgi

IMAGES = 100


def _image(number: int) -> dict[str, Any]:
    return {
        "id": f"71c675ab-d94f-49cd-a114-{number:012x}",
        "name": f"image-{number}",
        "disk_format": "qcow2",
        "container_format": "bare",
        "size": 5368709120,
        "virtual_size": None,
        "checksum": "c2e5db72bd7fd153f53ede5da5a06de3",
        "created_at": "2010-02-03T09:34:01.000000",
        "deleted": False,
        "updated_at": "2010-02-03T09:34:01.000000",
        "deleted_at": None,
        "status": "active",
        "is_public": True,
        "min_ram": 256,
        "min_disk": 5,
        "owner": None,
        "protected": False,
        "properties": {"distro": "Ubuntu 10.04 LTS", "arch": "x86_64"},
    }


_PAGE = json.dumps({"images": [_image(number) for number in range(IMAGES)]}).encode()
_ONE = json.dumps({"image": _image(1)}).encode()

StartResponse = Callable[..., Any]


def _answer(start_response: StartResponse, body: bytes) -> Iterable[bytes]:
    headers = [("Content-Type", "application/json"), ("Content-Length", str(len(body)))]
    start_response("200 OK", headers)
    return [body]


def _back(environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
    return _answer(start_response, _PAGE if environ["PATH_INFO"].endswith("detail") else _ONE)


class _Front:
    def __init__(self, back_port: int) -> None:
        self._port = back_port
        self._idle: queue.LifoQueue[http.client.HTTPConnection] = queue.LifoQueue()

    def __call__(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        found = self._ask(environ["PATH_INFO"])
        if environ["REQUEST_METHOD"] != "HEAD":
            return _answer(start_response, json.dumps(found).encode())
        fields = found["image"].items()
        headers = [
            (f"x-image-meta-{name}", str(value)) for name, value in fields if value is not None
        ]
        start_response("200 OK", [*headers, ("Content-Length", "0")])
        return [b""]

    def _ask(self, path: str) -> Any:
        try:
            connection = self._idle.get_nowait()
        except queue.Empty:
            connection = http.client.HTTPConnection("127.0.0.1", self._port)
            connection.connect()
            connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.request("GET", path)
        data = connection.getresponse().read()
        self._idle.put(connection)
        return json.loads(data)


def main() -> None:
    side, ports = sys.argv[1], (int(sys.argv[2]), int(sys.argv[3]))
    listener = eventlet.listen(("127.0.0.1", ports[0] if side == "front" else ports[1]))
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    app = _Front(ports[1]) if side == "front" else _back
    eventlet.wsgi.server(listener, app, log_output=False)


if __name__ == "__main__":
    main()
