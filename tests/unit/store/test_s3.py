"""URLs, options and parts of the s3 store."""

import socket
import threading
from types import SimpleNamespace
from typing import ClassVar

import pytest
from botocore.awsrequest import AWSResponse

from common import errors
from common.context import RequestContext
from glance_store import (
    AddDisabled,
    BackendUnavailable,
    BadLocation,
    BadStoreConfiguration,
    StorageWriteDenied,
)
from glance_store.drivers import s3_bucket
from glance_store.drivers.s3 import S3Store
from glance_store.drivers.s3_locations import S3Location, parse
from glance_store.drivers.s3_multipart import MIB, MOST_PARTS, MultipartUpload, part_size
from glance_store.feed import Feed
from glance_store.testing import content_of, upload_of

CTX = RequestContext()
GIB = 1024 * MIB


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("s3://host/bucket/id", S3Location(False, "host", "bucket", "id")),
        (
            "s3+https://AK:se/cr+et=@s3.example.org:8443/bucket/id",
            S3Location(True, "s3.example.org:8443", "bucket", "id", "AK", "se/cr+et="),
        ),
        ("s3+http://A:B@h/b/i", S3Location(False, "h", "b", "i", "A", "B")),
        # Swift's access keys.
        (
            "s3://test:tester:testing@h/b/i",
            S3Location(False, "h", "b", "i", "test:tester", "testing"),
        ),
    ],
)
def test_every_form_of_url_is_understood(url, expected):
    assert parse(url) == expected
    assert parse(parse(url).url) == expected


@pytest.mark.parametrize(
    "url", ["s3://", "s3://h/b", "s3://h/b/", "s3://:b@h/b/i", "s3://a@h/b/i", "s3://a:b@/b/i"]
)
def test_malformed_urls_are_refused(url):
    with pytest.raises(BadLocation):
        parse(url)


def test_reprs_hold_no_secret():
    service = s3_bucket.Service("https://canary", "canary", "canary")
    assert "canary" not in repr(parse("s3://access:canary@h/b/i")) + repr(service)


def conf(**options):
    defaults = {option.dest: option.default for option in S3Store.options}
    account = {
        "s3_store_host": "https://s3.eu-central-1.amazonaws.com",
        "s3_store_access_key": "access",
        "s3_store_secret_key": "secret",
        "s3_store_bucket": "images",
    }
    return {**defaults, **account, **options}


HOST = "s3.eu-central-1.amazonaws.com"


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        (f"s3+https://{HOST}/images/id", f"s3+https://{HOST}/images/id"),
        (f"s3+https://access:secret@{HOST}/images/id", f"s3+https://{HOST}/images/id"),
        (f"s3+https://access:secret@{HOST}/older/id", f"s3+https://{HOST}/older/id"),
        # A caller's own, or of another service: our keys are not to be lent to them.
        (f"s3+https://access:other@{HOST}/images/id", None),
        (f"s3+https://other:secret@{HOST}/images/id", None),
        (f"s3://access:secret@{HOST}/images/id", None),
        ("s3+https://access:secret@elsewhere/images/id", None),
    ],
)
def test_only_the_configured_keys_can_be_taken_out_of_a_url(url, expected):
    """SEC-032."""
    assert S3Store(conf()).without_credentials(url) == expected


def test_an_incomplete_account_makes_the_store_read_only():
    for name in ("host", "access_key", "secret_key", "bucket"):
        store = S3Store(conf(**{f"s3_store_{name}": None}))
        with pytest.raises(AddDisabled):
            store.add(CTX, "id", upload_of(b""))
        store.discard(CTX, "id")
        assert list(store.contents()) == []


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"s3_store_enable_proxy": True}, "s3_store_proxy_host"),
        ({"s3_store_host": "ftp://host"}, "s3_store_host"),
        ({"s3_store_host": "https://ho st"}, "s3_store_host"),
    ],
)
def test_options_that_cannot_work_are_named(options, told):
    with pytest.raises(BadStoreConfiguration, match=told):
        S3Store(conf(**options))


def test_a_missing_library_names_the_extra(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "boto3", None)
    with pytest.raises(BadStoreConfiguration, match=r"\[s3\]"):
        S3Store(conf())


