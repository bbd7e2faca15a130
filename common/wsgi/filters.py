"""The filters of both pipelines, and their paste.deploy factories.

A filter that only looks at the request is a bare callable: it answers, or passes the request on
untouched.
"""

import dataclasses
import os
import re
import socket
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol
from urllib.parse import unquote_to_bytes

import orjson
from oslo_config import cfg
from oslo_middleware import cors, http_proxy_to_wsgi

from common import errors, log
from common.config import Configuration, ConfigurationError, for_library, settings
from common.context import RequestContext
from common.policy import enforcer_from
from common.query import parse_boolean
from common.wsgi.faults import Application, FaultFilter, StartResponse
from common.wsgi.gzipped import GzipFilter
from common.wsgi.paste import configuration
from common.wsgi.resource import CONTEXT

FilterFactory = Callable[[Application], Application]

_CORS_OPTIONS: Final = (
    "allowed_origin",
    "allow_credentials",
    "expose_headers",
    "max_age",
    "allow_methods",
    "allow_headers",
)

REQUEST_ID_HEADER: Final = "x-openstack-request-id"

# Where the registry's edge puts the identity headers that came with a request, before anybody
# strips them: as whom a service acts that has authenticated itself.
SUBJECT: Final = "glance.subject"
_IDENTITY_VARIABLES: Final = (
    "HTTP_X_IDENTITY_STATUS",
    "HTTP_X_USER_ID",
    "HTTP_X_TENANT_ID",
    "HTTP_X_PROJECT_ID",
    "HTTP_X_ROLES",
    "HTTP_X_SERVICE_CATALOG",
)

_PERCENT: Final = re.compile(r"%[0-9A-Fa-f]{2}")
_ID_PREFIX: Final = "req-"
_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9._-]+\Z")


class AdminPolicy(Protocol):
    """Decides whether a caller is an admin by policy rule `context_is_admin`."""

    def is_admin(self, context: RequestContext) -> bool: ...


@dataclass(frozen=True)
class ContextSettings:
    """The options that decide who a caller is (middleware-and-config.md section 3)."""

    owner_is_tenant: bool = True
    admin_role: str = "admin"
    allow_anonymous_access: bool = False
    max_request_id_length: int = 64
    # glanceclient, always or never; see decode_value.
    decode_header_values: str = "glanceclient"


def decode_value(environ: Mapping[str, Any], text: str, mode: str) -> str:
    """A header value as text: UTF-8 on the wire, Latin-1 in WSGI (decision 12).

    python-glanceclient percent-encodes header values from 2.11.1 on; whose requests are decoded
    is the mode (decision 11). Raises Invalid for bytes that are not UTF-8.
    """
    raw = text.encode("latin-1")
    if "%" in text and _decodes(environ, mode) and _PERCENT.search(text):
        decoded = unquote_to_bytes(raw)
        try:
            return decoded.decode("utf-8")
        except UnicodeDecodeError:
            pass  # not a percent-encoding of UTF-8: the text means itself
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        raise errors.Invalid("Invalid value: a header is not valid UTF-8.") from None


def _decodes(environ: Mapping[str, Any], mode: str) -> bool:
    if mode == "glanceclient":
        agent: str = environ.get("HTTP_USER_AGENT", "")
        return agent.startswith("python-glanceclient")
    return mode == "always"


