"""Requests on one bucket, through boto3, with our own errors.

boto3 bounds and repeats what can be repeated. Its errors quote hosts, keys and answers; none
leaves this file.
"""

import base64
import contextlib
import functools
import hashlib
import importlib
import logging
import re
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import quote

from common import errors
from common.concurrency import offload
from glance_store.drivers.http_session import checked_pools
from glance_store.errors import (
    BackendUnavailable,
    BadLocation,
    BadStoreConfiguration,
    StorageFull,
    StorageWriteDenied,
)
from glance_store.feed import Feed
from glance_store.outbound import Outbound

LOG = logging.getLogger(__name__)

_TRIES: Final = 3
# Parts of several images travel at once; surplus connections would be closed after each use.
_CONNECTIONS: Final = 128
_AMAZON: Final = re.compile(r"s3[.-](?:dualstack\.)?([a-z]{2}(?:-[a-z]+)+-\d)\.amazonaws\.com")
_FULL: Final = frozenset({"EntityTooLarge", "QuotaExceeded", "StorageFull", "XMinioStorageFull"})

_making_clients = threading.Lock()


class RangeOutside(Exception):
    """The object ends before the range that was asked for begins."""


@dataclass(frozen=True, slots=True)
class Service:
    """Where an S3 service is and who we are there."""

    endpoint: str = field(repr=False)
    access_key: str = field(repr=False)
    secret_key: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Found:
    """One object, or one unfinished upload, of a bucket."""

    key: str
    size: int | None
    modified: datetime
    upload_id: str | None = None


def connect(
    service: Service, conf: Mapping[str, Any], outbound: Outbound | None, *, repeat: bool
) -> Any:
    """A boto3 client; one that does not repeat requests if their bodies cannot be read again.

    outbound: the rules to connect under, for a service that only a caller names.
    """
    config = importlib.import_module("botocore.config").Config(
        signature_version="s3v4",
        connect_timeout=conf["s3_store_timeout"],
        read_timeout=conf["s3_store_timeout"],
        retries={"mode": "standard", "total_max_attempts": _TRIES if repeat else 1},
        max_pool_connections=_CONNECTIONS,
        # Only for our own service may the environment name a proxy.
        proxies=_proxies(conf) or (None if outbound is None else {}),
        s3={
            "addressing_style": (
                "virtual" if conf["s3_store_bucket_url_format"] == "subdomain" else "path"
            ),
            # Signing a body means hashing it on the event loop; its MD5 is signed instead.
            "payload_signing_enabled": False,
        },
        # Newer defaults add checksum headers that compatible servers refuse (LP 2121144).
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
    )
    # A session reads the library's descriptions of S3 once, and makes one client at a time.
    with _making_clients:
        client = _session().client(
            "s3",
            endpoint_url=service.endpoint,
            aws_access_key_id=service.access_key,
            aws_secret_access_key=service.secret_key,
            region_name=region_of(service.endpoint, conf["s3_store_region_name"]),
            verify=conf["s3_store_cacert"] or True,
            config=config,
        )
    if outbound is not None:
        # The host is made of the bucket's name as well, and must not change after the check.
        # A proxy's connection is the proxy's.
        client._endpoint.http_session._manager.pool_classes_by_scheme = checked_pools(outbound)
    return client


@functools.cache
def _session() -> Any:
    return load_library().session.Session()


def load_library() -> Any:
    """boto3. Raises BadStoreConfiguration, naming the extra, if it is not installed."""
    try:
        return importlib.import_module("boto3")
    except ImportError:
        raise BadStoreConfiguration("The s3 store needs its extra: pip install '.[s3]'.") from None


def region_of(endpoint: str, configured: str) -> str:
    found = _AMAZON.search(endpoint)
    return configured or (found[1] if found else "us-east-1")


def _proxies(conf: Mapping[str, Any]) -> dict[str, str] | None:
    if not conf["s3_store_enable_proxy"]:
        return None
    user, password = conf["s3_store_proxy_user"], conf["s3_store_proxy_password"]
    who = f"{quote(user, safe='')}:{quote(password or '', safe='')}@" if user else ""
    proxy = f"http://{who}{conf['s3_store_proxy_host']}:{conf['s3_store_proxy_port']}"
    return {"http": proxy, "https": proxy}


