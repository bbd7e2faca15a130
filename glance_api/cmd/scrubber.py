"""glance-scrubber: removes the bytes of images whose deletion was delayed.

Without an event loop: it serves nobody, and waits for stores on ordinary threads.
"""

import logging
import os
import signal
import sys
import threading

from common import config, errors, log
from common.config import Configuration, ConfigurationError
from glance_api.app import registry_client
from glance_api.identity import service_context
from glance_api.scrubber import Scrubber
from glance_store.errors import BadStoreConfiguration
from glance_store.loader import Stores, option_groups

LOG = logging.getLogger(__name__)


def main() -> int:
    """0: nothing is left to do; 1: something could not be scrubbed."""
    os.umask(0o027)
    try:
        conf = config.load("scrubber", sys.argv[1:], extra_groups=option_groups())
        # The scrubber has no caller whose token it could forward.
        conf.set_override("use_user_token", False)
        log.setup(conf, "scrubber")
        scrubber = _scrubber(conf)
    except (ConfigurationError, BadStoreConfiguration) as error:
        print(f"glance-scrubber: {error}", file=sys.stderr)
        return 1
    stop = _stop_event()
    return _run_for_ever(scrubber, conf, stop) if conf.daemon else _run_once(scrubber, stop)


def _scrubber(conf: Configuration) -> Scrubber:
    try:
        return Scrubber(
            registry_client(conf),
            Stores.configured(conf),
            service_context(conf),
            scrub_time=conf.scrub_time,
            pool_size=conf.scrub_pool_size,
        )
    finally:
        config.report(conf)


def _run_once(scrubber: Scrubber, stop: threading.Event) -> int:
    try:
        outcome = scrubber.run(stop)
    except errors.GlanceError as error:
        LOG.error("scrubbing failed: %s", error)
        return 1
    LOG.info("%d images scrubbed, %d left for the next run", outcome.scrubbed, outcome.failed)
    return 1 if outcome.failed else 0


def _run_for_ever(scrubber: Scrubber, conf: Configuration, stop: threading.Event) -> int:
    while not stop.is_set():
        try:
            _run_once(scrubber, stop)
        except Exception:
            LOG.exception("scrubbing failed")
        stop.wait(conf.wakeup_time)
    return 0


def _stop_event() -> threading.Event:
    """Set by SIGTERM and SIGINT: the images under way are completed."""
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    return stop


if __name__ == "__main__":
    sys.exit(main())
