"""Options of [keystone_authtoken] from older configuration files."""

from pathlib import Path
from typing import Any

import pytest

from common import config, errors
from common.wsgi import paste
from common.wsgi.authtoken import filter_factory, older_options

ADMIN = {"admin_user": "glance", "admin_password": "pw", "admin_tenant_name": "service"}
PASSWORD = {
    "auth_type": "password",
    "username": "glance",
    "password": "pw",
    "project_name": "service",
    "user_domain_id": "default",
    "project_domain_id": "default",
}


@pytest.mark.parametrize(
    ("options", "today"),
    [
        ({}, {}),
        ({"auth_uri": "http://k:5000"}, {"www_authenticate_uri": "http://k:5000"}),
        ({"auth_uri": "http://k", "www_authenticate_uri": "http://l"}, {}),
        ({"auth_plugin": "password", "username": "glance"}, {"auth_type": "password"}),
        ({"auth_type": "password", **ADMIN}, {}),
        (
            {"identity_uri": "http://k:35357", **ADMIN},
            {"auth_url": "http://k:35357", **PASSWORD},
        ),
        (
            {"auth_host": "k", "auth_protocol": "http", **ADMIN},
            {"auth_url": "http://k:35357", **PASSWORD},
        ),
    ],
)
def test_older_names_are_understood(options: dict[str, str], today: dict[str, str]) -> None:
    assert older_options(options) == today


def test_whoever_is_not_let_in_is_told_where_to_ask(tmp_path: Path) -> None:
    """Section 4.2, SEC-010: also where the context filter says no, as in the API's pipeline."""
    file = tmp_path / "glance-api.conf"
    file.write_text("[keystone_authtoken]\nwww_authenticate_uri = http://keystone:5000\n")
    heard: dict[str, str] = {}

    def refuse(environ: dict[str, Any], start_response: Any) -> Any:
        raise errors.NotAuthenticated()

    token = paste._configuration.set(config.load("api", ["--config-file", str(file)]))
    try:
        app = filter_factory({}, delay_auth_decision="true")(refuse)
    finally:
        paste._configuration.reset(token)
    environ = {"REQUEST_METHOD": "GET", "PATH_INFO": "/v1/images", "wsgi.url_scheme": "http"}
    environ |= {"SERVER_NAME": "here", "SERVER_PORT": "80"}
    app(environ, lambda status, headers, _=None: heard.update(headers, status=status))
    assert heard["status"].startswith("401")
    assert heard["WWW-Authenticate"] == 'Keystone uri="http://keystone:5000"'
