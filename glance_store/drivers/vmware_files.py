"""Files on vSphere datastores, read and written over their HTTPS access."""

import contextlib
import functools
import http.client
import itertools
import logging
import re
import ssl
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import parse_qs, quote, unquote, urlencode, urljoin, urlsplit

from common import errors
from common.body import Body, StreamBody
from common.upload import Upload
from glance_store.drivers.vmware_session import Server, Transient, VSphereSession
from glance_store.errors import (
    BackendUnavailable,
    BadLocation,
    BadStoreConfiguration,
    StorageFull,
    StorageWriteDenied,
)

LOG = logging.getLogger(__name__)

CHUNK: Final = 1024 * 1024

# For one step of a transfer, not for the whole: a datastore may pause while it grows a file.
TIMEOUT: Final = 120.0
MAX_REDIRECTS: Final = 5

_ROOT = "/folder/"
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_WRITE_FAILURES: Mapping[int, type[errors.GlanceError]] = {
    403: StorageWriteDenied,
    409: errors.Duplicate,
    413: StorageFull,
    507: StorageFull,
}
_READ_FAILURES: Mapping[int, type[errors.GlanceError]] = {404: errors.NotFound}


@dataclass(frozen=True, slots=True)
class DatastoreFile:
    """A file, by its path on a datastore of a datacenter."""

    datacenter: str
    datastore: str
    path: str

    @property
    def target(self) -> str:
        """What is asked of the web server."""
        query = urlencode({"dcPath": self.datacenter, "dsName": self.datastore})
        return f"{_ROOT}{quote(self.path)}?{query}"

    @property
    def datastore_path(self) -> str:
        """What the vSphere API calls it."""
        return f"[{self.datastore}] {self.path}"

    def url(self, host: str) -> str:
        return f"vsphere://{host}{self.target}"


def parse_url(url: str) -> tuple[str, DatastoreFile]:
    """The host and the file of `vsphere://host/folder/path?dcPath=..&dsName=..`, or BadLocation."""
    if re.search(r"[\x00-\x20\x7f]", url):
        raise BadLocation()
    try:
        parts = urlsplit(url)
        query = parse_qs(parts.query, strict_parsing=True)
        [datacenter], [datastore] = query["dcPath"], query["dsName"]
    except (ValueError, KeyError):
        raise BadLocation() from None
    path = unquote(parts.path)
    segments = path.removeprefix(_ROOT).split("/")
    if (
        parts.scheme != "vsphere"
        or not path.startswith(_ROOT)
        or not parts.netloc
        or "@" in parts.netloc
        or parts.fragment
        or not datacenter
        or not datastore
        or any(segment in ("", ".", "..") for segment in segments)
    ):
        raise BadLocation()
    return parts.netloc, DatastoreFile(datacenter, datastore, "/".join(segments))


