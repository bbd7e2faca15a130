"""A private Keystone with an administrator, a service user and two tenants.

Making one from nothing takes about ten seconds, so the first makes a template beside the
installed server and later ones copy it; the identifiers are therefore the same every time.
"""

import base64
import hashlib
import json
import os
import shutil
import sqlite3
import tempfile
import urllib.error
import urllib.request
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tests.servers.process import (
    HOST,
    PROGRAMS,
    Server,
    ServerFailed,
    answers,
    free_port,
    servers_directory,
)

REGION = "RegionOne"
DOMAIN = "default"


@dataclass(frozen=True, slots=True)
class User:
    """Who can log in, and the project and roles they get."""

    name: str
    password: str
    project: str
    roles: tuple[str, ...]
    user_id: str = ""
    project_id: str = ""


# The passwords are unlike the names, so that a test can look for them in a log.
_USERS = (
    User("admin", "admin-pa55", "admin", ("admin",)),
    User("glance", "glance-pa55", "service", ("admin", "service")),
    User("alice", "alice-pa55", "alpha", ("member",)),
    User("bob", "bob-pa55", "beta", ("member",)),
)

_CONF = """[DEFAULT]
use_stderr = true
[database]
connection = sqlite:///{directory}/keystone.db
[token]
provider = fernet
[fernet_tokens]
key_repository = {directory}/fernet
[fernet_receipts]
key_repository = {directory}/fernet
[credential]
key_repository = {directory}/credential
# Without it Keystone makes hundreds of database queries to validate one token.
[cache]
enabled = true
backend = dogpile.cache.memory
[identity]
password_hash_rounds = 4
"""


