"""The wiring of glance-api: configuration -> stores -> layers -> controllers -> routes.

Options are read here, once, into the values that the parts are made of.
"""

import logging
import os
import socket
import ssl
from collections.abc import Iterable, Mapping
from contextvars import ContextVar
from typing import Any, Final

from paste.deploy import loadwsgi

from common.config import Configuration, ConfigurationError
from common.context import RequestContext
from common.policy import PolicyEnforcer, enforcer_from
from common.wsgi.faults import Application, FaultFilter, StartResponse
from common.wsgi.paste import configuration, load_app
from common.wsgi.readiness import ReadinessFilter
from common.wsgi.resource import Router
from glance_api.copies import Copies
from glance_api.formats import Formats
from glance_api.identity import registry_identity, service_context
from glance_api.inspection import inspector_for
from glance_api.janitor import Janitor
from glance_api.layers.acl import AclLayer, AclMemberLayer, Acls
from glance_api.layers.auth import AuthLayer, AuthMemberLayer
from glance_api.layers.base import ImageRepo, MemberRepo
from glance_api.layers.location import LocationLayer
from glance_api.layers.notifier import NotifierLayer
from glance_api.layers.policy import PolicyLayer, PolicyMemberLayer
from glance_api.layers.property_protection import PropertyProtectionLayer
from glance_api.layers.quota import QuotaLayer, Quotas
from glance_api.layers.registry import RegistryMemberRepo, RegistryRepo
from glance_api.leases import LeaseKeeper
from glance_api.location_cipher import cipher_from
from glance_api.message_bus import library_conf
from glance_api.notifier import Notifier, notifier_from
from glance_api.property_rules import BadProtectionFile, PropertyRules
from glance_api.rate_limit import RateLimitFilter
from glance_api.registry_client import RegistryClient
from glance_api.registry_connection import ConnectionPool, Endpoint
from glance_api.sources import SourceChecks
from glance_api.transfer import Transfer, TransferSettings
from glance_api.v1.download import DownloadSettings
from glance_api.v1.images import ImagesController, ImagesSettings
from glance_api.v1.members import MembersController
from glance_api.v1.router import routes
from glance_api.versions import enabled_versions, versions_app
from glance_store.driver import Capability
from glance_store.loader import Stores

LOG = logging.getLogger(__name__)

_CA_BUNDLES: Final = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
)

_current: ContextVar["Api"] = ContextVar("api")


class Api:
    """The parts of one glance-api. Nothing here connects to anything before `start`."""

    def __init__(self, conf: Configuration) -> None:
        """Raises ConfigurationError, or BadStoreConfiguration, naming the option."""
        self.conf = conf
        self.stores = Stores.configured(conf)
        self.keep_acls = any(Capability.ACL in store.capabilities for store in self.stores)
        self.enforcer = enforcer_from(conf)
        if self.enforcer.is_built_in:
            LOG.warning(
                "there is no policy file %s: by the built-in rules everybody may publish images "
                "and register locations",
                conf.oslo_policy.policy_file,
            )
        self.registry = registry_client(conf)
        self.acls = Acls(self.registry, self.stores, service_context(conf))
        self.leases = LeaseKeeper(
            self.registry, conf.leases.host or socket.gethostname(), conf.leases.seconds
        )
        self.notifier = _notifier(conf)
        self.copies = Copies(conf.limits.copies_per_worker, conf.limits.copies_per_tenant)
        quotas = Quotas(
            properties=conf.image_property_quota,
            storage=conf.user_storage_quota,
        )
        self.images = self._images(quotas)
        self.members = self._members()

    def _images(self, quotas: Quotas) -> ImageRepo:
        conf = self.conf
        formats = conf.image_format
        transfer = Transfer(
            self.registry,
            self.stores,
            self.leases,
            lambda disk_format: inspector_for(
                disk_format, formats.safety_check, formats.require_image_format_match
            ),
            TransferSettings(conf.image_size_cap, conf.hashing_algorithm or None),
        )
        repo: ImageRepo = RegistryRepo(self.registry)
        repo = LocationLayer(
            repo,
            self.stores,
            self.leases,
            transfer,
            SourceChecks(self.stores, conf.image_size_cap),
            delayed_delete=conf.delayed_delete,
            verify_on_download=conf.verify_on_download,
        )
        if self.keep_acls:
            repo = AclLayer(repo, self.acls)
        repo = QuotaLayer(repo, quotas)
        repo = PolicyLayer(repo, self.enforcer)
        repo = NotifierLayer(repo, self.notifier)
        if conf.property_protection_file:
            repo = PropertyProtectionLayer(repo, _property_rules(conf, self.enforcer))
        return AuthLayer(repo)

    def _members(self) -> MemberRepo:
        repo: MemberRepo = RegistryMemberRepo(self.registry, self.conf.image_member_quota)
        if self.keep_acls:
            repo = AclMemberLayer(repo, self.acls)
        repo = PolicyMemberLayer(repo, self.enforcer)
        return AuthMemberLayer(repo)

    def v1(self) -> Application:
        conf = self.conf
        settings = ImagesSettings(
            formats=Formats(
                disk=frozenset(conf.image_format.disk_formats),
                container=frozenset(conf.image_format.container_formats),
            ),
            image_size_cap=conf.image_size_cap,
            decode_header_values=conf.decode_header_values,
            downloads=DownloadSettings(conf.downloads.ranges, conf.downloads.conditional),
        )
        images = ImagesController(self.images, self.copies, settings)
        app: Application = Router(routes(images, MembersController(self.members)))
        if conf.limits.requests_per_second_per_tenant:
            app = RateLimitFilter(app, conf.limits.requests_per_second_per_tenant)
        return FaultFilter(app)

    def start(self) -> None:
        """Begin the background work of one worker."""
        service = service_context(self.conf)
        Janitor(self.registry, self.stores, self.leases, service).start()

    def finish(self) -> None:
        """Let background copies, and then the notifications they make, come to their end."""
        self.copies.finish()
        self.notifier.stop()


