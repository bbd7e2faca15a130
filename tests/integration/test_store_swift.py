"""The Swift driver against a real Swift with tempauth."""

import hashlib
import json
import time
import urllib.request
import uuid
from ipaddress import ip_network
from urllib.parse import quote

import pytest

from common import errors
from common.context import RequestContext
from common.upload import Upload
from glance_store import BackendUnavailable, StorageWriteDenied
from glance_store.outbound import Outbound, OutboundRules
from glance_store.testing import WatchedSource, content_of, upload_of
from tests.integration.lifecycle import StoreLifecycle
from tests.integration.swift_stores import (
    MIB,
    SEGMENTED,
    Cutter,
    Liar,
    SwiftConformance,
    account_options,
    check_that_credentials_stay_secret,
    make_store,
    read,
)
from tests.integration.unfinished import killed_add
from tests.servers.swift import Swift


@pytest.fixture(scope="module")
def swift():
    Swift.require()
    with Swift() as server:
        yield server


@pytest.fixture(scope="module")
def single(swift):
    return make_store(**account_options(swift))


@pytest.fixture(scope="module")
def segmented(swift):
    return make_store(**account_options(swift, **SEGMENTED))


@pytest.fixture
def ctx():
    return RequestContext(user="user", tenant="tenant")


@pytest.fixture
def image_id():
    return str(uuid.uuid4())


class TestSwift(SwiftConformance):
    @pytest.fixture
    def store(self, swift, single):
        self.swift = swift
        return single


class TestSwiftInSegments(SwiftConformance):
    """Every image of 1 MiB or more is a manifest and segments of that size."""

    chunk = MIB

    @pytest.fixture
    def store(self, swift, segmented):
        self.swift = swift
        return segmented

    def unfinished_add(self, store, ctx, image_id):
        options = account_options(self.swift, **SEGMENTED)
        content = content_of(2 * self.chunk + 3)
        return killed_add(make_store, options, ctx, image_id, content, self.swift.objects)

    def test_contents_tells_leftover_segments_from_an_image(self, store, ctx, image_id):
        with self.unfinished_add(store, ctx, image_id):
            [found] = [stored for stored in store.contents() if stored.image_id == image_id]
            assert (found.size, found.complete) == (2 * self.chunk, False)
            store.discard(ctx, image_id)


def test_new_urls_name_a_reference_and_hold_no_credentials(swift, tmp_path, ctx, image_id):
    """SEC-032, with the file of references and with the deprecated options."""
    path = tmp_path / "swift.conf"
    path.write_text(
        f"[other]\nuser = a:b\nkey = c\nauth_address = https://elsewhere\n"
        f"[ours]\nuser = {swift.user}\nkey = {swift.key}\n"
        f"auth_address = {swift.auth_url}\nauth_version = 1\n"
    )
    referring = {"swift_store_config_file": str(path), "default_swift_reference": "ours"}
    for store, reference in (
        (make_store(**referring, swift_store_create_container_on_put=True), "ours"),
        (make_store(**account_options(swift)), "ref1"),
    ):
        url, metadata = store.add(ctx, image_id, upload_of(b"content"))
        assert (url, metadata) == (f"swift+config://{reference}/glance/{image_id}", {})
        assert read(store, ctx, url) == b"content"
        store.delete(ctx, url)


def test_urls_of_old_databases_are_read_with_the_credentials_they_hold(swift, ctx, image_id):
    store = make_store(**account_options(swift))
    store.add(ctx, image_id, upload_of(b"content"))
    unconfigured = make_store(swift_store_auth_version="1")
    unconfigured.outbound = Outbound(OutboundRules(denied_networks=()))
    address = swift.auth_url.removeprefix("http://")
    for user in (quote(swift.user, safe=""), swift.user):
        old = f"swift+http://{user}:{swift.key}@{address}/glance/{image_id}"
        assert read(unconfigured, ctx, old) == b"content"
        assert read(store, ctx, old) == b"content"
    unconfigured.delete(ctx, old)
    assert not swift.objects()


def test_external_addresses_are_subject_to_the_outbound_rules(swift, ctx):
    """SEC-043: unless it is the operator's own identity service."""
    address = swift.auth_url.removeprefix("http://")
    url = f"swift+http://{swift.user}:{swift.key}@{address}/glance/missing"
    with pytest.raises(errors.NotFound):
        make_store(**account_options(swift)).get(ctx, url)
    with pytest.raises(BackendUnavailable):
        make_store(swift_store_auth_version="1").get(ctx, url)


