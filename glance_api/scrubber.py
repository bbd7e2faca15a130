"""Removes the bytes of images whose deletion was delayed (middleware-and-config.md section 9).

Two scrubbers on one database do no harm: bytes that the other has removed are no error, and only
one of them makes the image `deleted`.
"""

import logging
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Final

from oslo_utils import timeutils

from common import errors
from common.context import RequestContext
from common.image import DELETED, PENDING_DELETE, Change, Image, Location
from common.query import ListQuery
from glance_api.registry_client import RegistryClient
from glance_store.errors import DeleteUnsupported
from glance_store.loader import Stores

LOG = logging.getLogger(__name__)

_PAGE: Final = 100


@dataclass(slots=True)
class Outcome:
    """How many images one run finished, and how many it leaves for the next one."""

    scrubbed: int = 0
    failed: int = 0


class Scrubber:
    """service: the identity shown to the registry and to stores. scrub_time: seconds."""

    def __init__(
        self,
        registry: RegistryClient,
        stores: Stores,
        service: RequestContext,
        *,
        scrub_time: int,
        pool_size: int,
    ) -> None:
        self.registry = registry
        self.stores = stores
        self.service = service
        self.scrub_time = timedelta(seconds=scrub_time)
        self.pool_size = pool_size

    def run(self, stop: threading.Event | None = None) -> Outcome:
        """Scrub every image that is due, or until stop is set. Raises what the registry raises."""
        outcome = Outcome()
        with ThreadPoolExecutor(self.pool_size) as pool:
            for page in self._pages():
                if stop is not None and stop.is_set():
                    break
                due = [image for image in page if self._is_due(image)]
                for finished in pool.map(self._attempt, due):
                    outcome.scrubbed += finished
                    outcome.failed += not finished
        return outcome

    def scrub(self, image: Image) -> None:
        """Remove one image's bytes and make it `deleted`.

        Raises the first error of a store when every location has been tried; the image then
        stays `pending_delete`.
        """
        failures = []
        for location in self.registry.revealed(image).locations:
            if location.status != PENDING_DELETE:
                continue
            try:
                self._remove(image, location)
            except errors.GlanceError as error:
                failures.append(error)
        if failures:
            raise failures[0]
        change = Change({"status": DELETED}, from_state=PENDING_DELETE)
        self.registry.save(self.service, image.id, change)

    def _remove(self, image: Image, location: Location) -> None:
        try:
            self.stores.for_url(location.url).delete(self.service, location.url)
        except errors.NotFound:
            LOG.info("the bytes of image %s were gone already", image.id)
        except DeleteUnsupported:
            LOG.info("the store of image %s does not delete; its bytes stay", image.id)
        change = Change(locations=[replace(location, status=DELETED)], from_state=PENDING_DELETE)
        self.registry.save(self.service, image.id, change)

    def _attempt(self, image: Image) -> bool:
        try:
            self.scrub(image)
        except errors.Conflict:
            LOG.info("image %s was scrubbed by somebody else", image.id)
        except errors.GlanceError as error:
            LOG.error("image %s is left for the next run: %s", image.id, error)
            return False
        except Exception:
            LOG.exception("image %s is left for the next run", image.id)
            return False
        else:
            LOG.info("image %s is scrubbed", image.id)
        return True

    def _pages(self) -> Iterator[list[Image]]:
        """By id, so that nothing is passed over while images leave the list."""
        query = ListQuery(
            scope="all",
            matches={"status": (PENDING_DELETE,)},
            deleted=True,
            limit=_PAGE,
            sort_key="id",
            sort_dir="asc",
        )
        while page := list(self.registry.list(self.service, query, detail=True)):
            yield page
            query.marker = page[-1].id

    def _is_due(self, image: Image) -> bool:
        deleted_at = image.deleted_at
        return deleted_at is not None and deleted_at + self.scrub_time <= timeutils.utcnow()
