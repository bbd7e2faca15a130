"""Domain error <-> HTTP, both directions: the only table.

An error that v1 wants under a status of its own is a class of its own with a row here.
"""

import logging
from collections.abc import Callable, Iterable
from http import HTTPStatus
from typing import Any, Final

import orjson
import webob
import webob.exc

from common import errors

LOG = logging.getLogger(__name__)

StartResponse = Callable[..., Any]
Application = Callable[[dict[str, Any], StartResponse], Iterable[bytes]]

STATUS: Final[dict[type[Exception], int]] = {
    errors.Invalid: 400,
    errors.NotAuthenticated: 401,
    errors.Forbidden: 403,
    errors.NotFound: 404,
    errors.MethodNotAllowed: 405,
    errors.Conflict: 409,
    errors.Gone: 410,
    errors.PreconditionFailed: 412,
    errors.LimitExceeded: 413,
    errors.RangeNotSatisfiable: 416,
    errors.TooManyRequests: 429,
    errors.RequestHeaderTooLarge: 431,
    errors.NotImplementedMethod: 501,
    errors.ServiceUnavailable: 503,
}

# What an answer of the registry means to its client (registry-v1.md section 10). A status that is
# not here is the registry's failure, and to our caller that is a service that is away.
_ERROR_OF_STATUS: Final[dict[int, type[errors.GlanceError]]] = {
    400: errors.Invalid,
    401: errors.NotAuthenticated,
    403: errors.Forbidden,
    404: errors.NotFound,
    409: errors.Duplicate,
    412: errors.PreconditionFailed,
    413: errors.LimitExceeded,
    429: errors.TooManyRequests,
}

RETRY_AFTER_SECONDS: Final = 5
INTERNAL_ERROR: Final = "The server has met an unexpected error; the request id identifies it."


def status_of(error: Exception) -> int:
    """The status of the nearest ancestor in the table, else 500."""
    return next((STATUS[cls] for cls in type(error).__mro__ if cls in STATUS), 500)


def error_from(status: int, message: str | None = None) -> errors.GlanceError:
    """The domain error that a registry answer with this status stands for."""
    if status == 503 or status not in _ERROR_OF_STATUS:
        return errors.ServiceUnavailable()
    return _ERROR_OF_STATUS[status](message)


def response_for(error: Exception, environ: dict[str, Any]) -> webob.Response:
    """Render error in the envelope of images-v1.md section 16."""
    status = status_of(error)
    message = error.message if isinstance(error, errors.GlanceError) else INTERNAL_ERROR
    accept = environ.get("HTTP_ACCEPT", "")
    fault = webob.exc.status_map[status](explanation=message)
    if "html" in accept or "*/*" in accept:
        kind, text = "text/html", fault.html_body(environ)
    elif "application/json" in accept:
        kind, text = "application/json", orjson.dumps(_json_fault(status, message)).decode()
    else:
        kind, text = "text/plain", fault.plain_body(environ)
    response = webob.Response(text, status, content_type=kind, charset="UTF-8")
    _add_headers(response, error)
    if environ["REQUEST_METHOD"] == "HEAD":
        response.body = b""
    return response


def _json_fault(status: int, message: str) -> dict[str, Any]:
    return {"error": {"code": status, "title": HTTPStatus(status).phrase, "message": message}}


def _add_headers(response: webob.Response, error: Exception) -> None:
    match error:
        case errors.MethodNotAllowed():
            response.headers["Allow"] = error.allow
        case errors.RangeNotSatisfiable():
            response.headers["Content-Range"] = f"bytes */{error.length}"
        case errors.ServiceUnavailable() | errors.TooManyRequests():
            response.headers["Retry-After"] = str(RETRY_AFTER_SECONDS)


class FaultFilter:
    """Turns what the application raises before its response has started into an answer.

    A 5xx is logged with its traceback, once; everything else is one debug line. An error after
    the response has started passes on: the server then cuts the connection, so that a client
    never takes a broken body for a whole one.
    """

    def __init__(self, app: Application) -> None:
        self.app = app

    def __call__(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        started = False

        def start(*args: Any, **kwargs: Any) -> Any:
            nonlocal started
            started = True
            return start_response(*args, **kwargs)

        try:
            return self.app(environ, start)
        except Exception as error:
            if started:
                raise
            self._log(error, environ)
            answer: Iterable[bytes] = response_for(error, environ)(environ, start_response)
            return answer

    def _log(self, error: Exception, environ: dict[str, Any]) -> None:
        status = status_of(error)
        if status == 500:
            LOG.exception("%s failed", environ["REQUEST_METHOD"])
        elif status >= 502:
            LOG.warning("%s: %s", type(error).__name__, error)
        else:
            LOG.debug("%s: %s", type(error).__name__, error)
