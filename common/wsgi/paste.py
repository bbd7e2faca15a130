"""From a paste file and a flavor to the WSGI application of a daemon.

`load_app(conf, program)` builds the pipeline <glance-api or glance-registry>[-<flavor>]. While it
runs, and only then, `configuration()` returns conf: that is how a factory named in the file, which
paste.deploy gives nothing but text, gets at the options.

Paste files of Glance work unchanged: the names of its factories mean ours, and what does not exist
here (v2 and later APIs) is not mounted. A pipeline with a filter we do not have is refused by name.
Files reached by `use = config:...` are loaded as they are.
"""

import os
import sys
from collections.abc import Iterable, Iterator
from configparser import ConfigParser
from configparser import Error as ParserError
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Final

from paste.deploy import loadwsgi

import common
from common.config import Configuration, ConfigurationError
from common.wsgi.faults import Application

_FILTERS: Final = "common.wsgi.filters"
_V1: Final = "glance_api.app:v1_factory"
_VERSIONS: Final = "glance_api.app:versions_factory"
_REGISTRY: Final = "glance_registry.app:app_factory"
_NEGOTIATION: Final = "glance_api.versions:version_negotiation_factory"
_AUTHTOKEN: Final = "common.wsgi.authtoken:filter_factory"

# Factories as Glance's files name them, from Essex to Queens.
_TRANSLATIONS: Final = {
    "glance.api:root_app_factory": "glance_api.app:root_factory",
    "glance.api.versions:create_resource": _VERSIONS,
    "glance.api.versions:Controller": _VERSIONS,
    "glance.api.v1.router:API": _V1,
    "glance.api.middleware.version_negotiation:VersionNegotiationFilter": _NEGOTIATION,
    "glance.api.middleware.context:ContextMiddleware": f"{_FILTERS}:context_factory",
    "glance.api.middleware.context:UnauthenticatedContextMiddleware": (
        f"{_FILTERS}:unauthenticated_context_factory"
    ),
    "glance.common.context:ContextMiddleware": f"{_FILTERS}:context_factory",
    "glance.common.context:UnauthenticatedContextMiddleware": (
        f"{_FILTERS}:unauthenticated_context_factory"
    ),
    "glance.api.middleware.gzip:GzipMiddleware": f"{_FILTERS}:gzip_factory",
    "glance.registry.api:API": _REGISTRY,
    "glance.registry.api.v1:API": _REGISTRY,
    "glance.registry.api.v1.router:API": _REGISTRY,
    "oslo_middleware:Healthcheck": f"{_FILTERS}:healthcheck_factory",
    "oslo_middleware.healthcheck:Healthcheck": f"{_FILTERS}:healthcheck_factory",
    "oslo_middleware.cors:filter_factory": f"{_FILTERS}:cors_factory",
    "oslo_middleware:CORS": f"{_FILTERS}:cors_factory",
    "oslo_middleware:HTTPProxyToWSGI": f"{_FILTERS}:http_proxy_to_wsgi_factory",
    "oslo_middleware.http_proxy_to_wsgi:HTTPProxyToWSGI": (
        f"{_FILTERS}:http_proxy_to_wsgi_factory"
    ),
    "osprofiler.web:WsgiMiddleware": f"{_FILTERS}:osprofiler_factory",
    "keystonemiddleware.auth_token:filter_factory": _AUTHTOKEN,
    "keystoneclient.middleware.auth_token:filter_factory": _AUTHTOKEN,
    "keystone.middleware.auth_token:filter_factory": _AUTHTOKEN,
}

_CACHE_FILTERS: Final = (
    "glance.api.middleware.cache:CacheFilter",
    "glance.api.middleware.cache_manage:CacheManageFilter",
)
_OTHER_APIS: Final = ("glance.api.v2.", "glance.api.v3.", "glance.api.glare.")

_configuration: ContextVar[Configuration] = ContextVar("configuration")


def configuration() -> Configuration:
    """The options, for a factory while `load_app` runs; LookupError at any other time."""
    return _configuration.get()


