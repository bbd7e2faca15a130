"""Images in S3 or a service that speaks like it: Ceph's gateway, Swift, MinIO and others.

Requests are in `s3_bucket`, uploads in parts in `s3_multipart`, URLs in `s3_locations`.
"""

import contextlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any, ClassVar, Final
from urllib.parse import urlsplit

from oslo_config import cfg

from common import errors
from common.body import Body, empty
from common.context import RequestContext
from common.query import is_uuid_like
from common.upload import Upload
from glance_store.claims import Claims
from glance_store.driver import Capability, Store, Stored
from glance_store.drivers import s3_locations as locations
from glance_store.drivers.s3_bucket import (
    Bucket,
    ObjectStream,
    RangeOutside,
    Service,
    load_library,
)
from glance_store.drivers.s3_locations import S3Location
from glance_store.drivers.s3_multipart import MIB, MultipartUpload
from glance_store.drivers.s3_options import OPTIONS
from glance_store.errors import (
    AddDisabled,
    BackendUnavailable,
    BadLocation,
    BadStoreConfiguration,
    StorageWriteDenied,
)
from glance_store.feed import Feed
from glance_store.outbound import Outbound
from glance_store.remote import RemoteBody

LOG = logging.getLogger(__name__)

# An image below this is held in memory, so that its one request can be repeated.
_SMALL: Final = MIB
_READ_RETRIES: Final = 2
# Clients are expensive to make, and URLs of external images can name any number of services.
_BUCKETS_KEPT: Final = 16

_NEEDED: Final = ("s3_store_host", "s3_store_access_key", "s3_store_secret_key", "s3_store_bucket")


