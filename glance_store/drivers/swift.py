"""Images in OpenStack Swift, in one account of the service or in those of the uploaders.

`SwiftStore(conf)` makes the one that swift_store_multi_tenant asks for. Requests are in
`swift_account`, tokens in `swift_credentials`, large objects in `swift_segments`, what differs
for several accounts in `swift_multi_tenant`.
"""

import contextlib
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, ClassVar, Final, TypeVar

from oslo_config import cfg

from common import errors
from common.body import Body, empty
from common.context import RequestContext
from common.upload import Upload
from glance_store.claims import Claims
from glance_store.driver import Capability, Store, Stored
from glance_store.drivers import swift_locations as locations
from glance_store.drivers import swift_segments as segments
from glance_store.drivers.swift_account import Account, ObjectStream, RangeOutside
from glance_store.drivers.swift_accounts import Accounts
from glance_store.drivers.swift_locations import SwiftLocation
from glance_store.drivers.swift_options import OPTIONS
from glance_store.errors import AddDisabled, BackendUnavailable, StorageWriteDenied
from glance_store.feed import Feed
from glance_store.remote import RemoteBody

LOG = logging.getLogger(__name__)

T = TypeVar("T")

MIB: Final = 1024 * 1024
# An image below this is held in memory, so that its one request can be repeated.
_SMALL: Final = MIB


@dataclass(frozen=True, slots=True)
class Place:
    """Where one image's object is."""

    account: Account
    container: str
    name: str


