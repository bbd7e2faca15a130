"""RegistryClient: one method per registry request, domain objects in and out.

Identity and request id come from the context. An error status comes back as the domain error
that caused it, through the table in `common.wsgi.faults`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar
from urllib.parse import quote

import orjson

from common import errors
from common.context import RequestContext
from common.documents import (
    image_fields,
    image_from_document,
    location_document,
    member_from_document,
)
from common.image import Change, Image, Location, Member
from common.lease import Lease
from common.query import ListQuery
from common.wsgi.faults import error_from
from glance_api.location_cipher import LocationCipher
from glance_api.registry_connection import Answer, ConnectionPool

T = TypeVar("T")

KEY_HEADER = "X-Glance-Registry-Key"
QUOTA_HEADER = "X-Glance-Member-Quota"

# The token a context's requests carry; None for a caller without one.
TokenSource = Callable[[RequestContext], str | None]
# The API's own token, which vouches for a caller's; None where it has no account.
ServiceTokenSource = Callable[[], str | None]


@dataclass(frozen=True)
class Identity:
    """How the registry learns who is asking (registry-v1.md section 9)."""

    token: TokenSource = lambda ctx: ctx.token
    send_headers: bool = False
    key: str | None = None
    service_token: ServiceTokenSource = lambda: None

    def headers(self, ctx: RequestContext) -> dict[str, str]:
        headers = {"Accept": "application/json"}
        if ctx.request_id:
            headers["X-Openstack-Request-ID"] = ctx.request_id
        if self.key is not None:
            headers[KEY_HEADER] = _wire(self.key)
        if token := self.token(ctx):
            headers["X-Auth-Token"] = token
        if self.send_headers:
            headers.update(_identity_headers(ctx))
        return headers

    def vouching(self, ctx: RequestContext) -> dict[str, str]:
        """For a request at the end of long work: the caller's token may have expired meanwhile,
        and counts nevertheless when the API's own token comes with it (REL-021)."""
        service = self.service_token() if self.token(ctx) and not ctx.is_service else None
        return {"X-Service-Token": service} if service else {}


def _identity_headers(ctx: RequestContext) -> dict[str, str]:
    if not ctx.authenticated:
        # An anonymous caller must not look confirmed to the registry (D19).
        return {"X-Identity-Status": "Invalid"}
    catalog = orjson.dumps(ctx.service_catalog or ()).decode()
    return {
        "X-Identity-Status": "Confirmed",
        "X-User-Id": _wire(ctx.user or ""),
        "X-Tenant-Id": _wire(ctx.tenant or ""),
        "X-Roles": _wire(",".join(sorted(set(ctx.roles)))),
        "X-Service-Catalog": _wire(catalog),
    }


def _wire(text: str) -> str:
    return text.encode("utf-8").decode("latin-1")


@dataclass(frozen=True, slots=True)
class LeaseState:
    """What a renewal found: `state` is held, lost or refused (the quota is used up)."""

    state: str
    status: str | None
    deleted: bool


@dataclass(frozen=True, slots=True)
class FoundLease:
    """A lease as the list shows it: with an opaque id instead of its token."""

    id: str
    image_id: str
    kind: str
    store: str
    worker: str
    previous: str | None
    expired: bool


