"""`make serve`: both daemons on this machine, for trying things out.

Everything is bound to 127.0.0.1 and kept under `var/`. There is no authentication, so every
caller is an admin without a tenant; the policy beside the configuration lets that caller publish
images and register locations.
"""

import http.client
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import orjson

_START_SECONDS = 30

# How long Ctrl-C lets what is running complete, and after how long it cuts it.
_GRACE_SECONDS = 3
_STOP_SECONDS = 8

_REGISTRY_CONF = """\
[DEFAULT]
bind_host = 127.0.0.1
bind_port = {registry_port}
workers = 1
graceful_shutdown_timeout = {grace}
use_stderr = false
registry_auth_key = {key}
[database]
connection = sqlite:///{home}/glance.sqlite
[paste_deploy]
config_file = {etc}/glance-registry-paste.ini
[oslo_policy]
policy_file = {home}/policy.json
"""

_API_CONF = """\
[DEFAULT]
bind_host = 127.0.0.1
bind_port = {api_port}
workers = 1
graceful_shutdown_timeout = {grace}
use_stderr = false
registry_host = 127.0.0.1
registry_port = {registry_port}
registry_auth_key = {key}
[glance_store]
stores = file,http
default_store = file
filesystem_store_datadir = {home}/images
[paste_deploy]
config_file = {etc}/glance-api-paste.ini
[oslo_policy]
policy_file = {home}/policy.json
[copy_from]
allowed_networks = 127.0.0.0/8
"""

_READY = """\

glance-api answers at http://127.0.0.1:{api_port}
Data and logs are in {home}. Ctrl-C stops both daemons.

Try in another terminal:

  curl -X POST http://127.0.0.1:{api_port}/v1/images --data-binary 'a few bytes' \\
    -H 'Content-Type: application/octet-stream' -H 'x-image-meta-name: first' \\
    -H 'x-image-meta-disk_format: raw' -H 'x-image-meta-container_format: bare' \\
    -H 'x-image-meta-is_public: true'
  curl http://127.0.0.1:{api_port}/v1/images/detail
  glance --os-image-api-version 1 --os-image-url http://127.0.0.1:{api_port} \\
    --os-auth-token x image-list
"""


@dataclass(frozen=True)
class Place:
    """Where the daemons answer and keep what is theirs; the environment may say otherwise."""

    api_port: int
    registry_port: int
    home: Path


def main() -> int:
    os.umask(0o027)
    # A closed terminal ends this program as Ctrl-C does; and Ctrl-C does so too for a script's
    # background job, which is started with that signal ignored.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    place = _place()
    try:
        return _serve(place)
    except KeyboardInterrupt:
        return 0


def _interrupt(*_: object) -> NoReturn:
    raise KeyboardInterrupt


def _place() -> Place:
    ports = _port("GLANCE_API_PORT", 9292), _port("GLANCE_REGISTRY_PORT", 9191)
    return Place(*ports, Path(os.environ.get("GLANCE_HOME", "var")).resolve())


def _port(variable: str, default: int) -> int:
    text = os.environ.get(variable, str(default))
    if not text.isdecimal() or not 0 < int(text) < 65536:
        sys.exit(f"{variable} is not a port: {text}")
    return int(text)


def _serve(place: Place) -> int:
    _require_free(place.registry_port, "GLANCE_REGISTRY_PORT")
    _require_free(place.api_port, "GLANCE_API_PORT")
    _write_configuration(place)
    _sync_database(place)
    daemons: list[Daemon] = []
    try:
        daemons.append(Daemon("glance_registry.cmd.registry", "glance-registry", place))
        daemons.append(Daemon("glance_api.cmd.api", "glance-api", place))
        _wait_until_ready(place, daemons)
        print(_READY.format(api_port=place.api_port, home=place.home), flush=True)
        while all(daemon.runs() for daemon in daemons):
            time.sleep(0.5)
        _complain(place, daemons)
    except KeyboardInterrupt:
        print("\nStopping both daemons.", flush=True)
        return 0
    finally:
        _stop(daemons[::-1])


def _require_free(port: int, variable: str) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            sys.exit(
                f"Port {port} cannot be used: {error.strerror}. "
                f"Stop what uses it, or set {variable} to another port."
            )


def _write_configuration(place: Place) -> None:
    home = place.home
    (home / "images").mkdir(parents=True, exist_ok=True)
    etc = Path(__file__).resolve().parents[2] / "etc"
    key_file = home / "registry.key"
    if not key_file.exists():
        key_file.touch(mode=0o600)
        key_file.write_text(secrets.token_hex(32))
    values = {
        "api_port": place.api_port,
        "registry_port": place.registry_port,
        "home": home,
        "etc": etc,
        "key": key_file.read_text().strip(),
        "grace": _GRACE_SECONDS,
    }
    rules = orjson.loads((etc / "policy.json").read_bytes())
    rules.update(publicize_image="", set_image_location="")
    (home / "policy.json").write_bytes(orjson.dumps(rules, option=orjson.OPT_INDENT_2))
    for name, text in (("glance-registry", _REGISTRY_CONF), ("glance-api", _API_CONF)):
        (home / f"{name}.conf").write_text(text.format(**values))


def _command(module: str, place: Place, conf: str, log: str) -> list[str]:
    files = "--config-file", f"{place.home}/{conf}.conf", "--log-file", f"{place.home}/{log}.log"
    return [sys.executable, "-m", module, *files]


def _sync_database(place: Place) -> None:
    command = _command("glance_api.cmd.manage", place, "glance-registry", "glance-manage")
    sync = subprocess.Popen(
        [*command, "db_sync"], stdout=subprocess.DEVNULL, start_new_session=True
    )
    try:
        sync.wait()
    finally:
        sync.wait()  # rather a moment's patience than half a schema
    if sync.returncode:
        sys.exit(f"The database cannot be made; see {place.home}/glance-manage.log.")


class Daemon:
    """One daemon with its workers, in a session of its own: Ctrl-C does not reach it."""

    def __init__(self, module: str, name: str, place: Place) -> None:
        self.name = name
        self._process = subprocess.Popen(
            _command(module, place, name, name), start_new_session=True
        )

    def runs(self) -> bool:
        return self._process.poll() is None

    def stop(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()


def _wait_until_ready(place: Place, daemons: Sequence[Daemon]) -> None:
    deadline = time.monotonic() + _START_SECONDS
    for port in (place.registry_port, place.api_port):
        while not _answers(port):
            if time.monotonic() > deadline or not all(daemon.runs() for daemon in daemons):
                _complain(place, daemons)
            time.sleep(0.05)


def _complain(place: Place, daemons: Sequence[Daemon]) -> NoReturn:
    gone = [daemon.name for daemon in daemons if not daemon.runs()]
    said = f"{' and '.join(gone)} ended" if gone else "The daemons do not answer"
    sys.exit(f"{said}; the logs are in {place.home}.")


def _answers(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
    try:
        connection.request("GET", "/healthcheck")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _stop(daemons: Sequence[Daemon]) -> None:
    # From here on an impatient second Ctrl-C changes nothing.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    for daemon in daemons:
        daemon.stop()


if __name__ == "__main__":
    sys.exit(main())
