"""How the API reaches the registry, as its options say; what cannot work stops the start."""

import sys
from pathlib import Path

import pytest

from common import config
from common.config import Configuration, ConfigurationError
from glance_api.app import registry_client


def configured(tmp_path: Path, *options: str) -> Configuration:
    file = tmp_path / "glance-api.conf"
    file.write_text("\n".join(("[DEFAULT]", *options)))
    return config.load("api", ["--config-file", str(file)])


@pytest.mark.parametrize(
    "options",
    [
        ["registry_client_ca_file = {file}"],
        ["registry_client_cert_file = {file}", "registry_client_key_file = {file}"],
    ],
)
def test_a_certificate_that_is_none_is_told_by_its_option(
    tmp_path: Path, options: list[str]
) -> None:
    """SEC-082, SEC-036."""
    garbage = tmp_path / "garbage.pem"
    garbage.write_text("no certificate")
    lines = [line.format(file=garbage) for line in options]
    conf = configured(tmp_path, "registry_client_protocol = https", *lines)
    with pytest.raises(ConfigurationError, match=options[0].partition(" ")[0]):
        registry_client(conf)


def test_an_account_in_keystone_takes_the_library_that_asks_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SEC-082: not a failure of every request."""
    monkeypatch.setitem(sys.modules, "keystoneauth1.session", None)
    account = ("admin_user = glance", "admin_password = p", "admin_tenant_name = service")
    options = ("use_user_token = false", "auth_url = http://127.0.0.1:5000", *account)
    with pytest.raises(ConfigurationError, match=r"\[keystone\]"):
        registry_client(configured(tmp_path, *options))