def build(conf: Configuration) -> tuple[Application, Api]:
    """The whole pipeline, as the paste file and flavor say, and the parts behind it."""
    api = Api(conf)
    token = _current.set(api)
    try:
        app: Application = FaultFilter(load_app(conf, "api"))
    finally:
        _current.reset(token)
    if conf.readiness.enabled:
        checks = {"registry": api.registry.ping, "store": api.stores.default.ping}
        app = ReadinessFilter(app, checks)
    return app, api


def registry_client(conf: Configuration) -> RegistryClient:
    """Raises ConfigurationError, naming the option."""
    endpoint = Endpoint(
        # 0.0.0.0, upstream's default, means this host.
        host="127.0.0.1" if conf.registry_host == "0.0.0.0" else conf.registry_host,
        port=conf.registry_port,
        timeout=conf.registry_client_timeout or None,
        tls=_registry_tls(conf) if conf.registry_client_protocol == "https" else None,
    )
    return RegistryClient(ConnectionPool(endpoint), registry_identity(conf), cipher_from(conf))


def _registry_tls(conf: Configuration) -> ssl.SSLContext:
    def path(option: str) -> str | None:
        value = conf[option] or os.environ.get(f"GLANCE_{option.removeprefix('registry_').upper()}")
        if value and not os.path.exists(value):
            raise ConfigurationError(f"{option}: {value} does not exist")
        return value or None

    key, cert = path("registry_client_key_file"), path("registry_client_cert_file")
    if bool(key) != bool(cert):
        raise ConfigurationError(
            "registry_client_key_file and registry_client_cert_file must be given together"
        )
    bundle = path("registry_client_ca_file") or next(filter(os.path.exists, _CA_BUNDLES), None)
    try:
        context = ssl.create_default_context(cafile=bundle)
        if key and cert:
            context.load_cert_chain(cert, key)
    except OSError as error:
        raise ConfigurationError(
            "registry_client_ca_file, registry_client_cert_file or registry_client_key_file "
            f"cannot be used: {error.strerror or error}"
        ) from error
    if conf.registry_client_insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _notifier(conf: Configuration) -> Notifier:
    try:
        return notifier_from(conf, lambda: library_conf(conf))
    except ValueError as error:
        raise ConfigurationError(str(error)) from error


def _property_rules(conf: Configuration, enforcer: PolicyEnforcer) -> PropertyRules:
    path = conf.find_file(conf.property_protection_file) or conf.property_protection_file

    def passes(ctx: RequestContext, rule: str) -> bool:
        return enforcer.passes(ctx, rule)

    try:
        return PropertyRules(path, conf.property_protection_rule_format, passes)
    except BadProtectionFile as error:
        raise ConfigurationError(str(error)) from error


def v1_factory(global_conf: Mapping[str, str], **local_conf: str) -> Application:
    return _current.get().v1()


def versions_factory(global_conf: Mapping[str, str], **local_conf: str) -> Application:
    return versions_app(configuration())


class _Mounts:
    """Sends a request to the application mounted at its first path segment."""

    def __init__(self, apps: Mapping[str, Application]) -> None:
        self._apps = apps

    def __call__(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        path: str = environ["PATH_INFO"]
        prefix = path[: path.find("/", 1)] if path.find("/", 1) > 0 else path
        app = self._apps.get(prefix)
        if app is None:
            return self._apps["/"](environ, start_response)
        environ["SCRIPT_NAME"] += prefix
        environ["PATH_INFO"] = path[len(prefix) :] or "/"
        return app(environ, start_response)


def root_factory(
    loader: loadwsgi.ConfigLoader, global_conf: Mapping[str, str], **mounts: str
) -> Application:
    """The composite of the paste file: the versions document and the enabled APIs."""
    enabled = {version.prefix for version in enabled_versions(configuration())} | {"/"}
    return _Mounts(
        {
            prefix: loader.get_app(name, global_conf=global_conf)
            for prefix, name in mounts.items()
            if prefix in enabled
        }
    )