class _ContextFilter:
    """What both context filters share: the request id, on the answer and on every log line."""

    def __init__(self, app: Application, settings: ContextSettings, admin: AdminPolicy) -> None:
        self.app = app
        self.settings = settings
        self.admin = admin

    def __call__(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        request_id = self._request_id(environ)
        log.bind_request(request_id)
        context = self.context_from(environ, request_id)
        environ[CONTEXT] = context
        log.bind_request(request_id, context.user, context.tenant)

        def start(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
            return start_response(status, [*headers, (REQUEST_ID_HEADER, request_id)], exc_info)

        return self.app(environ, start)

    def context_from(self, environ: dict[str, Any], request_id: str) -> RequestContext:
        raise errors.NotAuthenticated()

    def _request_id(self, environ: Mapping[str, Any]) -> str:
        given: str = environ.get("HTTP_X_OPENSTACK_REQUEST_ID", "")
        limit = self.settings.max_request_id_length
        # The API prefixes what it hands on to the registry, where that must not make it longer.
        if 0 < limit < len(given.removeprefix(_ID_PREFIX)):
            raise errors.RequestHeaderTooLarge("The request id is too long.")
        # An id that could forge log lines is replaced, not echoed (SEC-065).
        if not given or not _REQUEST_ID.match(given):
            return f"{_ID_PREFIX}{uuid.uuid4()}"
        return given if given.startswith(_ID_PREFIX) else f"{_ID_PREFIX}{given}"


def keep_subject(environ: dict[str, Any]) -> None:
    """Note whom a request says it is made for, whoever makes it."""
    if "HTTP_X_IDENTITY_STATUS" in environ:
        environ[SUBJECT] = {name: environ[name] for name in _IDENTITY_VARIABLES if name in environ}


class ContextFilter(_ContextFilter):
    """Identity from headers that authtoken, or a trusted front end, has set.

    An admin may act for a subject, whose rights are then the ones that count (SEC-019).
    """

    def context_from(self, environ: dict[str, Any], request_id: str) -> RequestContext:
        context = self._identified(environ, request_id)
        subject = environ.get(SUBJECT)
        if subject is None or not context.is_admin:
            return context
        anybody = {name: each for name, each in environ.items() if name not in _IDENTITY_VARIABLES}
        return self._identified({**anybody, **subject}, request_id)

    def _identified(self, environ: Mapping[str, Any], request_id: str) -> RequestContext:
        if environ.get("HTTP_X_IDENTITY_STATUS") == "Confirmed":
            return self._confirmed(environ, request_id)
        if self.settings.allow_anonymous_access:
            return RequestContext(
                read_only=True,
                authenticated=False,
                request_id=request_id,
                owner_is_tenant=self.settings.owner_is_tenant,
                remote_address=environ.get("REMOTE_ADDR"),
            )
        raise errors.NotAuthenticated()

    def _confirmed(self, environ: Mapping[str, Any], request_id: str) -> RequestContext:
        mode = self.settings.decode_header_values

        def header(name: str) -> str | None:
            value = environ.get(name)
            return decode_value(environ, value, mode) if value else None

        roles = tuple(
            role.strip().lower()
            for role in (header("HTTP_X_ROLES") or "").split(",")
            if role.strip()
        )
        context = RequestContext(
            user=header("HTTP_X_USER_ID"),
            tenant=header("HTTP_X_TENANT_ID") or header("HTTP_X_PROJECT_ID"),
            roles=roles,
            is_admin=self.settings.admin_role.strip().lower() in roles,
            request_id=request_id,
            owner_is_tenant=self.settings.owner_is_tenant,
            token=environ.get("HTTP_X_AUTH_TOKEN") or environ.get("HTTP_X_STORAGE_TOKEN"),
            service_catalog=_catalog(environ.get("HTTP_X_SERVICE_CATALOG")),
            remote_address=environ.get("REMOTE_ADDR"),
        )
        if context.is_admin or not self.admin.is_admin(context):
            return context
        return dataclasses.replace(context, is_admin=True)


def _catalog(text: str | None) -> tuple[Any, ...] | None:
    if not text:
        return None
    try:
        catalog = orjson.loads(text.encode("latin-1"))
    except orjson.JSONDecodeError:
        raise errors.Invalid("X-Service-Catalog is not valid JSON.") from None
    if not isinstance(catalog, list):
        raise errors.Invalid("X-Service-Catalog is not a list.")
    return tuple(catalog)


class UnauthenticatedContextFilter(_ContextFilter):
    """No authentication: every caller is an admin without roles, whatever headers say."""

    def context_from(self, environ: dict[str, Any], request_id: str) -> RequestContext:
        return RequestContext(
            is_admin=True,
            request_id=request_id,
            owner_is_tenant=self.settings.owner_is_tenant,
            remote_address=environ.get("REMOTE_ADDR"),
        )


class HealthcheckFilter:
    """`/healthcheck` without credentials: 200 OK, HEAD 204, 503 while a file exists."""

    def __init__(self, app: Application, disable_by_file_path: str | None) -> None:
        self.app = app
        self.disable_by_file_path = disable_by_file_path

    def __call__(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        if environ["PATH_INFO"] != "/healthcheck":
            return self.app(environ, start_response)
        if self.disable_by_file_path and os.path.exists(self.disable_by_file_path):
            status, text = "503 Service Unavailable", b"DISABLED BY FILE"
        elif environ["REQUEST_METHOD"] == "HEAD":
            start_response("204 No Content", [])
            return ()
        else:
            status, text = "200 OK", b"OK"
        start_response(
            status,
            [("Content-Type", "text/plain; charset=UTF-8"), ("Content-Length", str(len(text)))],
        )
        return () if environ["REQUEST_METHOD"] == "HEAD" else (text,)


class CorsFilter:
    """oslo.middleware's CORS, called only for requests it has something to say to."""

    def __init__(self, app: Application, handler: Application) -> None:
        self.app = app
        self.handler = handler

    def __call__(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        if environ["REQUEST_METHOD"] == "OPTIONS" or "HTTP_ORIGIN" in environ:
            return self.handler(environ, start_response)
        return self.app(environ, start_response)


def context_settings(conf: Configuration) -> ContextSettings:
    return ContextSettings(
        owner_is_tenant=conf.owner_is_tenant,
        admin_role=conf.admin_role,
        allow_anonymous_access=conf.allow_anonymous_access,
        max_request_id_length=conf.max_request_id_length,
        decode_header_values=conf.decode_header_values,
    )


def context_factory(global_conf: Mapping[str, str], **local_conf: str) -> FilterFactory:
    conf = configuration()
    settings, admin = context_settings(conf), enforcer_from(conf)
    return lambda app: ContextFilter(app, settings, admin)


def unauthenticated_context_factory(
    global_conf: Mapping[str, str], **local_conf: str
) -> FilterFactory:
    conf = configuration()
    settings, admin = context_settings(conf), enforcer_from(conf)
    return lambda app: UnauthenticatedContextFilter(app, settings, admin)


def healthcheck_factory(global_conf: Mapping[str, str], **local_conf: str) -> FilterFactory:
    """Option `disable_by_file_path` of the paste file."""
    path = local_conf.get("disable_by_file_path")
    return lambda app: HealthcheckFilter(app, path)


def cors_factory(global_conf: Mapping[str, str], **local_conf: str) -> FilterFactory:
    """[cors] and every [cors.*] of our one configuration (M01)."""
    conf = configuration()
    sections = [conf[name] for name in conf if name == "cors" or name.startswith("cors.")]

    def make(app: Application) -> Application:
        # What is raised behind it must be an answer by then: a preflight's refusal becomes 200.
        handler = cors.CORS(FaultFilter(app), cfg.ConfigOpts())
        for section in sections:
            handler.add_origin(**{name: section[name] for name in _CORS_OPTIONS})
        return CorsFilter(app, handler)

    return make


def gzip_factory(global_conf: Mapping[str, str], **local_conf: str) -> FilterFactory:
    return GzipFilter


def http_proxy_to_wsgi_factory(global_conf: Mapping[str, str], **local_conf: str) -> FilterFactory:
    """[oslo_middleware] enable_proxy_headers_parsing: believe what a proxy in front says."""
    enabled = settings(configuration()).get(
        ("oslo_middleware", "enable_proxy_headers_parsing"), [""]
    )[-1]
    if not parse_boolean(enabled):
        return lambda app: app
    conf = for_library(configuration())
    return lambda app: http_proxy_to_wsgi.HTTPProxyToWSGI(app, conf)


def osprofiler_factory(global_conf: Mapping[str, str], **local_conf: str) -> FilterFactory:
    """osprofiler's filter, and where its traces go, where [profiler] enabled; otherwise nothing
    at all."""
    conf = configuration()
    options = conf.profiler
    if not options.enabled:
        return lambda app: app
    if "SECRET_KEY" in options.hmac_keys.split(","):
        raise ConfigurationError("[profiler] hmac_keys: the public default must be changed (M06)")
    try:
        from osprofiler import initializer, opts, web
    except ImportError:
        raise ConfigurationError(
            "[profiler] enabled: needs osprofiler; install it with: pip install '.[profiler]'"
        ) from None
    library = for_library(conf)
    opts.set_defaults(library)
    service = conf.prog.removeprefix("glance-")
    initializer.init_from_conf(library, {}, "glance", service, socket.gethostname())
    return lambda app: web.WsgiMiddleware(app, options.hmac_keys, enabled=True)
