"""A line for each answer, and word of whatever cut one short.

A client that leaves and a store that breaks off are no faults of the code, so they are told in a
line; the rest is with its traceback.
"""

import logging
from typing import Final

from common import errors

LOG = logging.getLogger(__name__)
# The name that operators' default_log_levels have.
ACCESS_LOG: Final = logging.getLogger("eventlet.wsgi.server")

# The janitors of all API workers ask the registry for leases every few seconds, for ever.
_POLL: Final = "GET /leases?"

_FORMAT: Final = '%s "%s" status: %s len: %s time: %.6f'


def answered(client: str, request_line: str, status: str, sent: int, seconds: float) -> None:
    """sent: bytes of head and body."""
    polled = status == "200" and request_line.startswith(_POLL)
    level = logging.DEBUG if polled else logging.INFO
    if ACCESS_LOG.isEnabledFor(level):
        # Not log(): for every line that looks for a caller which no format shows.
        values = (client, request_line, status, sent, seconds)
        record = ACCESS_LOG.makeRecord(ACCESS_LOG.name, level, __file__, 0, _FORMAT, values, None)
        ACCESS_LOG.handle(record)


def cut(error: Exception) -> None:
    """Told while error is being handled."""
    match error:
        case OSError() | errors.ClientDisconnected():
            LOG.info("an answer was cut: the client left or was too slow")
        case errors.GlanceError():
            LOG.error("an answer was cut: %s", error.message)
        case _:
            LOG.exception("an answer was cut")
