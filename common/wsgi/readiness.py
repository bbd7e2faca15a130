"""`/readiness`: whether what a daemon depends on is there, beside `/healthcheck`, which only says
that the daemon itself is (REL-091).

Nobody has to be known to ask, so the answer names parts of the service and nothing else. What is
asked often is looked at once in a while, and what does not answer is not well.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from common import errors
from common.wsgi.faults import RETRY_AFTER_SECONDS, Application, StartResponse

LOG = logging.getLogger(__name__)

PATH: Final = "/readiness"

_PATIENCE_SECONDS: Final = 4.0
_FRESH_SECONDS: Final = 1.0

# Returns where a part is well, raises where it is not; may take its time.
Check = Callable[[], object]


class ReadinessFilter:
    """Answers `/readiness` for the parts that checks names: 200, or 503 with those that are not
    well."""

    def __init__(self, app: Application, checks: Mapping[str, Check]) -> None:
        self.app = app
        self._parts = {name: _Part(name, check) for name, check in checks.items()}

    def __call__(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        if environ["PATH_INFO"] != PATH:
            return self.app(environ, start_response)
        for part in self._parts.values():
            part.look()
        deadline = time.monotonic() + _PATIENCE_SECONDS
        ill = [name for name, part in self._parts.items() if not part.is_well(deadline)]
        text = f"NOT READY: {', '.join(ill)}".encode() if ill else b"READY"
        headers = [
            ("Content-Type", "text/plain; charset=UTF-8"),
            ("Content-Length", str(len(text))),
        ]
        if ill:
            headers.append(("Retry-After", str(RETRY_AFTER_SECONDS)))
        start_response("503 Service Unavailable" if ill else "200 OK", headers)
        return () if environ["REQUEST_METHOD"] == "HEAD" else (text,)


class _Part:
    """One thing to be looked at, by one thread at a time however many ask."""

    def __init__(self, name: str, check: Check) -> None:
        self._name = name
        self._check = check
        self._well = False
        self._seen = float("-inf")
        self._looking: threading.Thread | None = None

    def look(self) -> None:
        """Begin to find out, unless that is known or under way."""
        if self._looking is None and time.monotonic() > self._seen + _FRESH_SECONDS:
            self._looking = threading.Thread(target=self._run, daemon=True)
            self._looking.start()

    def is_well(self, deadline: float) -> bool:
        looking = self._looking
        if looking is not None:
            looking.join(max(deadline - time.monotonic(), 0))
            if looking.is_alive():
                return False
        return self._well

    def _run(self) -> None:
        try:
            self._check()
            self._well = True
        except errors.GlanceError as error:
            LOG.warning("%s is not well: %s", self._name, error)
            self._well = False
        except Exception:
            LOG.exception("%s is not well", self._name)
            self._well = False
        finally:
            self._seen = time.monotonic()
            self._looking = None