class FeedReader:
    """A Feed as the file that boto3 wants as a body."""

    def __init__(self, feed: Feed) -> None:
        self._chunks = iter(feed)
        self._rest = memoryview(b"")

    def read(self, size: int) -> bytes:
        if not self._rest:
            self._rest = memoryview(next(self._chunks, b""))
        piece, self._rest = self._rest[:size], self._rest[size:]
        return bytes(piece)


class ObjectStream:
    """The bytes of one response."""

    def __init__(self, body: Any) -> None:
        self._body = body

    def read(self, size: int, /) -> bytes:
        with translated("GetObject", writing=False):
            chunk: bytes = self._body.read(size)
            return chunk

    def close(self) -> None:
        self._body.close()


class Bucket:
    """One bucket's objects and unfinished uploads.

    Raises NotFound, Duplicate, StorageFull, StorageWriteDenied and BackendUnavailable.
    """

    def __init__(
        self,
        service: Service,
        name: str,
        conf: Mapping[str, Any],
        outbound: Outbound | None = None,
    ) -> None:
        self.name = name
        self._client = connect(service, conf, outbound, repeat=True)
        self._one_try = connect(service, conf, outbound, repeat=False)

    def exists(self) -> bool:
        try:
            self._call("head_bucket")
        except errors.NotFound:
            return False
        return True

    def create(self) -> None:
        region = self._client.meta.region_name
        where = {} if region == "us-east-1" else {"LocationConstraint": region}
        options: dict[str, Any] = {"CreateBucketConfiguration": where} if where else {}
        self._call("create_bucket", writing=True, **options)

    def size(self, key: str) -> int:
        return int(self._call("head_object", Key=key)["ContentLength"])

    def get(self, key: str, wanted: str | None, etag: str | None) -> tuple[int, str, ObjectStream]:
        """Length, ETag and bytes of the range; only of that version if etag. RangeOutside."""
        options: dict[str, Any] = {"Range": wanted} if wanted else {}
        options |= {"IfMatch": etag} if etag else {}
        answer = self._call("get_object", Key=key, **options)
        return int(answer["ContentLength"]), answer["ETag"], ObjectStream(answer["Body"])

    def put(self, key: str, content: bytes) -> None:
        """Store the bytes as an object that must not exist."""
        self._call_once_alone("put_object", Key=key, Body=content, ContentMD5=md5_of(content))

    def put_feed(self, key: str, feed: Feed) -> str | None:
        """Store the feed as an object that must not exist, in one attempt.

        Returns the MD5 of what was stored where the service tells it. Raises the feed's error.
        """
        with translated("PutObject", writing=True):
            try:
                answer = self._one_try.put_object(
                    Bucket=self.name,
                    Key=key,
                    Body=FeedReader(feed),
                    ContentLength=len(feed),
                    IfNoneMatch="*",
                )
            except Exception:
                feed.raise_error()
                raise
        # Under encryption with managed keys the ETag is something else.
        plain = answer.get("ServerSideEncryption", "AES256") == "AES256"
        return answer["ETag"].strip('"') if plain else None

    def delete(self, key: str) -> None:
        """Delete the object; not an error if there is none."""
        self._call("delete_object", writing=True, Key=key)

    def start_upload(self, key: str) -> str:
        return str(self._call("create_multipart_upload", writing=True, Key=key)["UploadId"])

    def put_part(self, key: str, upload_id: str, number: int, content: bytes) -> str:
        """Store one part; return its ETag."""
        try:
            answer = self._call(
                "upload_part",
                writing=True,
                Key=key,
                UploadId=upload_id,
                PartNumber=number,
                Body=content,
                ContentMD5=md5_of(content),
            )
        except errors.NotFound:
            raise BackendUnavailable("The store lost the upload.") from None
        return str(answer["ETag"])

    def complete_upload(self, key: str, upload_id: str, etags: Mapping[int, str]) -> None:
        """Make an object of the parts, where none must be."""
        parts = [{"PartNumber": number, "ETag": etags[number]} for number in sorted(etags)]
        try:
            self._call_once_alone(
                "complete_multipart_upload",
                Key=key,
                UploadId=upload_id,
                MultipartUpload={"Parts": parts},
            )
        except errors.NotFound:
            # Perhaps the first attempt ended the upload and its answer was lost.
            self._require_stored(key)

    def _require_stored(self, key: str) -> None:
        try:
            self.size(key)
        except errors.NotFound:
            raise BackendUnavailable("The store lost the upload.") from None

    def abort_upload(self, key: str, upload_id: str) -> None:
        """Drop an unfinished upload and its parts; not an error if it is gone."""
        with contextlib.suppress(errors.NotFound):
            self._call("abort_multipart_upload", Key=key, UploadId=upload_id)

    def objects(self) -> Iterator[Found]:
        for page in self._pages("list_objects_v2"):
            for entry in page.get("Contents", ()):
                yield Found(entry["Key"], entry["Size"], _naive(entry["LastModified"]))

    def uploads(self, prefix: str = "") -> Iterator[Found]:
        for page in self._pages("list_multipart_uploads", Prefix=prefix):
            for entry in page.get("Uploads", ()):
                started = _naive(entry["Initiated"])
                yield Found(entry["Key"], None, started, entry["UploadId"])

    def _pages(self, operation: str, **options: Any) -> Iterator[dict[str, Any]]:
        with translated(operation, writing=False):
            yield from self._client.get_paginator(operation).paginate(Bucket=self.name, **options)

    def _call_once_alone(self, operation: str, **options: Any) -> None:
        """Write where nothing must be; only a first attempt can tell that something was.

        One whose answer was lost may have written, so those after it do not ask.
        """
        try:
            with translated(operation, writing=True):
                getattr(self._one_try, operation)(Bucket=self.name, IfNoneMatch="*", **options)
        except BackendUnavailable:
            self._call(operation, writing=True, **options)

    def _call(self, operation: str, *, writing: bool = False, **options: Any) -> dict[str, Any]:
        with translated(operation, writing):
            answer: dict[str, Any] = getattr(self._client, operation)(Bucket=self.name, **options)
            return answer