class RegistryClient:
    def __init__(
        self, pool: ConnectionPool, identity: Identity, cipher: LocationCipher | None = None
    ) -> None:
        self._pool = pool
        self._identity = identity
        self._cipher = cipher

    def ping(self) -> None:
        """Raises ServiceUnavailable if the registry does not answer, or says it is not ready.

        One without `/readiness` is taken to be well when it answers at all.
        """
        if self._pool.request("GET", "/readiness", None, {}).status >= 500:
            raise errors.ServiceUnavailable("The registry is not ready.")

    def list(self, ctx: RequestContext, query: ListQuery, *, detail: bool) -> Sequence[Image]:
        path = "/images/detail" if detail else "/images"
        return self._ask(_images, ctx, "GET", f"{path}?{query.encode()}")

    def get(self, ctx: RequestContext, image_id: str, *, vouched: bool = False) -> Image:
        """vouched: an expired token of the caller's counts too, as at the end of an upload."""
        headers = self._identity.vouching(ctx) if vouched else None
        return self._ask(self._image, ctx, "GET", _image_path(image_id), headers=headers)

    def add(self, ctx: RequestContext, image: Image, lease: Lease | None, quota: int) -> Image:
        """Create the record; with a lease, in one transaction with it.

        Raises StorageQuotaFull where the lease's reservation was refused; the record then
        exists and is `killed`.
        """
        document = image_fields(image)
        document["location_data"] = [self._location(item) for item in image.locations]
        for name in ("created_at", "updated_at", "deleted_at", "deleted"):
            del document[name]
        body: dict[str, Any] = {"image": document}
        if lease is not None:
            body["lease"] = _lease_document(lease, quota)
        return self._ask(self._written, ctx, "POST", "/images", body)

    def save(self, ctx: RequestContext, image_id: str, change: Change) -> Image:
        """Apply change. Raises Conflict where from_state no longer holds."""
        document = dict(change.fields)
        if change.properties is not None:
            document["properties"] = change.properties
        if change.locations is not None:
            document["location_data"] = [self._location(item) for item in change.locations]
        body: dict[str, Any] = {"image": document, "from_state": change.from_state}
        if change.lease is not None:
            body["lease"] = _lease_document(change.lease, change.quota)
        if change.end_lease is not None:
            body["end_lease"] = change.end_lease
        headers = {"X-Glance-Registry-Purge-Props": "true"} if change.purge else {}
        if change.from_state is not None:
            headers |= self._identity.vouching(ctx)
        return self._ask(self._written, ctx, "PUT", _image_path(image_id), body, headers)

    def revealed(self, image: Image) -> Image:
        """An image of a list with its locations in clear. Raises LocationUnreadable."""
        if self._cipher is None:
            return image
        cipher = self._cipher
        locations = [replace(item, url=cipher.decrypt(item.url)) for item in image.locations]
        return replace(image, locations=locations)

    def members(
        self, ctx: RequestContext, image_id: str, *, vouched: bool = False
    ) -> Sequence[Member]:
        """vouched: as for `get`."""

        def read(found: Any) -> Sequence[Member]:
            return [member_from_document(image_id, item) for item in found["members"]]

        headers = self._identity.vouching(ctx) if vouched else None
        return self._ask(read, ctx, "GET", f"{_image_path(image_id)}/members", headers=headers)

    def shared_images(self, ctx: RequestContext, member: str) -> Sequence[Member]:
        def read(found: Any) -> Sequence[Member]:
            return [
                Member(item["image_id"], member, item["can_share"])
                for item in found["shared_images"]
            ]

        return self._ask(read, ctx, "GET", f"/shared-images/{quote(member, safe='')}")

    def add_member(
        self, ctx: RequestContext, image_id: str, member: str, can_share: bool | None, quota: int
    ) -> None:
        """quota: how many members the image may have, negative for any number."""
        path = f"{_image_path(image_id)}/members/{quote(member, safe='')}"
        body = None if can_share is None else {"member": {"can_share": can_share}}
        self._call(ctx, "PUT", path, body, {QUOTA_HEADER: str(quota)})

    def replace_members(
        self, ctx: RequestContext, image_id: str, members: Mapping[str, bool | None], quota: int
    ) -> None:
        entries = [
            {"member_id": member} if can_share is None else _member_entry(member, can_share)
            for member, can_share in members.items()
        ]
        path, body = f"{_image_path(image_id)}/members", {"memberships": entries}
        self._call(ctx, "PUT", path, body, {QUOTA_HEADER: str(quota)})

    def remove_member(self, ctx: RequestContext, image_id: str, member: str) -> None:
        self._call(ctx, "DELETE", f"{_image_path(image_id)}/members/{quote(member, safe='')}")

    def renew(
        self, ctx: RequestContext, reserves: Mapping[str, int | None], seconds: int, quota: int = 0
    ) -> dict[str, LeaseState]:
        """Renew leases by token; a number raises the lease's reservation to it."""
        entries = [
            {"token": token} if reserve is None else {"token": token, "reserve": reserve}
            for token, reserve in reserves.items()
        ]
        body = {"leases": entries, "seconds": seconds, "quota": quota}
        # A connection that has gone silent must not outlive the leases.
        return self._ask(_lease_states, ctx, "PUT", "/leases", body, timeout=seconds / 2)

    def end_lease(
        self,
        ctx: RequestContext,
        token: str,
        status: str | None = None,
        from_state: str | None = None,
    ) -> None:
        """End a lease; with a status, set it in the same transaction if from_state holds."""
        body = {"status": status, "from_state": from_state} if status else None
        self._call(ctx, "DELETE", f"/leases/{token}", body)

    def leases(self, ctx: RequestContext) -> Sequence[FoundLease]:
        return self._ask(_found_leases, ctx, "GET", "/leases?limit=1000")

    def claim(self, ctx: RequestContext, found: FoundLease, lease: Lease, seconds: int) -> Image:
        """Take over a lease for lease.worker under lease.token. Raises Conflict if too late, or
        if a lease that was found expired has been renewed since.
        """
        body = {
            "worker": lease.worker,
            "seconds": seconds,
            "token": lease.token,
            "expected_worker": found.worker,
            "only_expired": found.expired,
        }
        path = f"/leases/{quote(found.id, safe='')}/claim"
        return self._ask(self._image, ctx, "POST", path, body)

    def _ask(
        self,
        read: Callable[[Any], T],
        ctx: RequestContext,
        method: str,
        path: str,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
        timeout: float | None = None,
    ) -> T:
        """What read makes of the answer; what it cannot read is the registry's failure."""
        content = self._call(ctx, method, path, body, headers, timeout)
        try:
            return read(orjson.loads(content))
        except (KeyError, TypeError, ValueError, AttributeError):
            raise errors.ServiceUnavailable("The registry gave an unusable answer.") from None

    def _call(
        self,
        ctx: RequestContext,
        method: str,
        path: str,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
        timeout: float | None = None,
    ) -> bytes:
        content = None if body is None else orjson.dumps(body)
        sent = self._identity.headers(ctx)
        if content is not None:
            sent["Content-Type"] = "application/json"
        if headers:
            sent.update(headers)
        answer = self._pool.request(method, path, content, sent, timeout)
        if answer.status >= 300:
            raise error_from(answer.status, _message(answer))
        return answer.content

    def _written(self, found: Any) -> Image:
        if found.get("refused") == "quota":
            raise errors.StorageQuotaFull()
        return self._image(found)

    def _image(self, found: Any) -> Image:
        return self.revealed(image_from_document(found["image"]))

    def _location(self, location: Location) -> dict[str, Any]:
        if self._cipher is not None:
            location = replace(location, url=self._cipher.encrypt(location.url))
        return location_document(location)


