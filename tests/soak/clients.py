"""Tenants at work: life cycles that must succeed, and requests that are broken on purpose."""

import contextlib
import hashlib
import http.client
import random
import socket
import threading
import uuid
from collections.abc import Callable, Sequence
from typing import Any

from tests.conformance.web import Web
from tests.functional.daemons import OCTETS, RAW, Answer, identity
from tests.functional.sources import CONTENT
from tests.soak.ledger import Ledger, Word

# The service may be away for a moment, or its disk full, while something is broken; that is all
# it may say of it.
_AWAY = {413, 503}
_TIMEOUT = 60


class NoAnswer(Exception):
    """The connection ended before an answer came: the outcome is unknown."""


class Tenant(threading.Thread):
    """One client; owns its images, so that nobody else changes what it was told of them."""

    def __init__(
        self,
        name: str,
        seed: int,
        ports: Sequence[int],
        ledger: Ledger,
        sources: Web,
        stop: threading.Event,
    ) -> None:
        super().__init__(name=name, daemon=True)
        self.chance = random.Random(seed)
        self.ports = ports
        self.ledger = ledger
        self.sources = sources
        self.stop = stop
        self.errors: list[str] = []
        works: list[tuple[Callable[[], None], int]] = [
            (self.create, 20),
            (self.create_then_put, 10),
            (self.download, 25),
            (self.rename, 8),
            (self.delete, 12),
            (self.list, 6),
            (self.share, 4),
            (self.copy, 4),
        ]
        breakages: list[tuple[Callable[[], None], int]] = [
            (self.short_body, 6),
            (self.long_body, 4),
            (self.wrong_checksum, 6),
            (self.concurrent_puts, 5),
            (self.delete_during_upload, 6),
            (self.bad_copy, 5),
            (self.broken_download, 6),
        ]
        self.works = works
        self.breakages = breakages

    def run(self) -> None:
        while not self.stop.is_set():
            try:
                if self.chance.random() < 0.5:
                    self._one_of(self.works)()
                else:
                    self._one_of(self.breakages)()
                    self.ledger.fault()
            except NoAnswer:
                self.stop.wait(0.05)
            except Exception as error:
                self.ledger.complain(f"client {self.name}: {error!r}")

    def _one_of(self, table: list[tuple[Callable[[], None], int]]) -> Callable[[], None]:
        actions, weights = zip(*table, strict=True)
        chosen: Callable[[], None] = self.chance.choices(actions, weights)[0]
        return chosen

    # Requests that must succeed, unless the service is away.

    def create(self) -> None:
        image_id, content = self._new()
        body: Any = content
        if self.chance.random() < 0.3:
            body = (content[i : i + 7000] for i in range(0, len(content), 7000))
        headers = {**RAW, **OCTETS, "x-image-meta-id": image_id}
        answer = self._ask("POST", "/v1/images", headers, body, expect={201, 409})
        if answer.status == 201:
            self._acknowledge(image_id, answer, content)

    def create_then_put(self) -> None:
        image_id, content = self._new()
        headers = {**RAW, "x-image-meta-id": image_id}
        answer = self._ask("POST", "/v1/images", headers, expect={201, 409})
        if answer.status == 201:
            self._put(image_id, content)

    def download(self) -> None:
        image_id = self._own(Word.ACTIVE)
        if image_id is None:
            return
        answer = self._ask("GET", f"/v1/images/{image_id}", expect={200, 404})
        self._compare(image_id, answer)

    def rename(self) -> None:
        if image_id := self._own(Word.ACTIVE):
            headers = {"x-image-meta-name": f"name {self.chance.random()}"}
            self._ask("PUT", f"/v1/images/{image_id}", headers, expect={200})

    def delete(self) -> None:
        if image_id := self._own(Word.ACTIVE):
            self._remove(image_id)

    def list(self) -> None:
        answer = self._ask("GET", "/v1/images/detail?limit=20", expect={200})
        for image in answer.json["images"]:
            if image["owner"] != self.name:
                self.ledger.complain(f"{self.name} sees an image of {image['owner']}")

    def share(self) -> None:
        if image_id := self._own(Word.ACTIVE):
            path = f"/v1/images/{image_id}/members/friend"
            self._ask("PUT", path, expect={204})

    def copy(self) -> None:
        image_id = str(uuid.UUID(int=self.chance.getrandbits(128), version=4))
        self.ledger.expect(image_id, self.name, CONTENT)
        headers = {
            **RAW,
            "x-image-meta-id": image_id,
            "x-glance-api-copy-from": self.sources.url("/ok"),
        }
        self._ask("POST", "/v1/images", headers, expect={201, 400, 409})

    # Requests that are broken on purpose.

    def short_body(self) -> None:
        image_id, content = self._new()
        headers = {**RAW, **OCTETS, "x-image-meta-id": image_id}
        self._raw_upload("POST", "/v1/images", headers, len(content) + 1000, content)

    def long_body(self) -> None:
        image_id, content = self._new()
        headers = {**RAW, **OCTETS, "x-image-meta-id": image_id}
        headers["x-image-meta-size"] = str(max(1, len(content) - 1))
        self._ask("POST", "/v1/images", headers, content, expect={400, 409})

    def wrong_checksum(self) -> None:
        image_id, content = self._new()
        headers = {**RAW, **OCTETS, "x-image-meta-id": image_id, "x-image-meta-checksum": "0" * 32}
        self._ask("POST", "/v1/images", headers, content, expect={400, 409})

    def concurrent_puts(self) -> None:
        image_id, first = self._new()
        headers = {**RAW, "x-image-meta-id": image_id}
        if self._ask("POST", "/v1/images", headers, expect={201, 409}).status != 201:
            return
        second = self.chance.randbytes(len(first))
        self.ledger.expect(image_id, self.name, second)
        others = [
            threading.Thread(target=self._quiet_put, args=(image_id, content), daemon=True)
            for content in (first, second)
        ]
        for other in others:
            other.start()
        for other in others:
            other.join()

    def delete_during_upload(self) -> None:
        image_id, content = self._new(at_least=200_000)
        headers = {**RAW, "x-image-meta-id": image_id}
        if self._ask("POST", "/v1/images", headers, expect={201, 409}).status != 201:
            return
        uploading = threading.Thread(
            target=self._raw_upload,
            args=("PUT", f"/v1/images/{image_id}", {**OCTETS}, len(content), content[:100_000]),
            kwargs={"linger": 0.3},
            daemon=True,
        )
        uploading.start()
        self.stop.wait(self.chance.random() * 0.3)
        with contextlib.suppress(NoAnswer):
            self._remove(image_id)
        uploading.join()

    def bad_copy(self) -> None:
        image_id = str(uuid.UUID(int=self.chance.getrandbits(128), version=4))
        self.ledger.expect(image_id, self.name, CONTENT)
        page = self.chance.choice(["/short", "/reset", "/unreadable", "/broken", "/loop"])
        headers = {
            **RAW,
            "x-image-meta-id": image_id,
            "x-glance-api-copy-from": self.sources.url(page),
        }
        self._ask("POST", "/v1/images", headers, expect={201, 400, 409})

    def broken_download(self) -> None:
        image_id = self._own(Word.ACTIVE)
        if image_id is None:
            return
        with contextlib.suppress(OSError):
            connection = http.client.HTTPConnection("127.0.0.1", self._port(), timeout=_TIMEOUT)
            connection.request("GET", f"/v1/images/{image_id}", headers=identity(self.name))
            connection.getresponse().read(10)
            connection.close()

    # What they are made of.

    def _new(self, at_least: int = 1) -> tuple[str, bytes]:
        image_id = str(uuid.UUID(int=self.chance.getrandbits(128), version=4))
        size = at_least + int(self.chance.paretovariate(0.6)) % 400_000
        content = self.chance.randbytes(size)
        self.ledger.expect(image_id, self.name, content)
        return image_id, content

    def _own(self, word: Word) -> str | None:
        return self.ledger.pick(self.chance, self.name, word)

    def _port(self) -> int:
        return self.chance.choice(self.ports)

    def _put(self, image_id: str, content: bytes) -> None:
        answer = self._ask(
            "PUT", f"/v1/images/{image_id}", OCTETS, content, expect={200, 404, 409, 412}
        )
        if answer.status == 200:
            self._acknowledge(image_id, answer, content)

    def _quiet_put(self, image_id: str, content: bytes) -> None:
        with contextlib.suppress(NoAnswer):
            self._put(image_id, content)

    def _remove(self, image_id: str) -> None:
        # From here on the image may be gone, whether or not the answer comes.
        self.ledger.set(image_id, Word.UNKNOWN)
        answer = self._ask("DELETE", f"/v1/images/{image_id}", expect={200, 404, 409})
        if answer.status == 200:
            self.ledger.set(image_id, Word.DELETED)

    def _acknowledge(self, image_id: str, answer: Answer, content: bytes) -> None:
        image = answer.json["image"]
        checksum = hashlib.md5(content).hexdigest()
        if (image["status"], image["checksum"]) != ("active", checksum):
            self.ledger.complain(f"{image_id}: success with {image['status']}")
        self.ledger.set(image_id, Word.ACTIVE, checksum)

    def _compare(self, image_id: str, answer: Answer) -> None:
        known = self.ledger.images[image_id]
        if known.word is not Word.ACTIVE:
            return
        if answer.status == 404:
            self.ledger.lose(f"{image_id} was acknowledged and is not found")
        elif hashlib.md5(answer.content).hexdigest() not in known.checksums:
            self.ledger.lose(f"{image_id} has other bytes than were acknowledged")

    def _ask(
        self,
        method: str,
        path: str,
        headers: dict[str, str] | None = None,
        body: Any = None,
        *,
        expect: set[int],
    ) -> Answer:
        """The answer, which must be expected. Raises NoAnswer, also where it is a 503."""
        self.ledger.request()
        connection = http.client.HTTPConnection("127.0.0.1", self._port(), timeout=_TIMEOUT)
        try:
            connection.request(method, path, body, {**identity(self.name), **(headers or {})})
            response = connection.getresponse()
            found = {name.lower(): value for name, value in response.getheaders()}
            answer = Answer(response.status, found, response.read())
        except (OSError, http.client.HTTPException) as error:
            raise NoAnswer() from error
        finally:
            connection.close()
        if answer.status in _AWAY:
            raise NoAnswer()
        if answer.status not in expect:
            text = answer.content[:200].decode("utf-8", "replace")
            self.ledger.complain(f"{method} {path}: {answer.status} {text}")
        return answer

    def _raw_upload(
        self,
        method: str,
        path: str,
        headers: dict[str, str],
        length: int,
        content: bytes,
        linger: float = 0.0,
    ) -> None:
        """Announce length bytes, send content, wait a little, and leave."""
        lines = [f"{method} {path} HTTP/1.1", "Host: localhost", f"Content-Length: {length}"]
        lines += [f"{name}: {value}" for name, value in {**identity(self.name), **headers}.items()]
        address = ("127.0.0.1", self._port())
        with (
            contextlib.suppress(OSError),
            socket.create_connection(address, timeout=10) as connection,
        ):
            connection.sendall("\r\n".join([*lines, "", ""]).encode() + content)
            self.stop.wait(linger)
            if self.chance.random() < 0.5:
                # A reset instead of an orderly end.
                reset = b"\x01\0\0\0\0\0\0\0"
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset)
