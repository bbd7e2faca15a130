"""The S3 driver against two real servers: Swift's s3api and Ceph's gateway."""

import contextlib
import logging
import threading
import uuid

import pytest

from common import errors
from common.context import RequestContext
from common.upload import Upload
from glance_store import BackendUnavailable, BadLocation, StorageWriteDenied
from glance_store.drivers.s3 import S3Store
from glance_store.outbound import Outbound, OutboundRules
from glance_store.testing import StoreConformance, WatchedSource, content_of, upload_of
from tests.integration.lifecycle import StoreLifecycle
from tests.integration.unfinished import killed_add
from tests.servers.radosgw import Radosgw
from tests.servers.swift import Swift

MIB = 1024 * 1024
IN_PARTS = {"s3_store_large_object_size": 0, "s3_store_large_object_chunk_size": 5}


def make_store(**options):
    defaults = {option.dest: option.default for option in S3Store.options}
    ours = {"s3_store_timeout": 3, "s3_store_bucket_url_format": "path"}
    return S3Store({**defaults, **ours, **options})


class Service:
    """What the tests need to know of a server, and what it has stored."""

    def __init__(self, server, url, access_key, secret_key):
        self.server = server
        self.host = url.removeprefix("http://")
        self.access_key = access_key
        self.secret_key = secret_key
        self.options = {
            "s3_store_host": url,
            "s3_store_access_key": access_key,
            "s3_store_secret_key": secret_key,
            "s3_store_bucket": "glance",
            "s3_store_create_bucket_on_put": True,
        }
        self.store = make_store(**self.options)
        self.store_in_parts = make_store(**self.options, **IN_PARTS)


class SwiftService(Service):
    def stored(self):
        return frozenset(self.server.objects())


class RadosgwService(Service):
    def stored(self):
        return frozenset(
            f"{bucket}/{key}" for bucket, keys in self.server.buckets().items() for key in keys
        )


@pytest.fixture(scope="module")
def swift():
    Swift.require()
    with Swift() as server:
        yield SwiftService(server, server.s3_url, server.user, server.key)


@pytest.fixture(scope="module")
def radosgw():
    Radosgw.require()
    with Radosgw() as server:
        yield RadosgwService(server, server.url, server.access_key, server.secret_key)


@pytest.fixture(scope="module", params=["swift", "radosgw"])
def service(request):
    return request.getfixturevalue(request.param)


@pytest.fixture
def ctx():
    return RequestContext(user="user", tenant="tenant")


@pytest.fixture
def image_id():
    return str(uuid.uuid4())


def read(store, ctx, url):
    with contextlib.closing(store.get(ctx, url)) as body:
        return b"".join(body)


class TestS3(StoreConformance):
    """Images up to s3_store_large_object_size: one request each."""

    malformed = (
        "s3://",
        "s3://bucket/object",
        "s3+https://access@host/bucket/object",
        "s3+https://access:secret@/bucket/object",
        "s3+https://:secret@host/bucket/object",
        "s3+https://access:secret@host//object",
        "s3+https://access:secret@host/bucket/",
        "s3://access:secret@http://host/bucket/object",
        "s4://access:secret@host/bucket/object",
    )

    @pytest.fixture
    def store(self, service):
        self.service = service
        return service.store

    def backend(self, store):
        return self.service.stored()

    @contextlib.contextmanager
    def broken(self, store):
        with self.service.server.killed():
            yield


class TestS3InParts(TestS3):
    """Every image of 5 MiB or more is uploaded in parts of that size."""

    chunk = 5 * MIB

    @pytest.fixture
    def store(self, service):
        self.service = service
        return service.store_in_parts

    def unfinished_add(self, store, ctx, image_id):
        content = content_of(2 * self.chunk + 3)
        options = self.service.options | IN_PARTS
        return killed_add(make_store, options, ctx, image_id, content, self.service.stored)

    def test_contents_tells_an_unfinished_upload_from_an_image(self, store, ctx, image_id):
        with self.unfinished_add(store, ctx, image_id):
            [found] = [stored for stored in store.contents() if stored.image_id == image_id]
            assert not found.complete
            store.discard(ctx, image_id)


def test_new_urls_hold_no_credentials(service, ctx, image_id):
    """SEC-032."""
    url, metadata = service.store.add(ctx, image_id, upload_of(b"content"))
    try:
        assert (url, metadata) == (f"s3://{service.host}/glance/{image_id}", {})
    finally:
        service.store.delete(ctx, url)


def test_urls_of_old_databases_are_read_with_the_keys_they_hold(service, ctx, image_id):
    url, _ = service.store.add(ctx, image_id, upload_of(b"content"))
    keys = f"{service.access_key}:{service.secret_key}"
    unconfigured = make_store()
    unconfigured.outbound = Outbound(OutboundRules(denied_networks=()))
    for scheme in ("s3", "s3+http"):
        old = f"{scheme}://{keys}@{service.host}/glance/{image_id}"
        assert read(unconfigured, ctx, old) == b"content"
        assert unconfigured.size(ctx, old) == 7
    unconfigured.delete(ctx, old)
    with pytest.raises(errors.NotFound):
        service.store.get(ctx, url)


