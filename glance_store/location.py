"""HTTP URLs taken apart once, strictly, so that no two readers see two hosts in one URL."""

import re
from dataclasses import dataclass, field, replace
from typing import Final, Self
from urllib.parse import unquote, urljoin, urlsplit, urlunsplit

from glance_store.errors import BadLocation

DEFAULT_PORTS: Final = {"http": 80, "https": 443}

# Characters that parsers disagree about.
_DOUBTFUL: Final = re.compile(r"[\x00-\x20\x7f\\]")


@dataclass(frozen=True, slots=True)
class HttpLocation:
    """An http or https URL. `url` is without user-info; `credentials` are kept out of repr."""

    scheme: str
    host: str
    port: int
    url: str = field(repr=False)
    credentials: tuple[str, str] | None = field(default=None, repr=False)

    @classmethod
    def parse(cls, url: str) -> Self:
        """Raises BadLocation."""
        if _DOUBTFUL.search(url):
            raise BadLocation()
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError:
            raise BadLocation() from None
        scheme = url.partition(":")[0]
        if scheme not in DEFAULT_PORTS or not parts.hostname or port == 0:
            raise BadLocation()
        userinfo, _, hostport = parts.netloc.rpartition("@")
        user, _, password = userinfo.partition(":")
        return cls(
            scheme=scheme,
            host=parts.hostname,
            port=port or DEFAULT_PORTS[scheme],
            url=urlunsplit((scheme, hostport, parts.path or "/", parts.query, "")),
            credentials=(unquote(user), unquote(password)) if userinfo else None,
        )

    def redirected(self, target: str) -> Self:
        """Where a redirect to target leads; this URL's credentials stay with its own host.

        Raises BadLocation, also for a step from https down to http.
        """
        following = self.parse(urljoin(self.url, target))
        if self.scheme == "https" and following.scheme == "http":
            raise BadLocation()
        if following.credentials is None and following._origin == self._origin:
            following = replace(following, credentials=self.credentials)
        return following

    @property
    def _origin(self) -> tuple[str, str, int]:
        return self.scheme, self.host, self.port
