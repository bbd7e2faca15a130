"""Requests to hosts that callers name: checked, redirected, bounded in time, tried again."""

import functools
import http.client
import time
from collections.abc import Mapping
from http.cookiejar import DefaultCookiePolicy
from typing import Any, Final

import requests
import urllib3
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

from common import errors
from glance_store.errors import BackendUnavailable
from glance_store.location import HttpLocation
from glance_store.outbound import Outbound, OutboundRefused

# What a broken connection looks like.
BROKEN: Final = (urllib3.exceptions.HTTPError, http.client.HTTPException, OSError)

_NOT_FOUND: Final = "HTTP datastore could not find image at URI."
_MISSING: Final = frozenset({404, 410})
# Answers that a source may take back a moment later.
_PASSING: Final = frozenset({429, 502, 503, 504})


class HttpSession:
    """One session for all callers: it keeps connections, and nothing about anyone.

    verify: whether certificates are checked, or the file of authorities to check them against.
    """

    def __init__(self, outbound: Outbound, verify: bool | str, proxies: Mapping[str, str]) -> None:
        self._outbound = outbound
        self._verify = verify
        self._proxies = proxies

    def request(
        self,
        method: str,
        location: HttpLocation,
        headers: Mapping[str, str],
        deadline: float | None = None,
    ) -> requests.Response:
        """The answer at the end of the redirects, tried again where that may help.

        Raises NotFound, or BackendUnavailable for everything else that is not an answer.
        """
        for attempt in range(self._outbound.rules.retries + 1):
            try:
                response = self._follow(method, location, headers, deadline)
            except OutboundRefused:
                raise
            except BackendUnavailable:
                if not self._pause(attempt, deadline):
                    raise
                continue
            if response.status_code not in _PASSING or not self._pause(attempt, deadline):
                break
            response.close()
        if response.status_code in _MISSING:
            response.close()
            raise errors.NotFound(_NOT_FOUND)
        return response

    def _pause(self, attempt: int, deadline: float | None) -> bool:
        """Wait a little before another attempt; False if there is to be none."""
        seconds = 0.2 * 2**attempt
        if attempt >= self._outbound.rules.retries:
            return False
        if deadline is not None and time.monotonic() + seconds > deadline:
            return False
        time.sleep(seconds)
        return True

    def _follow(
        self,
        method: str,
        location: HttpLocation,
        headers: Mapping[str, str],
        deadline: float | None,
    ) -> requests.Response:
        for _ in range(self._outbound.rules.max_redirects + 1):
            response = self._send(method, location, headers, deadline)
            target = self._session.get_redirect_target(response)
            if target is None:
                return response
            response.close()
            try:
                location = location.redirected(target)
            except errors.Invalid:
                raise OutboundRefused() from None
        raise OutboundRefused()

    def _send(
        self,
        method: str,
        location: HttpLocation,
        headers: Mapping[str, str],
        deadline: float | None,
    ) -> requests.Response:
        # With a proxy the connection is the proxy's; what can be told from the name still is.
        self._outbound.check_host(location.host, location.port)
        try:
            return self._session.request(
                method,
                location.url,
                headers=dict(headers),
                auth=location.credentials,
                timeout=self._timeouts(deadline),
                allow_redirects=False,
                stream=True,
            )
        except (requests.RequestException, *BROKEN):
            # The cause would name the URL, and with it credentials.
            raise BackendUnavailable() from None

    def _timeouts(self, deadline: float | None) -> tuple[float, float]:
        rules = self._outbound.rules
        if deadline is None:
            return rules.connect_timeout, rules.idle_timeout
        left = deadline - time.monotonic()
        if left <= 0:
            raise BackendUnavailable()
        return min(rules.connect_timeout, left), min(rules.idle_timeout, left)

    @functools.cached_property
    def _session(self) -> requests.Session:
        session = requests.Session()
        session.trust_env = False
        session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=()))
        session.verify = self._verify
        session.proxies = dict(self._proxies)
        session.headers.clear()
        session.headers.update(
            {"User-Agent": "glance", "Accept": "*/*", "Accept-Encoding": "identity"}
        )
        adapter = CheckedAdapter(self._outbound)
        session.mount("http://", adapter)
        session.mount("https://", adapter)
        if not self._verify:
            urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)
        return session


class CheckedAdapter(HTTPAdapter):
    """Connects only where the outbound rules allow, to the very address they checked."""

    def __init__(self, outbound: Outbound) -> None:
        self._outbound = outbound
        super().__init__()

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = checked_pools(self._outbound)


def checked_pools(outbound: Outbound) -> dict[str, type[HTTPConnectionPool]]:
    """urllib3's connection pools, by scheme, but for how a socket comes about.

    Everything else, the Host header, TLS server name and certificate check among it, goes by
    the name, as it should.
    """

    class Connection(HTTPConnection):
        def _new_conn(self) -> Any:
            return outbound.connect(self.host, self.port, self._seconds())

        def _seconds(self) -> float | None:
            return self.timeout if isinstance(self.timeout, (int, float)) else None

    class TLSConnection(Connection, HTTPSConnection):
        pass

    class Pool(HTTPConnectionPool):
        ConnectionCls = Connection

    class TLSPool(HTTPSConnectionPool):
        ConnectionCls = TLSConnection

    return {"http": Pool, "https": TLSPool}
