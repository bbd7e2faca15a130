"""Route table -> controller method -> response.

A route names its path once and the method of the controller for each verb; what is not there is
a 404 or a 405, decided here, never by a controller.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import parse_qsl

import orjson
import routes
import webob

from common import errors
from common.context import RequestContext
from common.wsgi.faults import StartResponse

ANY: Final = "*"
STANDARD_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "PATCH"})

CONTEXT: Final = "glance.context"

# Larger than any image document that header limits let in, small enough to parse at once.
MAX_JSON_BYTES: Final = 4 * 1024 * 1024


class Request(webob.BaseRequest):
    """One request: WebOb's, plus the caller's context and strict readers."""

    @property
    def context(self) -> RequestContext:
        context: RequestContext = self.environ[CONTEXT]
        return context

    @property
    def query(self) -> dict[str, str]:
        """Query parameters; the last of a repeated one wins. Raises Invalid if not UTF-8,
        percent-encoded or not."""
        text = self.environ.get("QUERY_STRING", "")
        if not text:
            return {}
        try:
            if not text.isascii():
                text = text.encode("latin-1").decode("utf-8")
            return dict(parse_qsl(text, keep_blank_values=True, errors="strict"))
        except ValueError:
            raise errors.Invalid("The query string is not valid UTF-8.") from None

    def read_json(self) -> Any:
        """The body as JSON, whatever its Content-Type; None if there is no body.

        Raises Invalid for malformed JSON, LimitExceeded for more than MAX_JSON_BYTES.
        """
        content = self.environ["wsgi.input"].read(MAX_JSON_BYTES + 1)
        if len(content) > MAX_JSON_BYTES:
            raise errors.LimitExceeded("The JSON body is too large.")
        if not content:
            return None
        try:
            return orjson.loads(content)
        except orjson.JSONDecodeError:
            raise errors.Invalid("The body is not valid JSON.") from None


Action = Callable[..., Any]


@dataclass(frozen=True)
class Route:
    """A path with {named} segments, an action per verb, and what `Allow` says otherwise.

    `allow` None: any other verb is a 404. A mapping gives a verb of its own its own text, with
    ANY for the rest.
    """

    path: str
    actions: Mapping[str, Action]
    allow: str | Mapping[str, str] | None = None

    def action_for(self, method: str) -> Action:
        action = self.actions.get(method) or self.actions.get(ANY)
        if action is not None:
            return action
        if self.allow is None:
            raise errors.NotFound()
        allow = self.allow
        raise errors.MethodNotAllowed(
            allow if isinstance(allow, str) else allow.get(method, allow[ANY])
        )


class Router:
    """The WSGI application in front of controllers.

    The method is the request's own: no parameter can change it (decision 18), since only the
    path is given to the mapper.
    """

    def __init__(self, table: Sequence[Route]) -> None:
        self._mapper = routes.Mapper(register=False, explicit=True)
        self._mapper.minimization = False
        self._routes = {route.path: route for route in table}
        for path in self._routes:
            self._mapper.connect(None, path, route=path)
        self._mapper.create_regs()

    def __call__(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        method = environ["REQUEST_METHOD"]
        match = self._match(environ["PATH_INFO"])
        if match is None:
            if method not in STANDARD_METHODS:
                raise errors.NotImplementedMethod()
            raise errors.NotFound()
        action = self._routes[match.pop("route")].action_for(method)
        result = action(Request(environ), **match)
        response = result if isinstance(result, webob.Response) else _response(result)
        answer: Iterable[bytes] = response(environ, start_response)
        return answer

    def _match(self, path: str) -> dict[str, str] | None:
        try:
            # WSGI hands the path over as Latin-1; it was UTF-8 on the wire.
            text = path.encode("latin-1").decode("utf-8")
        except UnicodeError:
            raise errors.Invalid("The path is not valid UTF-8.") from None
        match: dict[str, str] | None = self._mapper.match(text)
        return match


def json_response(
    data: Any, status: int = 200, content_type: str = "application/json; charset=UTF-8"
) -> webob.Response:
    content = orjson.dumps(data)
    headers = [("Content-Type", content_type), ("Content-Length", str(len(content)))]
    return webob.Response(status=status, headerlist=headers, app_iter=[content])


def no_content() -> webob.Response:
    response = webob.Response(status=204)
    del response.content_type
    return response


def _response(result: Any) -> webob.Response:
    return no_content() if result is None else json_response(result)
