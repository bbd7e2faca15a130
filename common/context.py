"""Who is asking: built once per request at the edge, passed first to every operation."""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class RequestContext:
    """One caller's identity and rights.

    `token` and `service_catalog` are credentials: they are forwarded to the registry and to
    stores that act as the caller, and never appear in a log line or an answer.
    """

    user: str | None = None
    tenant: str | None = None
    roles: tuple[str, ...] = ()
    is_admin: bool = False
    read_only: bool = False
    request_id: str = ""
    owner_is_tenant: bool = True
    token: str | None = field(default=None, repr=False)
    service_catalog: tuple[Any, ...] | None = field(default=None, repr=False)
    authenticated: bool = True
    remote_address: str | None = None
    is_service: bool = False  # the API itself, working for no caller

    @property
    def owner(self) -> str | None:
        """The value that `Image.owner` is compared with; None for a caller without one."""
        return (self.tenant if self.owner_is_tenant else self.user) or None
