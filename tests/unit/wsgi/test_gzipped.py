"""The gzip filter, which no stock pipeline has."""

import gzip
from typing import Any

import pytest

from common import errors
from common.body import Body, StreamBody
from common.wsgi.gzipped import GzipFilter


def answer(body: Any, method: str = "GET", status: str = "200 OK") -> tuple[Any, dict[str, str]]:
    """What the filter makes of body for a client that accepts gzip."""
    found: dict[str, str] = {}

    def app(environ: dict[str, Any], start_response: Any) -> Any:
        start_response(status, [("Content-Length", "8")])
        return body

    environ = {
        "REQUEST_METHOD": method,
        "PATH_INFO": "/",
        "HTTP_ACCEPT_ENCODING": "deflate, gzip",
        "wsgi.url_scheme": "http",
        "SERVER_NAME": "here",
        "SERVER_PORT": "80",
    }
    passed = GzipFilter(app)(environ, lambda status, headers, _=None: found.update(headers))
    return passed, {name.lower(): value for name, value in found.items()}


def test_a_compressed_image_is_closed_when_it_has_left() -> None:
    """MW-019, REL-031: whoever waits for the end of a download hears of it."""
    closed: list[int] = []
    body = StreamBody([b"eight by"], 8)
    body.when_closed(lambda sent: closed.append(sent.bytes_sent))
    compressed, headers = answer(body)
    assert isinstance(compressed, Body)
    assert gzip.decompress(b"".join(compressed)) == b"eight by"
    compressed.close()
    assert closed == [8]
    assert headers["content-encoding"] == "gzip"
    assert "content-length" not in headers


def test_a_compressed_image_that_ends_early_does_not_end_well() -> None:
    """REL-030"""
    compressed, _ = answer(StreamBody([b"seven b"], 8))
    with pytest.raises(errors.ServiceUnavailable):
        b"".join(compressed)


def test_a_document_is_compressed_with_its_length() -> None:
    """MW-018"""
    compressed, headers = answer([b"eight by"])
    content = b"".join(compressed)
    assert gzip.decompress(content) == b"eight by"
    assert headers["content-length"] == str(len(content))


@pytest.mark.parametrize(("method", "status"), [("HEAD", "200 OK"), ("GET", "206 Partial Content")])
def test_what_describes_bytes_that_are_not_compressed_stays_as_it_is(
    method: str, status: str
) -> None:
    """Decision 13, REL-034."""
    _, headers = answer(StreamBody([b"eight by"], 8), method, status)
    assert headers["content-length"] == "8"
    assert "content-encoding" not in headers
