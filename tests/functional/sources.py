"""A web server with one page for every way an external source can be, or fail to be."""

import hashlib

from tests.conformance.web import Page, Web
from tests.functional.daemons import free_port

CONTENT = bytes(range(256)) * 20  # 5120 bytes
CHECKSUM = hashlib.md5(CONTENT).hexdigest()


class Sources(Web):
    """`sources.url("/ok")` and so on; a test may add pages of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.pages = {
            "/ok": Page(CONTENT),
            "/forbidden": Page(status=403),
            "/broken": Page(status=500),
            "/moved": Page(redirect="/ok"),
            "/loop": Page(redirect="/loop"),
            "/endless": Page(CONTENT, tells_length=False, ranges=False, etag=None),
            "/unreadable": Page(CONTENT, status=500, head_status=200),
            "/short": Page(CONTENT, ranges=False, etag=None, cuts=[100] * 1000),
            "/reset": Page(CONTENT, ranges=False, etag=None, cuts=[0] * 1000),
            "/stalled": Page(CONTENT, stalls=100),
        }

    @property
    def refused(self) -> str:
        """A URL where nobody listens."""
        return f"http://127.0.0.1:{free_port()}/"
