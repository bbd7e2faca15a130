"""Options of [keystone_authtoken] from older configuration files."""

import pytest

from common.wsgi.authtoken import older_options

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
