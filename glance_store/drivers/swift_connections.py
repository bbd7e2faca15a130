"""Connections to Swift and to its identity service.

Those to hosts that only a location names go through the outbound rules, as any other
connection on behalf of a caller; those to configured hosts need not.
"""

import contextlib
import threading
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

import requests

from glance_store.drivers.http_session import CheckedAdapter
from glance_store.outbound import Outbound

_IDLE_CONNECTIONS: Final = 32


@dataclass(frozen=True, slots=True)
class Access:
    """Options that concern every account."""

    timeout: float
    insecure: bool
    cacert: str | None
    region: str | None
    endpoint: str | None
    endpoint_type: str
    service_type: str
    expire_soon_interval: int


class Connections:
    """Idle connections to be used again; a swiftclient connection serves one request at a time.

    outbound: the rules to connect under, asked for late because a store learns them late.
    """

    def __init__(self, access: Access, outbound: Callable[[], Outbound] | None = None) -> None:
        self.access = access
        self._outbound = outbound
        self._idle: deque[tuple[str, Any]] = deque()
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def borrow(self, url: str) -> Iterator[Any]:
        """What swiftclient calls an http_conn, for one request."""
        connection = self.take(url)
        try:
            yield connection
        except BaseException as error:
            self.end(connection, error)
            raise
        self.give_back(connection)

    def take(self, url: str) -> Any:
        parts = urlsplit(url)
        server = f"{parts.scheme}://{parts.netloc}"
        with self._lock:
            for entry in self._idle:
                if entry[0] == server:
                    self._idle.remove(entry)
                    return parts, entry[1]
        return parts, self._connect(server)

    def end(self, connection: Any, error: BaseException) -> None:
        """Keep the connection if the error is an answer that was read from it."""
        if getattr(error, "http_status", None):
            self.give_back(connection)
        else:
            connection[1].close()

    def give_back(self, connection: Any) -> None:
        parts, http = connection
        with self._lock:
            self._idle.append((f"{parts.scheme}://{parts.netloc}", http))
            surplus = self._idle.popleft()[1] if len(self._idle) > _IDLE_CONNECTIONS else None
        if surplus is not None:
            surplus.close()

    def keystone(self, plugin: Any) -> Any:
        """A keystoneauth session for the plugin."""
        from keystoneauth1.session import Session

        return Session(
            auth=plugin,
            session=self._prepared(requests.Session()),
            verify=False if self.access.insecure else self.access.cacert or True,
            timeout=self.access.timeout,
            user_agent="glance",
            redirect=False,
        )

    def _connect(self, server: str) -> Any:
        from swiftclient import client

        http = client.http_connection(
            server,
            cacert=self.access.cacert,
            insecure=self.access.insecure,
            timeout=self.access.timeout,
        )[1]
        # The token would go along, to whatever host the answer names.
        http.requests_args["allow_redirects"] = False
        self._prepared(http.request_session)
        return http

    def _prepared(self, session: requests.Session) -> requests.Session:
        if self._outbound is not None:
            session.trust_env = False
            session.mount("http://", CheckedAdapter(self._outbound()))
            session.mount("https://", CheckedAdapter(self._outbound()))
        return session
