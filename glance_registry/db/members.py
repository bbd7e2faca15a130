"""Memberships: who an image is shared with. Each function is one transaction's work.

A change first locks the image's row, so that counts and "is there a row already" hold until it is
written. Rows of former members are revived, never doubled (database.md section 2).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import sqlalchemy as sa
from oslo_utils import timeutils
from sqlalchemy.engine import Connection

from common import errors
from common.context import RequestContext
from common.image import Image, Member
from glance_registry.db import images as image_work
from glance_registry.db import rows, visibility
from glance_registry.db.models import image_members, images

_COLUMNS: Final = (image_members.c.image_id, image_members.c.member, image_members.c.can_share)
# v2's acceptance, which v1 ignores; a membership starts with it, also when it is revived.
_PENDING: Final = "pending"
_LIVE: Final = rows.is_live(image_members)
_STORED: Final = (
    sa.select(
        image_members.c.id,
        image_members.c.member,
        image_members.c.can_share,
        image_members.c.deleted,
    )
    .where(image_members.c.image_id == sa.bindparam("image_id"))
    .order_by(image_members.c.id)
)


def of_image(connection: Connection, ctx: RequestContext, image_id: str) -> list[Member]:
    """The image's live memberships, as far as ctx may see them. Raises NotFound."""
    image = _find(connection, ctx, image_id, lock=False)
    statement = sa.select(*_COLUMNS).where(image_members.c.image_id == image_id, _LIVE)
    if not visibility.can_change(ctx, image):
        if ctx.owner is None:
            return []
        statement = statement.where(image_members.c.member == ctx.owner)
    return [Member(*row) for row in connection.execute(statement.order_by(image_members.c.id))]


def of_member(connection: Connection, ctx: RequestContext, member: str) -> list[Member]:
    """The live memberships of member, as far as ctx may see them."""
    statement = sa.select(*_COLUMNS).where(image_members.c.member == member, _LIVE)
    if not ctx.is_admin and ctx.owner != member:
        if ctx.owner is None:
            return []
        statement = statement.join(images, images.c.id == image_members.c.image_id).where(
            images.c.owner == ctx.owner
        )
    return [Member(*row) for row in connection.execute(statement.order_by(image_members.c.id))]


def put(
    connection: Connection,
    ctx: RequestContext,
    image_id: str,
    member: str,
    can_share: bool | None,
    quota: int,
) -> None:
    """Share the image with member. can_share None: false for a new one, else as it is.

    Raises NotFound, Forbidden for a caller who may not share, LimitExceeded past the quota of
    live memberships (negative: none).
    """
    sharing = _Sharing.load(connection, ctx, image_id)
    sharing.put({member: can_share})
    sharing.require_quota(quota)
    sharing.write(connection)


def replace_all(
    connection: Connection,
    ctx: RequestContext,
    image_id: str,
    wanted: Mapping[str, bool | None],
    quota: int,
) -> None:
    """Make the memberships that ctx can see exactly those wanted. Raises as `put`."""
    sharing = _Sharing.load(connection, ctx, image_id)
    sharing.put(wanted)
    sharing.drop(row.member for row in sharing.visible() if row.member not in wanted)
    if 0 <= quota < len(wanted):
        raise _over_quota(len(wanted), quota)
    sharing.require_quota(quota)
    sharing.write(connection)


def remove(connection: Connection, ctx: RequestContext, image_id: str, member: str) -> None:
    """End one membership. Raises NotFound also for a membership that ctx cannot see."""
    sharing = _Sharing.load(connection, ctx, image_id)
    if member not in {row.member for row in sharing.visible()}:
        raise errors.NotFound("Membership could not be found.")
    sharing.drop([member])
    sharing.write(connection)


def _find(connection: Connection, ctx: RequestContext, image_id: str, *, lock: bool) -> Image:
    image = image_work.find(connection, ctx, image_id, lock=lock)
    if image.deleted:
        # Only admins get here; v1's words, which old tests look for.
        raise errors.NotFound(f"Image with identifier {image_id} has been deleted.")
    return image


