"""A private Swift: proxy, account, container and object server, one replica, one device.

With a Keystone it authenticates there, otherwise by tempauth. No background daemon runs, so
what a test deletes is gone at once and what it leaks stays to be found.
"""

import os
import pickle
import sqlite3
from contextlib import closing
from pathlib import Path

from tests.servers.keystone import Keystone
from tests.servers.process import (
    HOST,
    PROGRAMS,
    Server,
    answers,
    free_port,
    is_listening,
    servers_directory,
)

_STORAGE_CONF = """[DEFAULT]
bind_ip = {host}
bind_port = {port}
workers = 0
user = root
swift_dir = {directory}
devices = {directory}/dev
mount_check = false
log_level = WARNING
log_address = {directory}/nolog
recon_cache_path = {directory}/cache
disable_fallocate = true
[pipeline:main]
pipeline = {kind}-server
[app:{kind}-server]
use = egg:swift#{kind}
[{kind}-replicator]
[{kind}-updater]
[{kind}-auditor]
"""

_PROXY_CONF = """[DEFAULT]
bind_ip = {host}
bind_port = {port}
workers = 0
user = root
swift_dir = {directory}
log_level = WARNING
log_address = {directory}/nolog
[pipeline:main]
pipeline = catch_errors gatekeeper healthcheck proxy-logging cache listing_formats bulk tempurl \
{auth} copy slo dlo versioned_writes symlink proxy-logging proxy-server
[app:proxy-server]
use = egg:swift#proxy
account_autocreate = true
allow_account_management = true
[filter:catch_errors]
use = egg:swift#catch_errors
[filter:gatekeeper]
use = egg:swift#gatekeeper
[filter:healthcheck]
use = egg:swift#healthcheck
[filter:proxy-logging]
use = egg:swift#proxy_logging
[filter:cache]
use = egg:swift#memcache
memcache_servers = {host}:{memcached}
[filter:listing_formats]
use = egg:swift#listing_formats
[filter:bulk]
use = egg:swift#bulk
[filter:tempurl]
use = egg:swift#tempurl
[filter:copy]
use = egg:swift#copy
[filter:slo]
use = egg:swift#slo
allow_async_delete = false
[filter:dlo]
use = egg:swift#dlo
[filter:versioned_writes]
use = egg:swift#versioned_writes
allow_object_versioning = true
[filter:symlink]
use = egg:swift#symlink
"""

_TEMPAUTH_CONF = """[filter:s3api]
use = egg:swift#s3api
s3_acl = false
location = us-east-1
dns_compliant_bucket_names = true
[filter:tempauth]
use = egg:swift#tempauth
user_admin_admin = admin .admin .reseller_admin
user_test_tester = testing .admin
user_other_reader = reading .admin
"""

_KEYSTONE_CONF = """[filter:authtoken]
paste.filter_factory = keystonemiddleware.auth_token:filter_factory
delay_auth_decision = true
cache = swift.cache
token_cache_time = 10
{options}
[filter:keystoneauth]
use = egg:swift#keystoneauth
operator_roles = admin,member
reseller_admin_role = ResellerAdmin
"""


