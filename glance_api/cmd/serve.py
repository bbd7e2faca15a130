"""`make serve`: both daemons on this machine, for trying things out.

Everything is bound to 127.0.0.1 and kept under `var/`. There is no authentication, so every
caller is an admin without a tenant; the policy beside the configuration lets that caller publish
images and register locations.
"""

import contextlib
import http.client
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import orjson

API_PORT = int(os.environ.get("GLANCE_API_PORT", "9292"))
REGISTRY_PORT = int(os.environ.get("GLANCE_REGISTRY_PORT", "9191"))
HOME = Path(os.environ.get("GLANCE_HOME", "var")).resolve()

_START_SECONDS = 30
_STOP_SECONDS = 10

_REGISTRY_CONF = """\
[DEFAULT]
bind_host = 127.0.0.1
bind_port = {registry_port}
workers = 1
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

glance-api answers at http://127.0.0.1:{api_port} (data in {home}; Ctrl-C stops both daemons)

  curl http://127.0.0.1:{api_port}/v1/images/detail?is_public=None
  curl -X POST http://127.0.0.1:{api_port}/v1/images --data-binary @README.md \\
    -H 'Content-Type: application/octet-stream' -H 'x-image-meta-name: first' \\
    -H 'x-image-meta-disk_format: raw' -H 'x-image-meta-container_format: bare' \\
    -H 'x-image-meta-is_public: true'
  glance --os-image-api-version 1 --os-image-url http://127.0.0.1:{api_port} \\
    --os-auth-token x image-list
"""


def main() -> int:
    os.umask(0o027)
    (HOME / "images").mkdir(parents=True, exist_ok=True)
    _write_configuration()
    _run("glance_api.cmd.manage", "--config-file", str(HOME / "glance-registry.conf"), "db_sync")
    # Ctrl-C reaches the whole foreground group; the daemons get our word instead, in order.
    daemons = [
        _start("glance_registry.cmd.registry", "glance-registry"),
        _start("glance_api.cmd.api", "glance-api"),
    ]
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        _wait_until_ready(daemons)
        print(_READY.format(api_port=API_PORT, home=HOME), flush=True)
        while all(daemon.poll() is None for daemon in daemons):
            time.sleep(0.5)
        print(f"A daemon has stopped; its log is in {HOME}.", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 0
    finally:
        _stop(daemons[::-1])


def _write_configuration() -> None:
    etc = Path(__file__).resolve().parents[2] / "etc"
    key_file = HOME / "registry.key"
    if not key_file.exists():
        key_file.write_text(secrets.token_hex(32))
        key_file.chmod(0o600)
    values = {
        "api_port": API_PORT,
        "registry_port": REGISTRY_PORT,
        "home": HOME,
        "etc": etc,
        "key": key_file.read_text().strip(),
    }
    rules = orjson.loads((etc / "policy.json").read_bytes())
    rules.update(publicize_image="", set_image_location="")
    (HOME / "policy.json").write_bytes(orjson.dumps(rules, option=orjson.OPT_INDENT_2))
    for name, text in (("glance-registry", _REGISTRY_CONF), ("glance-api", _API_CONF)):
        path = HOME / f"{name}.conf"
        path.write_text(text.format(**values))
        path.chmod(0o640)


def _run(module: str, *arguments: str) -> None:
    subprocess.run([sys.executable, "-m", module, *arguments], check=True)


def _start(module: str, name: str) -> "subprocess.Popen[bytes]":
    arguments = [
        "--config-file",
        str(HOME / f"{name}.conf"),
        "--log-file",
        str(HOME / f"{name}.log"),
    ]
    return subprocess.Popen([sys.executable, "-m", module, *arguments], start_new_session=True)


def _wait_until_ready(daemons: Sequence["subprocess.Popen[bytes]"]) -> None:
    deadline = time.monotonic() + _START_SECONDS
    for port in (REGISTRY_PORT, API_PORT):
        while not _answers(port):
            if time.monotonic() > deadline or any(each.poll() is not None for each in daemons):
                sys.exit(f"The daemons do not start; see the logs in {HOME}.")
            time.sleep(0.05)


def _answers(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
    try:
        connection.request("GET", "/healthcheck")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


def _stop(daemons: Sequence["subprocess.Popen[bytes]"]) -> None:
    for daemon in daemons:
        daemon.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            daemon.wait(_STOP_SECONDS)
        if daemon.poll() is None:
            daemon.kill()
            daemon.wait()


if __name__ == "__main__":
    sys.exit(main())
