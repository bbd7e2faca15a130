"""The leases this worker holds: made here, renewed here, and watched for what others did.

A renewal tells whether an image was deleted under an upload, so the upload ends within a second
or two instead of running to the end for nothing (SEC-072).
"""

import contextlib
import logging
import os
import random
import threading
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from common import errors
from common.context import RequestContext
from common.lease import Lease
from common.upload import Upload

LOG = logging.getLogger(__name__)

_RENEW_SECONDS: Final = 1.0
# How long at most an upload waits for room in its quota.
_PATIENCE_SECONDS: Final = 1.0

# The part of its life that a lease may still have when it is due, and how many are renewed in
# one request; the registry takes no more than ten times as many.
_DUE: Final = 2 / 3
_AT_ONCE: Final = 1000

# An upload of unknown size reserves this much of its owner's quota ahead of its bytes.
_RESERVE_AHEAD: Final = 8 * 1024 * 1024

# Renewing and ending a lease takes its token and no other identity.
NOBODY: Final = RequestContext()


class LeaseState(Protocol):
    """What a renewal found: `state` is held, lost or refused (the quota is used up)."""

    @property
    def state(self) -> str: ...
    @property
    def deleted(self) -> bool: ...


class LeaseRecords(Protocol):
    """Where leases are recorded: the registry or, for tools, its database."""

    def renew(
        self, ctx: RequestContext, reserves: Mapping[str, int | None], seconds: int, quota: int = 0
    ) -> Mapping[str, LeaseState]:
        """Renew leases by token; a number raises the lease's reservation to it."""

    def end_lease(
        self,
        ctx: RequestContext,
        token: str,
        status: str | None = None,
        from_state: str | None = None,
    ) -> None:
        """End a lease; with a status, set it in the same transaction if from_state holds."""


class LeaseLost(errors.ServiceUnavailable):
    default = "The upload was interrupted; the image cannot be completed."


def worker_name(host: str) -> str:
    """This process's name in its leases: host, pid and the time the process was started."""
    return f"{host}:{os.getpid()}:{_start_time(os.getpid())}"


def is_dead_here(worker: str, host: str) -> bool:
    """True for a worker of this host whose process is gone."""
    try:
        its_host, pid, started = worker.rsplit(":", 2)
        return its_host == host and _start_time(int(pid)) != int(started)
    except ValueError:
        return False


def _start_time(pid: int) -> int:
    """Clock ticks from boot to the start of a process; 0 if there is none of that number."""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
            return int(file.read().rpartition(")")[2].split()[19])
    except (OSError, IndexError):
        return 0


@dataclass(slots=True)
class _Held:
    lease: Lease
    valid_until: float
    quota: int = 0
    upload: Upload | None = None


