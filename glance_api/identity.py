"""As whom the API speaks to the registry: for its callers, and for itself."""

import logging

from common import errors
from common.config import Configuration
from common.context import RequestContext
from glance_api.keystone import admin_tokens, service_tokens
from glance_api.registry_client import Identity

LOG = logging.getLogger(__name__)


def registry_identity(conf: Configuration) -> Identity:
    """registry-v1.md section 9: the caller's own token, unless use_user_token is off.

    With an administrator's token the caller's identity always goes along, because it is the
    caller whose rights count (SEC-019, OSSN-0060).
    """
    admin = None if conf.use_user_token else admin_tokens(conf)
    service = service_tokens(conf)
    forward = bool(conf.use_user_token)

    def token(ctx: RequestContext) -> str | None:
        if admin is not None:
            return admin.token()
        if ctx.is_service and service is not None:
            return service.token()
        return ctx.token if forward else None

    def service_token() -> str | None:
        try:
            return service.token() if service is not None and forward else None
        except errors.ServiceUnavailable:
            LOG.warning("the identity service gave no token to vouch for a caller's with")
            return None

    send_headers = conf.send_identity_headers or admin is not None
    return Identity(token, send_headers, conf.registry_auth_key, service_token)


def service_context(conf: Configuration) -> RequestContext:
    """The API's own identity, for work that no caller is waiting for."""
    return RequestContext(
        user=conf.admin_user or "glance",
        tenant=conf.admin_tenant_name or "service",
        roles=(conf.admin_role,),
        is_admin=True,
        is_service=True,
    )
