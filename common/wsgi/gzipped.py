"""Answers compressed for a client that accepts it; in no stock pipeline (section 4.5)."""

import zlib
from collections.abc import Iterable, Iterator
from typing import Any, Final

import webob

from common import errors
from common.body import Body
from common.concurrency import offload
from common.wsgi.faults import Application, StartResponse

# Of zlib: a window of 32 KiB, in gzip's own format.
_GZIP: Final = 31


class GzipFilter:
    """Compresses lists at once and images while they leave. A part of an image stays as it is:
    its place in the whole is told in bytes that are not compressed."""

    def __init__(self, app: Application) -> None:
        self.app = app

    def __call__(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        if "gzip" not in environ.get("HTTP_ACCEPT_ENCODING", ""):
            return self.app(environ, start_response)
        response = webob.BaseRequest(environ).get_response(self.app)
        if environ["REQUEST_METHOD"] != "HEAD" and response.status_int != 206:
            _compress(response)
        answer: Iterable[bytes] = response(environ, start_response)
        return answer


def _compress(response: webob.Response) -> None:
    if isinstance(response.app_iter, Body):
        response.app_iter = GzippedBody(response.app_iter)
    elif content := response.body:
        response.body = offload(zlib.compress, content, wbits=_GZIP)
    else:
        return
    response.content_encoding = "gzip"


class GzippedBody(Body):
    """Another body, compressed on its way; an end before that one's length is an error."""

    def __init__(self, body: Body) -> None:
        super().__init__(None)
        self._body = body

    def chunks(self) -> Iterator[bytes]:
        compressor = zlib.compressobj(wbits=_GZIP)
        for chunk in self._body:
            if packed := offload(compressor.compress, chunk):
                yield packed
        # What is compressed tells nobody how much it should have been (REL-030).
        if self._body.length not in (None, self._body.bytes_sent):
            raise errors.ServiceUnavailable("The stored bytes are not what was recorded.")
        yield compressor.flush()

    def release(self) -> None:
        self._body.close()