class LeaseKeeper:
    def __init__(self, registry: LeaseRecords, host: str, seconds: int) -> None:
        self.registry = registry
        self.host = host
        self.seconds = seconds
        self._held: dict[str, _Held] = {}
        self._thread: threading.Thread | None = None

    def new(
        self,
        kind: str,
        image_id: str,
        store: str,
        *,
        owner: str | None = None,
        reserved: int = 0,
        previous: str | None = None,
    ) -> Lease:
        """A lease of this worker, to be sent with the change that begins the work."""
        return Lease(
            token=uuid.uuid4().hex,
            image_id=image_id,
            kind=kind,
            store=store,
            worker=worker_name(self.host),
            owner=owner,
            reserved=reserved,
            previous=previous,
            seconds=self.seconds,
        )

    @contextlib.contextmanager
    def hold(self, lease: Lease, quota: int = 0) -> Iterator[None]:
        """Renew lease from now until the block ends."""
        self.keep(lease, quota)
        try:
            yield
        finally:
            self.drop(lease)

    def keep(self, lease: Lease, quota: int = 0) -> None:
        """Renew lease from now until `drop`."""
        self._held[lease.token] = _Held(lease, time.monotonic() + lease.seconds, quota)
        if self._thread is None:
            self._thread = threading.Thread(target=self._renew_forever, daemon=True)
            self._thread.start()

    def drop(self, lease: Lease) -> None:
        self._held.pop(lease.token, None)

    def watch(self, lease: Lease, upload: Upload) -> None:
        """Abort upload when its image is deleted or its lease, which has begun, is lost."""
        held = self._held[lease.token]
        held.upload = upload
        if held.quota:
            upload.progress = lambda total: self._reserve(held, total)

    def unwatch(self, lease: Lease) -> None:
        """Its bytes are in, and what is done next ends the lease: an upload that is as good as
        complete is no longer aborted. Whether the image still exists shows when it is activated.
        """
        if lease.token in self._held:
            self._held[lease.token].upload = None

    def end(self, lease: Lease, status: str | None = None, from_state: str | None = None) -> None:
        """End a lease, setting the image's status if it is still from_state.

        Where the registry cannot be reached the lease runs out by itself, and whoever claims it
        does the same.
        """
        self.drop(lease)
        try:
            self.registry.end_lease(NOBODY, lease.token, status, from_state)
        except errors.GlanceError as error:
            LOG.warning("the lease on image %s is left to expire: %s", lease.image_id, error)

    def _reserve(self, held: _Held, total: int) -> None:
        if total <= held.lease.reserved:
            return
        # Of several that together find no room, the first to give up makes room for the others;
        # chance decides which, so that they do not all fail at once.
        deadline = time.monotonic() + random.uniform(0, _PATIENCE_SECONDS)
        while not self._has_reserved(held, total):
            if time.monotonic() > deadline:
                raise errors.StorageQuotaFull()
            time.sleep(_PATIENCE_SECONDS / 20)

    def _has_reserved(self, held: _Held, total: int) -> bool:
        lease = held.lease
        for wanted in (total + _RESERVE_AHEAD, total):
            state = self.registry.renew(
                NOBODY, {lease.token: wanted}, lease.seconds, held.quota
            ).get(lease.token)
            if state is not None and state.state == "held":
                lease.reserved = wanted
                return True
            if state is None or state.state == "lost":
                raise _loss(state.deleted if state else False)
        return False

    def renew(self) -> None:
        """Renew what is due, and abort the uploads whose lease or image is gone.

        An upload is always due, so that it hears soon of its image's end; what only waits, as
        thousands of copies may, is renewed in good time.
        """
        late = time.monotonic() + self.seconds * _DUE
        due = [
            item
            for item in list(self._held.values())
            if item.upload is not None or item.valid_until < late
        ]
        try:
            for start in range(0, len(due), _AT_ONCE):
                self._renew(due[start : start + _AT_ONCE])
        except errors.GlanceError as error:
            LOG.warning("leases could not be renewed: %s", error)
            self._abort_expired(due)

    def _renew(self, due: Sequence[_Held]) -> None:
        # One that is only being begun need not be known to the registry yet.
        watched = [item for item in due if item.upload is not None]
        tokens = [item.lease.token for item in due]
        states = self.registry.renew(NOBODY, dict.fromkeys(tokens), self.seconds)
        now = time.monotonic()
        for item in due:
            found = states.get(item.lease.token)
            if found is not None and found.state == "held":
                item.valid_until = now + self.seconds
        for item in watched:
            found = states.get(item.lease.token)
            if found is None or found.deleted or found.state == "lost":
                self._abort(item, _loss(found.deleted if found else False))

    def _renew_forever(self) -> None:
        while True:
            time.sleep(_RENEW_SECONDS)
            if self._held:
                try:
                    self.renew()
                except Exception:
                    LOG.exception("renewing leases failed")

    def _abort_expired(self, held: Sequence[_Held]) -> None:
        # Past this moment another worker may have claimed the lease and removed the bytes.
        now = time.monotonic()
        for item in held:
            if item.valid_until < now:
                self._abort(item, LeaseLost())

    def _abort(self, item: _Held, error: errors.GlanceError) -> None:
        if item.upload is not None and item.lease.token in self._held:
            item.upload.abort(error)


def _loss(deleted: bool) -> errors.GlanceError:
    return errors.ImageDeleted() if deleted else LeaseLost()
