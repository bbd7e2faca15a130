"""glance-control: starts, stops, reloads and shows glance-api, glance-registry, glance-scrubber."""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

from oslo_config import cfg

from common import config
from common.config import Configuration, ConfigurationError
from glance_api import control
from glance_api.control import ControlError, Service

SERVERS: Final = ("api", "registry", "scrubber")
RELOADABLE: Final = ("glance-api", "glance-registry")

OPTIONS: Final = (
    cfg.StrOpt(
        "pid-file",
        metavar="PATH",
        help="File that says which process runs the server. "
        f"Default: {control.RUN_DIRECTORY}/SERVER.pid.",
    ),
    cfg.IntOpt(
        "await-child",
        default=0,
        min=0,
        metavar="SECONDS",
        help="Wait so long for the server to end, and exit with its status if it does.",
    ),
    cfg.BoolOpt("capture-output", default=False, help="Send what the server prints to syslog."),
    cfg.BoolOpt(
        "respawn",
        default=False,
        help="Stay, and start the server again whenever it dies, unless it was stopped on "
        "purpose or dies within a second.",
    ),
    cfg.StrOpt(
        "server",
        positional=True,
        required=True,
        choices=["all", *SERVERS, *(f"glance-{name}" for name in SERVERS)],
        help="What to control.",
    ),
    cfg.StrOpt(
        "command",
        positional=True,
        required=True,
        choices=[
            "start",
            "stop",
            "shutdown",
            "restart",
            "reload",
            "force-reload",
            "status",
        ],
        help="What to do with it.",
    ),
    cfg.StrOpt("confpath", positional=True, required=False, help="Its configuration file."),
)


def main() -> int:
    try:
        conf = config.load("control", sys.argv[1:], cli=OPTIONS)
        return _run(conf)
    except (ConfigurationError, ControlError, OSError) as error:
        print(f"glance-control: {error}", file=sys.stderr)
        return 1


def _run(conf: Configuration) -> int:
    if conf.respawn and conf.await_child:
        raise ControlError("--respawn and --await-child exclude each other")
    services = _services(conf)
    commands: dict[str, Callable[[Configuration, list[Service]], int]] = {
        "start": _start,
        "stop": _stop,
        # SIGTERM lets the daemons complete what they are doing, so both words mean the same.
        "shutdown": _stop,
        "restart": _restart,
        "reload": _reload,
        "force-reload": _reload,
        "status": _status,
    }
    return commands[conf.command](conf, services)


def _services(conf: Configuration) -> list[Service]:
    names = SERVERS if conf.server == "all" else (conf.server.removeprefix("glance-"),)
    if conf.pid_file and len(names) > 1:
        raise ControlError("--pid-file names the process of one server, not of all")
    services = [control.default_service(f"glance-{name}") for name in names]
    if conf.pid_file:
        return [Service(service.program, Path(conf.pid_file)) for service in services]
    return services


def _start(conf: Configuration, services: list[Service]) -> int:
    if not control.may_raise_limits():
        print("Not root: the limits of the servers stay as they are")
    config_file = conf.confpath if conf.confpath and os.path.exists(conf.confpath) else None
    processes = {}
    for service in map(control.writable, services):
        processes[service] = control.start(service, config_file, capture_output=conf.capture_output)
        print(f"Starting {service.program} (pid file {service.pid_file})")
    if conf.respawn:
        events = control.keep_running(processes, config_file, capture_output=conf.capture_output)
        for event in events:
            print(event, flush=True)
    statuses = (control.await_exit(process, conf.await_child) for process in processes.values())
    return max(statuses, default=0) if conf.await_child else 0


def _stop(conf: Configuration, services: list[Service]) -> int:
    for service in services:
        if service.pid() is None:
            print(f"{service.program} is not running")
            continue
        print(f"Stopping {service.program}")
        if not control.stop(service):
            print(f"{service.program} is still completing what it was doing")
    return 0


def _restart(conf: Configuration, services: list[Service]) -> int:
    _stop(conf, services)
    return _start(conf, services)


def _reload(conf: Configuration, services: list[Service]) -> int:
    if conf.server == "all":
        services = [service for service in services if service.program in RELOADABLE]
    for service in services:
        if service.program not in RELOADABLE:
            raise ControlError(f"{service.program} cannot be reloaded, only restarted")
    for service in services:
        print(f"Reloading {service.program} (pid {control.reload(service)})")
    return 0


def _status(conf: Configuration, services: list[Service]) -> int:
    for service in services:
        pid = service.pid()
        state = "is stopped" if pid is None else f"(pid {pid}) is running"
        print(f"{service.program} {state}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
