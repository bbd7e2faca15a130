"""`glance-manage check` and `reconcile`: the stores and the database, side by side.

These run beside the daemons or without them, on the database and the stores directly.
"""

import socket
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from common.config import Configuration
from common.context import RequestContext
from common.image import DELETED, KILLED, SAVING, Change, Image
from common.lease import Lease
from glance_api.consistency import (
    ConsistencyCheck,
    Permissions,
    Problem,
    Reconciliation,
)
from glance_api.identity import service_context
from glance_api.janitor import Janitor
from glance_api.leases import LeaseKeeper
from glance_api.location_cipher import LocationCipher, cipher_from
from glance_api.registry_client import FoundLease
from glance_registry.db import audit, caretaking, images, rows, usage
from glance_registry.db import leases as lease_rows
from glance_registry.db.engine import Database
from glance_store.loader import Stores

# Work that is about to be recorded is younger than this.
_SETTLED_SECONDS = 60

# A repair may bring another problem to light, as a settled upload does its bytes.
_MAX_PASSES = 3

_LEFT = {
    Problem.EXTRA: "left as it is (--delete-unknown removes it)",
    Problem.MISSING: "left as it is (--delete-missing deletes the record)",
}


class DatabaseRecords:
    """glance_registry.db.audit with URLs in clear text."""

    def __init__(self, database: Database, cipher: LocationCipher | None) -> None:
        self.database = database
        self.cipher = cipher

    def locations(self) -> Iterator[audit.RecordedLocation]:
        for location in audit.recorded_locations(self.database):
            yield replace(location, url=self._clear(location.url))

    def standing(self, image_id: str) -> audit.Standing:
        found = self.database.read(lambda connection: audit.standing(connection, image_id))
        return replace(found, urls=tuple(self._clear(url) for url in found.urls))

    def unsettled(self) -> list[tuple[str, str]]:
        return self.database.read(lambda connection: audit.unsettled(connection, _SETTLED_SECONDS))

    def miscounted(self) -> list[str]:
        return self.database.read(audit.miscounted)

    def _clear(self, url: str) -> str:
        return url if self.cipher is None else self.cipher.decrypt(url)


class DatabaseRepairs:
    def __init__(self, database: Database) -> None:
        self.database = database

    def settle(self, image_id: str, status: str) -> bool:
        def work(connection: Any) -> bool:
            image = rows.image_row(connection, image_id, lock=True)
            if image is None or image.status != status or image.deleted:
                return False
            if status == SAVING:
                images.apply(connection, image, Change({"status": KILLED}, from_state=SAVING))
            else:
                images.mark_deleted(connection, image)
            return True

        return self.database.write(work)

    def delete(self, image_id: str) -> None:
        def work(connection: Any) -> None:
            image = rows.image_row(connection, image_id, lock=True)
            if image is not None and not image.deleted:
                written = images.apply(connection, image, Change({"status": DELETED}))
                images.mark_deleted(connection, written.image)

        self.database.write(work)

    def recount(self, owner: str) -> None:
        self.database.write(lambda connection: usage.recount(connection, owner))


class DatabaseLeases:
    """What a janitor asks of the registry, asked of its database."""

    def __init__(self, database: Database, cipher: LocationCipher | None) -> None:
        self.database = database
        self.cipher = cipher

    def leases(self, ctx: RequestContext) -> Sequence[FoundLease]:
        found = self.database.read(lambda connection: lease_rows.soonest(connection, 1000))
        return [
            FoundLease(
                str(each.id),
                each.lease.image_id,
                each.lease.kind,
                each.lease.store,
                each.lease.worker,
                each.lease.previous,
                each.expired,
            )
            for each in found
        ]

    def claim(self, ctx: RequestContext, found: FoundLease, lease: Lease, seconds: int) -> Image:
        wanted = lease_rows.Claim(
            worker=lease.worker,
            seconds=seconds,
            token=lease.token,
            expected_worker=found.worker,
            only_expired=found.expired,
        )
        _, image = self.database.write(
            lambda connection: caretaking.claim(connection, int(found.id), wanted)
        )
        if self.cipher is not None:
            clear = self.cipher.decrypt
            image.locations = [replace(each, url=clear(each.url)) for each in image.locations]
        return image

    def renew(
        self, ctx: RequestContext, reserves: Any, seconds: int, quota: int = 0
    ) -> dict[str, lease_rows.LeaseState]:
        renewals = [lease_rows.Renewal(token, reserve) for token, reserve in reserves.items()]
        return self.database.write(
            lambda connection: lease_rows.renew(connection, renewals, seconds, quota)
        )

    def end_lease(
        self,
        ctx: RequestContext,
        token: str,
        status: str | None = None,
        from_state: str | None = None,
    ) -> None:
        self.database.write(
            lambda connection: caretaking.end(connection, token, status, from_state)
        )


