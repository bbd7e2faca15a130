"""Where Cinder is and whose credentials requests to it carry: configured ones, or the caller's."""

import logging
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from common.context import RequestContext
from glance_store.drivers.cinder_api import (
    ATTACHMENTS,
    ATTACHMENTS_WITH_MODE,
    WITHOUT_ATTACHMENTS,
    Volumes,
    domain_errors,
)
from glance_store.errors import BackendUnavailable, BadStoreConfiguration

LOG = logging.getLogger(__name__)

_CREDENTIALS: Final = ("auth_address", "user_name", "password", "project_name")

# What newer catalogues call the service. The default of `cinder_catalog_info` is older than the
# only version of the API that is still spoken.
_SUCCESSORS: Final = {"volumev2": ("volumev3", "block-storage", "volume")}


class Access:
    """Finds Cinder for a caller, with the configured credentials or the caller's own."""

    def __init__(self, conf: Mapping[str, Any]) -> None:
        """Raises BadStoreConfiguration."""
        try:
            from cinderclient import client
            from keystoneauth1 import identity, session, token_endpoint
        except ImportError:
            raise BadStoreConfiguration(
                "stores: cinder needs python-cinderclient and os-brick; "
                "install them with: pip install '.[cinder]'"
            ) from None
        if conf["cinder_catalog_info"].count(":") != 2:
            raise BadStoreConfiguration(
                "cinder_catalog_info must have the form service_type:service_name:endpoint_type"
            )
        self._new_client = client.Client
        self._token_endpoint = token_endpoint.Token
        self._conf = conf
        self._session = session.Session(
            verify=not conf["cinder_api_insecure"]
            and (conf["cinder_ca_certificates_file"] or True),
            timeout=conf["cinder_store_operation_timeout"],
        )
        self._microversions: dict[str, str] = {}
        self._own: Any = None
        if all(conf[f"cinder_store_{name}"] for name in _CREDENTIALS):
            self._own = identity.Password(
                auth_url=conf["cinder_store_auth_address"],
                username=conf["cinder_store_user_name"],
                password=conf["cinder_store_password"],
                project_name=conf["cinder_store_project_name"],
                # For Keystone's version 3; where there are no domains it is not used.
                default_domain_id="default",
            )
        elif any(conf[f"cinder_store_{name}"] for name in _CREDENTIALS):
            LOG.warning(
                "cinder_store_%s are only used together; requests to Cinder are made with the "
                "credentials of the caller",
                ", cinder_store_".join(_CREDENTIALS),
            )

    @property
    def is_own(self) -> bool:
        """Whether requests carry configured credentials, whoever the caller is."""
        return self._own is not None

    def volumes(self, ctx: RequestContext) -> Volumes:
        """The volumes of whoever owns images in Cinder: ourselves, or the caller."""
        with domain_errors():
            if self._own is None:
                endpoint = self._callers_endpoint(ctx)
                # Servers without Keystone take user and project for a token.
                token = ctx.token or f"{ctx.user}:{ctx.tenant}"
                auth = self._token_endpoint(endpoint, token)
            else:
                auth, endpoint = self._own, self._own_endpoint()
            microversion = self._microversion(endpoint)
            retries = self._conf["cinder_http_retries"]
            client = self._new_client(
                microversion,
                session=self._session,
                auth=auth,
                os_endpoint=endpoint,
                retries=retries,
                connect_retries=retries,
                status_code_retries=retries,
            )
        return Volumes(client, microversion, self._conf["cinder_state_transition_timeout"])

    def _own_endpoint(self) -> str:
        template = self._conf["cinder_endpoint_template"]
        if template:
            return _filled(template, self._own.get_project_id(self._session), None)
        return self._from(self._own.get_access(self._session).service_catalog.catalog)

    def _callers_endpoint(self, ctx: RequestContext) -> str:
        template = self._conf["cinder_endpoint_template"]
        if template:
            return _filled(template, ctx.tenant, ctx.user)
        return self._from(ctx.service_catalog or ())

    def _from(self, catalogue: Iterable[Any]) -> str:
        service_type, name, interface = self._conf["cinder_catalog_info"].split(":")
        services = list(catalogue)
        for candidate in (service_type, *_SUCCESSORS.get(service_type, ())):
            for service in services:
                if service.get("type") == candidate and name in ("", service.get("name")):
                    region = self._conf["cinder_os_region_name"]
                    for url in _urls(service.get("endpoints", ()), interface, region):
                        return url
        LOG.error("The service catalogue has no endpoint that fits cinder_catalog_info")
        raise BackendUnavailable()

    def _microversion(self, endpoint: str) -> str:
        """The newest of those we know that the server behind an endpoint speaks."""
        root = re.sub(r"/v[123](/.*)?$", "/", endpoint)
        if root not in self._microversions:
            answer = self._session.get(root, authenticated=False, raise_exc=False)
            try:
                versions = [found.get("version") for found in answer.json()["versions"]]
            except (ValueError, KeyError, TypeError):
                versions = []
            newest = max((_number(version) for version in versions if version), default=(0, 0))
            known = (ATTACHMENTS_WITH_MODE, ATTACHMENTS)
            spoken = (version for version in known if _number(version) <= newest)
            self._microversions[root] = next(spoken, WITHOUT_ATTACHMENTS)
        return self._microversions[root]


def _filled(template: str, tenant: str | None, user: str | None) -> str:
    values = {"tenant": tenant, "tenant_id": tenant, "project_id": tenant, "user": user}
    try:
        return template % values
    except (KeyError, ValueError, TypeError):
        LOG.error("cinder_endpoint_template cannot be filled in")
        raise BackendUnavailable() from None


def _urls(endpoints: Iterable[Any], interface: str, region: str | None) -> Iterator[str]:
    """The URLs of a service in a catalogue, which may have the form of Keystone's version 2."""
    for endpoint in endpoints:
        if region is None or region in (endpoint.get("region"), endpoint.get("region_id")):
            if interface in endpoint:
                yield endpoint[interface]
            elif endpoint.get("interface") == interface.removesuffix("URL"):
                yield endpoint["url"]


def _number(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version))
