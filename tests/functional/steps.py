"""What many tests do: images in every status, and uploads that stop half-way."""

import socket
import time
import uuid
from collections.abc import Callable, Mapping
from http.client import HTTPResponse
from typing import Self, TypeVar

from tests.functional.daemons import OCTETS, RAW, Answer, Client, Service

T = TypeVar("T")

WAIT_SECONDS = 20


def meta(**fields: str | bytes) -> dict[str, str | bytes]:
    """x-image-meta-* headers."""
    return {f"x-image-meta-{name}": value for name, value in fields.items()}


def path(image_id: str) -> str:
    return f"/v1/images/{image_id}"


def create(caller: Client, **fields: str | bytes) -> Answer:
    """POST without data."""
    return caller.post("/v1/images", meta(**fields))


def upload(caller: Client, content: object = b"data", /, **fields: str | bytes) -> Answer:
    """POST with data, as raw and bare."""
    return caller.post("/v1/images", {**RAW, **OCTETS, **meta(**fields)}, content)


def queued_image(caller: Client, **fields: str | bytes) -> str:
    image_id: str = caller.post("/v1/images", {**RAW, **meta(**fields)}).image["id"]
    return image_id


def active_image(caller: Client, content: bytes = b"data", /, **fields: str | bytes) -> str:
    image_id: str = upload(caller, content, **fields).image["id"]
    return image_id


def killed_image(caller: Client, **fields: str | bytes) -> str:
    image_id = str(uuid.uuid4())
    refused = caller.post("/v1/images", {**RAW, **meta(id=image_id, **fields)}, b"no type")
    assert refused.status == 400
    assert status_of(caller, image_id) == "killed"
    return image_id


def deactivated_image(service: Service, caller: Client, content: bytes = b"data") -> str:
    image_id = active_image(caller, content)
    service.set_status(image_id, "deactivated")
    return image_id


def status_of(caller: Client, image_id: str) -> str:
    return caller.head(path(image_id)).headers["x-image-meta-status"]


def wait_until(probe: Callable[[], T]) -> T:
    """What probe returns once that is true."""
    deadline = time.monotonic() + WAIT_SECONDS
    while not (found := probe()):
        assert time.monotonic() < deadline, "what was waited for did not happen"
        time.sleep(0.03)
    return found


def wait_for_status(caller: Client, image_id: str, *statuses: str) -> str:
    """The first of these statuses that the image takes."""
    return wait_until(lambda: {status_of(caller, image_id)} & set(statuses)).pop()


class HalfUpload:
    """A PUT or POST whose body the test sends as it likes; a context manager."""

    def __init__(
        self, caller: Client, method: str, url: str, headers: Mapping[str, str], length: int
    ) -> None:
        self._socket = socket.create_connection(("127.0.0.1", caller.port), timeout=30)
        lines = [f"{method} {url} HTTP/1.1", "Host: test", f"Content-Length: {length}"]
        lines += [f"{name}: {value}" for name, value in {**caller.headers, **headers}.items()]
        self.send("\r\n".join([*lines, "", ""]).encode())

    @classmethod
    def to(cls, caller: Client, image_id: str, length: int, first: bytes) -> Self:
        """A PUT whose first bytes have arrived: the image is saving."""
        started = cls(caller, "PUT", path(image_id), OCTETS, length)
        started.send(first)
        wait_for_status(caller, image_id, "saving")
        return started

    def send(self, content: bytes) -> None:
        self._socket.sendall(content)

    def read(self, count: int) -> bytes:
        """That many bytes of the answer, whatever they are."""
        with self._socket.makefile("rb") as file:
            return file.read(count)

    def answer(self) -> Answer:
        response = HTTPResponse(self._socket)
        response.begin()
        found = {name.lower(): value for name, value in response.getheaders()}
        return Answer(response.status, found, response.read())

    def close(self) -> None:
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
