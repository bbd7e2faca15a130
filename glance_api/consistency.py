"""Compares what the stores hold with what the registry's database says (invariants I-1, I-2, I-7).

Safe beside a live service: nothing is believed at first sight. A difference found by comparing two
lists that were read at different times is looked at once more, by itself, before it is reported.
"""

import enum
import logging
import sqlite3
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from typing import Final, Protocol

from common import errors
from common.context import RequestContext
from glance_store.driver import Capability, Store, Stored
from glance_store.loader import Stores

LOG = logging.getLogger(__name__)


class Problem(enum.Enum):
    """What can be wrong; the value is the bit it sets in the exit status of `check`."""

    MISSING = 2  # a recorded location with nothing behind it
    EXTRA = 4  # stored bytes, whole or partial, that nothing refers to
    STUCK = 8  # an image that waits for work nobody is doing
    MISCOUNTED = 16  # an owner whose usage differs from a recount
    RESIZED = 32  # stored bytes of another number than recorded


@dataclass(frozen=True, slots=True)
class Finding:
    """One problem. `subject` is an image id, or an owner for MISCOUNTED.

    `known` tells, for EXTRA, whether the database knows the id at all.
    """

    problem: Problem
    subject: str
    detail: str
    known: bool = True
    stored: Stored | None = field(default=None, repr=False)
    url: str | None = field(default=None, repr=False)


class RecordedLocation(Protocol):
    @property
    def image_id(self) -> str: ...
    @property
    def url(self) -> str: ...
    @property
    def size(self) -> int | None: ...


class Standing(Protocol):
    @property
    def exists(self) -> bool: ...
    @property
    def has_lease(self) -> bool: ...
    @property
    def urls(self) -> tuple[str, ...]: ...


class Records(Protocol):
    """What the database says; see glance_registry.db.audit. URLs come in clear text."""

    def locations(self) -> Iterable[RecordedLocation]: ...

    def standing(self, image_id: str) -> Standing: ...

    def unsettled(self) -> list[tuple[str, str]]: ...

    def miscounted(self) -> list[str]: ...


_SCHEMA: Final = """
CREATE TABLE stored (store TEXT, image_id TEXT, url TEXT, size INTEGER, complete INTEGER);
CREATE TABLE recorded (store TEXT, image_id TEXT, url TEXT, size INTEGER);
"""
_INDEXES: Final = """
CREATE INDEX stored_url ON stored (url);
CREATE INDEX stored_id ON stored (store, image_id);
CREATE INDEX recorded_url ON recorded (url);
CREATE INDEX recorded_id ON recorded (store, image_id);
"""
# Old rows may name the same bytes by another URL (`filesystem://`, credentials), so the image's
# id is as good.
_EXTRA: Final = """
SELECT store, image_id, url, size, complete FROM stored WHERE NOT complete OR (
    NOT EXISTS (SELECT 1 FROM recorded r WHERE r.url = stored.url)
    AND NOT EXISTS (
        SELECT 1 FROM recorded r WHERE r.store = stored.store AND r.image_id = stored.image_id))
"""
_MISSING: Final = """
SELECT image_id, url FROM recorded WHERE
    NOT EXISTS (SELECT 1 FROM stored s WHERE s.complete AND s.url = recorded.url)
    AND NOT EXISTS (SELECT 1 FROM stored s WHERE s.complete
        AND s.store = recorded.store AND s.image_id = recorded.image_id)
"""
_RESIZED: Final = """
SELECT recorded.image_id, recorded.url, recorded.size, stored.size FROM recorded
JOIN stored ON stored.url = recorded.url AND stored.complete
WHERE recorded.size != stored.size
"""


