"""Finishes or undoes what dead workers have left (REL-009, REL-052).

Every worker runs one. It looks at the leases in the registry: those of this host whose process
is gone are taken over at once, anybody's when they have run out. Claiming is a compare-and-set,
so two janitors never work on one image; claiming a dead upload makes its image `killed`.
"""

import logging
import random
import threading
import time
import uuid
from collections.abc import Sequence
from dataclasses import replace
from typing import Final, Protocol

from common import errors
from common.context import RequestContext
from common.image import ACTIVE, DELETED, Image
from common.lease import DELETE, Lease
from glance_api.layers.location import delete_bytes
from glance_api.leases import LeaseKeeper, LeaseRecords, is_dead_here, worker_name
from glance_api.registry_client import FoundLease
from glance_store.loader import Stores

LOG = logging.getLogger(__name__)

_PAUSE_SECONDS: Final = 5.0
_FAILURES_UNTIL_WARNING: Final = 3


class Claims(LeaseRecords, Protocol):
    """Leases as a caretaker sees them: the registry's or, for tools, its database's."""

    def leases(self, ctx: RequestContext) -> Sequence[FoundLease]: ...

    def claim(self, ctx: RequestContext, found: FoundLease, lease: Lease, seconds: int) -> Image:
        """Take over a lease for lease.worker under lease.token. Raises Conflict if too late."""


class Janitor:
    """service: the identity it shows to the registry and to stores."""

    def __init__(
        self,
        registry: Claims,
        stores: Stores,
        leases: LeaseKeeper,
        service: RequestContext,
    ) -> None:
        self.registry = registry
        self.stores = stores
        self.leases = leases
        self.service = service
        self._failures = 0

    def start(self) -> None:
        """Look now and then every few seconds, on a thread of its own."""
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        while True:
            try:
                self.run_once()
                self._failures = 0
            except errors.GlanceError as error:
                self._complain(error)
            except Exception:
                LOG.exception("looking for abandoned work failed")
            time.sleep(_PAUSE_SECONDS * random.uniform(0.8, 1.2))

    def run_once(self) -> int:
        """Resolve every lease that has no living worker; the number resolved."""
        resolved = 0
        for found in self.registry.leases(self.service):
            if not (found.expired or is_dead_here(found.worker, self.leases.host)):
                continue
            try:
                self.resolve(found)
                resolved += 1
            except errors.Conflict:
                continue  # its worker lives after all, or another janitor was first
            except errors.GlanceError as error:
                LOG.warning("image %s: left for later: %s", found.image_id, error)
            except Exception:
                LOG.exception("image %s: clearing up failed", found.image_id)
        return resolved

    def resolve(self, found: FoundLease) -> None:
        """Claim one lease and bring its image to an end. Raises Conflict if it is not free."""
        lease = Lease(
            token=uuid.uuid4().hex,
            image_id=found.image_id,
            kind=found.kind,
            store=found.store,
            worker=worker_name(self.leases.host),
            seconds=self.leases.seconds,
        )
        image = self.registry.claim(self.service, found, lease, lease.seconds)
        with self.leases.hold(lease):
            if lease.kind == DELETE:
                self._finish_delete(image)
            elif image.status != ACTIVE:
                # Some stores keep an image in its owner's account.
                owner = replace(self.service, tenant=image.owner or self.service.tenant)
                self.stores.for_scheme(found.store).discard(owner, image.id)
        self.registry.end_lease(self.service, lease.token)
        LOG.info("image %s: an abandoned %s is cleared up", image.id, found.kind)

    def _finish_delete(self, image: Image) -> None:
        if image.status == DELETED:
            delete_bytes(self.service, self.stores, image)

    def _complain(self, error: errors.GlanceError) -> None:
        self._failures += 1
        # Once or twice is a registry that is just being started.
        if self._failures == _FAILURES_UNTIL_WARNING:
            LOG.warning(
                "abandoned uploads and deletes cannot be looked for: %s Where the registry asks "
                "for credentials, set the same registry_auth_key on both daemons.",
                error,
            )