@dataclass(slots=True)
class _Row:
    """One membership, live or former; `row_id` None is not stored yet."""

    row_id: int | None
    member: str
    can_share: bool
    deleted: bool
    changed: bool = False
    revived: bool = False


@dataclass(slots=True)
class _Sharing:
    """All memberships of one locked image, as one sharer sees and changes them."""

    ctx: RequestContext
    image: Image
    rows: dict[str, _Row]
    live_before: int

    @classmethod
    def load(cls, connection: Connection, ctx: RequestContext, image_id: str) -> "_Sharing":
        """Lock and read. Raises NotFound, or Forbidden for a caller who may not share."""
        image = _find(connection, ctx, image_id, lock=True)
        stored: dict[str, _Row] = {}
        for row_id, member, can_share, deleted in connection.execute(
            _STORED, {"image_id": image_id}
        ):
            # MySQL may hold several former rows of one member; the live one, or the last, counts.
            if not deleted or member not in stored or stored[member].deleted:
                stored[member] = _Row(row_id, member, can_share, deleted)
        sharing = cls(ctx, image, stored, sum(not row.deleted for row in stored.values()))
        sharing._require_sharer()
        return sharing

    def _require_sharer(self) -> None:
        if visibility.can_change(self.ctx, self.image):
            return
        own = self.rows.get(self.ctx.owner) if self.ctx.owner is not None else None
        if own is None or own.deleted or not own.can_share:
            raise errors.Forbidden()

    def _is_seen(self, row: _Row) -> bool:
        return visibility.can_change(self.ctx, self.image) or row.member == self.ctx.owner

    def visible(self) -> list[_Row]:
        return [row for row in self.rows.values() if not row.deleted and self._is_seen(row)]

    def put(self, wanted: Mapping[str, bool | None]) -> None:
        for member, can_share in wanted.items():
            row = self.rows.get(member)
            if row is None:
                self.rows[member] = _Row(None, member, bool(can_share), False, changed=True)
            elif row.deleted:
                # A revived membership never brings an old right to share back (D11, D16).
                row.deleted, row.can_share = False, bool(can_share)
                row.changed = row.revived = True
            elif can_share is not None and can_share != row.can_share and self._is_seen(row):
                row.can_share, row.changed = can_share, True

    def drop(self, members: Iterable[str]) -> None:
        for member in members:
            row = self.rows[member]
            row.deleted, row.changed = True, True

    def require_quota(self, quota: int) -> None:
        """All live memberships count, whoever sees them (D45); one over the quota may still
        shrink or change what is there (D17).
        """
        live = sum(not row.deleted for row in self.rows.values())
        if 0 <= quota < live and live > self.live_before:
            raise _over_quota(live, quota)

    def write(self, connection: Connection) -> None:
        now = timeutils.utcnow()
        for row in self.rows.values():
            if row.changed and row.row_id is None:
                connection.execute(image_members.insert(), self._new_row(row, now))
            elif row.changed:
                values = {
                    "can_share": row.can_share,
                    "deleted": row.deleted,
                    "deleted_at": now if row.deleted else None,
                    "updated_at": now,
                } | ({"status": _PENDING} if row.revived else {})
                statement = image_members.update().where(image_members.c.id == row.row_id)
                connection.execute(statement.values(**values))

    def _new_row(self, row: _Row, now: datetime) -> dict[str, object]:
        return {
            "image_id": self.image.id,
            "member": row.member,
            "can_share": row.can_share,
            "status": _PENDING,
            "created_at": now,
            "updated_at": now,
            "deleted": False,
        }


def _over_quota(attempted: int, maximum: int) -> errors.LimitExceeded:
    return errors.LimitExceeded(
        "The limit has been exceeded on the number of allowed image members for this image."
        f" Attempted: {attempted}, Maximum: {maximum}"
    )
