"""Lease rows: beginning, renewing, ending, listing and taking over work on image bytes.

Why there are leases is told in common/lease.py. Everything here runs inside the transaction that
records the work's outcome. Locks are taken in one order, image before lease before usage.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

import sqlalchemy as sa
from oslo_utils import timeutils
from sqlalchemy.engine import Connection

from common import errors
from common.lease import Lease
from glance_registry.db import usage
from glance_registry.db.models import image_leases, images


@dataclass(frozen=True, slots=True)
class Renewal:
    """One lease as its worker knows it; `reserve` is the new total, None leaves it."""

    token: str
    reserve: int | None = None


@dataclass(frozen=True, slots=True)
class LeaseState:
    """What a renewal found: held, lost or refused, and how the image stands."""

    state: str
    status: str | None = None
    deleted: bool = False


@dataclass(slots=True)
class ListedLease:
    """A lease as a caretaker sees it: by an id that gives no right to it."""

    id: int
    lease: Lease
    expired: bool


_COLUMNS: Final = (
    image_leases.c.token,
    image_leases.c.image_id,
    image_leases.c.kind,
    image_leases.c.store,
    image_leases.c.worker,
    image_leases.c.owner,
    image_leases.c.reserved,
    image_leases.c.previous,
    image_leases.c.expires_at,
)
_BY_TOKEN: Final = sa.select(*_COLUMNS).where(image_leases.c.token == sa.bindparam("t"))
_BY_TOKEN_LOCKED: Final = _BY_TOKEN.with_for_update()
_DELETE: Final = image_leases.delete().where(image_leases.c.token == sa.bindparam("t"))


def begin(connection: Connection, image_id: str, lease: Lease, quota: int) -> bool:
    """Insert the lease; False, and no lease, if its reservation does not fit quota (0: any does).

    Raises Duplicate for a token that is in use.
    """
    if not usage.reserve(connection, lease.owner, lease.reserved, quota):
        return False
    now = timeutils.utcnow()
    values = {
        "token": lease.token,
        "image_id": image_id,
        "kind": lease.kind,
        "store": lease.store,
        "worker": lease.worker,
        "owner": lease.owner,
        "reserved": lease.reserved,
        "previous": lease.previous,
        "created_at": now,
        "expires_at": now + timedelta(seconds=lease.seconds),
    }
    try:
        connection.execute(image_leases.insert(), values)
    except sa.exc.IntegrityError:
        raise errors.Duplicate("A lease with this token exists.") from None
    return True


def find(connection: Connection, token: str) -> Lease | None:
    row = connection.execute(_BY_TOKEN, {"t": token}).first()
    return None if row is None else _lease(row)


def _lease(columns: Sequence[Any]) -> Lease:
    lease = Lease(*columns[:8])
    lease.expires_at = columns[8]
    return lease


def end(connection: Connection, token: str, image_id: str) -> bool:
    """Remove the lease of an image and what it reserved; False if it has ended already."""
    # Locked, because what it has reserved may grow until the row is gone.
    row = connection.execute(_BY_TOKEN_LOCKED, {"t": token}).first()
    if row is None or row.image_id != image_id:
        return False
    lease = _lease(row)
    connection.execute(_DELETE, {"t": token})
    usage.add(connection, lease.owner, reserved=-lease.reserved)
    return True


def renew(
    connection: Connection, renewals: Sequence[Renewal], seconds: int, quota: int
) -> dict[str, LeaseState]:
    """Put off the expiry of every lease that still exists, and raise reservations to the totals
    asked for. One that would pass the quota is refused; its lease is renewed all the same.
    """
    wanted = {renewal.token: renewal.reserve for renewal in renewals}
    held = _lock(connection, wanted)
    if held:
        connection.execute(
            image_leases.update()
            .where(image_leases.c.token.in_(list(held)))
            .values(expires_at=timeutils.utcnow() + timedelta(seconds=seconds))
        )
    standing = _standing(connection, {lease.image_id for lease in held.values()})
    states = {token: LeaseState("lost") for token in wanted}
    for token, lease in held.items():
        fits = _raise_reservation(connection, lease, wanted[token], quota)
        states[token] = LeaseState(
            "held" if fits else "refused", *standing.get(lease.image_id, (None, True))
        )
    return states


def _lock(connection: Connection, tokens: Mapping[str, object]) -> dict[str, Lease]:
    if not tokens:
        return {}
    # All of them before any usage row, in one order: two renewals must not deadlock.
    statement = (
        sa.select(*_COLUMNS)
        .where(image_leases.c.token.in_(list(tokens)))
        .order_by(image_leases.c.id)
        .with_for_update()
    )
    return {row.token: _lease(row) for row in connection.execute(statement)}


def _standing(connection: Connection, image_ids: set[str]) -> dict[str, tuple[str, bool]]:
    statement = sa.select(images.c.id, images.c.status, images.c.deleted).where(
        images.c.id.in_(list(image_ids))
    )
    return {row.id: (row.status, row.deleted) for row in connection.execute(statement)}


def _raise_reservation(connection: Connection, lease: Lease, total: int | None, quota: int) -> bool:
    more = (total or 0) - lease.reserved
    if more <= 0:
        return True
    if not usage.reserve(connection, lease.owner, more, quota):
        return False
    connection.execute(
        image_leases.update().where(image_leases.c.token == lease.token).values(reserved=total)
    )
    return True


def soonest(connection: Connection, limit: int) -> list[ListedLease]:
    """Leases, those that expire first at the head."""
    statement = (
        sa.select(image_leases.c.id, *_COLUMNS)
        .order_by(image_leases.c.expires_at, image_leases.c.id)
        .limit(limit)
    )
    now = timeutils.utcnow()
    found = [(row[0], _lease(row[1:])) for row in connection.execute(statement)]
    return [ListedLease(number, lease, _is_expired(lease, now)) for number, lease in found]


def _is_expired(lease: Lease, now: datetime) -> bool:
    return lease.expires_at is not None and lease.expires_at <= now


def find_by_id(connection: Connection, lease_id: int) -> Lease | None:
    statement = sa.select(*_COLUMNS).where(image_leases.c.id == lease_id)
    row = connection.execute(statement).first()
    return None if row is None else _lease(row)


@dataclass(frozen=True, slots=True)
class Claim:
    """A lease changes hands: from the worker that is believed dead to a new one.

    only_expired: it is believed dead only because the lease has run out; it may have renewed it
    since.
    """

    worker: str
    token: str
    seconds: int
    expected_worker: str
    only_expired: bool = False


def take_over(connection: Connection, lease_id: int, claim: Claim) -> Lease:
    """Give the lease a new worker and token. Raises Conflict if somebody was faster."""
    now = timeutils.utcnow()
    free = [image_leases.c.id == lease_id, image_leases.c.worker == claim.expected_worker]
    if claim.only_expired:
        free.append(image_leases.c.expires_at <= now)
    changed = connection.execute(
        image_leases.update()
        .where(*free)
        .values(
            worker=claim.worker,
            token=claim.token,
            expires_at=now + timedelta(seconds=claim.seconds),
        )
    )
    lease = find_by_id(connection, lease_id) if changed.rowcount else None
    if lease is None:
        raise errors.Conflict("The lease is not free.")
    return lease
