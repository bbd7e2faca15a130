"""What glance-replicator says to a Glance server: plain HTTP, Images API v1.

An image's metadata is a flat dictionary of texts here, as its headers are: `name`, `size`, ...,
and `property-<name>` for its properties; what is null is left out.
"""

import http.client
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Final, Self
from urllib.parse import urlencode

TIMEOUT_SECONDS: Final = 600

_PREFIX: Final = "x-image-meta-"
_SERVER: Final = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9.-]+):([0-9]{1,5})")
_IMAGE_ID: Final = re.compile(r"[0-9a-f]{8}-?(?:[0-9a-f]{4}-?){3}[0-9a-f]{12}", re.IGNORECASE)

# The fields that a server takes from us; the others are its own affair.
_CORE: Final = frozenset(
    (
        "checksum",
        "container_format",
        "disk_format",
        "id",
        "is_public",
        "min_disk",
        "min_ram",
        "name",
        "owner",
        "protected",
        "size",
        "virtual_size",
    )
)
# They belong to the bytes, which a change of metadata leaves alone.
_OF_BYTES: Final = frozenset(("checksum", "size"))

Meta = dict[str, str]


class ServerError(Exception):
    """A server refused or could not be asked; the message says which and why."""


class AlreadyPresent(ServerError):
    """The id is taken on the server, perhaps by an image that we may not see."""


def flatten(document: Mapping[str, Any]) -> Meta:
    """The metadata of an image as a list shows it."""
    properties = document.get("properties") or {}
    flat = {name: value for name, value in document.items() if name != "properties"}
    flat.update({f"property-{name}": value for name, value in properties.items()})
    return {name: str(value) for name, value in flat.items() if value is not None}


def is_image_id(text: object) -> bool:
    """Whether text is safe as part of a path and as the name of a file."""
    return isinstance(text, str) and _IMAGE_ID.fullmatch(text) is not None


@dataclass(frozen=True)
class Server:
    """One Glance server, and the token with which it is spoken to."""

    host: str
    port: int
    token: str = field(default="", repr=False)

    @classmethod
    def parse(cls, text: str, token: str) -> Self:
        """From host:port. Raises ValueError."""
        match = _SERVER.fullmatch(text)
        if match is None or not 0 < int(match[2]) < 65536:
            raise ValueError(f"'{text}' is no server: it must be given as host:port")
        return cls(match[1].strip("[]"), int(match[2]), token)

    def documents(self) -> Iterator[dict[str, Any]]:
        """Every image that we may see, as the list shows it, page by page."""
        marker: dict[str, str] = {}
        while True:
            query = urlencode({"is_public": "None", **marker})
            with self._exchange("GET", f"/v1/images/detail?{query}") as response:
                self._check(response)
                page = json.load(response)["images"]
            if not page:
                return
            for document in page:
                if not is_image_id(document["id"]):
                    raise ServerError(f"{self}: the id of an image is no UUID")
                yield document
            marker = {"marker": page[-1]["id"]}

    def image(self, image_id: str) -> Meta | None:
        """The metadata of an image; None if there is none that we may see."""
        with self._exchange("HEAD", f"/v1/images/{image_id}") as response:
            if response.status == HTTPStatus.NOT_FOUND:
                return None
            self._check(response)
            return {
                name.lower().removeprefix(_PREFIX): value.encode("latin-1").decode("utf-8")
                for name, value in response.getheaders()
                if name.lower().startswith(_PREFIX)
            }

    @contextmanager
    def data(self, image_id: str) -> Iterator[http.client.HTTPResponse]:
        """The bytes of an image, to be read inside the block."""
        with self._exchange("GET", f"/v1/images/{image_id}") as response:
            self._check(response)
            yield response

    def add(self, meta: Meta, chunks: Iterable[bytes]) -> None:
        """Make the image, with its id and its bytes. Raises AlreadyPresent.

        The server compares what arrives with the size and checksum that meta gives.
        """
        headers = _headers(meta, _CORE)
        headers["Content-Type"] = b"application/octet-stream"
        headers["Content-Length"] = meta["size"].encode()
        with self._exchange("POST", "/v1/images", headers, chunks) as response:
            if response.status == HTTPStatus.CONFLICT:
                raise AlreadyPresent(f"{self}: image {meta['id']} is already there")
            self._check(response)

    def update(self, meta: Meta) -> None:
        """Set the metadata of an image, and remove properties that meta does not have."""
        headers = _headers(meta, _CORE - _OF_BYTES)
        with self._exchange("PUT", f"/v1/images/{meta['id']}", headers) as response:
            self._check(response)

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"

    @contextmanager
    def _exchange(
        self,
        method: str,
        path: str,
        headers: Mapping[str, bytes] | None = None,
        body: Iterable[bytes] | None = None,
    ) -> Iterator[http.client.HTTPResponse]:
        connection = http.client.HTTPConnection(self.host, self.port, timeout=TIMEOUT_SECONDS)
        try:
            try:
                token = {"X-Auth-Token": self.token} if self.token else {}
                connection.request(method, path, body, {**(headers or {}), **token})
            except (BrokenPipeError, ConnectionResetError):
                pass  # refused before the body was complete: the answer says why
            yield connection.getresponse()
        except (OSError, http.client.HTTPException) as error:
            raise ServerError(
                f"{self}: {method} {path}: {error or type(error).__name__}"
            ) from error
        finally:
            connection.close()

    def _check(self, response: http.client.HTTPResponse) -> None:
        if response.status >= HTTPStatus.BAD_REQUEST:
            raise ServerError(f"{self} answers {response.status} {response.reason}")


def _headers(meta: Meta, core: frozenset[str]) -> dict[str, bytes]:
    """Names with hyphens, which v1 reads as underscores: some proxies drop the latter."""
    return {
        (_PREFIX + name).replace("_", "-"): value.encode("utf-8")
        for name, value in meta.items()
        if name in core or name.startswith("property-")
    }