class S3Store(Store):
    """Each image is one object, named by its id, in the configured bucket."""

    schemes: ClassVar[tuple[str, ...]] = locations.SCHEMES
    capabilities: ClassVar[Capability] = (
        Capability.READ | Capability.WRITE | Capability.DELETE | Capability.LIST
    )
    options: ClassVar[Sequence[cfg.Opt]] = OPTIONS

    def __init__(self, conf: Mapping[str, Any]) -> None:
        super().__init__(conf)
        load_library()
        if conf["s3_store_enable_proxy"] and not conf["s3_store_proxy_host"]:
            raise BadStoreConfiguration("s3_store_enable_proxy needs s3_store_proxy_host.")
        self._part = conf["s3_store_large_object_chunk_size"] * MIB
        self._claims = Claims()
        self._bucket_exists = False
        self._bucket_at = lru_cache(_BUCKETS_KEPT)(self._make_bucket)
        missing = [name for name in _NEEDED if not conf[name]]
        self._home = None if missing else _home(conf)
        if missing:
            LOG.warning("The s3 store is read-only without %s.", ", ".join(missing))
        else:
            # Making a client takes a moment, which no request should have to wait for.
            try:
                self._bucket_of(self._location_of(""))
            except BadLocation:
                raise BadStoreConfiguration("s3_store_host is not the name of a host.") from None

    def add(self, ctx: RequestContext, image_id: str, upload: Upload) -> tuple[str, dict[str, Any]]:
        location = self._location_of(image_id)
        with self._claims.hold(image_id):
            bucket = self._bucket_of(location)
            self._require_absent(bucket, image_id)
            self._require_bucket(bucket)
            try:
                self._store(bucket, image_id, upload)
            except errors.Duplicate:
                raise
            except BaseException:
                self._remove_quietly(bucket, image_id)
                raise
        return location.url, {}

    def get(
        self, ctx: RequestContext, url: str, offset: int = 0, length: int | None = None
    ) -> Body:
        location = locations.parse(url)
        bucket, key = self._bucket_of(location), location.key
        end = "" if length is None else offset + length - 1
        if length == 0:
            bucket.size(key)
            return empty()

        def opened(start: int, etag: str | None = None) -> tuple[int, str, ObjectStream]:
            whole = start == 0 and length is None
            return bucket.get(key, None if whole else f"bytes={start}-{end}", etag)

        try:
            found, etag, stream = opened(offset)
        except RangeOutside:
            return empty()

        def reopened(position: int) -> ObjectStream:
            return opened(offset + position, etag)[2]

        return RemoteBody(stream, found, reopened, _READ_RETRIES)

    def size(self, ctx: RequestContext, url: str) -> int:
        location = locations.parse(url)
        return self._bucket_of(location).size(location.key)

    def delete(self, ctx: RequestContext, url: str) -> None:
        location = locations.parse(url)
        bucket = self._bucket_of(location)
        # S3 does not say whether there was anything to delete.
        bucket.size(location.key)
        bucket.delete(location.key)

    def discard(self, ctx: RequestContext, image_id: str) -> None:
        if self._home is None:
            return
        bucket = self._bucket_of(self._location_of(image_id))
        with contextlib.suppress(errors.NotFound):
            for unfinished in list(bucket.uploads(image_id)):
                if unfinished.key == image_id:
                    bucket.abort_upload(image_id, unfinished.upload_id or "")
            # Where there is nothing, it does not matter whether it might be deleted.
            bucket.size(image_id)
            bucket.delete(image_id)

    def validate(self, url: str) -> None:
        locations.parse(url)

    def validate_external(self, url: str) -> None:
        # Without keys it would be read with ours, whoever's image it is.
        if locations.parse(url).access_key is None:
            raise BadLocation()

    def lends_rights(self, ctx: RequestContext, url: str) -> bool:
        return locations.parse(url).access_key is None

    def without_credentials(self, url: str) -> str | None:
        location = locations.parse(url)
        if location.access_key is None:
            return url
        conf = self.conf
        configured = (conf["s3_store_access_key"], conf["s3_store_secret_key"])
        if not self._is_home(location):
            return None
        if (location.access_key, location.secret_key) != configured:
            return None
        return replace(location, access_key=None, secret_key=None).url

    def contents(self) -> Iterator[Stored]:
        if self._home is None:
            return
        bucket = self._bucket_of(self._home)
        with contextlib.suppress(errors.NotFound):
            for found in [*bucket.objects(), *bucket.uploads()]:
                yield Stored(
                    self._location_of(found.key).url,
                    found.key if is_uuid_like(found.key) else None,
                    found.size,
                    found.modified,
                    complete=found.upload_id is None,
                )

    # Where images are.

    def _location_of(self, image_id: str) -> S3Location:
        if self._home is None:
            raise AddDisabled()
        home = self._home
        return S3Location(home.secure, home.host, home.bucket, image_id)

    def _bucket_of(self, location: S3Location) -> Bucket:
        if location.access_key is not None and location.secret_key is not None:
            service = Service(location.endpoint, location.access_key, location.secret_key)
            if self._is_home(location):
                return self._bucket_at(service, location.bucket, None)
            self._require_reachable(location)
            return self._bucket_at(service, location.bucket, self.outbound)
        # Our keys are for our service and nobody else's (SEC-037).
        if not self._is_home(location):
            raise BadLocation()
        conf = self.conf
        service = Service(
            location.endpoint, conf["s3_store_access_key"], conf["s3_store_secret_key"]
        )
        return self._bucket_at(service, location.bucket, None)

    def _is_home(self, location: S3Location) -> bool:
        return self._home is not None and location.endpoint == self._home.endpoint

    def _require_reachable(self, location: S3Location) -> None:
        """Raise BackendUnavailable for a host that callers' URLs may not lead to.

        Connecting checks again, unless a proxy does it.
        """
        parts = urlsplit(location.endpoint)
        try:
            port = parts.port or (443 if location.secure else 80)
        except ValueError:
            raise BadLocation() from None
        self.outbound.resolve(parts.hostname or "", port)

    def _make_bucket(self, service: Service, name: str, outbound: Outbound | None) -> Bucket:
        try:
            return Bucket(service, name, self.conf, outbound)
        except ValueError:
            # What boto3 says of an endpoint that cannot be one; its message quotes it.
            raise BadLocation() from None

    # Writing.

    def _require_absent(self, bucket: Bucket, key: str) -> None:
        try:
            bucket.size(key)
        except errors.NotFound:
            return
        raise errors.Duplicate()

    def _require_bucket(self, bucket: Bucket) -> None:
        if not self._bucket_exists and not bucket.exists():
            if not self.conf["s3_store_create_bucket_on_put"]:
                raise StorageWriteDenied(
                    "The store's bucket does not exist, and s3_store_create_bucket_on_put is off."
                )
            bucket.create()
        self._bucket_exists = True

    def _store(self, bucket: Bucket, key: str, upload: Upload) -> None:
        large = self.conf["s3_store_large_object_size"] * MIB
        first = b""
        if upload.size is None or upload.size < _SMALL:
            first = upload.read_full(self._part)
            if len(first) < self._part:
                bucket.put(key, first)
                return
        if upload.size is not None and upload.size <= large:
            stored = bucket.put_feed(key, Feed(upload, upload.size))
            if stored not in (None, upload.checksum):
                raise BackendUnavailable("The store did not keep the bytes as they were sent.")
            return
        parts = MultipartUpload(bucket, key, self._part, self.conf["s3_store_thread_pools"])
        parts.run(first, upload.read_full, upload.size)

    def _remove_quietly(self, bucket: Bucket, key: str) -> None:
        """Remove the object of a failed add; whether it came to be is often unknown."""
        try:
            bucket.delete(key)
        except errors.GlanceError as error:
            LOG.warning("A failed upload may have left an object in S3: %s", error)


def _home(conf: Mapping[str, Any]) -> S3Location:
    """The configured service and bucket, as the location of no particular object."""
    protocol, separator, host = conf["s3_store_host"].rpartition("://")
    if separator and protocol not in ("http", "https"):
        raise BadStoreConfiguration("s3_store_host must begin with http:// or https://, if at all.")
    return S3Location(protocol == "https", host.strip("/"), conf["s3_store_bucket"], "")
