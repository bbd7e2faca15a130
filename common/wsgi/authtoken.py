"""Keystone's token filter, with our options and with those of an older configuration file.

It fails closed (SEC-020): a token that cannot be checked gives 503. keystonemiddleware itself
takes it for a bad one where the decision is left to the context filter, and that may let the
caller in as anonymous.
"""

import importlib
from collections.abc import Callable, Mapping
from typing import Any, Final

from common import errors
from common.config import Configuration, ConfigurationError, for_library, settings
from common.wsgi.faults import Application, FaultFilter
from common.wsgi.paste import configuration

_SECTION: Final = "keystone_authtoken"

# Names that keystonemiddleware understood in Mitaka and has dropped since.
_RENAMED: Final = {
    "auth_uri": "www_authenticate_uri",
    "auth_plugin": "auth_type",
    "admin_user": "username",
    "admin_password": "password",
    "admin_tenant_name": "project_name",
}
_OLDER: Final = {*_RENAMED, "identity_uri", "auth_host", "auth_port", "auth_protocol"}
# keystonemiddleware's own default is to wait for ever, with the caller.
_TIMEOUT_SECONDS: Final = 10

_DEFAULT_DOMAINS: Final = {"user_domain_id": "default", "project_domain_id": "default"}


def filter_factory(
    global_conf: Mapping[str, str], **local_conf: str
) -> Callable[[Application], Application]:
    """paste.deploy's factory; options in the paste file win over those in [keystone_authtoken]."""
    try:
        auth_token = importlib.import_module("keystonemiddleware.auth_token")
        loading = importlib.import_module("keystoneauth1.loading")
    except ImportError as error:
        raise ConfigurationError(
            "[paste_deploy] flavor: keystone needs keystonemiddleware; "
            "install it with: pip install '.[keystone]'"
        ) from error
    conf = configuration()
    library = for_library(conf)
    for section, options in auth_token.list_opts():
        library.register_opts(options, section)
    library.set_default("http_connect_timeout", _TIMEOUT_SECONDS, _SECTION)
    translated = older_options({**_file_options(conf), **local_conf})
    if "username" in translated:
        library.register_opts(loading.get_auth_plugin_conf_options("password"), _SECTION)
    for name, value in translated.items():
        library.set_override(name, value, _SECTION)
    own = {name: value for name, value in local_conf.items() if name not in _OLDER}
    factory = auth_token.filter_factory({}, oslo_config_config=library, **own)
    keystone_errors = importlib.import_module("keystoneauth1.exceptions")
    away = (keystone_errors.ClientException, auth_token.ServiceError)

    def make(app: Application) -> Application:
        # Its 401s tell where a token is to be had; those raised behind it must be answers by then.
        protocol = factory(FaultFilter(app))
        protocol.fetch_token = _failing_closed(protocol.fetch_token, auth_token.InvalidToken, away)
        checked: Application = protocol
        return checked

    return make


def _failing_closed(
    fetch_token: Callable[..., Any], refused: type[Exception], away: tuple[type[Exception], ...]
) -> Callable[..., Any]:
    """fetch_token, raising ServiceUnavailable where Keystone could not say what a token is."""

    def fetch(*args: Any, **kwargs: Any) -> Any:
        try:
            return fetch_token(*args, **kwargs)
        except away:
            raise errors.ServiceUnavailable("The identity service cannot be asked.") from None
        except refused as error:
            # A token that Keystone does not know is refused because of its 404.
            reason = error.__context__
            if isinstance(reason, away) and getattr(reason, "http_status", None) != 404:
                raise errors.ServiceUnavailable("The identity service cannot be asked.") from None
            raise

    return fetch


def older_options(options: Mapping[str, str]) -> dict[str, str]:
    """Today's names and values for the options that only an older keystonemiddleware knows."""
    found = {
        new: options[old] for old, new in _RENAMED.items() if old in options and new not in options
    }
    if "auth_type" in options or "auth_type" in found or "username" not in found:
        # The administrator's options were used only without a plugin.
        return {
            name: found[name] for name in ("www_authenticate_uri", "auth_type") if name in found
        }
    return {
        **_DEFAULT_DOMAINS,
        **found,
        "auth_type": "password",
        "auth_url": _identity_url(options),
    }


def _identity_url(options: Mapping[str, str]) -> str:
    if "identity_uri" in options:
        return options["identity_uri"]
    scheme = options.get("auth_protocol", "https")
    host = options.get("auth_host", "127.0.0.1")
    return f"{scheme}://{host}:{options.get('auth_port', '35357')}"


def _file_options(conf: Configuration) -> dict[str, str]:
    return {
        name: values[-1]
        for (section, name), values in settings(conf).items()
        if section == _SECTION
    }
