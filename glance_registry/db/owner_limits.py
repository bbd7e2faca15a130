"""How many images one owner may have, and how many of them without data (SEC-074)."""

from dataclasses import dataclass
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from common import errors
from common.image import QUEUED, SAVING
from glance_registry.db import usage
from glance_registry.db.models import images

_UNFILLED: Final = (QUEUED, SAVING)

# Whether there is an n-th one costs n entries of an index, however many images there are.
_NTH: Final = (
    sa.select(images.c.id)
    .where(images.c.owner == sa.bindparam("whose"), images.c.deleted == sa.false())
    .limit(1)
    .offset(sa.bindparam("skip"))
)
_NTH_UNFILLED: Final = _NTH.where(images.c.status.in_(_UNFILLED))


@dataclass(frozen=True, slots=True)
class OwnerLimits:
    """`images_per_tenant` and `queued_images_per_tenant`; 0 means no limit."""

    images: int = 0
    queued: int = 0

    def admit(self, connection: Connection, owner: str | None, status: str) -> None:
        """Raise LimitExceeded where owner has as many images as allowed, before another one in
        status. An image without owner counts for nobody.

        Whoever asks for the same owner waits until this transaction ends, so that creations at
        the same time cannot pass together.
        """
        unfilled = self.queued if status in _UNFILLED else 0
        if owner is None or not (self.images or unfilled):
            return
        usage.lock(connection, owner)
        if self.images and _exists(connection, _NTH, owner, self.images):
            raise errors.LimitExceeded(f"The limit of {self.images} images has been reached.")
        if unfilled and _exists(connection, _NTH_UNFILLED, owner, unfilled):
            raise errors.LimitExceeded(
                f"The limit of {unfilled} images without data has been reached."
            )


NO_LIMITS: Final = OwnerLimits()


def _exists(connection: Connection, statement: sa.Select[Any], owner: str, number: int) -> bool:
    parameters = {"whose": owner, "skip": number - 1}
    return connection.execute(statement, parameters).first() is not None