class FileServer:
    """The datastores' web server.

    Asking is retried while the server is away, and once more with a new session after 401; it
    raises NotFound and BackendUnavailable.
    """

    def __init__(self, server: Server, session: VSphereSession) -> None:
        self._host = server.host
        self._port = server.port
        self._session = session
        self._tls = _tls_context(server)

    def size(self, file: DatastoreFile) -> int | None:
        answer = self._ask("HEAD", file)
        answer.close()
        return answer.length

    def exists(self, file: DatastoreFile) -> bool:
        try:
            self.size(file)
        except errors.NotFound:
            return False
        return True

    def open(self, file: DatastoreFile, offset: int = 0, length: int | None = None) -> Body:
        """A body of the file's bytes from offset, at most length of them."""
        headers = {}
        if offset or length is not None:
            end = "" if length is None else str(offset + max(length, 1) - 1)
            headers["Range"] = f"bytes={offset}-{end}"
        answer = self._ask("GET", file, headers)
        if answer.status == 416:
            # The offset is at or behind the end.
            answer.close()
            return StreamBody((), 0)
        skip = offset if answer.status == 200 else 0
        left = None if answer.length is None else max(0, answer.length - skip)
        if length is not None:
            left = length if left is None else min(left, length)
        return StreamBody(answer.pieces(skip, left), left, answer.close)

    def put(self, file: DatastoreFile, upload: Upload) -> None:
        """Write every byte of upload. Lets the errors of upload.read pass through.

        Raises Duplicate, StorageFull, StorageWriteDenied and BackendUnavailable. The file may be
        there in part after any error.
        """
        # Held back, so that what fails at once (a session that has just expired, a connection
        # that the server had closed) can be tried again.
        first = upload.read_full(CHUNK)

        def attempt() -> None:
            try:
                self._put(file, upload, first)
            except Transient as error:
                if upload.bytes_read > len(first):
                    raise BackendUnavailable() from error
                raise

        self._session.retry(attempt)

    def _put(self, file: DatastoreFile, upload: Upload, first: bytes) -> None:
        cookie = self._session.cookie()
        headers = {"Cookie": cookie, "Content-Type": "application/octet-stream"}
        if upload.size is None:
            headers["Transfer-Encoding"] = "chunked"
        else:
            headers["Content-Length"] = str(upload.size)
        chunks = itertools.chain([first], iter(functools.partial(upload.read, CHUNK), b""))
        with contextlib.closing(self._connection()) as connection:
            try:
                connection.request(
                    "PUT", file.target, chunks, headers, encode_chunked=upload.size is None
                )
            except OSError as error:
                if connection.sock is None or isinstance(error, TimeoutError):
                    raise _unreachable(error) from error
                # A server that refuses may say so before it has read everything.
                LOG.debug("The datastore stopped reading the upload: %s", error)
            answer = self._answer(connection)
        if answer.status == 401:
            self._session.renew(cookie)
            raise Transient()
        if answer.status not in (200, 201, 204):
            raise _failure(answer.status, _WRITE_FAILURES)

    def _ask(
        self, method: str, file: DatastoreFile, headers: Mapping[str, str] | None = None
    ) -> "_Answer":
        return self._session.retry(lambda: self._ask_once(method, file.target, headers or {}))

    def _ask_once(self, method: str, target: str, headers: Mapping[str, str]) -> "_Answer":
        renewed = False
        for _ in range(MAX_REDIRECTS + 1):
            cookie = self._session.cookie()
            answer = self._exchange(method, target, {**headers, "Cookie": cookie})
            if answer.status in (200, 206, 416):
                return answer
            answer.close()
            if answer.status in _REDIRECTS:
                target = self._redirected(target, answer.location)
            elif answer.status == 401 and not renewed:
                self._session.renew(cookie)
                renewed = True
            else:
                raise _failure(answer.status, _READ_FAILURES)
        raise BackendUnavailable()

    def _exchange(self, method: str, target: str, headers: dict[str, str]) -> "_Answer":
        connection = self._connection()
        try:
            connection.request(method, target, headers=headers)
            return self._answer(connection)
        except OSError as error:
            connection.close()
            raise _unreachable(error) from error
        except BackendUnavailable:
            connection.close()
            raise

    def _connection(self) -> http.client.HTTPSConnection:
        return http.client.HTTPSConnection(
            self._host, self._port, timeout=TIMEOUT, context=self._tls
        )

    def _answer(self, connection: http.client.HTTPSConnection) -> "_Answer":
        try:
            return _Answer(connection, connection.getresponse())
        except (OSError, http.client.HTTPException) as error:
            raise _unreachable(error) from error

    def _redirected(self, target: str, location: str) -> str:
        """Where a redirect leads: to this server's datastores, since our session goes along."""
        here = f"https://{_authority(self._host, self._port)}"
        parts = urlsplit(urljoin(here + target, location))
        same = (parts.scheme, parts.hostname, parts.port or 443) == (
            "https",
            self._host.lower(),
            self._port,
        )
        if not (location and same and parts.path.startswith(_ROOT)):
            LOG.error("A datastore redirects to another server; that is not followed")
            raise BackendUnavailable()
        return f"{parts.path}?{parts.query}"


class _Answer:
    """The head of an answer, and its bytes as long as it is open."""

    def __init__(
        self, connection: http.client.HTTPSConnection, response: http.client.HTTPResponse
    ) -> None:
        self._connection = connection
        self._response = response
        self.status = response.status
        self.location = response.getheader("Location", "")
        length = response.getheader("Content-Length", "")
        self.length = int(length) if length.isdecimal() else None

    def pieces(self, skip: int, left: int | None) -> Iterator[bytes]:
        """What follows the first `skip` bytes: exactly `left`, or all there is if that is None."""
        while skip:
            skip -= len(self._read(skip, whole=True))
        while left is None or left:
            chunk = self._read(left, whole=left is not None)
            if not chunk:
                return
            if left is not None:
                left -= len(chunk)
            yield chunk

    def _read(self, left: int | None, *, whole: bool) -> bytes:
        try:
            chunk = self._response.read(CHUNK if left is None else min(CHUNK, left))
        except (OSError, http.client.HTTPException) as error:
            raise _unreachable(error) from error
        if whole and not chunk:
            # The standard library ends a body that was cut off as if it were whole.
            raise BackendUnavailable()
        return chunk

    def close(self) -> None:
        self._response.close()
        self._connection.close()


def _failure(status: int, known: Mapping[int, type[errors.GlanceError]]) -> errors.GlanceError:
    LOG.info("A datastore answered with status %d", status)
    if status in known:
        return known[status]()
    return Transient() if status >= 500 else BackendUnavailable()


def _unreachable(error: Exception) -> BackendUnavailable:
    if isinstance(error, ssl.SSLCertVerificationError):
        LOG.error("The certificate of vmware_server_host is not trusted; see vmware_ca_file")
        return BackendUnavailable()
    return Transient()


def _authority(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _tls_context(server: Server) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=server.ca_file)
    except OSError as error:
        raise BadStoreConfiguration(f"vmware_ca_file cannot be used: {error.strerror}") from None
    if server.insecure and not server.ca_file:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
