"""A private Cinder in one process, with its volumes in a Ceph pool."""

import hashlib
import json
import os
import shutil
import urllib.request
from pathlib import Path
from typing import Any

from tests.servers.ceph import Ceph
from tests.servers.keystone import Keystone
from tests.servers.process import (
    HOST,
    PROGRAMS,
    Server,
    ServerFailed,
    free_port,
    servers_directory,
)

_CONF = """[DEFAULT]
auth_strategy = {auth}
host = tests
my_ip = {host}
osapi_volume_listen = {host}
osapi_volume_listen_port = {port}
osapi_volume_workers = 1
state_path = {directory}
api_paste_config = {etc}/api-paste.ini
resource_query_filters_file = {etc}/resource_filters.json
transport_url = fake:/
rpc_response_timeout = 20
enabled_backends = ceph
default_volume_type = __DEFAULT__
glance_api_servers = http://{host}:9
[oslo_concurrency]
lock_path = {directory}/lock
[coordination]
backend_url = file://{directory}/coordination
[database]
connection = sqlite:///{directory}/cinder.db
sqlite_synchronous = false
[oslo_policy]
enforce_scope = false
[ceph]
volume_backend_name = ceph
volume_driver = cinder.volume.drivers.rbd.RBDDriver
rbd_pool = volumes
rbd_ceph_conf = {ceph}
rados_connect_timeout = 10
rbd_secret_uuid = 00000000-0000-0000-0000-000000000000
"""


class Cinder(Server):
    """Volumes at `url` for `project` with `token`; the bytes are in `ceph`'s pool `volumes`.

    Without a Keystone anybody may come: a token is USER:PROJECT, where the project has 32
    hexadecimal digits. With one, its users do, and the catalogue gets the `volumev3` entry.
    A cluster that is not given is started and stopped with the server.
    """

    name = "cinder"
    venv = "cinder"
    programs = Ceph.programs
    install = "cinder"

    user = "glance"

    def __init__(self, ceph: Ceph | None = None, keystone: Keystone | None = None) -> None:
        super().__init__()
        self.keystone = keystone
        self.ceph = ceph or Ceph()
        self._own_ceph = ceph is None
        self.port = free_port()
        self.project = keystone.service.project_id if keystone else "5e12f1ce" * 4
        self.endpoint_template = f"http://{HOST}:{self.port}/v3/%(tenant)s"
        self.url = f"http://{HOST}:{self.port}/v3/{self.project}"

    @property
    def token(self) -> str:
        if self.keystone:
            return self.keystone.token(self.keystone.service.name)
        return f"{self.user}:{self.project}"

    def volumes(self) -> list[dict[str, Any]]:
        """Every volume of every project, as the API describes it."""
        return list(self.request("GET", "/volumes/detail?all_tenants=1")["volumes"])

    def request(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        request = urllib.request.Request(
            self.url + path,
            None if body is None else json.dumps(body).encode(),
            {"X-Auth-Token": self.token, "Content-Type": "application/json"},
            method=method,
        )
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=60) as response:
            data = response.read()
        return json.loads(data) if data else None

    def prepare(self) -> None:
        if self._own_ceph:
            self.ceph.start()
        conf = _CONF.format(
            auth="keystone" if self.keystone else "noauth",
            host=HOST,
            port=self.port,
            directory=self.directory,
            etc=servers_directory() / "cinder/etc/cinder",
            ceph=self.ceph.conf,
        )
        if self.keystone:
            options = self.keystone.auth_token_options().items()
            lines = [f"{name} = {text}" for name, text in options]
            conf += "[keystone_authtoken]\n" + "\n".join(lines) + "\n"
            url = f"http://{HOST}:{self.port}/v3/$(tenant_id)s"
            self.keystone.set_endpoint("volumev3", url)
        self.write("cinder.conf", conf)
        self._make_database()

    def launch(self) -> None:
        python = servers_directory() / "cinder/bin/python"
        self.spawn("cinder", python, PROGRAMS / "cinder_aio.py", "--config-file", self._conf)
        self.wait_until(self._is_up, "volume service")

    def log_tail(self, lines: int = 30) -> str:
        return super().log_tail(lines) + self.ceph.log_tail(lines)

    def stop(self) -> None:
        try:
            super().stop()
        finally:
            if self._own_ceph:
                self.ceph.stop()

    @property
    def _conf(self) -> Path:
        return self.directory / "cinder.conf"

    def _is_up(self) -> bool:
        """Takes requests, and the scheduler knows where to put a volume."""
        try:
            services = self.request("GET", "/os-services")["services"]
            pools = self.request("GET", "/scheduler-stats/get_pools")["pools"]
        except (OSError, ServerFailed):
            return False
        return bool(pools) and any(
            service["binary"] == "cinder-volume" and service["state"] == "up"
            for service in services
        )

    def _make_database(self) -> None:
        """Creating the tables takes seconds, so the first run keeps them for the next."""
        cinder = servers_directory() / "cinder"
        installed = (cinder / ".installed").read_bytes()
        template = cinder / f"template-{hashlib.sha256(installed).hexdigest()[:12]}.db"
        database = self.directory / "cinder.db"
        if not template.exists():
            self.run(cinder / "bin/cinder-manage", "--config-file", self._conf, "db", "sync")
            fresh = template.with_suffix(f".{os.getpid()}")
            shutil.copy(database, fresh)
            fresh.rename(template)
        shutil.copy(template, database)
