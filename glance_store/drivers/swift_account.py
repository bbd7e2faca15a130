"""Requests on one Swift account: bounded, retried where that is safe, with our own errors.

The library's errors quote URLs and answers; none leaves this file.
"""

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final, TypeVar
from urllib.parse import quote, urlsplit

from common import errors
from common.body import CHUNK
from glance_store.drivers.swift_connections import Connections
from glance_store.drivers.swift_credentials import Credentials, Session
from glance_store.errors import BackendUnavailable, StorageFull, StorageWriteDenied
from glance_store.feed import FeedFailed

LOG = logging.getLogger(__name__)

T = TypeVar("T")

_TRIES: Final = 3
_FIRST_PAUSE: Final = 0.25
# Answers after which the same request may succeed soon: overload, a slow or broken backend.
_PASSING: Final = frozenset({408, 429, 498, 499, 500, 502, 503, 504})


class RangeOutside(Exception):
    """The object ends before the range that was asked for begins."""


class Unreachable(BackendUnavailable):
    """No answer, after all the patience that one request gets."""


class CredentialsRefused(BackendUnavailable):
    """The service's own credentials were not accepted."""

    default = "The store refused the service's credentials."


class ObjectStream:
    """The bytes of one GET; its connection is used again if they were read to the end."""

    def __init__(self, response: Any, connections: Connections, connection: Any) -> None:
        self._response = response
        self._connections = connections
        self._connection = connection

    def read(self, size: int, /) -> bytes:
        if self._connection is None:
            return b""
        try:
            chunk: bytes = self._response.read(size)
        except Exception as error:
            self.close()
            raise _unreachable("GET", error) from None
        if not chunk:
            self._connections.give_back(self._connection)
            self._connection = None
        return chunk

    def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            self._response.close()
            connection[1].close()


