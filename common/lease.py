"""Leases: the record that work on an image's bytes is under way, and whose it is.

A lease is written to the database before the first byte moves and ends in the same transaction
that records the outcome. Its worker renews it; when it expires, another worker claims it and
finishes or undoes the work (REL-009, REL-052). So a crash at any step leaves something to find.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Final

UPLOAD: Final = "upload"  # bytes are coming in; the image is `saving`
COPY: Final = "copy"  # a copy-from was accepted; the image is `queued`, then `saving`
DELETE: Final = "delete"  # the image is marked deleted; its bytes are going away


@dataclass(slots=True)
class Lease:
    """Work on one image's bytes.

    `token` is unguessable and is the right to renew and end the lease. `store` is the scheme of
    the store the bytes go to or leave. `worker` names host, process and process start, so that
    a restarted daemon knows its own dead. `reserved` bytes count against `owner`'s quota until
    the lease ends. `previous` is the status to return to when a delete is refused;
    `seconds` is how long the lease lives without being renewed.
    """

    token: str
    image_id: str
    kind: str
    store: str
    worker: str
    owner: str | None = None
    reserved: int = 0
    previous: str | None = None
    seconds: int = 30
    expires_at: datetime | None = None
