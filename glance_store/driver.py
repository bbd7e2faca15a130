"""The contract between the service and a store driver.

A driver moves bytes. Counting, hashing, bounding and verifying are done by the Upload it reads
from; statuses, quotas and permissions are not its concern. `glance_store.testing` holds the
suite that every driver passes.
"""

import abc
import enum
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, ClassVar

from oslo_config import cfg

from common.body import Body
from common.context import RequestContext
from common.upload import Upload
from glance_store.errors import AddDisabled, DeleteUnsupported
from glance_store.outbound import Outbound


class Capability(enum.Flag):
    """What a driver can do; every method of a missing ability refuses."""

    READ = enum.auto()
    WRITE = enum.auto()
    DELETE = enum.auto()
    ACL = enum.auto()  # set_acls has an effect
    LIST = enum.auto()  # contents() enumerates everything the driver stored


@dataclass(frozen=True, slots=True)
class Stored:
    """One object found in a store. `image_id` is None where its name is not an image's.

    `complete` is False for what an upload in progress, or one that was cut off, has left.
    """

    url: str = field(repr=False)
    image_id: str | None
    size: int | None
    modified: datetime | None = None
    complete: bool = True


class Store(abc.ABC):
    """One configured place for image bytes.

    A driver runs on the event loop: the standard library's sockets are cooperative there, and
    anything else that blocks (disk, C libraries) goes through `common.concurrency`. Every call
    ends in bounded time. Methods may be called concurrently; the driver keeps no request state.
    """

    schemes: ClassVar[tuple[str, ...]]
    capabilities: ClassVar[Capability] = Capability.READ | Capability.WRITE | Capability.DELETE

    # Whether a URL with one of `schemes` may come from a caller, as a location or a copy-from,
    # and which of them may not although the others may.
    accepts_external: ClassVar[bool] = True
    internal_schemes: ClassVar[tuple[str, ...]] = ()

    # Registered under [glance_store] when the driver is enabled.
    options: ClassVar[Sequence[cfg.Opt]] = ()

    # A driver that connects to a host which a URL names asks this first; set by the loader.
    outbound: Outbound = Outbound()

    def __init__(self, conf: Mapping[str, Any]) -> None:
        """Read options by name; must not connect.

        Raises BadStoreConfiguration, naming the option, if they cannot work.
        """
        self.conf = conf

    def add(self, ctx: RequestContext, image_id: str, upload: Upload) -> tuple[str, dict[str, Any]]:
        """Store every byte of upload; return its URL and location metadata.

        Nothing is readable under the URL until add returns. If add raises, nothing of the image
        remains. Raises Duplicate (the first copy stays intact), StorageFull,
        StorageWriteDenied, BackendUnavailable; lets errors of upload.read pass through.
        """
        raise AddDisabled()

    @abc.abstractmethod
    def get(
        self, ctx: RequestContext, url: str, offset: int = 0, length: int | None = None
    ) -> Body:
        """Open stored bytes, from offset, at most length of them; past their end there are none.

        Raises NotFound, BackendUnavailable or BadLocation here, not while iterating.
        """

    @abc.abstractmethod
    def size(self, ctx: RequestContext, url: str) -> int | None:
        """The number of bytes behind url, None where the backend does not tell."""

    def delete(self, ctx: RequestContext, url: str) -> None:
        """Remove the bytes. Raises NotFound if there are none, InUse, BackendUnavailable."""
        raise DeleteUnsupported()

    def discard(self, ctx: RequestContext, image_id: str) -> None:
        """Remove whatever an add of image_id has left, whole or partial; idempotent.

        Called when the process that ran the add died. The caller has made sure that no image
        refers to the bytes.
        """
        return None

    def validate(self, url: str) -> None:
        """Raise BadLocation unless url is well formed for this driver. Must not connect."""
        return None

    def validate_external(self, url: str) -> None:
        """Raise BadLocation unless a caller may name url as a location or a copy-from.

        A URL that would be read with the store's own credentials is the service's alone: with
        it a caller could read anybody's bytes. Must not connect.
        """
        self.validate(url)

    def secrets(self) -> Iterable[str]:
        """Credentials that are in no option: the log never shows them, whatever a library says."""
        return ()

    def lends_rights(self, ctx: RequestContext, url: str) -> bool:
        """Whether url is read with the service's own rights, neither ctx nor url bringing any.

        A caller who copies from one is asked nothing about what is behind it: that is then for
        administrators. Must not connect. Raises BadLocation.
        """
        return False

    def without_credentials(self, url: str) -> str | None:
        """A URL of the same bytes that holds no credentials; url itself if it is one.

        None where the credentials are not the store's own, so that nothing can stand for them.
        Must not connect. Raises BadLocation.
        """
        return url

    def ping(self) -> None:
        """Raise BackendUnavailable if the backend is away; cheap, and may know nothing."""
        return None

    def set_acls(
        self,
        ctx: RequestContext,
        url: str,
        *,
        public: bool,
        read: Sequence[str] = (),
        write: Sequence[str] = (),
    ) -> None:
        """Let exactly these tenants (and everyone who has a token, if public) read the bytes."""
        return None

    def contents(self) -> Iterator[Stored]:
        """Everything the driver has stored, in no order (Capability.LIST)."""
        return iter(())
