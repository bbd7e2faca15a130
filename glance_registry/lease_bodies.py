"""JSON bodies about leases as domain values."""

from collections.abc import Mapping
from typing import Any, Final

from common import errors
from common.image import STATUSES
from common.lease import COPY, DELETE, UPLOAD, Lease
from glance_registry.db.leases import Claim, Renewal
from glance_registry.values import (
    MAX_INT32,
    MAX_INT64,
    optional_text,
    parse_boolean,
    parse_integer,
    require_object,
    require_text,
)

_KINDS: Final = frozenset({UPLOAD, COPY, DELETE})
_MAX_SECONDS: Final = 24 * 60 * 60
_MAX_RENEWALS: Final = 10_000


def parse_lease(body: Mapping[str, Any]) -> tuple[Lease, int]:
    """A lease to begin, and its owner's quota; the image is not the lease's to name."""
    kind = body.get("kind")
    if kind not in _KINDS:
        raise errors.Invalid("Invalid value for lease: unknown kind.")
    lease = Lease(
        token=parse_token(body.get("token")),
        image_id="",
        kind=kind,
        store=require_text("lease", body.get("store"), 64),
        worker=require_text("lease", body.get("worker"), 255),
        owner=optional_text(body, "owner", 255) or None,
        reserved=parse_integer("lease", body.get("reserve", 0), 0, MAX_INT64),
        previous=optional_text(body, "previous", 30),
        seconds=parse_seconds(body.get("seconds")),
    )
    return lease, parse_quota(body.get("quota", 0))


def renewals(value: Any) -> list[Renewal]:
    """The leases of PUT /leases."""
    if not isinstance(value, list) or len(value) > _MAX_RENEWALS:
        raise errors.Invalid(f"Invalid value for leases: a list of up to {_MAX_RENEWALS}.")
    return [_renewal(require_object(entry, "leases")) for entry in value]


def _renewal(entry: Mapping[str, Any]) -> Renewal:
    reserve = entry.get("reserve")
    return Renewal(
        parse_token(entry.get("token")),
        None if reserve is None else parse_integer("reserve", reserve, 0, MAX_INT64),
    )


def parse_end(body: Any) -> tuple[str | None, str | None]:
    """The body of DELETE /leases/{token}: (status, from_state), both None without one."""
    document = {} if body is None else require_object(body, "the body")
    status = optional_text(document, "status", 30)
    if status is not None and status not in STATUSES:
        raise errors.Invalid("Invalid image status for image.")
    return status, optional_text(document, "from_state", 30)


def parse_claim(body: Any) -> Claim:
    """The body of POST /leases/{id}/claim."""
    document = require_object(body, "the body")
    return Claim(
        worker=require_text("worker", document.get("worker"), 255),
        token=parse_token(document.get("token")),
        seconds=parse_seconds(document.get("seconds")),
        expected_worker=require_text("expected_worker", document.get("expected_worker"), 255),
        only_expired=parse_boolean("only_expired", document.get("only_expired", False)),
    )


def parse_lease_id(text: str) -> int:
    """The id in the path; one that cannot exist is somebody else's lease by now."""
    try:
        return parse_integer("id", text, 1, MAX_INT32)
    except errors.Invalid:
        raise errors.NotFound() from None


def parse_token(value: Any) -> str:
    token = require_text("token", value, 64)
    if not token:
        raise errors.Invalid("Invalid value for token: must not be empty.")
    return token


def parse_seconds(value: Any) -> int:
    return parse_integer("seconds", value, 1, _MAX_SECONDS)


def parse_quota(value: Any) -> int:
    return parse_integer("quota", value, 0, MAX_INT64)
