"""The registry's front door: identities, the key, and what leases need (decision 6)."""

from typing import Any

import pytest
import webob

from common.wsgi.faults import Application, FaultFilter
from common.wsgi.filters import ContextFilter, ContextSettings, HealthcheckFilter
from common.wsgi.resource import Router
from glance_registry.access import RegistryAccess
from glance_registry.leases import LeasesController
from glance_registry.router import lease_routes
from tests.registry import UNKNOWN_ID, Registry

KEY = "clé-of-ours"
USER = {"X-Identity-Status": "Confirmed", "X-Tenant-Id": "t1", "X-Roles": "member"}
ADMIN = {**USER, "X-Roles": "admin"}


class NoPolicy:
    def is_admin(self, context: object) -> bool:
        return False


def door(registry: Registry, key: str | None) -> Application:
    """The daemon's application with the trusted-auth pipeline."""
    pipeline = ContextFilter(registry.app, ContextSettings(), NoPolicy())
    leases = Router(lease_routes(LeasesController(registry.database)))
    return FaultFilter(RegistryAccess(HealthcheckFilter(FaultFilter(pipeline), None), leases, key))


def ask(app: Application, method: str, path: str, **headers: str) -> webob.Response:
    request = webob.Request.blank(path, method=method)
    for name, value in headers.items():
        request.headers[name.replace("_", "-")] = value
    return request.get_response(app)


def presenting(key: str) -> dict[str, str]:
    return {"X-Glance-Registry-Key": key.encode().decode("latin-1")}


def test_without_an_identity_there_is_no_answer(registry: Registry) -> None:
    """REG-061"""
    app = door(registry, None)
    assert ask(app, "GET", "/images").status_int == 401
    assert ask(app, "GET", "/images", **USER).status_int == 200
    assert ask(app, "GET", "/healthcheck").status_int == 200


@pytest.mark.parametrize("wrong", [{}, presenting(""), presenting("clé"), presenting(KEY + "x")])
def test_with_a_key_nothing_is_answered_without_it(
    registry: Registry, wrong: dict[str, str]
) -> None:
    """SEC-018"""
    app = door(registry, KEY)
    for method, path in (
        ("GET", "/images"), ("GET", "/"), ("GET", "/nonsense"), ("POST", "/images"),
        ("GET", "/leases"), ("PUT", "/leases"), ("DELETE", "/leases/x"),
        ("POST", "/leases/1/claim"), ("GET", "/healthcheck/"),
    ):  # fmt: skip
        assert ask(app, method, path, **ADMIN, **wrong).status_int == 401, path
    assert ask(app, "GET", "/healthcheck", **wrong).status_int == 200


@pytest.mark.parametrize(("sent", "said"), [({}, "no"), (presenting("other"), "another")])
def test_the_log_says_why_and_not_with_which_key(
    registry: Registry, caplog: pytest.LogCaptureFixture, sent: dict[str, str], said: str
) -> None:
    """Daemons whose keys differ would otherwise be told from a bad token by nobody."""
    ask(door(registry, KEY), "GET", "/images", **USER, **sent)
    messages = [each.getMessage() for each in caplog.records if each.name.endswith("access")]
    assert messages == [f"a request with {said} registry_auth_key has been refused"]


def test_the_key_does_not_stand_for_an_identity(registry: Registry) -> None:
    app = door(registry, KEY)
    assert ask(app, "GET", "/images", **presenting(KEY)).status_int == 401
    assert ask(app, "GET", "/images", **USER, **presenting(KEY)).status_int == 200
    assert ask(app, "GET", f"/images/{UNKNOWN_ID}", **USER, **presenting(KEY)).status_int == 404


def test_the_key_is_the_right_to_all_leases(registry: Registry) -> None:
    app = door(registry, KEY)
    assert ask(app, "GET", "/leases", **presenting(KEY)).json == {"leases": []}
    assert ask(app, "DELETE", "/leases/x", **presenting(KEY)).status_int == 204
    assert ask(app, "POST", "/leases/1/claim", **presenting(KEY)).status_int == 400
    assert ask(app, "GET", "/leases/nonsense", **presenting(KEY)).status_int == 404


def test_without_a_key_a_token_renews_and_ends_and_an_admin_does_the_rest(
    registry: Registry,
) -> None:
    app = door(registry, None)
    assert ask(app, "DELETE", "/leases/x").status_int == 204
    assert ask(app, "PUT", "/leases").status_int == 400
    for headers, status in (({}, 401), (USER, 403), (ADMIN, 200)):
        assert ask(app, "GET", "/leases", **headers).status_int == status
    assert ask(app, "POST", "/leases/1/claim").status_int == 401


def test_a_caller_cannot_pretend_to_have_presented_the_key(registry: Registry) -> None:
    app = door(registry, None)
    forged: dict[str, Any] = {"glance.registry_key_presented": "1"}
    assert ask(app, "GET", "/leases", **forged).status_int == 401


def test_an_error_carries_the_request_id(registry: Registry) -> None:
    """registry-v1.md section 1"""
    app = door(registry, None)
    for path in ("/images", f"/images/{UNKNOWN_ID}"):
        answer = ask(app, "GET", path, **USER, X_Openstack_Request_ID="req-1")
        assert answer.headers["x-openstack-request-id"] == "req-1"
