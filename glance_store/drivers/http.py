"""Images that stay where they are, behind http and https URLs; read-only.

Every connection goes through the outbound rules, at every redirect (glance_store.outbound).
"""

import functools
import logging
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, ClassVar, Final

import requests
from oslo_config import cfg

from common.body import Body, empty
from common.context import RequestContext
from glance_store.driver import Capability, Store
from glance_store.drivers.http_session import BROKEN, HttpSession
from glance_store.errors import BackendUnavailable
from glance_store.location import HttpLocation

LOG = logging.getLogger(__name__)

CHUNK: Final = 512 * 1024

_CONTENT_RANGE: Final = re.compile(r"bytes (?:(\d+)-\d+|\*)/(\d+|\*)")


class HttpStore(Store):
    """Reads what a URL of somebody else's names."""

    schemes: ClassVar[tuple[str, ...]] = ("http", "https")
    capabilities: ClassVar[Capability] = Capability.READ
    options: ClassVar[Sequence[cfg.Opt]] = (
        cfg.StrOpt(
            "https_ca_certificates_file",
            help="File of CA certificates that servers are checked against, instead of the "
            "usual ones. https_insecure is ignored where this is set.",
        ),
        cfg.BoolOpt(
            "https_insecure",
            default=False,
            help="Do not check servers' certificates. Glance's default was true.",
        ),
        cfg.DictOpt(
            "http_proxy_information",
            default={},
            help="Proxies by scheme, such as http:10.0.0.1:3128. A proxy looks names up itself: "
            "the addresses behind them are then its affair to filter.",
        ),
    )

    def __init__(self, conf: Mapping[str, Any]) -> None:
        super().__init__(conf)
        self._authorities: str | None = conf.get("https_ca_certificates_file")
        self._insecure: bool = conf.get("https_insecure", False) and not self._authorities
        self._proxies: dict[str, str] = dict(conf.get("http_proxy_information") or {})
        if self._insecure:
            LOG.warning("https_insecure is set: certificates of image sources are not checked")

    @functools.cached_property
    def _session(self) -> HttpSession:
        verify = self._authorities or not self._insecure
        return HttpSession(self.outbound, verify, self._proxies)

    def validate(self, url: str) -> None:
        HttpLocation.parse(url)

    def without_credentials(self, url: str) -> str | None:
        # Whoever registered it brought them.
        return url if HttpLocation.parse(url).credentials is None else None

    def size(self, ctx: RequestContext, url: str) -> int | None:
        location = HttpLocation.parse(url)
        deadline = time.monotonic() + self.outbound.rules.sizing_timeout
        with self._session.request("HEAD", location, {}, deadline) as response:
            length = _length(response)
            if response.status_code == 200 and length:
                return length
        # Some servers refuse HEAD, or answer it without the length that a GET would have.
        with self._session.request("GET", location, {"Range": "bytes=0-0"}, deadline) as response:
            if response.status_code in (206, 416):
                return _range(response)[1]
            _require(response, 200)
            return _length(response)

    def get(
        self, ctx: RequestContext, url: str, offset: int = 0, length: int | None = None
    ) -> Body:
        location = HttpLocation.parse(url)
        response = self._session.request("GET", location, _range_header(offset, length))
        try:
            if response.status_code == 416 and (offset or length is not None):
                response.close()
                return empty()
            if response.status_code == 206 and (offset or length is not None):
                return self._body(location, response, offset, length, skip=0)
            _require(response, 200)
            return self._body(location, response, offset, length, skip=offset)
        except BaseException:
            response.close()
            raise

    def _body(
        self,
        location: HttpLocation,
        response: requests.Response,
        offset: int,
        length: int | None,
        skip: int,
    ) -> "_HttpBody":
        total = _length(response)
        if response.status_code == 206:
            start, total = _range(response)
            if start != offset:
                raise BackendUnavailable()
        held = None if total is None else max(total - offset, 0)
        if held is not None and length is not None:
            held = min(held, length)
        resume = functools.partial(self._resume, location, offset, _validator(response), total)
        return _HttpBody(response, held, skip, resume, self.outbound.rules.retries, at_most=length)

    def _resume(
        self,
        location: HttpLocation,
        offset: int,
        validator: str | None,
        total: int | None,
        position: int,
    ) -> requests.Response:
        """The rest of a broken answer, from the same bytes as its beginning."""
        if validator is None or total is None:
            raise BackendUnavailable()
        headers = _range_header(offset + position, None) | {"If-Range": validator}
        response = self._session.request("GET", location, headers)
        same = response.status_code == 206 and _validator(response) == validator
        if not same or _range(response) != (offset + position, total):
            response.close()
            raise BackendUnavailable()
        return response


class _HttpBody(Body):
    """An answer's content, taken up again where it breaks if its length is known.

    at_most: no more is yielded, also where the source does not tell its length.
    """

    def __init__(
        self,
        response: requests.Response,
        length: int | None,
        skip: int,
        resume: Callable[[int], requests.Response],
        retries: int,
        at_most: int | None,
    ) -> None:
        super().__init__(length)
        self._response = response
        self._skip = skip
        self._resume = resume
        self._retries = retries
        self._at_most = at_most
        self._position = 0

    def chunks(self) -> Iterator[bytes]:
        while (chunk := self._next()) is not None:
            kept = chunk[self._skip :]
            self._skip -= len(chunk) - len(kept)
            kept = kept[: self._wanted()]
            self._position += len(kept)
            if kept:
                yield kept

    def interrupt(self) -> None:
        self._retries = 0
        with suppress(ValueError, RuntimeError, OSError):
            self._response.raw.shutdown()

    def release(self) -> None:
        self._response.close()

    def _wanted(self) -> int | None:
        bounds = [bound for bound in (self.length, self._at_most) if bound is not None]
        return min(bounds) - self._position if bounds else None

    def _next(self) -> bytes | None:
        """The next piece of the answer, None at the end."""
        if self._wanted() == 0:
            return None
        try:
            chunk: bytes = self._response.raw.read1(CHUNK, decode_content=False)
        except BROKEN:
            return self._again()
        if chunk:
            return chunk
        return None if self.length is None else self._again()

    def _again(self) -> bytes:
        """Go on with another answer. Raises BackendUnavailable if that cannot be."""
        self._response.close()
        if self._closed or self._retries <= 0:
            raise BackendUnavailable("The source broke off in the middle of the image.")
        self._retries -= 1
        self._response = self._resume(self._position)
        self._skip = 0
        return b""


def _require(response: requests.Response, status: int) -> None:
    if response.status_code != status:
        LOG.info("a source of an image answered with status %d", response.status_code)
        raise BackendUnavailable()


def _length(response: requests.Response) -> int | None:
    text = response.headers.get("Content-Length", "")
    return int(text) if text.isascii() and text.isdigit() else None


def _range(response: requests.Response) -> tuple[int | None, int | None]:
    """The first byte's position and the whole length, as Content-Range tells them."""
    match = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
    if match is None:
        raise BackendUnavailable()
    start, total = match.groups()
    return (
        int(start) if start is not None else None,
        int(total) if total != "*" else None,
    )


def _range_header(offset: int, length: int | None) -> dict[str, str]:
    if not offset and length is None:
        return {}
    last = "" if length is None else str(max(offset + length - 1, offset))
    return {"Range": f"bytes={offset}-{last}"}


def _validator(response: requests.Response) -> str | None:
    """What tells two contents of one URL apart: a strong ETag, else the time of the last change."""
    etag = response.headers.get("ETag", "")
    if etag.startswith('"'):
        return etag
    return response.headers.get("Last-Modified")