class Consistency:
    """Both commands, on one configuration."""

    def __init__(self, conf: Configuration, database: Database) -> None:
        """Raises ConfigurationError or BadStoreConfiguration, naming the option."""
        self.cipher = cipher_from(conf)
        self.database = database
        self.stores = Stores.configured(conf)
        self.service = service_context(conf)
        self.seconds: int = conf.leases.seconds
        self.host: str = conf.leases.host or socket.gethostname()
        self.comparison = ConsistencyCheck(
            DatabaseRecords(database, self.cipher), self.stores, self.service
        )

    def check(self) -> tuple[int, Iterator[str]]:
        """Report every problem; the exit status has a bit for each kind that was found."""
        lines, status = [], 0
        for finding in self.comparison.findings():
            status |= finding.problem.value
            lines.append(f"{finding.problem.name.lower()} {finding.subject}: {finding.detail}")
        return status, iter([*lines, *self._skipped(), _summary(len(lines))])

    def reconcile(self, permissions: Permissions, *, dry_run: bool) -> tuple[int, Iterator[str]]:
        """Repair what can be repaired; the exit status tells what is left, as for check."""
        lines: list[str] = []
        if not dry_run and (resolved := self._resolve_leases()):
            lines.append(f"abandoned {resolved} uploads, copies and deletes brought to an end")
        status = 0
        for _ in range(_MAX_PASSES):
            status, repaired = self._pass(permissions, dry_run, lines)
            if not repaired:
                break
        return status, iter([*lines, *self._skipped()])

    def _pass(self, permissions: Permissions, dry_run: bool, lines: list[str]) -> tuple[int, int]:
        reconciliation = Reconciliation(
            self.comparison, DatabaseRepairs(self.database), permissions
        )
        left = repaired = 0
        for finding in list(self.comparison.findings()):
            done = None if dry_run else reconciliation.repair(finding)
            if done is None:
                left |= finding.problem.value
            repaired += done is not None
            line = f"{finding.problem.name.lower()} {finding.subject}: {finding.detail}"
            if done is None and dry_run and reconciliation.may_repair(finding):
                done = "would be repaired"
            line += f" -> {done or _LEFT.get(finding.problem, 'left as it is')}"
            if line not in lines:
                lines.append(line)
        return left, repaired

    def _resolve_leases(self) -> int:
        direct = DatabaseLeases(self.database, self.cipher)
        keeper = LeaseKeeper(direct, f"{self.host}-manage", self.seconds)
        return Janitor(direct, self.stores, keeper, self.service).run_once()

    def _skipped(self) -> list[str]:
        return [f"store {name} cannot be listed" for name in sorted(set(self.comparison.skipped))]


def _summary(count: int) -> str:
    return f"{count or 'no'} problem{'' if count == 1 else 's'}"


def permissions_from(args: Any) -> Permissions:
    return Permissions(delete_unknown=args.delete_unknown, delete_missing=args.delete_missing)


def add_parsers(subparsers: Any) -> None:
    check = subparsers.add_parser("check", help="Compare the stores with the database.")
    check.set_defaults(report=lambda conf, database, _args: Consistency(conf, database).check())
    reconcile = subparsers.add_parser("reconcile", help="Repair what check finds.")
    reconcile.add_argument("--dry-run", action="store_true", help="Only say what is found.")
    reconcile.add_argument(
        "--delete-unknown",
        action="store_true",
        help="Remove stored bytes whose image the database has never heard of, too. Make sure "
        "that no other service keeps images in the same place.",
    )
    reconcile.add_argument(
        "--delete-missing",
        action="store_true",
        help="Delete the records of images whose bytes are gone.",
    )
    reconcile.set_defaults(
        report=lambda conf, database, args: Consistency(conf, database).reconcile(
            permissions_from(args), dry_run=args.dry_run
        )
    )
