"""Tokens of the API's own accounts in Keystone, for a registry that asks for one."""

import importlib
import os
from collections.abc import Callable
from typing import Any, Final

from common import errors
from common.config import Configuration, ConfigurationError, settings
from common.wsgi.authtoken import older_options

_SECTION: Final = "keystone_authtoken"


class TokenFetcher:
    """A token of one account, fetched on first use and again before it expires."""

    def __init__(self, make_plugin: Callable[[], Any], *, insecure: bool, cafile: str | None):
        """Raises ConfigurationError where the library that asks Keystone is not installed."""
        self._keystone = _keystoneauth()
        self._make_plugin = make_plugin
        self._verify: bool | str = False if insecure else cafile or True
        self._session: Any = None

    def token(self) -> str:
        """Raises ServiceUnavailable where Keystone gives none."""
        keystone = self._keystone
        try:
            if self._session is None:
                self._session = keystone.session.Session(
                    auth=self._make_plugin(), verify=self._verify, timeout=30
                )
            token: str = self._session.get_token()
        except keystone.exceptions.ClientException:
            # Its text may name the account and the URL.
            raise errors.ServiceUnavailable("The identity service gave no token.") from None
        return token


def admin_tokens(conf: Configuration) -> TokenFetcher | None:
    """The account of `admin_user`, where use_user_token is off and Keystone is named."""
    url = conf.auth_url or os.environ.get("OS_AUTH_URL")
    if not url and conf.auth_strategy != "keystone":
        return None
    if not url:
        raise ConfigurationError("auth_strategy: keystone needs auth_url")

    def password() -> Any:
        return _keystoneauth().identity.Password(
            auth_url=url,
            username=conf.admin_user,
            password=conf.admin_password,
            project_name=conf.admin_tenant_name,
            user_domain_id="default",
            project_domain_id="default",
        )

    return TokenFetcher(password, insecure=False, cafile=None)


def service_tokens(conf: Configuration) -> TokenFetcher | None:
    """The account of [keystone_authtoken], where the flavor checks tokens at all."""
    if not (conf.paste_deploy.flavor or "").startswith("keystone"):
        return None
    given = {
        name: each[-1] for (section, name), each in settings(conf).items() if section == _SECTION
    }
    options = {**given, **older_options(given)}
    if "auth_type" not in options:
        return None
    insecure = options.get("insecure", "").lower() in ("1", "true", "yes", "on")
    return TokenFetcher(lambda: _plugin(options), insecure=insecure, cafile=options.get("cafile"))


def _plugin(options: dict[str, str]) -> Any:
    loader = _keystoneauth().loading.get_plugin_loader(options["auth_type"])
    known = {option.dest for option in loader.get_options()}
    return loader.load_from_options(
        **{name: value for name, value in options.items() if name in known}
    )


def _keystoneauth() -> Any:
    try:
        for part in ("exceptions", "identity", "loading", "session"):
            importlib.import_module(f"keystoneauth1.{part}")
    except ImportError:
        raise ConfigurationError(
            "Keystone credentials need keystoneauth1; install it with: pip install '.[keystone]'"
        ) from None
    return importlib.import_module("keystoneauth1")