def test_a_storage_address_told_by_a_foreign_host_is_subject_to_them_too(swift, ctx):
    """The identity service of a caller's URL may say that its objects are anywhere."""
    store = make_store(swift_store_auth_version="1")
    identity, rules = "127.0.0.2", OutboundRules(allowed_networks=(ip_network("127.0.0.2"),))
    store.outbound = Outbound(rules)
    with Liar(identity, swift.storage_url) as liar:
        url = f"swift+http://user:key@{identity}:{liar.port}/auth/glance/object"
        with pytest.raises(BackendUnavailable):
            store.get(ctx, url)
        assert liar.asked


def test_an_unknown_reference_is_unavailable(swift, ctx):
    store = make_store(**account_options(swift))
    with pytest.raises(BackendUnavailable):
        store.get(ctx, "swift+config://gone/glance/object")


def test_containers_are_spread_by_the_seed(swift, ctx, image_id):
    spread = account_options(swift, swift_store_multiple_containers_seed=10)
    store = make_store(**spread)
    before = swift.objects()
    url, _ = store.add(ctx, image_id, upload_of(b"content"))
    container = f"glance_{image_id[:11]}"
    assert url == f"swift+config://ref1/{container}/{image_id}"
    assert [stored.url for stored in store.contents()] == [url]
    assert read(store, ctx, url) == b"content"
    store.discard(ctx, image_id)
    assert swift.objects() == before


def test_container_is_not_created_unless_asked_for(swift, ctx, image_id):
    options = account_options(swift, swift_store_create_container_on_put=False)
    store = make_store(**options, swift_store_container="missing")
    with pytest.raises(StorageWriteDenied, match="swift_store_create_container_on_put"):
        store.add(ctx, image_id, upload_of(b"content"))
    store.discard(ctx, image_id)


def test_manifests_are_glances(swift, ctx, image_id):
    store = make_store(**account_options(swift, **SEGMENTED))
    content = content_of(2 * MIB + 1)
    url, _ = store.add(ctx, image_id, upload_of(content, len(content)))
    names = [f"AUTH_test/glance/{image_id}-0000{number}" for number in (1, 2, 3)]
    assert swift.objects("glance") == {
        f"AUTH_test/glance/{image_id}": 0,
        names[0]: MIB,
        names[1]: MIB,
        names[2]: 1,
    }
    [found] = store.contents()
    assert (found.url, found.size, found.complete) == (url, len(content), True)
    store.delete(ctx, url)
    assert not swift.objects("glance")


def test_a_size_that_fills_the_last_segment_leaves_no_empty_one(swift, ctx, image_id):
    """REL-095."""
    store = make_store(**account_options(swift, **SEGMENTED))
    for size in (2 * MIB, None):
        url, _ = store.add(ctx, image_id, upload_of(content_of(2 * MIB), size))
        assert sorted(swift.objects("glance").values()) == [0, MIB, MIB]
        store.delete(ctx, url)


def test_static_large_objects_are_deleted_with_their_segments(swift, ctx, image_id):
    """REL-095: as other tools upload them."""
    store = make_store(**account_options(swift))
    account = store._accounts.of_reference()
    content = content_of(3 * MIB)
    manifest = []
    for number in range(3):
        part = content[number * MIB :][:MIB]
        account.put("glance", f"parts/{image_id}/{number}", part)
        etag = hashlib.md5(part).hexdigest()
        path = f"/glance/parts/{image_id}/{number}"
        manifest.append({"path": path, "etag": etag, "size_bytes": MIB})
    put_manifest(swift, f"glance/{image_id}", manifest)
    url = f"swift+config://ref1/glance/{image_id}"
    assert read(store, ctx, url) == content
    store.delete(ctx, url)
    assert not swift.objects("glance")


def put_manifest(swift, path, manifest):
    token = swift_token(swift)
    request = urllib.request.Request(
        f"{swift.storage_url}/{path}?multipart-manifest=put",
        json.dumps(manifest).encode(),
        {"X-Auth-Token": token},
        method="PUT",
    )
    urllib.request.urlopen(request).close()


def swift_token(swift):
    who = {"X-Auth-User": swift.user, "X-Auth-Key": swift.key}
    with urllib.request.urlopen(urllib.request.Request(swift.auth_url, headers=who)) as answer:
        return answer.headers["X-Auth-Token"]