@contextlib.contextmanager
def translated(operation: str, writing: bool) -> Iterator[None]:
    """Turn boto3's errors into ours; the log gets what helps and is no secret."""
    from botocore import exceptions

    try:
        yield
    except exceptions.ClientError as error:
        raise _answer(operation, writing, error.response) from None
    except exceptions.ParamValidationError:
        # The only parameters that are not ours come out of a URL.
        raise BadLocation() from None
    except exceptions.BotoCoreError as error:
        LOG.warning("S3 could not be reached for %s: %s.", operation, type(error).__name__)
        raise BackendUnavailable() from None


def _answer(operation: str, writing: bool, response: Mapping[str, Any]) -> Exception:
    code = str(response.get("Error", {}).get("Code", ""))
    status = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    if status == 416:
        return RangeOutside()
    if status == 404 and code != "NoSuchBucket":
        return errors.NotFound("The image's bytes are not in the store.")
    if writing and (status == 412 or code == "ConditionalRequestConflict"):
        return errors.Duplicate()
    LOG.warning("S3 answered %s with status %s, %s.", operation, status, code)
    if code == "NoSuchBucket" and not writing:
        return errors.NotFound("The image's bytes are not in the store.")
    if code in _FULL or status in (413, 507):
        return StorageFull()
    if writing and (status in (401, 403) or code == "NoSuchBucket"):
        return StorageWriteDenied()
    if status in (401, 403):
        return BackendUnavailable("The store refused the service's credentials.")
    return BackendUnavailable("The store could not carry out the request.")


def md5_of(content: bytes) -> str:
    """For the Content-MD5 header; computed where it cannot hold up the event loop."""
    return base64.b64encode(offload(_md5, content)).decode()


def _md5(content: bytes) -> bytes:
    return hashlib.md5(content, usedforsecurity=False).digest()


def _naive(moment: datetime) -> datetime:
    return moment.astimezone(UTC).replace(tzinfo=None)