def test_our_keys_are_not_for_other_hosts_nor_for_callers(service, ctx, image_id):
    """SEC-037; a caller's URL without keys would be read with ours."""
    with pytest.raises(BadLocation):
        service.store.get(ctx, f"s3://elsewhere.example.org/glance/{image_id}")
    ours = f"s3://{service.host}/glance/{image_id}"
    service.store.validate(ours)
    with pytest.raises(BadLocation):
        service.store.validate_external(ours)


def test_external_hosts_are_subject_to_the_outbound_rules(service, ctx, image_id):
    """SEC-043."""
    url = f"s3://access:secret@{service.host}/glance/{image_id}"
    with pytest.raises(BackendUnavailable):
        make_store().get(ctx, url)


def test_bucket_is_not_created_unless_asked_for(service, ctx, image_id):
    options = service.options | {"s3_store_create_bucket_on_put": False}
    store = make_store(**options | {"s3_store_bucket": "missing"})
    with pytest.raises(StorageWriteDenied, match="s3_store_create_bucket_on_put"):
        store.add(ctx, image_id, upload_of(b"content"))
    assert list(store.contents()) == []
    store.discard(ctx, image_id)


def test_wrong_keys_are_unavailable_and_never_told_or_logged(service, ctx, image_id, caplog):
    """SEC-030, SEC-031."""
    caplog.set_level(logging.INFO)
    canaries = ("canary-access", "canary-secret", service.host)
    keys = {"s3_store_access_key": canaries[0], "s3_store_secret_key": canaries[1]}
    store = make_store(**service.options | keys)
    url = f"s3://{canaries[0]}:{canaries[1]}@{service.host}/glance/{image_id}"
    calls = [
        lambda: store.get(ctx, url),
        lambda: store.size(ctx, url),
        lambda: store.delete(ctx, url),
        lambda: store.add(ctx, image_id, upload_of(content_of(2 * MIB), 2 * MIB)),
        lambda: list(store.contents()),
    ]
    for call in calls:
        with pytest.raises(errors.ServiceUnavailable) as caught:
            call()
        assert not any(canary in caught.value.message for canary in canaries)
        assert caught.value.__suppress_context__
    assert not any(canary in caplog.text for canary in canaries[:2])


@pytest.mark.parametrize("in_parts", [False, True], ids=["whole", "in parts"])
def test_a_backend_that_dies_during_an_upload_is_told_and_cleaned_up_later(
    service, ctx, image_id, in_parts
):
    store = service.store_in_parts if in_parts else service.store
    before = service.stored()
    content = content_of(16 * MIB)
    # A part is read at once, a whole image in chunks.
    reads_left = [2 if in_parts else 16]

    def kill_half_way():
        reads_left[0] -= 1
        if not reads_left[0]:
            service.server.kill()

    try:
        with pytest.raises(BackendUnavailable):
            store.add(ctx, image_id, Upload(WatchedSource(content, kill_half_way), size=16 * MIB))
    finally:
        service.server.restart()
    store.discard(ctx, image_id)
    assert service.stored() == before


def test_a_backend_that_dies_during_a_download_is_told(service, ctx, image_id):
    url, _ = service.store.add(ctx, image_id, upload_of(content_of(64 * MIB), 64 * MIB))
    body = service.store.get(ctx, url)
    chunks = iter(body)
    next(chunks)
    try:
        service.server.kill()
        with pytest.raises(BackendUnavailable):
            list(chunks)
    finally:
        body.close()
        service.server.restart()
    service.store.delete(ctx, url)


def test_parallel_parts_of_several_images_do_not_mix(service, ctx):
    contents = [content_of(21 * MIB + seed, seed) for seed in range(3)]
    urls = [None] * len(contents)

    def add(number):
        upload = upload_of(contents[number])
        urls[number], _ = service.store_in_parts.add(ctx, str(uuid.uuid4()), upload)

    threads = [threading.Thread(target=add, args=(number,)) for number in range(len(contents))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for url, content in zip(urls, contents, strict=True):
        assert read(service.store, ctx, url) == content
        service.store.delete(ctx, url)


class TestLifecycle(StoreLifecycle):
    @pytest.fixture(scope="class")
    @classmethod
    def backend(cls):
        Radosgw.require()
        with Radosgw() as server:
            yield server

    @pytest.fixture(scope="class")
    @classmethod
    def options(cls, backend):
        service = RadosgwService(backend, backend.url, backend.access_key, backend.secret_key)
        return {
            "stores": "s3,http",
            "default_store": "s3",
            "s3_store_bucket_url_format": "path",
            "s3_store_timeout": 10,
            **service.options,
        }

    @pytest.fixture(scope="class")
    @classmethod
    def stored(cls, backend):
        return RadosgwService(backend, backend.url, backend.access_key, backend.secret_key).stored