class SwiftStore(Store):
    """All images in the account of default_swift_reference; `swift+config://` URLs."""

    schemes: ClassVar[tuple[str, ...]] = locations.SCHEMES
    # A reference stands for the service's own credentials, whoever's image the URL names.
    internal_schemes: ClassVar[tuple[str, ...]] = (locations.CONFIG_SCHEME,)
    capabilities: ClassVar[Capability] = (
        Capability.READ | Capability.WRITE | Capability.DELETE | Capability.LIST
    )
    options: ClassVar[Sequence[cfg.Opt]] = OPTIONS

    def __new__(cls, conf: Mapping[str, Any]) -> "SwiftStore":
        if cls is SwiftStore and conf["swift_store_multi_tenant"]:
            from glance_store.drivers.swift_multi_tenant import MultiTenantSwiftStore

            return super().__new__(MultiTenantSwiftStore)
        return super().__new__(cls)

    def __init__(self, conf: Mapping[str, Any]) -> None:
        super().__init__(conf)
        self._accounts = Accounts(conf, lambda: self.outbound)
        self._claims = Claims()
        if conf["swift_store_auth_insecure"]:
            LOG.warning("swift_store_auth_insecure is set: Swift's certificate is not verified.")
        if self._accounts.default is None and not conf["swift_store_multi_tenant"]:
            LOG.warning(
                "The swift store is read-only: neither swift_store_config_file with the section "
                "default_swift_reference nor swift_store_auth_address, swift_store_user and "
                "swift_store_key are set."
            )

    def add(self, ctx: RequestContext, image_id: str, upload: Upload) -> tuple[str, dict[str, Any]]:
        with self._claims.hold(image_id):
            place, url = self._new_place(ctx, image_id)
            self._require_absent(place)
            self._require_container(place)
            try:
                self._store(ctx, place, upload)
            except errors.Duplicate:
                raise
            except BaseException:
                self._quietly(ctx, place, self._removed)
                raise
        return url, {}

    def get(
        self, ctx: RequestContext, url: str, offset: int = 0, length: int | None = None
    ) -> Body:
        place = self._place(ctx, url)
        end = None if length is None else offset + length

        def opened(start: int) -> tuple[dict[str, str], ObjectStream]:
            wanted = f"bytes={start}-{'' if end is None else end - 1}" if start or end else None
            headers, stream = place.account.get(place.container, place.name, wanted)
            if wanted and "content-range" not in headers:
                stream.close()
                raise BackendUnavailable("The store does not serve parts of the image.")
            return headers, stream

        if length == 0:
            place.account.head(place.container, place.name)
            return empty()
        try:
            headers, stream = opened(offset)
        except RangeOutside:
            return empty()

        def reopened(position: int) -> ObjectStream:
            again, stream = opened(offset + position)
            if again.get("etag") != headers.get("etag"):
                stream.close()
                raise BackendUnavailable("The image changed in the store while it was read.")
            return stream

        told = headers.get("content-length")
        retries = self.conf["swift_store_retry_get_count"]
        return RemoteBody(stream, None if told is None else int(told), reopened, retries)

    def size(self, ctx: RequestContext, url: str) -> int | None:
        place = self._place(ctx, url)
        told = place.account.head(place.container, place.name).get("content-length")
        return None if told is None else int(told)

    def delete(self, ctx: RequestContext, url: str) -> None:
        place = self._place(ctx, url)
        self._with_rights(ctx, place, self._delete)

    def discard(self, ctx: RequestContext, image_id: str) -> None:
        try:
            place, _ = self._new_place(ctx, image_id)
        except AddDisabled:
            return
        self._with_rights(ctx, place, self._discard)

    def validate(self, url: str) -> None:
        locations.parse(url)

    def secrets(self) -> Iterable[str]:
        return self._accounts.keys()

    def lends_rights(self, ctx: RequestContext, url: str) -> bool:
        return locations.parse(url).user is None and ctx.token is None

    def without_credentials(self, url: str) -> str | None:
        location = locations.parse(url)
        if location.user is None:
            return url
        reference = self._accounts.reference_of(location)
        if reference is None:
            return None
        return SwiftLocation(location.container, location.name, reference=reference).url

    def contents(self) -> Iterator[Stored]:
        if self._accounts.default is None:
            return
        account = self._accounts.of_reference()
        base = self.conf["swift_store_container"]
        for container in account.containers(base):
            if container == base or container.startswith(f"{base}_"):
                yield from self._contents_of(account, container)

    # Where images are.

    def _new_place(self, ctx: RequestContext, image_id: str) -> tuple[Place, str]:
        account = self._accounts.of_reference()
        place = Place(account, self._container_for(image_id), image_id)
        return place, self._configured_url(place.container, image_id)

    def _configured_url(self, container: str, name: str) -> str:
        return SwiftLocation(container, name, reference=self._accounts.reference_name).url

    def _container_for(self, image_id: str) -> str:
        base: str = self.conf["swift_store_container"]
        seed = self.conf["swift_store_multiple_containers_seed"]
        if not seed:
            return base
        # Dashes do not count, so that seed characters really spread.
        start = image_id.lower()
        return f"{base}_{start[: seed + start[:seed].count('-')]}"

    def _place(self, ctx: RequestContext, url: str) -> Place:
        location = locations.parse(url)
        account = self._accounts.of_location(ctx, location)
        return Place(account, location.container, location.name)

    # Writing.

    def _require_absent(self, place: Place) -> None:
        try:
            place.account.head(place.container, place.name)
        except errors.NotFound:
            return
        raise errors.Duplicate()

    def _require_container(self, place: Place) -> None:
        try:
            place.account.head_container(place.container)
        except errors.NotFound:
            if not self.conf["swift_store_create_container_on_put"]:
                raise StorageWriteDenied(
                    "The store's container does not exist, and "
                    "swift_store_create_container_on_put is off."
                ) from None
            place.account.put_container(place.container, {})

    def _store(self, ctx: RequestContext, place: Place, upload: Upload) -> None:
        head = b""
        if upload.size is None or upload.size < _SMALL:
            head = upload.read_full(_SMALL)
            if len(head) < _SMALL:
                etag = place.account.put(place.container, place.name, head)
                self._require_same(etag, upload)
                return
        large = self.conf["swift_store_large_object_size"] * MIB
        if upload.size is not None and upload.size <= large:
            self._store_whole(place, upload, upload.size)
        else:
            self._store_segments(ctx, place, upload, head)

    def _store_whole(self, place: Place, upload: Upload, size: int) -> None:
        feed = Feed(upload, size)
        try:
            etag = place.account.put_stream(place.container, place.name, feed)
        except Exception:
            feed.raise_error()
            raise
        self._require_same(etag, upload)

    def _require_same(self, etag: str, upload: Upload) -> None:
        if etag != upload.checksum:
            raise BackendUnavailable("The store did not keep the bytes as they were sent.")

    def _store_segments(
        self, ctx: RequestContext, place: Place, upload: Upload, head: bytes
    ) -> None:
        first = [head] if head else []

        def read(size: int) -> bytes:
            if not first:
                return upload.read(size)
            chunk, rest = first[0][:size], first.pop()[size:]
            first.extend([rest] if rest else [])
            return chunk

        with self._lasting(ctx, place) as account:
            parts = segments.SegmentedUpload(
                account,
                place.container,
                place.name,
                self.conf["swift_store_large_object_chunk_size"] * MIB,
                self.conf["swift_store_upload_concurrency"],
            )
            try:
                parts.run(read, upload.size)
                segments.await_size(account, place.container, place.name, upload.bytes_read)
            except BaseException:
                # Now, with credentials that are still good.
                lasting = replace(place, account=account)
                self._quietly(ctx, lasting, lambda account, _: parts.remove(account))
                self._quietly(ctx, lasting, self._removed)
                raise

    @contextlib.contextmanager
    def _lasting(self, ctx: RequestContext, place: Place) -> Iterator[Account]:
        """The account, with credentials that last as long as an upload may take."""
        yield place.account

    # Removing.

    def _with_rights(
        self, ctx: RequestContext, place: Place, work: Callable[[Account, Place], T]
    ) -> T:
        """Do what the caller's request has been granted, with rights that suffice for it."""
        return work(place.account, place)

    def _delete(self, account: Account, place: Place) -> None:
        headers = account.head(place.container, place.name)
        parts = segments.segments_of(account, place.container, place.name, headers)
        segments.delete_all(account, parts)
        account.delete(place.container, place.name)

    def _discard(self, account: Account, place: Place) -> None:
        with contextlib.suppress(errors.NotFound):
            parts = segments.leftovers(
                account,
                place.container,
                place.name,
                self.conf["swift_store_upload_concurrency"],
            )
            segments.delete_all(account, parts)
            account.delete(place.container, place.name)

    def _removed(self, account: Account, place: Place) -> None:
        """Remove the object of a failed add; whether it came to be is often unknown."""
        with contextlib.suppress(errors.NotFound):
            account.delete(place.container, place.name)

    def _quietly(
        self, ctx: RequestContext, place: Place, work: Callable[[Account, Place], object]
    ) -> None:
        """Clean up after an error that matters more than one of cleaning up."""
        try:
            self._with_rights(ctx, place, work)
        except errors.GlanceError as error:
            LOG.warning("A failed upload may have left objects in Swift: %s", error)

    # Listing.

    def _contents_of(self, account: Account, container: str) -> Iterator[Stored]:
        """Names come sorted, so an image's manifest is followed by its segments."""
        current: Stored | None = None
        for entry in account.list(container):
            image_id, is_segment = segments.image_of(entry["name"])
            if is_segment and current is not None and current.image_id == image_id:
                current = replace(current, size=(current.size or 0) + entry["bytes"])
                continue
            if current is not None:
                yield current
            current = Stored(
                self._configured_url(container, image_id or entry["name"]),
                image_id,
                entry["bytes"],
                datetime.fromisoformat(entry["last_modified"]),
                complete=not is_segment,
            )
        if current is not None:
            yield current
