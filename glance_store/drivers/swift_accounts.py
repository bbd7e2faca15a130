"""Which account, with whose rights, a location or a new image belongs to."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from functools import lru_cache
from typing import Any, Final
from urllib.parse import urlsplit

from common import errors
from common.context import RequestContext
from glance_store.drivers import swift_credentials as credentials
from glance_store.drivers.swift_account import Account
from glance_store.drivers.swift_connections import Access, Connections
from glance_store.drivers.swift_credentials import Credentials, KeystoneCredentials
from glance_store.drivers.swift_locations import (
    AUTH_VERSIONS,
    Reference,
    SwiftLocation,
    read_references,
)
from glance_store.errors import AddDisabled, BackendUnavailable, BadLocation
from glance_store.outbound import Outbound

# Accounts named in the URLs of external images would otherwise pile up.
_ACCOUNTS_KEPT: Final = 64


class Accounts:
    """Every account the store can use. Raises BadStoreConfiguration when made."""

    def __init__(self, conf: Mapping[str, Any], outbound: Callable[[], Outbound]) -> None:
        self.reference_name: str = conf["default_swift_reference"]
        self._references = read_references(conf)
        self.default = self._references.get(self.reference_name)
        versions = {reference.auth_version for reference in self._references.values()}
        self._version = AUTH_VERSIONS[conf["swift_store_auth_version"].removeprefix("v")]
        credentials.require_libraries(versions | {self._version})
        self.access = Access(
            timeout=conf["swift_store_timeout"],
            insecure=conf["swift_store_auth_insecure"],
            cacert=conf["swift_store_cacert"],
            region=conf["swift_store_region"],
            endpoint=conf["swift_store_endpoint"],
            endpoint_type=conf["swift_store_endpoint_type"],
            service_type=conf["swift_store_service_type"],
            expire_soon_interval=conf["swift_store_expire_soon_interval"],
        )
        self._ours = Connections(self.access)
        self._others = Connections(self.access, outbound)
        self._account_of = lru_cache(_ACCOUNTS_KEPT)(self._make_account)

    def keys(self) -> set[str]:
        return {reference.key for reference in self._references.values()}

    def of_reference(self) -> Account:
        """The account for new images of a single-tenant store."""
        if self.default is None:
            raise AddDisabled()
        return self._account_of(self.default, self._ours)

    def of_location(self, ctx: RequestContext, location: SwiftLocation) -> Account:
        """The account a URL names, with the URL's credentials, the reference's or the caller's."""
        if location.reference is not None:
            reference = self._references.get(location.reference)
            if reference is None:
                raise BackendUnavailable("The store's account for this image is not configured.")
            return self._account_of(reference, self._ours)
        if location.user is not None:
            return self._account_of(self._as_reference(location), self._way_to(location))
        return self._storage_account(ctx, location.base or "")

    def reference_of(self, location: SwiftLocation) -> str | None:
        """The reference that leads to the same account with the same credentials as a URL's."""
        wanted = credentials.identity_of(self._as_reference(location))
        names = sorted(self._references, key=lambda name: name != self.reference_name)
        return next(
            (name for name in names if credentials.identity_of(self._references[name]) == wanted),
            None,
        )

    def _as_reference(self, location: SwiftLocation) -> Reference:
        """The credentials in a URL, with what it does not say as default_swift_reference has it."""
        settings = self.default or Reference("", "", "", self._version)
        return settings.used_by(location)

    def of_service(self, storage_url: str) -> Account:
        """Any account, with default_swift_reference's rights: they need a reseller's role."""
        own = self._own()
        if own is None:
            raise errors.Forbidden("The store does not let you use the image.")
        # Credentials go to the store they were configured for and nowhere else (SEC-037).
        if _server(own.session().storage_url) != _server(storage_url):
            raise BadLocation()
        return Account(own.at(storage_url), self._ours)

    def of_caller(self, ctx: RequestContext, storage_url: str) -> Account:
        """An account of the caller's catalog, with the caller's token."""
        return Account(credentials.CallerCredentials(storage_url, ctx.token or ""), self._ours)

    def trusted(
        self, ctx: RequestContext, storage_url: str
    ) -> AbstractContextManager[credentials.KeystoneCredentials] | None:
        """What acts as the caller and outlives the token; None where nobody could make it."""
        if ctx.token is None or self.default is None or self.default.auth_version != "3":
            return None
        return credentials.trusted(ctx, self.default, self._ours, storage_url)

    def account(self, who: Credentials) -> Account:
        return Account(who, self._ours)

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
        own = self.of_reference().credentials if self.default is not None else None
        return own if isinstance(own, KeystoneCredentials) else None

    def _way_to(self, location: SwiftLocation) -> Connections:
        """Our own identity services are where the operator says, whatever the outbound rules."""
        known = {_server(reference.auth_address) for reference in self._references.values()}
        return self._ours if _server(location.base or "") in known else self._others

    def _storage_account(self, ctx: RequestContext, storage_url: str) -> Account:
        """For a URL of the multi-tenant store: the caller's token, the service's without one."""
        if ctx.token is None:
            return self.of_service(storage_url)
        known = credentials.storage_urls(ctx.service_catalog or (), self.access)
        # A token goes to the object stores of the catalog and nowhere else (SEC-037).
        if _server(storage_url) not in {_server(url) for url in known}:
            raise BadLocation()
        return self.of_caller(ctx, storage_url)

    def _make_account(self, reference: Reference, connections: Connections) -> Account:
        return Account(credentials.credentials_of(reference, connections), connections)


def _server(url: str) -> tuple[str, str]:
    parts = urlsplit(url)
    return parts.scheme, parts.netloc
