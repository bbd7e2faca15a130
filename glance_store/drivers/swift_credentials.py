"""How to be let in to a Swift account: tokens, where they come from and when they are renewed.

Version 1 is tempauth and its like; versions 2 and 3 are Keystone, asked through keystoneauth.
"""

import contextlib
import importlib
import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Protocol

from common import errors
from common.context import RequestContext
from glance_store.drivers.swift_connections import Access, Connections
from glance_store.drivers.swift_locations import Reference
from glance_store.errors import BackendUnavailable, BadStoreConfiguration

LOG = logging.getLogger(__name__)

# A trust left behind by a process that died ends by itself.
_TRUST_LIFETIME: Final = timedelta(days=7)


@dataclass(frozen=True, slots=True)
class Session:
    """Where an account's containers are, and a token for it."""

    storage_url: str = field(repr=False)
    token: str = field(repr=False)


class Credentials(Protocol):
    """Something that gets sessions. `as_caller` says whose rights they carry."""

    as_caller: bool

    def session(self) -> Session:
        """A session whose token is good for a while. Raises BackendUnavailable."""

    def renew(self, refused: Session) -> bool:
        """Note that a token was refused; True if asking again may give a better one."""


class CallerCredentials:
    """The caller's own token, which nobody can renew."""

    as_caller = True

    def __init__(self, storage_url: str, token: str) -> None:
        self._session = Session(storage_url, token)

    def session(self) -> Session:
        return self._session

    def renew(self, refused: Session) -> bool:
        return False


class TempauthCredentials:
    """Version 1: a token lives until it is refused."""

    as_caller = False

    def __init__(self, reference: Reference, connections: Connections) -> None:
        self._reference = reference
        self._connections = connections
        self._session: Session | None = None
        self._lock = threading.Lock()

    def session(self) -> Session:
        with self._lock:
            if self._session is None:
                self._session = self._ask()
            return self._session

    def renew(self, refused: Session) -> bool:
        with self._lock:
            if self._session is refused:
                self._session = None
        return True

    def _ask(self) -> Session:
        who = {"X-Auth-User": self._reference.user, "X-Auth-Key": self._reference.key}
        try:
            with self._connections.borrow(self._reference.auth_address) as (url, http):
                http.request("GET", url.path, headers=who)
                response = http.getresponse()
                response.read()
        except Exception as error:
            raise _not_let_in(error) from None
        token = response.getheader("x-storage-token", response.getheader("x-auth-token"))
        storage_url = response.getheader("x-storage-url")
        if not 200 <= response.status < 300 or not storage_url or not token:
            raise _not_let_in(ValueError(), response.status)
        return Session(self._connections.access.endpoint or storage_url, token)


class KeystoneCredentials:
    """Versions 2 and 3: renewed when the token is about to expire or was refused."""

    def __init__(
        self,
        plugin: Any,
        connections: Connections,
        storage_url: str | None = None,
        *,
        as_caller: bool = False,
    ) -> None:
        self.as_caller = as_caller
        self.keystone = connections.keystone(plugin)
        self._plugin = plugin
        self._connections = connections
        self._storage_url = storage_url

    def session(self) -> Session:
        try:
            granted = self._plugin.get_access(self.keystone)
            if granted.will_expire_soon(self._connections.access.expire_soon_interval):
                self._plugin.invalidate()
                granted = self._plugin.get_access(self.keystone)
            return Session(self._storage_url or self._endpoint(granted), granted.auth_token)
        except Exception as error:
            raise _not_let_in(error) from None

    def renew(self, refused: Session) -> bool:
        return bool(self._plugin.invalidate())

    def storage_url_of(self, tenant: str) -> str | None:
        """Another tenant's account, where the service's own URL shows how they are named."""
        url = self.session().storage_url
        project = self._plugin.get_access(self.keystone).project_id
        head, found, tail = url.rpartition(project) if project else ("", "", url)
        return f"{head}{tenant}{tail}" if found else None

    def at(self, storage_url: str) -> "KeystoneCredentials":
        """The same token used for another account."""
        return KeystoneCredentials(self._plugin, self._connections, storage_url)

    def _endpoint(self, granted: Any) -> str:
        access = self._connections.access
        if access.endpoint:
            return access.endpoint
        url: str = granted.service_catalog.url_for(
            service_type=access.service_type,
            interface=access.endpoint_type,
            region_name=access.region,
        )
        return url


def credentials_of(
    reference: Reference, connections: Connections
) -> TempauthCredentials | KeystoneCredentials:
    """The kind of credentials that the reference's auth_version asks for."""
    if reference.auth_version == "1":
        return TempauthCredentials(reference, connections)
    return KeystoneCredentials(_password(reference), connections)


