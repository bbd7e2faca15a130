"""Serves Keystone's own application; runs in Keystone's virtual environment.

One addition: a request may say how long the token it asks for shall live, in seconds, which
may be negative. So a test gets a token that expires while an upload runs, or has expired.
It listens on the port in LISTEN_PORT: Keystone takes the command line for its own options.
"""

import datetime
import os
import threading
from collections.abc import Callable, Iterable
from typing import Any

from keystone.token import provider
from keystone.wsgi.api import application
from oslo_utils import timeutils
from waitress import serve

LIFETIME = "HTTP_X_TEST_TOKEN_LIFETIME"

_request = threading.local()
_configured_expire_time = provider.default_expire_time


def _expire_time() -> datetime.datetime:
    lifetime = getattr(_request, "lifetime", None)
    if lifetime is None:
        return _configured_expire_time()
    return timeutils.utcnow() + datetime.timedelta(seconds=float(lifetime))


provider.default_expire_time = _expire_time


def with_lifetime(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    _request.lifetime = environ.get(LIFETIME)
    return application(environ, start_response)


if __name__ == "__main__":
    serve(
        with_lifetime, host="127.0.0.1", port=int(os.environ["LISTEN_PORT"]), threads=4, ident=None
    )