def _images(found: Any) -> Sequence[Image]:
    return [image_from_document(item) for item in found["images"]]


def _lease_states(found: Any) -> dict[str, LeaseState]:
    return {
        token: LeaseState(item["state"], item.get("status"), bool(item.get("deleted")))
        for token, item in found["leases"].items()
    }


def _found_leases(found: Any) -> Sequence[FoundLease]:
    return [
        FoundLease(
            str(item["id"]),
            item["image_id"],
            item["kind"],
            item["store"],
            item["worker"],
            item.get("previous"),
            item["expired"],
        )
        for item in found["leases"]
    ]


def _image_path(image_id: str) -> str:
    return f"/images/{quote(image_id, safe='')}"


def _member_entry(member: str, can_share: bool) -> dict[str, Any]:
    return {"member_id": member, "can_share": can_share}


def _lease_document(lease: Lease, quota: int) -> dict[str, Any]:
    return {
        "token": lease.token,
        "kind": lease.kind,
        "store": lease.store,
        "worker": lease.worker,
        "seconds": lease.seconds,
        "owner": lease.owner,
        "reserve": lease.reserved,
        "quota": quota,
        "previous": lease.previous,
    }


def _message(answer: Answer) -> str | None:
    """The registry's own words, which are made to be shown to callers."""
    try:
        return str(orjson.loads(answer.content)["error"]["message"])
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return None