def _password(reference: Reference, trust_id: str | None = None) -> Any:
    from keystoneauth1.identity import v2, v3

    project, _, user = reference.user.rpartition(":")
    url = _versioned(reference)
    if reference.auth_version == "2":
        return v2.Password(url, username=user, password=reference.key, tenant_name=project or None)
    identity: dict[str, Any] = {
        "username": user,
        "password": reference.key,
        "user_domain_id": reference.user_domain_id,
        "user_domain_name": reference.user_domain_name,
    }
    if trust_id:
        return v3.Password(url, trust_id=trust_id, **identity)
    return v3.Password(
        url,
        project_name=project or None,
        project_domain_id=reference.project_domain_id,
        project_domain_name=reference.project_domain_name,
        **identity,
    )


def _versioned(reference: Reference) -> str:
    """The identity URL for the configured version, whatever version an old URL ends in."""
    base = reference.auth_address.rstrip("/")
    for ending in ("/v2.0", "/v2", "/v3"):
        base = base.removesuffix(ending)
    return base + ("/v2.0" if reference.auth_version == "2" else "/v3")


def identity_of(reference: Reference) -> Reference:
    """The reference in a form that is equal for all that mean the same account and key."""
    if reference.auth_version == "1":
        return replace(reference, auth_address=reference.auth_address.rstrip("/"))
    return replace(reference, auth_address=_versioned(reference))


def storage_urls(catalog: Sequence[Any], access: Access) -> tuple[str, ...]:
    """Every URL under which the caller's catalogue offers object storage, the best first."""
    from keystoneauth1.access import service_catalog
    from keystoneauth1.exceptions import CatalogException

    if access.endpoint:
        return (access.endpoint,)
    endpoints = [endpoint for entry in catalog for endpoint in entry.get("endpoints", ())]
    kind: Any = service_catalog.ServiceCatalogV2
    if any("interface" in endpoint for endpoint in endpoints):
        kind = service_catalog.ServiceCatalogV3
    known = kind(list(catalog))
    try:
        best = known.url_for(
            service_type=access.service_type,
            interface=access.endpoint_type,
            region_name=access.region,
        )
    except CatalogException:
        raise BackendUnavailable("The service catalog offers no object store.") from None
    return (best, *known.get_urls(service_type=access.service_type, interface=None))


@contextlib.contextmanager
def trusted(
    ctx: RequestContext, reference: Reference, connections: Connections, storage_url: str
) -> Iterator[KeystoneCredentials]:
    """Credentials that act as the caller and outlive the caller's token.

    The caller's token makes a Keystone trust for the configured user, for the length of the
    block. Raises BackendUnavailable where Keystone does not grant one.
    """
    trustee = KeystoneCredentials(_password(reference), connections)
    trusts = f"{_versioned(reference)}/OS-TRUST/trusts"
    caller = {"X-Auth-Token": ctx.token or ""}
    try:
        trust = {
            "trustor_user_id": ctx.user,
            "trustee_user_id": trustee.keystone.get_user_id(),
            "project_id": ctx.tenant,
            "impersonation": True,
            "roles": [{"name": role} for role in ctx.roles],
            "expires_at": (datetime.now(UTC) + _TRUST_LIFETIME).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        }
        answer = trustee.keystone.post(
            trusts, json={"trust": trust}, headers=caller, authenticated=False, log=False
        )
        trust_id = answer.json()["trust"]["id"]
    except Exception as error:
        raise _not_let_in(error) from None
    lasting = KeystoneCredentials(
        _password(reference, trust_id), connections, storage_url, as_caller=True
    )
    try:
        yield lasting
    finally:
        _forget(lambda: lasting.keystone.delete(f"{trusts}/{trust_id}", log=False))


def _forget(delete_trust: Callable[[], object]) -> None:
    try:
        delete_trust()
    except Exception as error:
        LOG.warning("A Keystone trust could not be deleted: %s.", type(error).__name__)


def require_libraries(auth_versions: set[str]) -> None:
    """Raise BadStoreConfiguration, naming the extra, if a library is not installed."""
    try:
        client = importlib.import_module("swiftclient.client")
        if auth_versions - {"1"}:
            importlib.import_module("keystoneauth1.session")
    except ImportError:
        raise BadStoreConfiguration(
            "The swift store needs its extra: pip install '.[swift]'."
        ) from None
    # Failed requests are logged with the first characters of their token otherwise.
    client.logger_settings["reveal_sensitive_prefix"] = 0


def _not_let_in(error: Exception, status: int | None = None) -> errors.GlanceError:
    """The error for a caller. Its cause names hosts, so the log gets only its kind."""
    if isinstance(error, errors.GlanceError):
        return error
    status = status or getattr(error, "http_status", None)
    LOG.warning(
        "The Swift store's credentials gave no access: %s%s.",
        type(error).__name__,
        f", status {status}" if status else "",
    )
    return BackendUnavailable()
