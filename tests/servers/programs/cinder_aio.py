"""Cinder's API, scheduler and volume manager in one process, so that they need no message
broker; runs in Cinder's virtual environment. Arguments: --config-file FILE."""

import sys

# ruff: noqa: E402  (eventlet patches the standard library before anything else is imported)
import eventlet

eventlet.monkey_patch()

import threading

import __original_module_threading as original

# As Cinder's own commands do: eventlet patches a copy of the thread table otherwise.
original.current_thread.__globals__["_active"] = threading._active

import os_brick
from cinder import coordination, i18n, objects, rpc, service, utils, version
from cinder.common import config
from oslo_config import cfg
from oslo_log import log as logging

CONF = cfg.CONF


def main(arguments: list[str]) -> None:
    i18n.enable_lazy()
    objects.register_all()
    CONF.register_cli_opt(cfg.StrOpt("backend_host"))
    CONF(arguments, project="cinder", version=version.version_string())
    config.set_middleware_defaults()
    logging.setup(CONF, "cinder")
    utils.monkey_patch()
    if hasattr(os_brick, "setup"):
        os_brick.setup(CONF)
    coordination.COORDINATOR.start()
    rpc.init(CONF)
    services = [service.Service.create(binary="cinder-scheduler")]
    for backend in CONF.enabled_backends:
        services.append(
            service.Service.create(
                host=f"{CONF.host}@{backend}",
                service_name=backend,
                binary="cinder-volume",
                coordination=True,
            )
        )
    # Side by side: the scheduler's start waits for the first report of a volume service.
    for one in services:
        eventlet.spawn(one.start)
    service.WSGIService("osapi_volume").start()
    while True:
        eventlet.sleep(3600)


if __name__ == "__main__":
    main(sys.argv[1:])