def test_wrong_credentials_are_unavailable_and_never_told_or_logged(swift, ctx, caplog):
    """SEC-030, SEC-031."""
    check_that_credentials_stay_secret(swift, ctx, caplog)


@pytest.mark.parametrize("segmented", [False, True], ids=["whole", "segmented"])
def test_a_backend_that_dies_during_an_upload_is_told_and_cleaned_up_later(
    swift, ctx, image_id, segmented
):
    store = make_store(**account_options(swift, **(SEGMENTED if segmented else {})))
    before = swift.objects()
    reads_left = [16]

    def kill_half_way():
        reads_left[0] -= 1
        if not reads_left[0]:
            swift.kill()

    source = WatchedSource(content_of(16 * MIB), kill_half_way)
    try:
        with pytest.raises(BackendUnavailable):
            store.add(ctx, image_id, Upload(source, size=16 * MIB))
    finally:
        swift.restart()
    store.discard(ctx, image_id)
    assert swift.objects() == before


def test_a_backend_that_falls_silent_during_an_upload_is_told_in_bounded_time(swift, ctx, image_id):
    """REL-085."""
    store = make_store(**account_options(swift, swift_store_timeout=1, **SEGMENTED))
    reads_left = [8]

    def pause_half_way():
        reads_left[0] -= 1
        if not reads_left[0]:
            swift.pause()

    source = WatchedSource(content_of(16 * MIB), pause_half_way)
    started = time.monotonic()
    try:
        with pytest.raises(BackendUnavailable):
            store.add(ctx, image_id, Upload(source, size=16 * MIB))
    finally:
        swift.resume()
    assert time.monotonic() - started < 30
    store.discard(ctx, image_id)


def test_a_backend_that_dies_during_a_download_is_told(swift, ctx, image_id):
    store = make_store(**account_options(swift))
    url, _ = store.add(ctx, image_id, upload_of(content_of(64 * MIB), 64 * MIB))
    body = store.get(ctx, url)
    chunks = iter(body)
    next(chunks)
    try:
        swift.kill()
        with pytest.raises(BackendUnavailable):
            list(chunks)
    finally:
        body.close()
        swift.restart()
    store.delete(ctx, url)


def test_a_broken_download_is_taken_up_again_as_often_as_configured(swift, ctx, image_id):
    """REL-095."""
    content = content_of(24 * MIB)
    url, _ = make_store(**account_options(swift)).add(ctx, image_id, upload_of(content))
    with Cutter(swift.port, after=8 * MIB) as cutter:
        endpoint = f"http://127.0.0.1:{cutter.port}/v1/AUTH_test"
        options = account_options(swift, swift_store_endpoint=endpoint)
        resuming = make_store(**options, swift_store_retry_get_count=3)
        assert read(resuming, ctx, url) == content
        assert read(resuming, ctx, url, 11, 20 * MIB) == content[11:][: 20 * MIB]
        with pytest.raises(BackendUnavailable):
            read(make_store(**options), ctx, url)
    make_store(**account_options(swift)).delete(ctx, url)


def test_a_token_that_was_revoked_is_replaced(swift, ctx, image_id):
    """REL-086: tempauth keeps tokens in memcached, which a restart empties."""
    store = make_store(**account_options(swift, **SEGMENTED))
    url, _ = store.add(ctx, image_id, upload_of(b"content"))
    for _ in range(2):
        swift.restart()
        assert read(store, ctx, url) == b"content"
    swift.restart()
    content = content_of(2 * MIB)
    again, _ = store.add(ctx, str(uuid.uuid4()), upload_of(content))
    assert read(store, ctx, again) == content
    for stored in (url, again):
        store.delete(ctx, stored)


class TestLifecycle(StoreLifecycle):
    """Large enough to be segmented, which 200 MiB otherwise are not."""

    @pytest.fixture(scope="class")
    @classmethod
    def backend(cls):
        Swift.require()
        with Swift() as server:
            yield server

    @pytest.fixture(scope="class")
    @classmethod
    def options(cls, backend):
        return {
            "stores": "swift,http",
            "default_store": "swift",
            "swift_store_large_object_size": 100,
            "swift_store_large_object_chunk_size": 32,
            "swift_store_timeout": 10,
            **account_options(backend),
        }

    @pytest.fixture(scope="class")
    @classmethod
    def stored(cls, backend):
        return backend.objects
