"""Which versions of the API there are, and which one a request is for (images-v1.md section 1)."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import webob

from common.config import Configuration
from common.wsgi.faults import Application, StartResponse
from common.wsgi.paste import configuration
from common.wsgi.resource import json_response

_MEDIA_TYPE: Final = "application/vnd.openstack.images-"


@dataclass(frozen=True)
class Version:
    """One major version. `ids` newest first, each of which is also a path segment; `prefix` is
    where the version is mounted."""

    prefix: str
    ids: Sequence[str]

    @property
    def names(self) -> frozenset[str]:
        return frozenset({self.prefix.strip("/"), *self.ids})


V1: Final = Version("/v1", ("v1.1", "v1.0"))


class VersionsApp:
    """Answers with the version document, whatever was asked."""

    def __init__(self, versions: Sequence[Version], public_endpoint: str | None) -> None:
        self._versions = versions
        self._public_endpoint = public_endpoint

    def __call__(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        return self.answer(environ, start_response, 300)

    def answer(
        self, environ: dict[str, Any], start_response: StartResponse, status: int
    ) -> Iterable[bytes]:
        base = self._public_endpoint or webob.BaseRequest(environ).application_url
        entries = [
            {
                "id": each,
                "status": "SUPPORTED",
                "links": [{"rel": "self", "href": f"{base.rstrip('/')}{version.prefix}/"}],
            }
            for version in self._versions
            for each in version.ids
        ]
        response = json_response({"versions": entries}, status)
        document: Iterable[bytes] = response(environ, start_response)
        return document


class VersionNegotiationFilter:
    """Rewrites the path to the version asked for, by path segment or Accept header."""

    def __init__(
        self, app: Application, versions: Sequence[Version], document: VersionsApp
    ) -> None:
        self.app = app
        self._document = document
        self._prefixes = {name: version.prefix for version in versions for name in version.names}

    def __call__(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        path: str = environ["PATH_INFO"]
        first, rest = _first_segment(path)
        if first == "versions":
            return self._document.answer(environ, start_response, 200)
        accept: str = environ.get("HTTP_ACCEPT", "")
        if accept.startswith(_MEDIA_TYPE):
            first, rest = accept[len(_MEDIA_TYPE) :], path
        prefix = self._prefixes.get(first)
        if prefix is None:
            return self._document(environ, start_response)
        if not rest:
            return _redirect(environ, start_response, f"{prefix}/")
        environ["PATH_INFO"] = prefix + _single_slash(rest)
        return self.app(environ, start_response)


def enabled_versions(conf: Configuration) -> Sequence[Version]:
    """What is served here; a configured v2 would find nothing behind it (decision 2)."""
    return (V1,) if conf.enable_v1_api else ()


def versions_app(conf: Configuration) -> VersionsApp:
    return VersionsApp(enabled_versions(conf), conf.public_endpoint)


def version_negotiation_factory(
    global_conf: Mapping[str, str], **local_conf: str
) -> Callable[[Application], Application]:
    conf = configuration()
    versions, document = enabled_versions(conf), versions_app(conf)
    return lambda app: VersionNegotiationFilter(app, versions, document)


def _first_segment(path: str) -> tuple[str, str]:
    first, slash, rest = path.lstrip("/").partition("/")
    return first, slash + rest


def _single_slash(path: str) -> str:
    return "/" + path.lstrip("/")


def _redirect(environ: dict[str, Any], start_response: StartResponse, path: str) -> Iterable[bytes]:
    # A relative reference cannot lead to another host, whatever Host says (SEC-062).
    location = environ["SCRIPT_NAME"] + path
    start_response("302 Found", [("Location", location), ("Content-Length", "0")])
    return ()
