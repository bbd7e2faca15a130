"""Background copies: a bounded number at a time, tenants taking turns (SEC-079)."""

import logging
import threading
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from common import errors, log
from common.context import RequestContext
from common.image import Image
from glance_api.layers.base import Source

LOG = logging.getLogger(__name__)

_MAX_WAITING: Final = 10_000

Work = Callable[[RequestContext, Image, Source], object]


@dataclass(frozen=True, slots=True)
class _Copy:
    work: Work
    ctx: RequestContext
    image: Image
    source: Source

    def run(self) -> None:
        """Do the work; how it fails is told in the log, as part of the request that asked."""
        ctx = self.ctx
        log.bind_request(ctx.request_id, ctx.user, ctx.tenant)
        try:
            self.work(ctx, self.image, self.source)
        except errors.GlanceError as error:
            LOG.warning("image %s could not be copied: %s", self.image.id, error)
        except Exception:
            LOG.exception("image %s could not be copied", self.image.id)


class Copies:
    """Runs copies of one worker process.

    at_once: copies that run at the same time. per_tenant: how many of them may belong to one
    tenant, 0 for no limit of its own.
    """

    def __init__(self, at_once: int, per_tenant: int = 0) -> None:
        self._at_once = at_once
        self._per_tenant = per_tenant or at_once
        self._waiting: OrderedDict[str | None, deque[_Copy]] = OrderedDict()
        self._running: dict[str | None, int] = {}
        self._changed = threading.Condition()

    def require_room(self) -> None:
        """Raise TooManyRequests when very many are waiting already.

        To be asked before anything is recorded of a copy: what is recorded must be started.
        """
        if sum(map(len, self._waiting.values())) >= _MAX_WAITING:
            raise errors.TooManyRequests("Too many copies are waiting; try again later.")

    def start(self, work: Work, ctx: RequestContext, image: Image, source: Source) -> None:
        """Run work(ctx, image, source) as soon as it is the tenant's turn."""
        with self._changed:
            queue = self._waiting.setdefault(ctx.owner, deque())
            queue.append(_Copy(work, ctx, image, source))
            self._start_next()

    def finish(self) -> None:
        """Return when nothing is running or waiting any more."""
        with self._changed:
            self._changed.wait_for(lambda: not self._running and not self._waiting)

    def _start_next(self) -> None:
        while sum(self._running.values()) < self._at_once:
            turns = [owner for owner in self._waiting if self._may_run(owner)]
            if not turns:
                return
            owner = turns[0]
            queue = self._waiting.pop(owner)
            copy = queue.popleft()
            if queue:
                self._waiting[owner] = queue  # behind everybody else's
            self._running[owner] = self._running.get(owner, 0) + 1
            threading.Thread(target=self._run, args=(owner, copy), daemon=True).start()

    def _may_run(self, owner: str | None) -> bool:
        return self._running.get(owner, 0) < self._per_tenant

    def _run(self, owner: str | None, copy: _Copy) -> None:
        try:
            copy.run()
        finally:
            with self._changed:
                self._running[owner] -= 1
                if not self._running[owner]:
                    del self._running[owner]
                self._start_next()
                self._changed.notify_all()
