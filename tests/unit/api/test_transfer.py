"""Uploads whose store dies under them: what is left is found, and removed when that is possible."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from common import errors
from common.context import RequestContext
from common.image import ACTIVE, DELETED, KILLED, SAVING, Change, Image
from common.lease import UPLOAD, Lease
from common.upload import BytesSource, Upload
from glance_api import transfer as transfer_module
from glance_api.janitor import Janitor
from glance_api.leases import LeaseKeeper
from glance_api.registry_client import FoundLease, LeaseState
from glance_api.transfer import Incoming, Transfer, TransferSettings
from glance_store import BackendUnavailable
from glance_store.drivers.memory import MemoryStore
from glance_store.loader import Stores
from tests.clock import Clock

CTX = RequestContext(user="u", tenant="t")
SERVICE = RequestContext(user="glance", is_admin=True, is_service=True)
IMAGE_ID = "00000000-0000-4000-8000-000000000001"


class DyingStore(MemoryStore):
    """Its backend goes away when everything has been written, and comes back when told."""

    def __init__(self) -> None:
        super().__init__({})
        self.away = False
        self.dies_for = 1000

    def add(self, ctx: RequestContext, image_id: str, upload: Upload) -> tuple[str, dict[str, Any]]:
        super().add(ctx, image_id, upload)
        self.away = True
        raise BackendUnavailable()

    def discard(self, ctx: RequestContext, image_id: str) -> None:
        self.dies_for -= 1
        if self.away and self.dies_for >= 0:
            raise BackendUnavailable()
        super().discard(ctx, image_id)

    @property
    def holds(self) -> list[str | None]:
        return [each.image_id for each in self.contents()]


class TakenStore(DyingStore):
    def add(self, ctx: RequestContext, image_id: str, upload: Upload) -> tuple[str, dict[str, Any]]:
        raise errors.Duplicate()


@dataclass
class Records:
    """One image and the lease on it, as the registry keeps them."""

    status: str = SAVING
    lease: Lease | None = None
    away: bool = False
    checksum: str | None = None
    # The next change is made, and its answer lost.
    loses_answer: bool = False

    def get(self, ctx: RequestContext, image_id: str, *, vouched: bool = False) -> Image:
        # By the end of an upload the caller's token has expired.
        if not (vouched or ctx.is_service):
            raise errors.NotAuthenticated()
        return Image(id=image_id, status=self.status, checksum=self.checksum)

    def save(self, ctx: RequestContext, image_id: str, change: Change) -> Image:
        if self.away:
            raise errors.ServiceUnavailable()
        if change.from_state not in (None, self.status):
            raise errors.Conflict()
        self.status = change.fields["status"]
        self.checksum = change.fields.get("checksum")
        if change.end_lease is not None:
            self.lease = None
        if self.loses_answer:
            self.loses_answer = False
            raise errors.ServiceUnavailable()
        return self.get(ctx, image_id, vouched=True)

    def renew(
        self, ctx: RequestContext, reserves: Mapping[str, int | None], seconds: int, quota: int = 0
    ) -> Mapping[str, LeaseState]:
        return {token: LeaseState("held", self.status, False) for token in reserves}

    def end_lease(
        self,
        ctx: RequestContext,
        token: str,
        status: str | None = None,
        from_state: str | None = None,
    ) -> None:
        assert self.lease is not None
        assert self.lease.token == token
        self.lease = None
        if status is not None and self.status == from_state:
            self.status = status

    def leases(self, ctx: RequestContext) -> Sequence[FoundLease]:
        if self.lease is None:
            return []
        held = self.lease
        return [FoundLease("1", held.image_id, held.kind, held.store, held.worker, None, True)]

    def claim(self, ctx: RequestContext, found: FoundLease, lease: Lease, seconds: int) -> Image:
        self.lease = lease
        if self.status == SAVING:
            self.status = KILLED
        return self.get(ctx, found.image_id)


@dataclass
class Scene:
    """An upload that begins, and everything it is made of."""

    store: Any = field(default_factory=DyingStore)
    records: Records = field(default_factory=Records)

    def __post_init__(self) -> None:
        self.stores = Stores({"memory": self.store})
        self.keeper = LeaseKeeper(self.records, "here", 30)

    def upload(self, error: type[Exception] = errors.ServiceUnavailable) -> None:
        with pytest.raises(error):
            self.run()

    def run(self, settle_seconds: float = 0) -> Image:
        lease = self.keeper.new(UPLOAD, IMAGE_ID, "memory")
        self.records.lease = lease
        settings = TransferSettings(image_size_cap=1000, settle_seconds=settle_seconds)
        transfer = Transfer(self.records, self.stores, self.keeper, lambda _: None, settings)
        self.keeper.keep(lease)
        incoming = Incoming(BytesSource(b"bytes"), None, None)
        return transfer.run(CTX, Image(id=IMAGE_ID, status=SAVING), lease, incoming)

    def janitor_looks(self) -> int:
        return Janitor(self.records, self.stores, self.keeper, SERVICE).run_once()


def test_a_store_that_dies_and_comes_back_is_cleaned_up_at_once() -> None:
    scene = Scene()
    scene.store.dies_for = 0
    scene.upload()
    assert scene.store.holds == []
    assert (scene.records.status, scene.records.lease) == (KILLED, None)


def test_a_store_that_stays_dead_is_left_to_the_janitor() -> None:
    """REL-001, REL-009: the image is killed at once, the lease remembers the bytes."""
    scene = Scene()
    scene.upload()
    assert scene.store.holds == [IMAGE_ID]
    assert scene.records.status == KILLED
    assert scene.records.lease is not None


@pytest.mark.parametrize("status", [KILLED, DELETED])
def test_a_janitor_tries_until_the_bytes_are_gone(status: str) -> None:
    """REL-009: also when the image is killed, or deleted, by the time it looks."""
    scene = Scene()
    scene.upload()
    scene.records.status = status
    for _ in range(3):
        assert scene.janitor_looks() == 0
        assert scene.records.lease is not None
    scene.store.away = False
    assert scene.janitor_looks() == 1
    assert scene.store.holds == []
    assert (scene.records.status, scene.records.lease) == (status, None)
    assert scene.janitor_looks() == 0


def test_without_store_and_registry_everything_waits_for_the_lease() -> None:
    scene = Scene()
    scene.records.away = True
    scene.upload()
    assert scene.records.status == SAVING
    scene.records.away = scene.store.away = False
    assert scene.janitor_looks() == 1
    assert (scene.store.holds, scene.records.status) == ([], KILLED)


def test_bytes_that_are_somebody_elses_are_not_discarded() -> None:
    scene = Scene(store=TakenStore())
    scene.upload(errors.Duplicate)
    assert scene.store.dies_for == 1000
    assert (scene.records.status, scene.records.lease) == (KILLED, None)


def test_an_activation_whose_answer_was_lost_is_found_with_an_expired_token(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """REL-021: the bytes belong to an active image."""
    monkeypatch.setattr(transfer_module, "time", Clock())
    scene = Scene(MemoryStore({}))
    scene.records.loses_answer = True
    assert scene.run(settle_seconds=15).status == ACTIVE
    assert [each.image_id for each in scene.store.contents()] == [IMAGE_ID]
