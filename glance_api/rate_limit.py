"""Requests per second and tenant, so that one caller leaves room for the others (SEC-074)."""

import time
from collections import OrderedDict
from collections.abc import Iterable
from typing import Any, Final

from common import errors
from common.context import RequestContext
from common.wsgi.faults import Application, StartResponse
from common.wsgi.resource import CONTEXT

# Tenants remembered at once; the one that asked longest ago is forgotten first.
_MAX_TENANTS: Final = 10_000


class RateLimitFilter:
    """A token bucket per tenant and worker: per_second on average, twice that at once."""

    def __init__(self, app: Application, per_second: int) -> None:
        self.app = app
        self._per_second = per_second
        self._buckets: OrderedDict[str | None, tuple[float, float]] = OrderedDict()

    def __call__(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        ctx: RequestContext = environ[CONTEXT]
        self._take(ctx.owner, time.monotonic())
        return self.app(environ, start_response)

    def _take(self, tenant: str | None, now: float) -> None:
        full = 2.0 * self._per_second
        left, then = self._buckets.pop(tenant, (full, now))
        left = min(full, left + (now - then) * self._per_second)
        self._buckets[tenant] = (left - 1 if left >= 1 else left, now)
        if len(self._buckets) > _MAX_TENANTS:
            self._buckets.popitem(last=False)
        if left < 1:
            raise errors.TooManyRequests()
