"""Both daemons with flavor keystone, and callers who show them a token of that Keystone."""

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from tests.functional.daemons import REGISTRY_KEY, Client, Service, running_service
from tests.servers.keystone import Keystone

KEY = {"registry_auth_key": REGISTRY_KEY}

# How long a daemon trusts what Keystone said of a token.
CACHE_SECONDS = 1

# How the registry may learn who is asking: options of the API, and of the registry.
WAYS: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    # The caller's token, and nothing else: the API's own work needs its account's token.
    "the caller's token": ({}, {}, "keystone"),
    "the caller's token and the registry's key": (KEY, KEY, "keystone"),
    # registry-v1.md section 9, OSSN-0060: the API authenticates itself, for everybody.
    "the administrator's token": ({"use_user_token": False}, {}, "keystone"),
    "identity headers": (
        {"use_user_token": False, "send_identity_headers": True, **KEY},
        KEY,
        "trusted-auth",
    ),
}


def options(keystone: Keystone, **more: Any) -> dict[str, Any]:
    """What both daemons need to ask this Keystone, and nothing that stands in for it."""
    administrator = keystone.service
    return {
        "keystone_authtoken": {
            **keystone.auth_token_options(),
            "token_cache_time": CACHE_SECONDS,
            "http_request_max_retries": 1,
        },
        "registry_auth_key": "",
        "send_identity_headers": False,
        "auth_url": keystone.url,
        "admin_user": administrator.name,
        "admin_password": administrator.password,
        "admin_tenant_name": administrator.project,
        **more,
    }


def running(
    home: Path, keystone: Keystone, way: str = "the caller's token", **more: Any
) -> AbstractContextManager[Service]:
    """A service that asks this Keystone; `more` are options of the API."""
    api, registry, flavor = WAYS[way]
    registry_options = {
        "registry_auth_key": "",
        "keystone_authtoken": options(keystone)["keystone_authtoken"],
        "paste_deploy": {"flavor": flavor},
        **registry,
    }
    return running_service(
        home, flavor="keystone", api=options(keystone, **api, **more), registry=registry_options
    )


def caller(service: Service, token: str) -> Client:
    return service.client({"X-Auth-Token": token})
