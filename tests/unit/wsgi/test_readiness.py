"""`/readiness`: what depends on others is looked at seldom, at once, and never for long."""

import threading
from collections.abc import Iterator
from typing import Any
from unittest.mock import patch

import pytest

from common import errors
from common.wsgi import readiness
from common.wsgi.readiness import ReadinessFilter


def ask(app: ReadinessFilter, path: str = "/readiness", method: str = "GET") -> tuple[str, bytes]:
    found: list[str] = []

    def start(status: str, headers: Any) -> None:
        found.append(status)

    body = b"".join(app({"PATH_INFO": path, "REQUEST_METHOD": method}, start))
    return found[0], body


def inner(environ: Any, start_response: Any) -> Iterator[bytes]:
    start_response("404 Not Found", [])
    yield b""


def fail() -> None:
    raise errors.ServiceUnavailable()


def test_it_is_ready_when_every_part_is_well() -> None:
    app = ReadinessFilter(inner, {"one": lambda: None, "two": lambda: None})
    assert ask(app) == ("200 OK", b"READY")
    assert ask(app, method="HEAD") == ("200 OK", b"")
    assert ask(app, "/other")[0] == "404 Not Found"


@pytest.mark.parametrize("broken", [fail, lambda: 1 / 0])
def test_it_names_the_parts_that_are_not_well(broken: Any) -> None:
    app = ReadinessFilter(inner, {"one": lambda: None, "two": broken})
    assert ask(app) == ("503 Service Unavailable", b"NOT READY: two")


def test_a_part_that_does_not_answer_is_not_well_and_is_asked_once() -> None:
    asked: list[int] = []
    gate = threading.Event()

    def stall() -> None:
        asked.append(1)
        gate.wait(10)

    app = ReadinessFilter(inner, {"slow": stall})
    with patch.object(readiness, "_PATIENCE_SECONDS", 0.05):
        assert [ask(app)[0] for _ in range(3)] == ["503 Service Unavailable"] * 3
    assert asked == [1]
    gate.set()
    assert ask(app)[0] == "200 OK"


def test_who_asks_often_is_told_what_was_found_a_moment_ago() -> None:
    asked: list[int] = []
    app = ReadinessFilter(inner, {"one": lambda: asked.append(1)})
    for _ in range(10):
        ask(app)
    assert asked == [1]
    with patch.object(readiness, "_FRESH_SECONDS", -1):
        ask(app)
    assert asked == [1, 1]
