"""The leases controller: what workers say about work under way (common/lease.py).

Renewing and ending a lease takes its token and no other right. Listing and claiming is for admins
and for callers that presented the registry's key.
"""

from typing import Any, Final

from common import errors
from common.context import RequestContext
from common.documents import format_time, image_document
from common.wsgi.resource import CONTEXT, Request
from glance_registry import lease_bodies as bodies
from glance_registry.db import caretaking, leases
from glance_registry.db.engine import Database
from glance_registry.values import parse_integer, require_object

# Set by the edge for a request that presented the registry's key (access.py).
TRUSTED: Final = "glance.registry_key_presented"

_MOST: Final = 1000


class LeasesController:
    def __init__(self, database: Database) -> None:
        self.database = database

    def index(self, request: Request) -> dict[str, Any]:
        _require_caretaker(request)
        limit = parse_integer("limit", request.query.get("limit", str(_MOST)), 0, _MOST)
        found = self.database.read(lambda connection: leases.soonest(connection, limit))
        return {"leases": [_document(listed) for listed in found]}

    def renew(self, request: Request) -> dict[str, Any]:
        body = require_object(request.read_json(), "the body")
        renewals = bodies.renewals(body.get("leases"))
        seconds = bodies.parse_seconds(body.get("seconds"))
        quota = bodies.parse_quota(body.get("quota", 0))
        states = self.database.write(
            lambda connection: leases.renew(connection, renewals, seconds, quota)
        )
        return {
            "leases": {
                token: {"state": state.state, "status": state.status, "deleted": state.deleted}
                for token, state in states.items()
            }
        }

    def end(self, request: Request, token: str) -> None:
        status, from_state = bodies.parse_end(request.read_json())
        self.database.write(
            lambda connection: caretaking.end(connection, token, status, from_state)
        )

    def claim(self, request: Request, lease_id: str) -> dict[str, Any]:
        _require_caretaker(request)
        number = bodies.parse_lease_id(lease_id)
        claim = bodies.parse_claim(request.read_json())
        lease, image = self.database.write(
            lambda connection: caretaking.claim(connection, number, claim)
        )
        listed = leases.ListedLease(number, lease, expired=False)
        return {"lease": _document(listed), "image": image_document(image)}


def _require_caretaker(request: Request) -> None:
    if request.environ.get(TRUSTED):
        return
    ctx: RequestContext | None = request.environ.get(CONTEXT)
    if ctx is None:
        raise errors.NotAuthenticated()
    if not ctx.is_admin or ctx.read_only:
        raise errors.Forbidden()


def _document(listed: leases.ListedLease) -> dict[str, Any]:
    lease = listed.lease
    return {
        "id": str(listed.id),
        "image_id": lease.image_id,
        "kind": lease.kind,
        "store": lease.store,
        "worker": lease.worker,
        "owner": lease.owner,
        "reserved": lease.reserved,
        "previous": lease.previous,
        "expires_at": format_time(lease.expires_at),
        "expired": listed.expired,
    }
