"""Images as plain data, and the states an image can be in.

Layers, stores and the registry hand these values around; rules live in operations, not here.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from common.lease import Lease

QUEUED: Final = "queued"
SAVING: Final = "saving"
ACTIVE: Final = "active"
KILLED: Final = "killed"
DELETED: Final = "deleted"
PENDING_DELETE: Final = "pending_delete"
DEACTIVATED: Final = "deactivated"

# images-v1.md section 17. `killed` may still be deleted; nothing ever returns to `queued`, or
# the bytes behind an id could change (CVE-2016-0757).
TRANSITIONS: Final[Mapping[str, frozenset[str]]] = {
    QUEUED: frozenset({SAVING, ACTIVE, KILLED, DELETED, PENDING_DELETE}),
    SAVING: frozenset({ACTIVE, KILLED, DELETED, PENDING_DELETE}),
    ACTIVE: frozenset({DEACTIVATED, DELETED, PENDING_DELETE}),
    DEACTIVATED: frozenset({ACTIVE, DELETED, PENDING_DELETE}),
    KILLED: frozenset({DELETED, PENDING_DELETE}),
    PENDING_DELETE: frozenset({DELETED}),
    DELETED: frozenset(),
}
STATUSES: Final = frozenset(TRANSITIONS)

# What a caller may see or set about an image, in the order v1 lists it. A location is not among
# them: it may hold credentials, so what goes out is chosen from here, never scrubbed (SEC-030).
CORE_FIELDS: Final = (
    "id",
    "name",
    "status",
    "size",
    "virtual_size",
    "disk_format",
    "container_format",
    "min_disk",
    "min_ram",
    "is_public",
    "protected",
    "owner",
    "checksum",
    "created_at",
    "updated_at",
    "deleted_at",
    "deleted",
)
BRIEF_FIELDS: Final = ("id", "name", "disk_format", "container_format", "size", "checksum")


@dataclass(slots=True)
class Location:
    """Where an image's bytes are. `url` may hold credentials: it is kept out of `repr`."""

    url: str = field(repr=False)
    metadata: dict[str, Any] = field(default_factory=dict)
    status: str = ACTIVE
    id: int | None = None


@dataclass(slots=True)
class Image:
    """One image record. Times are naive UTC; sizes are bytes; min_disk GiB, min_ram MiB."""

    id: str = ""
    name: str | None = None
    status: str = QUEUED
    size: int | None = 0
    virtual_size: int | None = None
    disk_format: str | None = None
    container_format: str | None = None
    min_disk: int = 0
    min_ram: int = 0
    is_public: bool = False
    protected: bool = False
    owner: str | None = None
    checksum: str | None = None
    created_at: datetime | None = None
    updated_at: datetime | None = None
    deleted_at: datetime | None = None
    deleted: bool = False
    properties: dict[str, str | None] = field(default_factory=dict)
    locations: list[Location] = field(default_factory=list)

    @property
    def location(self) -> Location | None:
        """The first location that is in use, or None for an image without bytes."""
        return next((loc for loc in self.locations if loc.status == ACTIVE), None)


@dataclass(frozen=True, slots=True)
class Member:
    """One tenant an image is shared with. `status` is v2's acceptance; v1 ignores it."""

    image_id: str
    member: str
    can_share: bool = False
    status: str = "pending"


@dataclass(slots=True)
class Change:
    """What an update sets: only the named core `fields` change.

    `properties` None leaves properties alone; otherwise they are merged, or with `purge` they
    replace all that exist. `locations` None leaves locations alone.

    `from_state` is the status the image must still have when the change is written; otherwise
    nothing changes and the caller gets Conflict. `lease` begins and `end_lease` (a token) ends
    in the same transaction; `quota` is what the lease's owner may hold, 0 for no limit.
    """

    fields: dict[str, Any] = field(default_factory=dict)
    properties: dict[str, str | None] | None = None
    purge: bool = False
    locations: list[Location] | None = None
    from_state: str | None = None
    lease: Lease | None = None
    quota: int = 0
    end_lease: str | None = field(default=None, repr=False)