class Account:
    """One account's containers and objects.

    Everything but `put_stream` is safe to repeat and is: three times at most, and never for
    longer than two timeouts. A refused token is renewed once. Raises NotFound, Duplicate,
    StorageFull, StorageWriteDenied, Forbidden and BackendUnavailable.
    """

    def __init__(self, credentials: Credentials, connections: Connections) -> None:
        self.credentials = credentials
        self._connections = connections

    def head(self, container: str, name: str) -> dict[str, str]:
        """The object's headers, names in lower case."""
        headers: dict[str, str] = self._call("HEAD", "head_object", container, name)
        return headers

    def get(
        self, container: str, name: str, wanted: str | None = None, query: str | None = None
    ) -> tuple[dict[str, str], ObjectStream]:
        """The object from its first byte, or the range `wanted`. Raises RangeOutside."""
        headers = {"Range": wanted} if wanted else {}

        def ask(session: Session) -> tuple[dict[str, str], ObjectStream]:
            from swiftclient import client

            connection = self._connections.take(session.storage_url)
            try:
                answer, response = client.get_object(
                    session.storage_url,
                    session.token,
                    container,
                    name,
                    http_conn=connection,
                    resp_chunk_size=CHUNK,
                    headers=headers,
                    query_string=query,
                )
            except BaseException as error:
                self._connections.end(connection, error)
                raise
            return answer, ObjectStream(response, self._connections, connection)

        return self._attempt("GET", ask)

    def put(
        self, container: str, name: str, content: bytes, headers: Mapping[str, str] | None = None
    ) -> str:
        """Store the few bytes as an object that must not exist; return its ETag."""
        # An attempt whose answer was lost may have stored the object: only the first can tell
        # that somebody else had.
        conditions = iter([{"If-None-Match": "*"}])

        def ask(session: Session) -> str:
            sent = {**next(conditions, {}), **(headers or {})}
            return self._put(session, container, name, content, sent)

        return self._attempt("PUT", ask)

    def put_stream(
        self, container: str, name: str, chunks: Iterable[bytes], replace: bool = False
    ) -> str:
        """Store the chunks as an object in one attempt; return its ETag.

        It must not exist unless `replace`. Chunks that have a `len`, in bytes, are sent with a
        Content-Length, others with chunked encoding. If they raise FeedFailed, so does this,
        and no object comes to be.
        """
        # A token that died since the last request would cost the whole stream.
        self.head_container(container)
        condition = {} if replace else {"If-None-Match": "*"}
        try:
            return self._put(self.credentials.session(), container, name, chunks, condition)
        except FeedFailed:
            raise
        except Exception as error:
            raise self._translated("PUT", error) from None

    def delete(self, container: str, name: str) -> None:
        self._call("DELETE", "delete_object", container, name)

    def list(self, container: str, prefix: str = "") -> Iterator[dict[str, Any]]:
        """The container's objects in order: `name`, `bytes`, `hash`, `last_modified`."""
        marker = ""
        while True:
            _, page = self._call("GET", "get_container", container, prefix=prefix, marker=marker)
            if not page:
                return
            yield from page
            marker = page[-1]["name"]

    def containers(self, prefix: str) -> Iterator[str]:
        _, page = self._call("GET", "get_account", prefix=prefix, full_listing=True)
        return (entry["name"] for entry in page)

    def head_container(self, container: str) -> None:
        self._call("HEAD", "head_container", container)

    def put_container(self, container: str, headers: Mapping[str, str]) -> None:
        self._call("PUT", "put_container", container, headers=dict(headers))

    def post_container(self, container: str, headers: Mapping[str, str]) -> None:
        self._call("POST", "post_container", container, headers=dict(headers))

    def delete_container(self, container: str) -> None:
        self._call("DELETE", "delete_container", container)

    def _call(self, verb: str, function: str, *args: Any, **options: Any) -> Any:
        from swiftclient import client

        def ask(session: Session) -> Any:
            with self._connections.borrow(session.storage_url) as connection:
                work = getattr(client, function)
                return work(
                    session.storage_url, session.token, *args, http_conn=connection, **options
                )

        return self._attempt(verb, ask)

    def _put(
        self,
        session: Session,
        container: str,
        name: str,
        content: bytes | Iterable[bytes],
        headers: Mapping[str, str],
    ) -> str:
        """swiftclient's own put_object reads a body of known length in pieces of 16 KiB."""
        from swiftclient.exceptions import ClientException

        with self._connections.borrow(session.storage_url) as (_, http):
            base = urlsplit(session.storage_url).path.rstrip("/")
            sent = {
                "X-Auth-Token": session.token,
                "Content-Type": "application/octet-stream",
                **headers,
            }
            http.request("PUT", f"{base}/{quote(container)}/{quote(name)}", content, sent)
            response = http.getresponse()
            response.read()
            if not 200 <= response.status < 300:
                raise ClientException("PUT", http_status=response.status)
            return str(response.getheader("etag", "")).strip('"')

    def _attempt(self, verb: str, ask: Callable[[Session], T]) -> T:
        deadline = time.monotonic() + self._connections.access.timeout
        pause = _FIRST_PAUSE
        renewed = False
        for tries_left in reversed(range(_TRIES)):
            session = self.credentials.session()
            try:
                return ask(session)
            except Exception as error:
                refused = getattr(error, "http_status", None) == 401
                if refused and not renewed and self.credentials.renew(session):
                    renewed = True
                    continue
                again = time.monotonic() + pause < deadline and _may_pass(error)
                if not tries_left or not again:
                    raise self._translated(verb, error) from None
            time.sleep(pause)
            pause *= 2
        raise BackendUnavailable()

    def _translated(self, verb: str, error: Exception) -> Exception:
        if isinstance(error, errors.GlanceError):
            return error
        status = getattr(error, "http_status", None)
        if not status:
            return _unreachable(verb, error)
        if status == 416:
            return RangeOutside()
        if status == 404 and verb != "PUT":
            return errors.NotFound("The image's bytes are not in the store.")
        if status == 412 and verb == "PUT":
            return errors.Duplicate()
        LOG.warning("Swift answered a %s with status %s.", verb, status)
        if status in (413, 507):
            return StorageFull()
        if status in (401, 403):
            return self._refused(verb)
        return BackendUnavailable("The store could not carry out the request.")

    def _refused(self, verb: str) -> errors.GlanceError:
        if verb not in ("GET", "HEAD"):
            return StorageWriteDenied()
        if self.credentials.as_caller:
            return errors.Forbidden("The store does not let you read the image.")
        return CredentialsRefused()


def _may_pass(error: Exception) -> bool:
    if isinstance(error, errors.GlanceError):
        return False
    status = getattr(error, "http_status", None)
    return status in _PASSING if status else True


def _unreachable(verb: str, error: Exception) -> Unreachable:
    LOG.warning("Swift could not be reached for a %s: %s.", verb, type(error).__name__)
    return Unreachable()