@pytest.mark.parametrize(
    ("endpoint", "configured", "expected"),
    [
        ("https://s3.eu-central-1.amazonaws.com", "", "eu-central-1"),
        ("https://s3-us-west-2.amazonaws.com", "", "us-west-2"),
        ("https://s3.dualstack.ap-south-1.amazonaws.com", "", "ap-south-1"),
        ("https://s3.amazonaws.com", "", "us-east-1"),
        ("http://ceph.example.org:7480", "", "us-east-1"),
        ("http://ceph.example.org:7480", "default", "default"),
    ],
)
def test_the_region_is_found(endpoint, configured, expected):
    assert s3_bucket.region_of(endpoint, configured) == expected


class Sent(Exception):
    """Ends a request before it goes anywhere."""


def request_of(options, call):
    """The HTTP request that call makes of a bucket."""
    seen = []

    def capture(request, **_):
        seen.append(request)
        raise Sent()

    service = s3_bucket.Service(options["s3_store_host"], "access", "secret")
    bucket = s3_bucket.Bucket(service, "images", options)
    for client in (bucket._client, bucket._one_try):
        client.meta.events.register("before-send.s3", capture)
    with pytest.raises(Sent):
        call(bucket)
    return seen[0]


class Answers:
    """A bucket whose requests are answered in turn with (status, code); remembers them."""

    def __init__(self, *answers):
        self.requests = []
        self._answers = iter(answers)
        service = s3_bucket.Service("http://s3.example.org", "access", "secret")
        self.bucket = s3_bucket.Bucket(service, "images", conf())
        for client in (self.bucket._client, self.bucket._one_try):
            client.meta.events.register("before-send.s3", self._answer)

    def _answer(self, request, **_):
        self.requests.append(request)
        status, code = next(self._answers)
        body = f"<Error><Code>{code}</Code></Error>" if code else "<a><ETag>e</ETag></a>"
        body = code if (code or "").startswith("<") else body
        headers = {"content-length": "7"} if request.method == "HEAD" else {}
        raw = SimpleNamespace(stream=lambda: iter([body.encode()]))
        return AWSResponse(request.url, status, headers, raw)

    @property
    def conditions(self):
        return [request.headers.get("If-None-Match") for request in self.requests]


@pytest.fixture
def no_pauses(monkeypatch):
    monkeypatch.setattr("botocore.endpoint.time.sleep", lambda seconds: None)


@pytest.mark.usefixtures("no_pauses")
class TestWritesWhoseAnswerWasLost:
    def test_our_own_object_is_not_taken_for_somebody_elses(self):
        server = Answers((500, "InternalError"), (503, "SlowDown"), (200, None))
        server.bucket.put("id", b"content")
        assert server.conditions == [b"*", None, None]

    def test_somebody_elses_is(self):
        with pytest.raises(errors.Duplicate):
            Answers((412, "PreconditionFailed")).bucket.put("id", b"content")

    def test_a_completed_upload_is_recognized(self):
        server = Answers((500, "InternalError"), (404, "NoSuchUpload"), (200, None))
        server.bucket.complete_upload("id", "upload", {1: "e"})
        assert [request.method for request in server.requests] == ["POST", "POST", "HEAD"]

    def test_an_upload_that_is_gone_without_an_object_is_not(self):
        with pytest.raises(BackendUnavailable):
            Answers((404, "NoSuchUpload"), (404, "NoSuchKey")).bucket.complete_upload(
                "id", "upload", {1: "e"}
            )
        with pytest.raises(BackendUnavailable):
            Answers((404, "NoSuchUpload")).bucket.put_part("id", "upload", 1, b"content")

    def test_what_cannot_be_read_again_is_not_sent_again(self):
        server = Answers((503, "SlowDown"))
        with pytest.raises(BackendUnavailable):
            server.bucket.put_feed("id", Feed(upload_of(b"content"), 7))
        assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("style", "url"),
    [
        ("subdomain", "http://images.s3.example.org:8080/id"),
        ("path", "http://s3.example.org:8080/images/id"),
    ],
)
def test_the_bucket_is_named_where_configured(style, url):
    """REL-094."""
    options = conf(s3_store_host="http://s3.example.org:8080", s3_store_bucket_url_format=style)
    assert request_of(options, lambda bucket: bucket.size("id")).url == url


