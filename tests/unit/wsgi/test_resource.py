"""Routing, strict request readers, and errors on their way out."""

import io
from typing import Any

import orjson
import pytest

from common import errors
from common.wsgi.faults import FaultFilter, error_from, status_of
from common.wsgi.resource import ANY, MAX_JSON_BYTES, Request, Route, Router


def call(app: Any, method: str, path: str, **environ: Any) -> tuple[int, dict[str, str], bytes]:
    found: dict[str, Any] = {}

    def start(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> None:
        found.update(status=int(status[:3]), headers={k.lower(): v for k, v in headers})

    request = {"REQUEST_METHOD": method, "PATH_INFO": path, "QUERY_STRING": "", **environ}
    content = b"".join(app(request, start))
    return found["status"], found["headers"], content


def request_with(content: bytes = b"", query: str = "") -> Request:
    return Request({"wsgi.input": io.BytesIO(content), "QUERY_STRING": query})


def table() -> Router:
    def show(request: Request, thing: str) -> dict[str, str]:
        return {"thing": thing}

    return Router(
        [
            Route("/", {ANY: lambda request: {"root": True}}),
            Route("/things", {"GET": lambda request: None}),
            Route("/things/{thing}", {"GET": show}, {"HEAD": "GET", ANY: "GET, HEAD"}),
        ]
    )


def test_a_path_leads_to_its_action_with_its_segments_decoded() -> None:
    latin = "é".encode().decode("latin-1")
    assert call(table(), "GET", f"/things/{latin}")[2] == orjson.dumps({"thing": "é"})


def test_nothing_to_say_is_204_without_a_body() -> None:
    status, headers, content = call(table(), "GET", "/things")
    assert (status, content) == (204, b"")
    assert "content-type" not in headers


@pytest.mark.parametrize(
    ("method", "path", "error"),
    [
        ("GET", "/things/", errors.NotFound),
        ("GET", "/things/a/b", errors.NotFound),
        ("GET", "/things.json", errors.NotFound),
        ("DELETE", "/things", errors.NotFound),
        ("FOO", "/nothing", errors.NotImplementedMethod),
        ("POST", "/things/a", errors.MethodNotAllowed),
        ("GET", "/things/\xff", errors.Invalid),
    ],
)
def test_what_is_not_in_the_table_is_refused(
    method: str, path: str, error: type[Exception]
) -> None:
    with pytest.raises(error):
        call(table(), method, path)


def test_allow_may_depend_on_the_method_that_was_refused() -> None:
    app = FaultFilter(table())
    assert call(app, "HEAD", "/things/a")[1]["allow"] == "GET"
    assert call(app, "POST", "/things/a")[1]["allow"] == "GET, HEAD"


def test_a_method_parameter_does_not_change_the_method() -> None:
    """Decision 18: Routes' `_method` override is not in use."""
    status, _, content = call(table(), "GET", "/things/a", QUERY_STRING="_method=DELETE")
    assert (status, content) == (200, b'{"thing":"a"}')


def test_the_last_of_a_repeated_parameter_wins_and_bad_utf8_is_refused() -> None:
    assert request_with(query="a=1&b=&a=2").query == {"a": "2", "b": ""}
    for query in ("a=%ff", "a=\xff"):
        with pytest.raises(errors.Invalid):
            _ = request_with(query=query).query


def test_text_in_a_query_is_utf_8_percent_encoded_or_not() -> None:
    """Decision 12."""
    latin = "é".encode().decode("latin-1")
    assert request_with(query=f"a={latin}&b=%C3%A9").query == {"a": "é", "b": "é"}


def test_json_is_read_strictly_and_within_bounds() -> None:
    """SEC-067."""
    assert request_with(b'{"a": 1}').read_json() == {"a": 1}
    assert request_with().read_json() is None
    for content in (b"{", b"NaN", b'"\xff"', b"[" * 100_000):
        with pytest.raises(errors.Invalid):
            request_with(content).read_json()
    with pytest.raises(errors.LimitExceeded):
        request_with(b" " * (MAX_JSON_BYTES + 1)).read_json()


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        ("*/*", "text/html"),
        ("text/html", "text/html"),
        ("application/json", "application/json"),
        (None, "text/plain"),
        ("text/plain", "text/plain"),
    ],
)
def test_an_error_is_told_in_the_words_the_caller_accepts(accept: str | None, kind: str) -> None:
    """V1-IMG-914, V1-IMG-915."""
    environ = {} if accept is None else {"HTTP_ACCEPT": accept}
    status, headers, content = call(FaultFilter(table()), "GET", "/none", **environ)
    assert status == 404
    assert headers["content-type"].startswith(kind)
    assert content


def test_an_unforeseen_error_shows_nothing_of_the_inside() -> None:
    """SEC-033."""

    def fail(environ: Any, start_response: Any) -> Any:
        raise ValueError("secret detail")

    status, _, content = call(FaultFilter(fail), "GET", "/")
    assert status == 500
    assert b"secret" not in content
    assert b"Traceback" not in content


def test_nothing_is_answered_twice() -> None:
    def fail_late(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [])
        raise errors.NotFound()

    with pytest.raises(errors.NotFound):
        call(FaultFilter(fail_late), "GET", "/")


def test_being_away_says_when_to_come_back() -> None:
    def away(environ: Any, start_response: Any) -> Any:
        raise errors.ServiceUnavailable()

    status, headers, _ = call(FaultFilter(away), "GET", "/")
    assert (status, headers["retry-after"]) == (503, "5")


def test_a_registry_status_comes_back_as_the_error_that_caused_it() -> None:
    """REL-051: 400, 401, 403, 404, 409 keep their meaning; anything else means it is away."""
    for status in (400, 401, 403, 404, 409, 413):
        assert status_of(error_from(status)) == status
    for status in (300, 500, 502, 503, 599):
        assert status_of(error_from(status)) == 503
