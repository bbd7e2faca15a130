"""glance-registry: serves image metadata to glance-api."""

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
from glance_registry.app import build


def _load() -> Configuration:
    return config.load("registry", sys.argv[1:])


def _site(conf: Configuration) -> Site:
    return site_from(conf, build(conf))


def main() -> int:
    return serve("registry", _load, _site)


if __name__ == "__main__":
    sys.exit(main())
