"""What a request to the registry says about the caller."""

from typing import Any

import pytest

from common.context import RequestContext
from common.wsgi.filters import ContextFilter, ContextSettings
from glance_api.registry_client import KEY_HEADER, Identity
from glance_registry.access import RegistryAccess


class NoAdmins:
    def is_admin(self, context: RequestContext) -> bool:
        return False


def seen(ctx: RequestContext, **settings: Any) -> RequestContext:
    """The context that the registry makes of the headers it is sent."""
    headers = Identity(send_headers=True).headers(ctx)
    environ = {f"HTTP_{name.upper().replace('-', '_')}": text for name, text in headers.items()}
    registry = ContextFilter(lambda environ, start: [], ContextSettings(**settings), NoAdmins())
    return registry.context_from(environ, ctx.request_id)


@pytest.mark.parametrize("name", ["RegionOne", "Zürich", "東京", "\U0001f30d"])
def test_the_registry_sees_who_the_caller_is_in_any_script(name: str) -> None:
    """registry-v1.md section 9, decision 12."""
    catalog = ({"type": "object-store", "endpoints": [{"region": name}]},)
    ctx = RequestContext(
        user=name,
        tenant=f"of {name}",
        roles=("member", "other"),
        token="t",
        service_catalog=catalog,
        request_id="req-1",
    )
    assert seen(ctx) == ctx


@pytest.mark.parametrize("roles", ["member,", "member, ", " ,member"])
def test_a_blank_is_no_role(roles: str) -> None:
    """Section 3: not even where admin_role is one by mistake."""
    environ = {"HTTP_X_IDENTITY_STATUS": "Confirmed", "HTTP_X_ROLES": roles}
    context = ContextFilter(
        lambda environ, start: [], ContextSettings(admin_role=" "), NoAdmins()
    ).context_from(environ, "req-1")
    assert context.roles == ("member",)
    assert not context.is_admin


def test_an_anonymous_caller_stays_anonymous() -> None:
    """D19"""
    anonymous = RequestContext(read_only=True, authenticated=False)
    assert not seen(anonymous, allow_anonymous_access=True).authenticated


@pytest.mark.parametrize("key", ["0123abcd", "schlüssel", "鍵"])
def test_the_registry_knows_the_key_in_any_script(key: str) -> None:
    """Decision 6: "a text of your choice"."""
    text = Identity(key=key).headers(RequestContext())[KEY_HEADER]
    reached: list[str] = []

    def pipeline(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        reached.append(environ["PATH_INFO"])
        return []

    door = RegistryAccess(pipeline, pipeline, key)
    wire = text.encode("latin-1").decode("latin-1")
    environ = {"REQUEST_METHOD": "GET", "PATH_INFO": "/images"}
    door({**environ, "HTTP_X_GLANCE_REGISTRY_KEY": wire}, lambda *_: None)
    assert reached == ["/images"]
