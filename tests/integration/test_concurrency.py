"""Two hundred callers at once, living an image's whole life again and again.

Ten seconds of it, or as many as GLANCE_TEST_CROWD_SECONDS says; the project's continuous
integration runs a minute.
"""

import hashlib
import http.client
import os
import random
import threading
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import orjson
import pytest

from tests.functional.audit import audit
from tests.functional.daemons import RAW, Service, identity, running_service
from tests.functional.steps import wait_until

CALLERS = 200
SECONDS = float(os.environ.get("GLANCE_TEST_CROWD_SECONDS", "10"))
WORKERS = 2

LARGEST = 128 * 1024

# What a process may keep when a crowd has left. Memory is what Python does not give back; it was
# 36 MiB at the most, and no more after five crowds than after one. Descriptors are connections
# held ready: eight for each worker of the API, and five of SQLite's with three files each.
KEPT_MEMORY = 64 * 1024 * 1024
KEPT_DESCRIPTORS = 40


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """As it runs in earnest: two workers each, and no debug log."""
    options = {"workers": WORKERS, "debug": False}
    home = tmp_path_factory.mktemp("concurrency")
    with running_service(home, api=options, registry=options) as running:
        yield running


@dataclass
class Crowd:
    """What its callers saw, and the images they left."""

    answers: "Counter[str]" = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    kept: int = 0
    until: float = 0.0


class Caller:
    """One tenant with one kept-alive connection. Anything but the expected answer is a failure."""

    def __init__(self, port: int, crowd: Crowd) -> None:
        self.tenant = uuid.uuid4().hex
        self.crowd = crowd
        self._headers = identity(self.tenant)
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)

    def run(self) -> None:
        try:
            while time.monotonic() < self.crowd.until:
                self._live()
        except (OSError, http.client.HTTPException) as error:
            self.crowd.failures.append(repr(error))
        finally:
            self._connection.close()

    def _live(self) -> None:
        content = random.randbytes(random.randrange(1, LARGEST))
        if random.random() < 0.5:
            made = self._ask(201, "POST", "/v1/images", RAW, content)
        else:
            made = self._ask(201, "POST", "/v1/images", RAW)
        image = f"/v1/images/{orjson.loads(made)['image']['id']}"
        if b'"queued"' in made:
            # Of unknown length, as a pipe sends it.
            self._ask(200, "PUT", image, {}, iter([content[:1000], content[1000:]]))
        self._ask(200, "HEAD", image)
        if self._ask(200, "GET", image) != content:
            self.crowd.failures.append(f"{image}: other bytes")
        self._ask(200, "PUT", image, {"x-image-meta-property-a": "b"})
        self._ask(204, "PUT", f"{image}/members/friend")
        self._ask(200, "GET", f"{image}/members")
        listed = orjson.loads(self._ask(200, "GET", "/v1/images/detail?limit=5"))["images"]
        if image.rpartition("/")[2] != listed[0]["id"]:
            self.crowd.failures.append(f"{image}: not first in the list")
        elif listed[0]["checksum"] != hashlib.md5(content).hexdigest():
            self.crowd.failures.append(f"{image}: another checksum in the list")
        if random.random() < 0.9:
            self._ask(200, "DELETE", image)
            self._ask(404, "GET", image)
        else:
            self.crowd.kept += 1

    def _ask(
        self,
        expected: int,
        method: str,
        path: str,
        headers: dict[str, str] | None = None,
        content: bytes | Iterator[bytes] | None = None,
    ) -> bytes:
        sent = {**self._headers, **(headers or {})}
        if content is not None:
            sent["Content-Type"] = "application/octet-stream"
        self._connection.request(
            method, path, content, sent, encode_chunked=not isinstance(content, bytes | None)
        )
        answer = self._connection.getresponse()
        found = answer.read()
        self.crowd.answers[f"{method} {answer.status}"] += 1
        if answer.status != expected:
            self.crowd.failures.append(f"{method} {path}: {answer.status} {found[:200]!r}")
        return found


def live(service: Service, callers: int, seconds: float) -> Crowd:
    crowd = Crowd(until=time.monotonic() + seconds)
    threads = [threading.Thread(target=Caller(service.api.port, crowd).run) for _ in range(callers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return crowd


@dataclass(frozen=True)
class Usage:
    memory: int
    descriptors: int


def usage(service: Service) -> dict[int, Usage]:
    """Of every process of both daemons."""
    found = {}
    for daemon in (service.api, service.registry):
        assert daemon.process is not None
        for pid in (daemon.process.pid, *daemon.workers()):
            process = Path(f"/proc/{pid}")
            pages = int((process / "statm").read_text().split()[1])
            descriptors = len(list((process / "fd").iterdir()))
            found[pid] = Usage(pages * os.sysconf("SC_PAGE_SIZE"), descriptors)
    return found


def test_a_crowd_leaves_nothing_behind(service: Service) -> None:
    """I-1 to I-7: no 5xx, nothing half done, and processes as they were before."""
    # Every worker has served every kind of request before it is called idle.
    assert live(service, 4 * WORKERS, 1).failures == []
    wait_until(lambda: _is_quiet(service))
    idle = usage(service)

    crowd = live(service, CALLERS, SECONDS)

    assert crowd.failures == []
    assert crowd.kept > 0
    assert crowd.answers.keys() == {
        "POST 201",
        "PUT 200",
        "PUT 204",
        "HEAD 200",
        "GET 200",
        "GET 404",
        "DELETE 200",
    }
    audit(service)
    wait_until(lambda: not _excess(idle, usage(service)))


def _is_quiet(service: Service) -> bool:
    """Nothing was opened or closed for a while."""
    before = usage(service)
    time.sleep(1)
    after = usage(service)
    return all(after[pid].descriptors == before[pid].descriptors for pid in before)


def _excess(idle: dict[int, Usage], now: dict[int, Usage]) -> list[str]:
    """What a process has more than it had; the processes are the same ones."""
    assert now.keys() == idle.keys()
    return [
        f"{pid}: {idle[pid]} -> {now[pid]}"
        for pid in idle
        if now[pid].memory > idle[pid].memory + KEPT_MEMORY
        or now[pid].descriptors > idle[pid].descriptors + KEPT_DESCRIPTORS
    ]
