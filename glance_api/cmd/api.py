"""glance-api: serves the Images API."""

import os
import warnings

# Names are looked up as everywhere else on this host, by the system (common/wsgi/server.py).
os.environ["EVENTLET_NO_GREENDNS"] = "yes"
warnings.filterwarnings("ignore", message="(?s).*Eventlet is deprecated.*")

import eventlet

eventlet.monkey_patch()

import sys

from common import config
from common.config import Configuration
from common.program import serve, site_from
from common.wsgi.workers import Site
from glance_api.app import build
from glance_store.errors import BadStoreConfiguration
from glance_store.loader import option_groups

EXIT_STORES = 3


def _load() -> Configuration:
    return config.load("api", sys.argv[1:], extra_groups=option_groups())


def _site(conf: Configuration) -> Site:
    app, api = build(conf)
    return site_from(conf, app, api.start, api.finish)


def main() -> int:
    return serve("api", _load, _site, {BadStoreConfiguration: EXIT_STORES})


if __name__ == "__main__":
    sys.exit(main())
