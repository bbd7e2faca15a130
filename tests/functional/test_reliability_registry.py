"""The API when its registry refuses, breaks, stalls or is two: REL-050 to REL-052, REL-066."""

import contextlib
import os
import signal
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

import pytest

from tests.functional.audit import audit
from tests.functional.between import Between, Fate
from tests.functional.crowd import together
from tests.functional.daemons import (
    OCTETS,
    RAW,
    Answer,
    Client,
    Daemon,
    Service,
    free_port,
    make_service,
    running,
)
from tests.functional.sources import Sources
from tests.functional.steps import active_image, meta, path, queued_image, status_of, wait_until

TIMEOUT = 2
CONTENT = b"x" * 200_000


@pytest.fixture(scope="module")
def between(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Between]:
    with Between(free_port()) as running:
        yield running


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, between: Between) -> Iterator[Service]:
    options = {
        "registry_port": between.port,
        "registry_client_timeout": TIMEOUT,
        "leases": {"seconds": 5},
    }
    made = make_service(tmp_path_factory.mktemp("registry"), api=options)
    between.registry_port = made.registry.port
    with running(made):
        yield made
        audit(made)


def requests_of(caller: Client, image_id: str) -> list[Callable[[], Answer]]:
    """One request of every kind."""
    members = f"{path(image_id)}/members"
    return [
        partial(caller.get, "/v1/images"),
        partial(caller.get, "/v1/images/detail"),
        partial(caller.get, path(image_id)),
        partial(caller.head, path(image_id)),
        partial(caller.post, "/v1/images", RAW),
        partial(caller.put, path(image_id), meta(name="x")),
        partial(caller.delete, path(image_id)),
        partial(caller.get, members),
        partial(caller.put, f"{members}/m"),
        partial(caller.delete, f"{members}/m"),
        partial(caller.get, f"/v1/shared-images/{caller.tenant}"),
    ]


class TestWhatTheRegistryAnswers:
    """REL-051."""

    @pytest.mark.parametrize(
        ("status", "told"),
        [
            (400, 400), (401, 401), (403, 403), (404, 404), (409, 409), (413, 413),
            (500, 503), (502, 503), (503, 503), (300, 503), (302, 503), (418, 503),
        ],
    )  # fmt: skip
    def test_an_error_keeps_its_meaning(
        self, t1: Client, between: Between, status: int, told: int
    ) -> None:
        image_id = queued_image(t1)
        said = b'{"error": {"message": "The registry said so."}}'
        with between.rule(lambda method, path: Fate(status, said)):
            answers = [request() for request in requests_of(t1, image_id)]
        # Members of an image that one may not share are hidden (registry-v1.md section 10).
        allowed = {told, 404} if told == 403 else {told}
        assert {answer.status for answer in answers} <= allowed
        if told == 503:
            assert all(answer.headers["retry-after"] for answer in answers)

    @pytest.mark.parametrize(
        "body",
        [b"", b"no json", b"{", b"[]", b"5", b"null", b'"x"', b"{}", b'{"images": 5}',
         b'{"image": null}', b'{"image": []}', b'{"images": [1]}', b'{"image": {"id": 1}}',
         b'{"members": 5}', b"\xff\xfe", b"<html>"],
    )  # fmt: skip
    def test_nonsense_is_the_registrys_failure(
        self, t1: Client, between: Between, body: bytes
    ) -> None:
        image_id = queued_image(t1)
        with between.rule(lambda method, path: Fate(200, body)):
            for request in requests_of(t1, image_id):
                answer = request()
                # What needs no answer beyond its status takes that for its answer.
                assert answer.status in (204, 503), request

    def test_bytes_stay_where_a_delete_is_refused(self, t1: Client, between: Between) -> None:
        """SEC-001: the registry decides before any byte is touched."""
        image_id = active_image(t1, CONTENT)
        for status in (401, 403, 404, 409, 500):
            with between.rule(lambda method, path, n=status: Fate(n) if method == "PUT" else None):
                assert t1.delete(path(image_id)).status in (401, 403, 404, 409, 503)
            assert t1.get(path(image_id)).content == CONTENT


class TestARegistryThatIsAway:
    """REL-050: an answer in bounded time, and recovery without a restart."""

    def test_one_that_stalls(self, t1: Client, between: Between) -> None:
        image_id = queued_image(t1)
        started = time.monotonic()
        with between.rule(lambda method, path: Fate(silent=True)):
            answers = together(requests_of(t1, image_id))
        assert time.monotonic() - started < TIMEOUT + 3
        assert {answer.status for answer in answers} == {503}
        assert all(answer.headers["retry-after"] for answer in answers)
        assert t1.get("/v1/images").status == 200

    def test_one_that_is_down(self, t1: Client, between: Between) -> None:
        image_id = queued_image(t1)
        with between.refusing():
            started = time.monotonic()
            answers = together(requests_of(t1, image_id))
            assert time.monotonic() - started < TIMEOUT + 3
        assert {answer.status for answer in answers} == {503}
        assert t1.get("/v1/images").status == 200

    def test_one_that_breaks_off_in_the_middle_of_an_upload(
        self, service: Service, t1: Client, between: Between
    ) -> None:
        """An answer that never came is not a no: the image is active, and its bytes are there."""
        image_id = queued_image(t1)
        lost = iter([False, True])
        with between.rule(
            lambda method, path: Fate(lost=next(lost, False)) if _changes(method, path) else None
        ):
            answer = t1.put(path(image_id), OCTETS, CONTENT)
        assert (answer.status, answer.image["status"]) == (200, "active")
        assert t1.get(path(image_id)).content == CONTENT