def test_the_host_that_a_bucket_makes_is_subject_to_the_outbound_rules(monkeypatch):
    """SEC-043: whoever names a host names its subdomains too."""
    addresses = {"evil.example": "192.0.2.1", "images.evil.example": "127.0.0.1"}
    asked = []

    def getaddrinfo(host, port, *_args, **_options):
        asked.append(host)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (addresses[host], int(port)))]

    store = S3Store(conf(s3_store_timeout=1))
    with socket.create_server(("127.0.0.1", 0)) as inside:
        inside.settimeout(0.2)
        monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
        monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{inside.getsockname()[1]}")
        url = f"s3://access:secret@evil.example:{inside.getsockname()[1]}/images/id"
        with pytest.raises(BackendUnavailable):
            store.size(CTX, url)
        with pytest.raises(TimeoutError):
            inside.accept()
    assert "images.evil.example" in asked


@pytest.mark.usefixtures("no_pauses")
class TestDiscard:
    NONE: ClassVar = (200, "<ListMultipartUploadsResult/>")

    def store(self, *answers):
        store = S3Store(conf())
        server = Answers(*answers)
        store._bucket_at = lambda *_: server.bucket
        return store

    def test_nothing_there_is_nothing_to_do(self):
        self.store(self.NONE, (404, "NoSuchKey")).discard(CTX, "id")

    def test_what_may_not_be_deleted_is_told(self):
        """Nobody would look for it again."""
        with pytest.raises(StorageWriteDenied):
            self.store(self.NONE, (200, None), (403, "AccessDenied")).discard(CTX, "id")


def test_requests_have_no_checksum_headers_that_compatible_servers_refuse():
    """REL-094, LP 2121144; the MD5 is an old one, and it is signed."""
    calls = [
        lambda bucket: bucket.put("id", b"content"),
        lambda bucket: bucket.put_part("id", "upload", 1, b"content"),
        lambda bucket: bucket.complete_upload("id", "upload", {1: "etag"}),
    ]
    for call in calls:
        headers = {name.lower(): value for name, value in request_of(conf(), call).headers.items()}
        assert not [name for name in headers if "checksum" in name or "trailer" in name]
        assert not headers.get("content-encoding")
    headers = request_of(conf(), calls[0]).headers
    assert headers["Content-MD5"] == s3_bucket.md5_of(b"content").encode()
    assert b"content-md5" in headers["Authorization"]
    assert headers["X-Amz-Content-SHA256"] == b"UNSIGNED-PAYLOAD"


def test_the_proxy_is_used_with_its_credentials_quoted():
    options = conf(
        s3_store_enable_proxy=True,
        s3_store_proxy_host="proxy.example.org",
        s3_store_proxy_user="us@er",
        s3_store_proxy_password="pass/word",
    )
    bucket = s3_bucket.Bucket(s3_bucket.Service("https://h", "a", "b"), "images", options)
    proxies = bucket._client.meta.config.proxies
    assert set(proxies.values()) == {"http://us%40er:pass%2Fword@proxy.example.org:8080"}


@pytest.mark.parametrize(
    "size", [1, 10 * MIB, 97 * GIB, 98 * GIB, 1024 * GIB, 5 * 1024 * GIB], ids=str
)
def test_parts_of_a_known_size_are_enough(size):
    """REL-014."""
    part = part_size(1, 10 * MIB, size)
    assert part % MIB == 0
    assert part * MOST_PARTS >= size
    assert part == 10 * MIB or (part - MIB) * MOST_PARTS < size


def test_parts_of_an_unknown_size_grow_to_the_largest_object():
    """REL-014."""
    sizes = [part_size(number, 5 * MIB, None) for number in range(1, MOST_PARTS + 1)]
    assert sizes[:1000] == [5 * MIB] * 1000
    assert sizes == sorted(sizes)
    assert max(sizes) <= 5 * GIB
    assert sum(sizes) >= 4.8 * 1024 * GIB