def load_app(conf: Configuration, program: str) -> Application:
    """The application of program, "api" or "registry", with the configured flavor.

    Raises ConfigurationError, naming the file or the flavor, if it cannot be built.
    """
    path = find_file(conf, program)
    name = "-".join(part for part in (f"glance-{program}", conf.paste_deploy.flavor) if part)
    token = _configuration.set(conf)
    try:
        with _explained(path):
            file = _PasteFile(path)
            file.require_pipeline(name)
            pipeline = file.loader.app_context(name)
        application: Application = pipeline.create()
        return application
    finally:
        _configuration.reset(token)


def find_file(conf: Configuration, program: str) -> str:
    """The paste file in force; the sample that is part of the installation is the last resort."""
    named = conf.paste_deploy.config_file
    if named:
        path: str = os.path.abspath(os.path.expanduser(named))
        if not os.path.exists(path):
            raise ConfigurationError(f"The paste file {named} (config_file) does not exist")
        return path
    names = [f"glance-{program}-paste.ini"]
    if conf.config_file and conf.config_file[-1].endswith(".conf"):
        base = os.path.basename(conf.config_file[-1])
        names.insert(0, base.removesuffix(".conf") + "-paste.ini")
    beside = [conf.find_file(name) for name in names]
    installed = [str(directory / names[-1]) for directory in _sample_directories()]
    for candidate in (*beside, *installed):
        if candidate and os.path.exists(candidate):
            return candidate
    raise ConfigurationError(f"There is no paste file {' or '.join(names)}")


class _PasteFile:
    """A paste file in which Glance's factories have been replaced by ours."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.loader = loadwsgi.ConfigLoader(path)
        self.parser: ConfigParser = self.loader.parser
        for section in self.parser.sections():
            self._translate(section)
        for section in self.parser.sections():
            if section.startswith(("composite:", "composit:")):
                self._unmount_other_apis(section)

    def require_pipeline(self, name: str) -> None:
        """Raise ConfigurationError unless name is a pipeline of filters that exist here."""
        section = f"pipeline:{name}"
        known = self.parser.has_section(section)
        parts = self.parser.get(section, "pipeline").split() if known else []
        if "cach" in name or any(self._is_cache(part) for part in parts):
            raise ConfigurationError(
                f"The pipeline {name} needs the image cache, which this version does not have; "
                "set another flavor in section [paste_deploy]"
            )
        if not known:
            raise ConfigurationError(
                f"There is no pipeline {name} in the paste file {self.path}; "
                "set another flavor in section [paste_deploy]"
            )

    def _is_cache(self, name: str) -> bool:
        return _original(self._factory(f"filter:{name}")) in _CACHE_FILTERS

    def _translate(self, section: str) -> None:
        for kind in ("app", "filter", "composite"):
            named = _original(self._factory(section, (f"glance.{kind}_factory",)))
            if named:
                self.parser.remove_option(section, f"glance.{kind}_factory")
            named = named or _original(self._factory(section, (f"paste.{kind}_factory",)))
            if named in _TRANSLATIONS:
                self.parser.set(section, f"paste.{kind}_factory", _TRANSLATIONS[named])

    def _unmount_other_apis(self, section: str) -> None:
        for path, app in self.parser.items(section, raw=True):
            if path.startswith("/") and self._factory(f"app:{app}").startswith(_OTHER_APIS):
                self.parser.remove_option(section, path)

    def _factory(
        self, section: str, options: Iterable[str] = ("paste.app_factory", "paste.filter_factory")
    ) -> str:
        for option in options:
            if self.parser.has_option(section, option):
                return str(self.parser.get(section, option, raw=True))
        return ""


def _original(factory: str) -> str:
    """The class or function named by one of Glance's factories, however it is spelled."""
    return factory.removesuffix(".factory").strip()


def _sample_directories() -> list[Path]:
    return [Path(sys.prefix, "etc", "glance"), Path(common.__path__[0]).parent / "etc"]


@contextmanager
def _explained(path: str) -> Iterator[None]:
    """What paste.deploy raises about a file, said to the operator."""
    try:
        yield
    except (LookupError, ImportError, AttributeError, ValueError, ParserError) as error:
        raise ConfigurationError(f"The paste file {path} cannot be used: {error}") from error
