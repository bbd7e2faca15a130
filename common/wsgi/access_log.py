"""What the server underneath has to say, as our log has it.

It reports everything through one method: a line for each answer, and the traceback of whatever
ended one. A client that leaves and a store that breaks off are no faults of the code, so they
are told in a line; the rest is.
"""

import logging
import re
import sys

from common import errors

# The janitors of all API workers ask the registry for leases every few seconds, for ever.
_POLL = re.compile(r'[^"]*"GET /leases\?[^"]*" status: 200 ')

LOG = logging.getLogger(__name__)
ACCESS_LOG = logging.getLogger("eventlet.wsgi.server")


class ServerLog:
    def __init__(self, timeout: type[BaseException]) -> None:
        """timeout: what the event loop raises in an answer that a client is too slow to take."""
        self._client_left = (OSError, errors.ClientDisconnected, timeout)

    def info(self, text: str) -> None:
        match sys.exc_info()[1]:
            case None:
                level = logging.DEBUG if _POLL.match(text) else logging.INFO
                ACCESS_LOG.log(level, "%s", text)
            case error if isinstance(error, self._client_left):
                LOG.info("an answer was cut: the client left or was too slow")
            case errors.GlanceError() as error:
                LOG.error("an answer was cut: %s", error.message)
            case _:
                LOG.exception("an answer was cut")

    def debug(self, text: str) -> None:
        LOG.debug("%s", text)

    def error(self, text: str) -> None:
        LOG.error("%s", text)