class ConsistencyCheck:
    """skipped names the enabled stores that cannot list what they hold."""

    def __init__(self, records: Records, stores: Stores, service: RequestContext) -> None:
        self.records = records
        self.stores = stores
        self.service = service
        self.skipped: list[str] = []

    def findings(self) -> Iterator[Finding]:
        """Every confirmed problem. Reads only."""
        # The lists go to a file of their own, so that their length costs no memory.
        with (
            tempfile.NamedTemporaryFile(prefix="glance-check-") as file,
            closing(sqlite3.connect(file.name)) as ledger,
        ):
            ledger.executescript("PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF;" + _SCHEMA)
            # Stores first: whatever appears in one later has its lease in the database by then.
            listed = self._list_stores(ledger)
            self._list_records(ledger, listed)
            ledger.executescript(_INDEXES)
            yield from self._extra(ledger)
            yield from self._missing(ledger)
            yield from self._resized(ledger)
        for image_id, status in self.records.unsettled():
            yield Finding(Problem.STUCK, image_id, f"{status}, and nobody is at work on it")
        for owner in self.records.miscounted():
            yield Finding(Problem.MISCOUNTED, owner, "usage differs from a recount")

    def _list_stores(self, ledger: sqlite3.Connection) -> set[str]:
        listed: set[str] = set()
        for store in self.stores:
            name = store.schemes[0]
            if Capability.LIST not in store.capabilities:
                if Capability.WRITE in store.capabilities:
                    self.skipped.append(name)
                continue
            rows = (
                (name, each.image_id, each.url, each.size, each.complete)
                for each in store.contents()
            )
            ledger.executemany("INSERT INTO stored VALUES (?, ?, ?, ?, ?)", rows)
            listed.add(name)
        return listed

    def _list_records(self, ledger: sqlite3.Connection, listed: set[str]) -> None:
        def rows() -> Iterator[tuple[str, str, str, int | None]]:
            for each in self.records.locations():
                store = self._store_of(each.url)
                if store is not None and store.schemes[0] in listed:
                    yield store.schemes[0], each.image_id, each.url, each.size

        ledger.executemany("INSERT INTO recorded VALUES (?, ?, ?, ?)", rows())

    def _store_of(self, url: str) -> Store | None:
        try:
            return self.stores.for_url(url)
        except errors.Invalid:
            return None

    def _extra(self, ledger: sqlite3.Connection) -> Iterator[Finding]:
        for store, image_id, url, size, complete in ledger.execute(_EXTRA):
            stored = Stored(url, image_id, size, complete=bool(complete))
            standing = self.records.standing(image_id) if image_id else None
            if standing is not None and (standing.has_lease or url in standing.urls):
                continue
            what = "bytes" if complete else "an unfinished upload"
            known = standing is not None and standing.exists
            detail = f"{what} in store {store} that nothing refers to"
            if not known:
                detail += "; the database has never heard of the image"
            yield Finding(Problem.EXTRA, image_id or "?", detail, known, stored)

    def _missing(self, ledger: sqlite3.Connection) -> Iterator[Finding]:
        for image_id, url in ledger.execute(_MISSING):
            if url in self.records.standing(image_id).urls and self._is_gone(url):
                yield Finding(Problem.MISSING, image_id, "its bytes are not in the store", url=url)

    def _resized(self, ledger: sqlite3.Connection) -> Iterator[Finding]:
        for image_id, url, recorded, stored in ledger.execute(_RESIZED):
            if url in self.records.standing(image_id).urls:
                detail = f"{stored} bytes are stored where {recorded} are recorded"
                yield Finding(Problem.RESIZED, image_id, detail, url=url)

    def _is_gone(self, url: str) -> bool:
        try:
            self.stores.for_url(url).size(self.service, url)
        except errors.NotFound:
            return True
        except errors.GlanceError as error:
            LOG.warning("a store cannot say whether bytes are there: %s", error)
        return False


class Repairs(Protocol):
    """How the database is changed; each is a compare-and-set that loses nothing if too late."""

    def settle(self, image_id: str, status: str) -> bool:
        """Make a `saving` image killed; mark a `deleted` one gone. False if it has moved on."""

    def delete(self, image_id: str) -> None:
        """Mark an image whose bytes are lost as deleted."""

    def recount(self, owner: str) -> None: ...


@dataclass(frozen=True)
class Permissions:
    """What an operator allows beyond what loses nothing."""

    delete_unknown: bool = False  # stored bytes whose id the database has never heard of
    delete_missing: bool = False  # records whose bytes are gone


class Reconciliation:
    """Repairs findings. What it may not, or cannot, repair it leaves and says so."""

    def __init__(
        self,
        check: ConsistencyCheck,
        repairs: Repairs,
        permissions: Permissions,
    ) -> None:
        self.check = check
        self.repairs = repairs
        self.permissions = permissions
        self._actions: dict[Problem, Callable[[Finding], str | None]] = {
            Problem.EXTRA: self._remove_extra,
            Problem.MISSING: self._delete_missing,
            Problem.STUCK: self._settle,
            Problem.MISCOUNTED: self._recount,
        }

    def may_repair(self, finding: Finding) -> bool:
        """Whether `repair` would do something about finding."""
        if finding.problem is Problem.EXTRA:
            return finding.known or self.permissions.delete_unknown
        if finding.problem is Problem.MISSING:
            return self.permissions.delete_missing
        return finding.problem in self._actions

    def repair(self, finding: Finding) -> str | None:
        """Repair one finding; what was done, or None if it is left as it is."""
        return self._actions[finding.problem](finding) if self.may_repair(finding) else None

    def _remove_extra(self, finding: Finding) -> str | None:
        stored = finding.stored
        if stored is None:
            return None
        store = self.check.stores.for_url(stored.url)
        if stored.complete:
            try:
                store.delete(self.check.service, stored.url)
            except errors.NotFound:
                return "already gone"
        elif stored.image_id is not None:
            store.discard(self.check.service, stored.image_id)
        return "removed"

    def _delete_missing(self, finding: Finding) -> str:
        self.repairs.delete(finding.subject)
        return "record deleted"

    def _settle(self, finding: Finding) -> str:
        status = finding.detail.partition(",")[0]
        urls = self.check.records.standing(finding.subject).urls
        for url in urls:
            try:
                self.check.stores.for_url(url).delete(self.check.service, url)
            except errors.NotFound:
                continue
        return "settled" if self.repairs.settle(finding.subject, status) else "settled itself"

    def _recount(self, finding: Finding) -> str:
        self.repairs.recount(finding.subject)
        return "recounted"