class Keystone(Server):
    """Users `admin`, `glance` (project service), `alice` (alpha) and `bob` (beta).

    `url` is the v3 endpoint. The catalogue has `identity` and `image`; `set_endpoint` changes
    it while the server runs. `users` maps a name to its `User`.
    """

    name = "keystone"
    venv = "keystone"
    install = "keystone"

    region = REGION
    domain = DOMAIN

    def __init__(self, image_url: str = f"http://{HOST}:9292") -> None:
        super().__init__()
        self.port = free_port()
        self.base_url = f"http://{HOST}:{self.port}"
        self.url = f"{self.base_url}/v3"
        self.image_url = image_url
        self.users: dict[str, User] = {}
        self._admin_token = ""

    @property
    def admin(self) -> User:
        return self.users["admin"]

    @property
    def service(self) -> User:
        """The user for auth_token's own requests, as Glance's manual sets it up."""
        return self.users["glance"]

    def auth_token_options(self) -> dict[str, str]:
        """What goes under [keystone_authtoken] in a service's configuration."""
        return {
            "www_authenticate_uri": self.url,
            "auth_url": self.url,
            "auth_type": "password",
            "username": self.service.name,
            "password": self.service.password,
            "project_name": self.service.project,
            "user_domain_id": DOMAIN,
            "project_domain_id": DOMAIN,
            "region_name": REGION,
        }

    # Tokens.

    def token(self, user: str = "alice", lifetime: float | None = None) -> str:
        """A token scoped to the user's project, living for so many seconds if given."""
        return self._token(self.users[user], lifetime)

    def expired_token(self, user: str = "alice") -> str:
        """A token that was good until a minute ago."""
        return self.token(user, lifetime=-60)

    def revoke(self, token: str) -> None:
        headers = {"X-Subject-Token": token}
        self.request("DELETE", "/auth/tokens", headers=headers)

    def _token(self, user: User, lifetime: float | None = None) -> str:
        password = {"name": user.name, "domain": {"id": DOMAIN}, "password": user.password}
        body = {
            "auth": {
                "identity": {"methods": ["password"], "password": {"user": password}},
                "scope": {"project": {"name": user.project, "domain": {"id": DOMAIN}}},
            }
        }
        headers = {} if lifetime is None else {"X-Test-Token-Lifetime": str(lifetime)}
        headers["Content-Type"] = "application/json"
        request = urllib.request.Request(
            f"{self.url}/auth/tokens", json.dumps(body).encode(), headers, method="POST"
        )
        with _open(request) as response:
            return str(response.headers["X-Subject-Token"])

    # The administrator's requests.

    def request(
        self,
        method: str,
        path: str,
        body: dict[str, Any] | None = None,
        headers: dict[str, str] | None = None,
    ) -> dict[str, Any]:
        """One call of the v3 API as the administrator; the answer's JSON, {} if none."""
        self._admin_token = self._admin_token or self._token(_USERS[0])
        request = urllib.request.Request(
            self.url + path,
            None if body is None else json.dumps(body).encode(),
            {
                "X-Auth-Token": self._admin_token,
                "Content-Type": "application/json",
                **(headers or {}),
            },
            method=method,
        )
        with _open(request) as response:
            data = response.read()
        return dict(json.loads(data)) if data else {}

    def set_endpoint(self, service_type: str, url: str) -> None:
        """Put a service at this url in the catalogue, in place of an earlier one.

        `$(tenant_id)s` in the url becomes the caller's project.
        """
        services = self.request("GET", f"/services?type={service_type}")["services"]
        if services:
            service_id = services[0]["id"]
        else:
            service = {"type": service_type, "name": service_type}
            service_id = self.request("POST", "/services", {"service": service})["service"]["id"]
        for old in self.request("GET", f"/endpoints?service_id={service_id}")["endpoints"]:
            self.request("DELETE", f"/endpoints/{old['id']}")
        for interface in ("public", "internal", "admin"):
            endpoint = {
                "service_id": service_id,
                "interface": interface,
                "region_id": REGION,
                "url": url,
            }
            self.request("POST", "/endpoints", {"endpoint": endpoint})

    def set_image_url(self, url: str) -> None:
        self.image_url = url
        self.set_endpoint("image", url)

    # The life of the server.

    def prepare(self) -> None:
        self.write("keystone.conf", _CONF.format(directory=self.directory))
        template = servers_directory() / "keystone" / f"template-{_fingerprint()}"
        if not template.exists():
            self._make_template(template)
        shutil.copytree(template, self.directory, dirs_exist_ok=True)
        users = json.loads((self.directory / "users.json").read_text())
        self.users = {
            user["name"]: User(**{**user, "roles": tuple(user["roles"])}) for user in users
        }
        with closing(sqlite3.connect(self.directory / "keystone.db")) as database, database:
            for service_type, url in (("identity", self.url), ("image", self.image_url)):
                database.execute(
                    "UPDATE endpoint SET url = ? WHERE service_id IN"
                    " (SELECT id FROM service WHERE type = ?)",
                    (url, service_type),
                )

    def launch(self) -> None:
        self.spawn(
            "keystone",
            servers_directory() / "keystone" / "bin" / "python",
            PROGRAMS / "keystone_app.py",
            env={
                "OS_KEYSTONE_CONFIG_FILES": str(self.directory / "keystone.conf"),
                "LISTEN_PORT": str(self.port),
            },
        )
        self.wait_until(lambda: answers(self.url), "an answer")

    def _make_template(self, template: Path) -> None:
        """Build the database in our own directory, then publish a copy by renaming it."""
        for keys in ("fernet", "credential"):
            for number in ("0", "1"):
                key = base64.urlsafe_b64encode(os.urandom(32)).decode()
                self.write(f"{keys}/{number}", key, mode=0o600)
            (self.directory / keys).chmod(0o700)
        self._manage("db_sync")
        self._manage(
            *("bootstrap", "--bootstrap-password", _USERS[0].password),
            *("--bootstrap-region-id", REGION, "--bootstrap-public-url", self.url),
            *("--bootstrap-internal-url", self.url, "--bootstrap-admin-url", self.url),
        )
        self.launch()
        users = [asdict(self._add_user(user)) for user in _USERS]
        self.set_endpoint("image", self.image_url)
        self.shutdown()
        self.write("users.json", json.dumps(users))
        fresh = Path(tempfile.mkdtemp(prefix="template-", dir=template.parent))
        for name in ("keystone.db", "users.json"):
            shutil.copy(self.directory / name, fresh)
        for name in ("fernet", "credential"):
            shutil.copytree(self.directory / name, fresh / name)
        try:
            fresh.rename(template)
        except OSError:
            # Another run was faster; its template is as good as ours.
            shutil.rmtree(fresh)

    def _manage(self, *words: str) -> None:
        program = servers_directory() / "keystone" / "bin" / "keystone-manage"
        self.run(program, "--config-file", self.directory / "keystone.conf", *words)

    def _add_user(self, user: User) -> User:
        """Make the user and its project as far as they do not exist."""
        project_id = self._find_or_make("project", user.project, {"domain_id": DOMAIN})
        password = {"domain_id": DOMAIN, "password": user.password}
        user_id = self._find_or_make("user", user.name, password)
        for role in user.roles:
            role_id = self._find_or_make("role", role, {})
            self.request("PUT", f"/projects/{project_id}/users/{user_id}/roles/{role_id}")
        return User(user.name, user.password, user.project, user.roles, user_id, project_id)

    def _find_or_make(self, kind: str, name: str, attributes: dict[str, str]) -> str:
        found = self.request("GET", f"/{kind}s?name={name}")[f"{kind}s"]
        if not found:
            body = {kind: {"name": name, **attributes}}
            found = [self.request("POST", f"/{kind}s", body)[kind]]
        return str(found[0]["id"])


def _fingerprint() -> str:
    """Changes with whatever the template is made from."""
    installed = (servers_directory() / "keystone" / ".installed").read_text()
    return hashlib.sha256(f"{installed}{_CONF}{_USERS}".encode()).hexdigest()[:12]


def _open(request: urllib.request.Request) -> Any:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        return opener.open(request, timeout=60)
    except urllib.error.HTTPError as error:
        text = error.read().decode(errors="replace")
        raise ServerFailed(f"{request.method} {request.full_url}: {error.code} {text}") from error