class Swift(Server):
    """Tempauth `test:tester` / `testing` (and `other:reader` / `reading`) at `auth_url`.

    The same user and key are S3 credentials at `s3_url`. With `Swift(keystone=...)` the users
    are Keystone's, `auth_url` is its v3 endpoint and there is no S3; the catalogue entry is
    made. `objects()` and `containers()` read the disk, so they see all accounts and need no
    credentials.
    """

    name = "swift"
    programs = ("memcached",)
    venv = "swift"
    install = "swift"

    def __init__(self, keystone: Keystone | None = None) -> None:
        super().__init__()
        self.keystone = keystone
        self.port = free_port()
        self.url = f"http://{HOST}:{self.port}"
        self.auth_version = "3" if keystone else "1"
        self.auth_url = keystone.url if keystone else f"{self.url}/auth/v1.0"
        self.account = "test"
        self.user = "test:tester"
        self.key = "testing"
        self.other_user = "other:reader"
        self.other_key = "reading"
        if keystone:
            alice = keystone.users["alice"]
            bob = keystone.users["bob"]
            self.account = alice.project_id
            self.user, self.key = f"{alice.project}:{alice.name}", alice.password
            self.other_user, self.other_key = f"{bob.project}:{bob.name}", bob.password
        self.storage_url = f"{self.url}/v1/AUTH_{self.account}"
        self.s3_url = self.url
        self.s3_region = "us-east-1"
        self._memcached = free_port()
        self._storage = {kind: free_port() for kind in ("account", "container", "object")}

    # What is stored.

    def objects(self, container: str | None = None) -> dict[str, int]:
        """Every object on the disk, segments too: "account/container/object" to its size."""
        found = {}
        for path in (self.directory / "dev/d1").glob("objects*/*/*/*/*.data"):
            # A tombstone or a newer version beside it makes a file history.
            if path != max(
                file for file in path.parent.iterdir() if file.suffix in (".data", ".ts")
            ):
                continue
            metadata = _read_metadata(path)
            name = metadata["name"].removeprefix("/")
            if container is None or name.split("/")[1] == container:
                found[name] = int(metadata["Content-Length"])
        return found

    def containers(self) -> dict[str, int]:
        """Every container that exists: "account/container" to the number of its objects."""
        found = {}
        for path in (self.directory / "dev/d1").glob("containers/*/*/*/*.db"):
            with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
                account, container, born, died = database.execute(
                    "SELECT account, container, put_timestamp, delete_timestamp FROM container_info"
                ).fetchone()
            if born > died:
                found[f"{account}/{container}"] = 0
        for name in self.objects():
            container = name.rsplit("/", name.count("/") - 1)[0]
            if container in found:
                found[container] += 1
        return found

    # The life of the server.

    def prepare(self) -> None:
        (self.directory / "dev/d1").mkdir(parents=True)
        (self.directory / "cache").mkdir()
        self.write(
            "swift.conf",
            "[swift-hash]\nswift_hash_path_suffix = x\nswift_hash_path_prefix = y\n"
            "[storage-policy:0]\nname = one\ndefault = yes\n",
        )
        for kind, port in self._storage.items():
            conf = _STORAGE_CONF.format(host=HOST, port=port, directory=self.directory, kind=kind)
            self.write(f"{kind}-server.conf", conf)
        auth = "authtoken keystoneauth" if self.keystone else "s3api tempauth"
        conf = _PROXY_CONF.format(
            host=HOST,
            port=self.port,
            directory=self.directory,
            auth=auth,
            memcached=self._memcached,
        )
        self.write("proxy-server.conf", conf + self._auth_conf())
        ports = [str(port) for port in self._storage.values()]
        self.run(self._python(), PROGRAMS / "swift_rings.py", self.directory, *ports)
        if self.keystone:
            self.keystone.set_endpoint("object-store", f"{self.url}/v1/AUTH_$(tenant_id)s")

    def _auth_conf(self) -> str:
        if not self.keystone:
            return _TEMPAUTH_CONF
        options = self.keystone.auth_token_options().items()
        return _KEYSTONE_CONF.format(
            options="\n".join(f"{name} = {text}" for name, text in options)
        )

    def launch(self) -> None:
        self.spawn(
            "memcached",
            *("memcached", "-u", "root", "-l", HOST, "-p", str(self._memcached)),
            *("-U", "0", "-m", "16"),
        )
        for kind in (*self._storage, "proxy"):
            program = servers_directory() / "swift" / "bin" / f"swift-{kind}-server"
            conf = self.directory / f"{kind}-server.conf"
            self.spawn(kind, self._python(), program, conf, "--verbose")
        self.wait_until(lambda: answers(f"{self.url}/healthcheck"), "a healthy proxy")
        self.wait_until(
            lambda: all(is_listening(port) for port in self._storage.values()), "storage servers"
        )

    def _python(self) -> Path:
        return servers_directory() / "swift" / "bin" / "python"


def _read_metadata(path: Path) -> dict[str, str]:
    """Swift keeps an object's headers pickled in extended attributes of its file."""
    data = b""
    for number in ("", *map(str, range(1, 100))):
        try:
            data += os.getxattr(path, f"user.swift.metadata{number}")
        except OSError:
            break
    metadata = pickle.loads(data, encoding="bytes")
    return {_text(name): _text(value) for name, value in metadata.items()}


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value
