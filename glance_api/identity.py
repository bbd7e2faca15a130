"""As whom the API speaks to the registry: for its callers, and for itself."""

from common.config import Configuration
from common.context import RequestContext
from glance_api.keystone import admin_tokens, service_tokens
from glance_api.registry_client import Identity


def registry_identity(conf: Configuration) -> Identity:
    """registry-v1.md section 9: the caller's own token, unless use_user_token is off."""
    admin = None if conf.use_user_token else admin_tokens(conf)
    service = service_tokens(conf)
    forward = bool(conf.use_user_token)

    def token(ctx: RequestContext) -> str | None:
        if admin is not None:
            return admin.token()
        if ctx.is_service and service is not None:
            return service.token()
        return ctx.token if forward else None

    return Identity(token, conf.send_identity_headers, conf.registry_auth_key)


def service_context(conf: Configuration) -> RequestContext:
    """The API's own identity, for work that no caller is waiting for."""
    return RequestContext(
        user=conf.admin_user or "glance",
        tenant=conf.admin_tenant_name or "service",
        roles=(conf.admin_role,),
        is_admin=True,
        is_service=True,
    )
