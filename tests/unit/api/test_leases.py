"""Leases that are renewed while their work begins, goes on and ends (REL-009, SEC-072)."""

from collections.abc import Callable, Mapping

import pytest

from common import errors
from common.context import RequestContext
from common.lease import COPY, UPLOAD, Lease
from common.upload import BytesSource, Upload
from glance_api.leases import LeaseKeeper, LeaseLost
from glance_api.registry_client import LeaseState


class Records:
    """Says what it is told of every lease; `meanwhile` happens before the answer is back."""

    def __init__(self) -> None:
        self.state = LeaseState("held", "saving", False)
        self.known = True
        self.meanwhile: Callable[[], object] = lambda: None
        self.away = False
        self.renewed: list[int] = []

    def renew(
        self, ctx: RequestContext, reserves: Mapping[str, int | None], seconds: int, quota: int = 0
    ) -> dict[str, LeaseState]:
        self.renewed.append(len(reserves))
        states = dict.fromkeys(reserves, self.state) if self.known else {}
        self.meanwhile()
        if self.away:
            raise errors.ServiceUnavailable()
        return states

    def end_lease(
        self,
        ctx: RequestContext,
        token: str,
        status: str | None = None,
        from_state: str | None = None,
    ) -> None:
        self.known = False


class Connection(BytesSource):
    """Can be used for another request unless it has been cut."""

    is_cut = False

    def abort(self) -> None:
        self.is_cut = True
        super().abort()


@pytest.fixture(autouse=True)
def _no_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Renewals happen when the test says so, and none when it is over."""
    monkeypatch.setattr(LeaseKeeper, "_renew_forever", lambda keeper: None)


@pytest.fixture
def records() -> Records:
    return Records()


@pytest.fixture
def keeper(records: Records) -> LeaseKeeper:
    return LeaseKeeper(records, "here", 30)


@pytest.fixture
def lease(keeper: LeaseKeeper) -> Lease:
    lease = keeper.new(UPLOAD, "an-image", "file")
    keeper.keep(lease)
    return lease


@pytest.fixture
def upload() -> Upload:
    return Upload(BytesSource(b"content"))


def test_an_upload_whose_lease_is_held_goes_on(
    keeper: LeaseKeeper, lease: Lease, upload: Upload
) -> None:
    keeper.watch(lease, upload)
    keeper.renew()
    assert upload.read() == b"content"


@pytest.mark.parametrize(
    ("state", "error"),
    [
        (LeaseState("lost", "saving", False), LeaseLost),
        (LeaseState("lost", "deleted", True), errors.ImageDeleted),
        (LeaseState("held", "deleted", True), errors.ImageDeleted),
    ],
)
def test_an_upload_whose_lease_or_image_is_gone_is_aborted(
    records: Records,
    keeper: LeaseKeeper,
    lease: Lease,
    upload: Upload,
    state: LeaseState,
    error: type[Exception],
) -> None:
    keeper.watch(lease, upload)
    records.state = state
    keeper.renew()
    with pytest.raises(error):
        upload.read()


def test_a_lease_that_is_only_being_begun_is_not_lost(
    records: Records, keeper: LeaseKeeper, upload: Upload
) -> None:
    """The renewal was on its way before the record of the lease was written."""
    lease = Lease(token="1", image_id="i", kind=UPLOAD, store="file", worker="w", seconds=5)
    keeper.keep(lease)
    records.known = False
    records.meanwhile = lambda: keeper.watch(lease, upload)
    keeper.renew()
    assert records.renewed == [1]
    assert upload.read() == b"content"


@pytest.mark.parametrize("away", [False, True])
def test_an_upload_that_is_complete_is_not_aborted_when_its_lease_ends(
    records: Records, keeper: LeaseKeeper, lease: Lease, away: bool
) -> None:
    """The renewal was on its way when the activation ended the lease."""
    source = Connection(b"content")
    upload = Upload(source)
    keeper.watch(lease, upload)
    records.known, records.away = False, away
    records.meanwhile = lambda: keeper.unwatch(lease)
    keeper.renew()
    assert not source.is_cut


def test_a_registry_that_is_away_costs_an_upload_nothing_until_its_lease_runs_out(
    records: Records, upload: Upload
) -> None:
    keeper = LeaseKeeper(records, "here", 0)
    records.away = True
    patient = Lease(token="1", image_id="i", kind=UPLOAD, store="file", worker="w", seconds=30)
    keeper.keep(patient)
    keeper.watch(patient, upload)
    keeper.renew()
    assert upload.read() == b"content"
    expired = Upload(BytesSource(b"content"))
    late = Lease(token="2", image_id="j", kind=UPLOAD, store="file", worker="w", seconds=-1)
    keeper.keep(late)
    keeper.watch(late, expired)
    keeper.renew()
    with pytest.raises(LeaseLost):
        expired.read()


def test_ten_thousand_copies_that_wait_do_not_cost_an_upload_its_lease(
    records: Records, keeper: LeaseKeeper, lease: Lease, upload: Upload
) -> None:
    """SEC-079: they are renewed when they are due, in requests that the registry takes."""
    for number in range(10_000):
        keeper.keep(keeper.new(COPY, str(number), "file"))
    keeper.watch(lease, upload)
    keeper.renew()
    assert records.renewed == [1]
    for item in keeper._held.values():
        item.valid_until -= 15
    keeper.renew()
    assert sum(records.renewed) == 1 + 10_001
    assert max(records.renewed) <= 1000
    keeper.renew()
    assert records.renewed[-1] == 1