class Bucket:
    """Unfinished uploads in memory. `fault` is raised for the part of that number."""

    def __init__(self, fault=None, number=0):
        self.parts = {}
        self.complete = None
        self.aborted = False
        self.under_way = self.most = 0
        self._fault = fault
        self._number = number
        self._lock = threading.Lock()

    def start_upload(self, key):
        return "upload"

    def put_part(self, key, upload_id, number, content):
        with self._lock:
            self.under_way += len(content)
            self.most = max(self.most, self.under_way)
        if number == self._number:
            raise self._fault
        with self._lock:
            self.parts[number] = content
            self.under_way -= len(content)
        return f"etag-{number}"

    def complete_upload(self, key, upload_id, etags):
        assert etags == {number: f"etag-{number}" for number in self.parts}
        self.complete = b"".join(self.parts[number] for number in sorted(self.parts))

    def abort_upload(self, key, upload_id):
        self.aborted = True


@pytest.mark.parametrize("length", [5 * MIB - 1, 5 * MIB, 5 * MIB + 1, 31 * MIB])
@pytest.mark.parametrize("known", [True, False], ids=["size known", "size unknown"])
def test_parts_add_up_at_every_boundary(length, known):
    """REL-014."""
    bucket, content = Bucket(), content_of(length)
    upload = upload_of(content)
    MultipartUpload(bucket, "id", 5 * MIB, 3).run(b"", upload.read_full, length if known else None)
    assert bucket.complete == content
    assert len(bucket.parts) == -(-length // (5 * MIB))
    assert bucket.most <= 15 * MIB


def test_a_failed_part_aborts_the_upload():
    """REL-014: no dangling upload."""
    bucket = Bucket(BackendUnavailable("gone"), number=2)
    upload = upload_of(content_of(60 * MIB))
    with pytest.raises(BackendUnavailable, match="gone"):
        MultipartUpload(bucket, "id", 5 * MIB, 2).run(b"", upload.read_full, None)
    assert bucket.aborted
    assert bucket.complete is None
    assert upload.bytes_read < 60 * MIB


def test_a_failed_read_aborts_the_upload_even_if_aborting_fails():
    bucket = Bucket()

    def abort(key, upload_id):
        bucket.aborted = True
        raise BackendUnavailable()

    bucket.abort_upload = abort

    def read(size):
        raise errors.ClientDisconnected()

    with pytest.raises(errors.ClientDisconnected):
        MultipartUpload(bucket, "id", 5 * MIB, 2).run(content_of(5 * MIB), read, None)
    assert bucket.aborted


@pytest.mark.parametrize(
    ("status", "code", "writing", "expected"),
    [
        (404, "NoSuchKey", False, errors.NotFound),
        (404, "NoSuchBucket", False, errors.NotFound),
        (404, "NoSuchBucket", True, "StorageWriteDenied"),
        (412, "PreconditionFailed", True, errors.Duplicate),
        (409, "ConditionalRequestConflict", True, errors.Duplicate),
        (412, "PreconditionFailed", False, BackendUnavailable),
        (403, "QuotaExceeded", True, "StorageFull"),
        (413, "EntityTooLarge", True, "StorageFull"),
        (507, "", True, "StorageFull"),
        (403, "AccessDenied", True, "StorageWriteDenied"),
        (401, "Unauthorized", False, BackendUnavailable),
        (403, "SignatureDoesNotMatch", False, BackendUnavailable),
        (500, "InternalError", True, BackendUnavailable),
    ],
)
def test_answers_are_named_correctly(status, code, writing, expected):
    """REL-017."""
    from botocore.exceptions import ClientError

    import glance_store

    answer = {
        "Error": {"Code": code, "Message": "canary"},
        "ResponseMetadata": {"HTTPStatusCode": status},
    }
    kind = getattr(glance_store, expected) if isinstance(expected, str) else expected
    with pytest.raises(kind) as caught, s3_bucket.translated("GetObject", writing):
        raise ClientError(answer, "GetObject")
    assert "canary" not in str(caught.value)
