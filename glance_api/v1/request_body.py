"""A request's body as the source of an upload."""

from collections.abc import Mapping
from typing import Any


def has_body(environ: Mapping[str, Any]) -> bool:
    """v1's rule: any chunked body is one, even of no bytes; a length of 0 is not."""
    if environ.get("HTTP_TRANSFER_ENCODING"):
        return True
    return int(environ.get("CONTENT_LENGTH") or 0) > 0


class BodySource:
    """Reads `wsgi.input`, which raises where the client leaves early."""

    def __init__(self, environ: Mapping[str, Any]) -> None:
        self._input = environ["wsgi.input"]

    def read(self, size: int, /) -> bytes:
        content: bytes = self._input.read(size)
        return content

    def abort(self) -> None:
        """Wakes a read that waits for the client; the answer can still be written."""
        self._input.interrupt()
