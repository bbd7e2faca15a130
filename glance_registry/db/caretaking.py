"""Ending a lease and taking one over, together with what either means for the image.

Both act by right of the lease, not of a caller: whoever works on an image's bytes may record
the outcome when nobody who owns the image is there any more.
"""

from sqlalchemy.engine import Connection

from common import errors
from common.image import DELETED, KILLED, PENDING_DELETE, QUEUED, SAVING, Change, Image
from common.lease import COPY, DELETE, UPLOAD, Lease
from glance_registry.db import images, leases, rows, visibility
from glance_registry.db.details import Details

# The statuses of work that a claim gives up for its dead worker.
_UNFINISHED = {UPLOAD: (SAVING,), COPY: (QUEUED, SAVING), DELETE: ()}

_DELETED = (DELETED, PENDING_DELETE)


def end(connection: Connection, token: str, status: str | None, from_state: str | None) -> None:
    """End a lease. With status, the image gets it if it still has from_state. The end of a
    delete also marks the image deleted, unless status undoes the delete. An ended lease is no
    error.
    """
    lease = leases.find(connection, token)
    if lease is None:
        return
    image = rows.image_row(connection, lease.image_id, lock=True)
    if not leases.end(connection, token, lease.image_id) or image is None:
        return
    if status is not None and from_state in (None, image.status):
        change = Change({"status": status}, from_state=from_state)
        image = images.apply(connection, image, change).image
    if lease.kind == DELETE and status in (None, *_DELETED) and not image.deleted:
        images.mark_deleted(connection, image)


def claim(connection: Connection, lease_id: int, wanted: leases.Claim) -> tuple[Lease, Image]:
    """Take over a lease; an upload or copy that it leaves unfinished becomes `killed`.

    Returns the lease and the whole image, deleted or not. Raises Conflict if another worker was
    faster, NotFound if the image is gone with its row.
    """
    found = leases.find_by_id(connection, lease_id)
    if found is None:
        raise errors.Conflict("The lease is not free.")
    image = rows.image_row(connection, found.image_id, lock=True)
    lease = leases.take_over(connection, lease_id, wanted)
    if image is None:
        raise visibility.not_found(found.image_id)
    if image.status in _UNFINISHED[lease.kind] and not image.deleted:
        return lease, images.apply(connection, image, Change({"status": KILLED})).image
    details = Details.load(connection, image.id)
    image.properties, image.locations = details.properties, details.stored_locations
    return lease, image
