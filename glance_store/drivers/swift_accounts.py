"""Which account, with whose rights, a location or a new image belongs to."""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final
from urllib.parse import urlsplit

from common import errors
from common.context import RequestContext
from glance_store.drivers import swift_credentials as credentials
from glance_store.drivers.swift_account import Account, Connections
from glance_store.drivers.swift_credentials import Credentials, KeystoneCredentials
from glance_store.drivers.swift_locations import (
    AUTH_VERSIONS,
    Reference,
    SwiftLocation,
    read_references,
)
from glance_store.errors import AddDisabled, BackendUnavailable, BadLocation

# Accounts named in the URLs of external images would otherwise pile up.
_ACCOUNTS_KEPT: Final = 64


class Accounts:
    """Every account the store can use. Raises BadStoreConfiguration when made."""

    def __init__(self, conf: Mapping[str, Any]) -> None:
        self.reference_name: str = conf["default_swift_reference"]
        self._references = read_references(conf)
        self.default = self._references.get(self.reference_name)
        versions = {reference.auth_version for reference in self._references.values()}
        self._version = AUTH_VERSIONS[conf["swift_store_auth_version"].removeprefix("v")]
        credentials.require_libraries(versions | {self._version})
        self.access = credentials.Access(
            timeout=conf["swift_store_timeout"],
            insecure=conf["swift_store_auth_insecure"],
            cacert=conf["swift_store_cacert"],
            region=conf["swift_store_region"],
            endpoint=conf["swift_store_endpoint"],
            endpoint_type=conf["swift_store_endpoint_type"],
            service_type=conf["swift_store_service_type"],
            expire_soon_interval=conf["swift_store_expire_soon_interval"],
        )
        self._connections = Connections(self.access)
        self._credentials_of = lru_cache(_ACCOUNTS_KEPT)(self._make_credentials)

    def of_reference(self) -> Account:
        """The account for new images of a single-tenant store."""
        if self.default is None:
            raise AddDisabled()
        return self.account(self._credentials_of(self.default))

    def of_location(self, ctx: RequestContext, location: SwiftLocation) -> Account:
        """The account a URL names, with the URL's credentials, the reference's or the caller's."""
        return self.account(self._credentials_for(ctx, location))

    def of_service(self, storage_url: str) -> Account:
        """Any account, with default_swift_reference's rights: they need a reseller's role."""
        own = self._own()
        if own is None:
            raise errors.Forbidden("The store does not let you use the image.")
        # Credentials go to the store they were configured for and nowhere else (SEC-037).
        if urlsplit(own.session().storage_url)[:2] != urlsplit(storage_url)[:2]:
            raise BadLocation()
        return self.account(own.at(storage_url))

    def of_caller(self, ctx: RequestContext, storage_url: str) -> Account:
        return self.account(credentials.CallerCredentials(storage_url, ctx.token or ""))

    def account(self, who: Credentials) -> Account:
        return Account(who, self._connections, self.access.timeout)

    def storage_urls(self, ctx: RequestContext) -> tuple[str, ...]:
        """The caller's account at each endpoint of the catalog, the configured one first."""
        if ctx.token is not None and (ctx.service_catalog or self.access.endpoint):
            return credentials.storage_urls(ctx.service_catalog or (), self.access)
        own = self._own()
        url = own.storage_url_of(ctx.tenant) if own is not None and ctx.tenant else None
        if url is None:
            raise BackendUnavailable("There is no service catalog to find the image's account in.")
        return (url,)

    def _own(self) -> KeystoneCredentials | None:
        own = self._credentials_of(self.default) if self.default is not None else None
        return own if isinstance(own, KeystoneCredentials) else None

    def _credentials_for(self, ctx: RequestContext, location: SwiftLocation) -> Credentials:
        if location.reference is not None:
            reference = self._references.get(location.reference)
            if reference is None:
                raise BackendUnavailable("The store's account for this image is not configured.")
            return self._credentials_of(reference)
        if location.user is not None:
            settings = self.default or Reference("", "", "", self._version)
            return self._credentials_of(settings.used_by(location))
        return self._storage_credentials(ctx, location.base or "")

    def _storage_credentials(self, ctx: RequestContext, storage_url: str) -> Credentials:
        """For a URL of the multi-tenant store: the caller's token, the service's without one."""
        if ctx.token is None:
            return self.of_service(storage_url).credentials
        known = credentials.storage_urls(ctx.service_catalog or (), self.access)
        # A token goes to the object stores of the catalog and nowhere else (SEC-037).
        if urlsplit(storage_url)[:2] not in {urlsplit(url)[:2] for url in known}:
            raise BadLocation()
        return credentials.CallerCredentials(storage_url, ctx.token)

    def _make_credentials(self, reference: Reference) -> Credentials:
        return credentials.credentials_of(reference, self.access)