def _changes(method: str, path: str) -> bool:
    """Not a janitor's or a renewal's request."""
    return method in ("POST", "PUT") and path.startswith("/images")


class TestDeath:
    """REL-052: a worker dies at every step; another finishes or undoes what it did."""

    @pytest.fixture
    def die(self, service: Service, between: Between) -> Iterator[Callable[[int, bool], object]]:
        """die(step, heard): kill -9 the worker at its n-th change, before or after the registry
        has made it."""
        with contextlib.ExitStack() as stack:

            def at(step: int, heard: bool) -> None:
                seen = iter(range(100))

                def rule(method: str, path: str) -> Fate | None:
                    if not _is_step(method, path) or next(seen) != step:
                        return None
                    kill = partial(_kill_workers, service.api)
                    return Fate(lost=True) if heard and not kill() else Fate(503, before=kill)

                stack.enter_context(between.rule(rule))

            yield at

    @pytest.mark.parametrize("heard", [False, True], ids=["before", "after"])
    @pytest.mark.parametrize("step", [0, 1])
    def test_in_a_post(
        self, service: Service, t1: Client, die: Callable[[int, bool], object], step: int,
        heard: bool,
    ) -> None:  # fmt: skip
        image_id = str(uuid.uuid4())
        die(step, heard)
        with contextlib.suppress(OSError):
            t1.post("/v1/images", {**RAW, **OCTETS, **meta(id=image_id)}, CONTENT)
        self._require_recovery(service, t1, image_id)

    @pytest.mark.parametrize("heard", [False, True], ids=["before", "after"])
    @pytest.mark.parametrize("step", [0, 1])
    def test_in_a_put(
        self, service: Service, t1: Client, die: Callable[[int, bool], object], step: int,
        heard: bool,
    ) -> None:  # fmt: skip
        image_id = queued_image(t1)
        die(step, heard)
        with contextlib.suppress(OSError):
            t1.put(path(image_id), OCTETS, CONTENT)
        self._require_recovery(service, t1, image_id)

    @pytest.mark.parametrize("heard", [False, True], ids=["before", "after"])
    @pytest.mark.parametrize("step", [0, 1])
    def test_in_a_delete(
        self, service: Service, t1: Client, die: Callable[[int, bool], object], step: int,
        heard: bool,
    ) -> None:  # fmt: skip
        image_id = active_image(t1, CONTENT)
        die(step, heard)
        with contextlib.suppress(OSError):
            t1.delete(path(image_id))
        self._require_recovery(service, t1, image_id)

    @pytest.mark.parametrize("heard", [False, True], ids=["before", "after"])
    @pytest.mark.parametrize("step", [0, 1, 2])
    def test_in_a_copy(
        self, service: Service, t1: Client, sources: Sources,
        die: Callable[[int, bool], object], step: int, heard: bool,
    ) -> None:  # fmt: skip
        image_id = str(uuid.uuid4())
        die(step, heard)
        copy = {**RAW, **meta(id=image_id), "x-glance-api-copy-from": sources.url("/ok")}
        with contextlib.suppress(OSError):
            t1.post("/v1/images", copy)
        self._require_recovery(service, t1, image_id)

    def _require_recovery(self, service: Service, caller: Client, image_id: str) -> None:
        wait_until(service.api.answers)
        # I-1, I-2, I-7.
        audit(service)
        answer = caller.get(path(image_id))
        if answer.status == 200:
            assert status_of(caller, image_id) == "active"
            assert answer.content
        else:
            assert answer.status == 404
            shown = caller.head(path(image_id))
            assert shown.headers.get("x-image-meta-status") in (None, "queued", "killed")


def _is_step(method: str, path: str) -> bool:
    """A request that changes an image or ends work on one."""
    return _changes(method, path) or (method == "DELETE" and path.startswith("/leases"))


def _kill_workers(daemon: Daemon) -> None:
    for worker in daemon.workers():
        os.kill(worker, signal.SIGKILL)


def test_what_one_registry_has_said_the_other_says_too(service: Service, t1: Client) -> None:
    """REL-066: two registries on one database."""
    conf = {section: dict(options) for section, options in service.registry.conf.items()}
    port = free_port()
    conf["DEFAULT"] |= {"bind_port": port, "log_file": service.home / "registry-2.log"}
    second = replace(service.registry, name="registry-2", port=port, conf=conf, process=None)
    second.start()
    try:
        other = Client(port, service.registry_client(t1.headers).headers)
        for number in range(60):
            image_id = queued_image(t1, name=f"first {number}")
            assert other.get(f"/images/{image_id}").json["image"]["name"] == f"first {number}"
            t1.put(path(image_id), meta(name=f"second {number}"))
            assert other.get(f"/images/{image_id}").json["image"]["name"] == f"second {number}"
            t1.delete(path(image_id))
            assert other.get(f"/images/{image_id}").status == 404
    finally:
        second.stop()
