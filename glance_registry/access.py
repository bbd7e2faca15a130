"""The registry's front door: the key that only the API knows (decision 6), and leases.

Work on leases is done by the API itself, not for a caller: it may go on when the caller's token
has long expired. So these requests do not pass the pipeline that finds out who the caller is.

What the API says of its caller is noted here: with an administrator's token of its own it asks
for the caller's rights only (SEC-019).
"""

import hmac
import logging
from collections.abc import Iterable
from typing import Any, Final

from common import errors
from common.wsgi.faults import Application, StartResponse
from common.wsgi.filters import keep_subject
from glance_registry.leases import TRUSTED

LOG = logging.getLogger(__name__)

_KEY: Final = "HTTP_X_GLANCE_REGISTRY_KEY"


class RegistryAccess:
    """With a key: every request but /healthcheck must present it, and whoever does may do all
    work on leases. Without: renewing and ending a lease takes its token only, and everything
    else goes through the pipeline.
    """

    def __init__(self, app: Application, leases_app: Application, key: str | None) -> None:
        self.app = app
        self.leases_app = leases_app
        self._key = key.encode() if key else None

    def __call__(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        keep_subject(environ)
        return self._choose(environ)(environ, start_response)

    def _choose(self, environ: dict[str, Any]) -> Application:
        path: str = environ["PATH_INFO"]
        about_leases = path == "/leases" or path.startswith("/leases/")
        if self._key is None:
            by_token = environ["REQUEST_METHOD"] in ("PUT", "DELETE")
            return self.leases_app if about_leases and by_token else self.app
        if path == "/healthcheck":
            return self.app
        presented: str = environ.get(_KEY, "")
        if not hmac.compare_digest(presented.encode("latin-1"), self._key):
            # To the API's caller this is a plain 401: the reason is for the operator of both.
            LOG.warning(
                "a request with %s registry_auth_key has been refused",
                "another" if presented else "no",
            )
            raise errors.NotAuthenticated()
        if not about_leases:
            return self.app
        environ[TRUSTED] = True
        return self.leases_app
