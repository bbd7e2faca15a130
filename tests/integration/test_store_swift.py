"""The Swift driver against a real Swift, with tempauth and with Keystone."""

import contextlib
import hashlib
import json
import logging
import socket
import threading
import time
import urllib.error
import urllib.request
import uuid
from dataclasses import replace
from ipaddress import ip_network
from urllib.parse import quote

import pytest
from keystoneauth1.identity import v3
from keystoneauth1.session import Session

from common import errors
from common.context import RequestContext
from common.upload import Upload
from glance_store import BackendUnavailable, BadLocation, Capability, StorageWriteDenied
from glance_store.drivers.swift import SwiftStore
from glance_store.outbound import Outbound, OutboundRules
from glance_store.testing import StoreConformance, WatchedSource, content_of, upload_of
from tests.integration.unfinished import killed_add
from tests.servers.keystone import Keystone
from tests.servers.swift import Swift

MIB = 1024 * 1024
SEGMENTED = {"swift_store_large_object_size": 0, "swift_store_large_object_chunk_size": 1}


def make_store(**options):
    defaults = {option.dest: option.default for option in SwiftStore.options}
    return SwiftStore({**defaults, "swift_store_timeout": 15, **options})


def account_options(swift, **options):
    return {
        "swift_store_auth_address": swift.auth_url,
        "swift_store_auth_version": swift.auth_version,
        "swift_store_user": swift.user,
        "swift_store_key": swift.key,
        "swift_store_create_container_on_put": True,
        **options,
    }


@pytest.fixture(scope="module")
def swift():
    Swift.require()
    with Swift() as server:
        yield server


@pytest.fixture(scope="module")
def keystone():
    Keystone.require()
    with Keystone() as server:
        yield server


@pytest.fixture(scope="module")
def keystone_swift(keystone):
    Swift.require()
    with Swift(keystone=keystone) as server:
        yield server


@pytest.fixture(scope="module")
def single(swift):
    return make_store(**account_options(swift))


@pytest.fixture(scope="module")
def segmented(swift):
    return make_store(**account_options(swift, **SEGMENTED))


@pytest.fixture(scope="module")
def known_to_keystone(keystone_swift):
    return make_store(**account_options(keystone_swift))


@pytest.fixture
def ctx():
    return RequestContext(user="user", tenant="tenant")


@pytest.fixture
def image_id():
    return str(uuid.uuid4())


def read(store, ctx, url, offset=0, length=None):
    with contextlib.closing(store.get(ctx, url, offset, length)) as body:
        return b"".join(body)


class SwiftConformance(StoreConformance):
    malformed = (
        "swift://",
        "swift://container/object",
        "swift://user@auth/container/object",
        "swift+http://user:key@/container/object",
        "swift+https://auth/v1//object",
        "swift+https://auth/v1/container/",
        "swift://user:key@http://auth/v1/container/object",
        "swift+config://ref/container",
        "swift+config://ref/more/container/object",
        "swiftly://auth/v1/container/object",
    )

    def backend(self, store):
        return frozenset(self.swift.objects())

    @contextlib.contextmanager
    def broken(self, store):
        with self.swift.killed():
            yield


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


class TestSwiftWithKeystone(SwiftConformance):
    @pytest.fixture
    def store(self, keystone_swift, known_to_keystone):
        self.swift = keystone_swift
        return known_to_keystone


class TestSwiftOfManyTenants(SwiftConformance):
    chunk = MIB

    @pytest.fixture
    def store(self, keystone_swift):
        self.swift = keystone_swift
        return make_store(swift_store_multi_tenant=True, **SEGMENTED)

    @pytest.fixture
    def ctx(self, alice):
        return alice

    def unfinished_add(self, store, ctx, image_id):
        options = {"swift_store_multi_tenant": True, **SEGMENTED}
        content = content_of(2 * self.chunk + 3)
        return killed_add(make_store, options, ctx, image_id, content, self.swift.objects)

    def backend(self, store):
        # Each image has a container of its own, which has to go as well.
        return frozenset(self.swift.objects()) | own_containers(self.swift)


# What a database may hold.


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


def test_old_keystone_urls_are_read_by_the_version_in_force(keystone_swift, ctx, image_id):
    """An address that ends in v2.0 outlived that version of Keystone."""
    store = make_store(**account_options(keystone_swift))
    url, _ = store.add(ctx, image_id, upload_of(b"content"))
    address = keystone_swift.auth_url.removeprefix("http://").removesuffix("/v3")
    user = quote(keystone_swift.user, safe="")
    for ending in ("", "/", "/v2.0/", "/v3"):
        old = f"swift+http://{user}:{keystone_swift.key}@{address}{ending}/glance/{image_id}"
        assert read(store, ctx, old) == b"content"
    store.delete(ctx, url)


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


# Large objects.


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


# Faults.


def test_wrong_credentials_are_unavailable_and_never_told_or_logged(
    swift, keystone_swift, ctx, image_id, caplog
):
    """SEC-030, SEC-031."""
    caplog.set_level(logging.INFO)
    canaries = ("canary-tenant:canary-user", "canary-key")
    for server in (swift, keystone_swift):
        who = {"swift_store_user": canaries[0], "swift_store_key": canaries[1]}
        store = make_store(**account_options(server, **who))
        address = server.auth_url.removeprefix("http://")
        url = f"swift+http://{quote(canaries[0])}:{canaries[1]}@{address}/glance/{image_id}"
        calls = [
            lambda store=store, url=url: store.get(ctx, url),
            lambda store=store, url=url: store.size(ctx, url),
            lambda store=store, url=url: store.delete(ctx, url),
            lambda store=store: store.add(ctx, image_id, upload_of(b"content")),
            lambda store=store: store.discard(ctx, image_id),
            lambda store=store: list(store.contents()),
        ]
        for call in calls:
            with pytest.raises(BackendUnavailable) as caught:
                call()
            told = caught.value.message
            assert not any(secret in told for secret in (*canaries, "127.0.0.1", str(server.port)))
            assert caught.value.__context__ is None or caught.value.__suppress_context__
    assert "canary" not in caplog.text


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


def test_keystone_tokens_are_renewed_before_they_expire(keystone, keystone_swift, ctx, image_id):
    """REL-086."""
    options = account_options(keystone_swift)
    # Every token is about to expire, so each request asks for another.
    store = make_store(**options, swift_store_expire_soon_interval=10**6)
    url, _ = store.add(ctx, image_id, upload_of(b"content"))
    tokens = {store._accounts.of_reference().credentials.session().token for _ in range(2)}
    assert len(tokens) == 2
    assert read(store, ctx, url) == b"content"
    store.delete(ctx, url)
    assert not keystone_swift.objects()


# Several tenants.


def context_of(keystone, name, **changes):
    """What the API makes of a token: the user, the tenant, the roles and the catalogue."""
    user = keystone.users[name]
    plugin = v3.Password(
        keystone.url,
        username=user.name,
        password=user.password,
        project_name=user.project,
        user_domain_id=keystone.domain,
        project_domain_id=keystone.domain,
    )
    access = plugin.get_access(Session())
    identity = {
        "user": access.user_id,
        "tenant": access.project_id,
        "roles": tuple(access.role_names),
        "token": access.auth_token,
        "service_catalog": tuple(access.service_catalog.catalog),
    }
    return RequestContext(**{**identity, **changes})


@pytest.fixture(scope="module")
def alice(keystone):
    return context_of(keystone, "alice")


@pytest.fixture(scope="module")
def bob(keystone):
    return context_of(keystone, "bob")


@pytest.fixture(scope="module")
def shared(keystone, keystone_swift):
    """A multi-tenant store with an account of its own."""
    # Trusts take Keystone seconds, and one test for them is enough.
    return make_shared_store(keystone, swift_store_use_trusts=False)


def make_shared_store(keystone, **options):
    service = keystone.service
    return make_store(
        swift_store_multi_tenant=True,
        swift_store_auth_version="3",
        swift_store_auth_address=keystone.url,
        swift_store_user=f"{service.project}:{service.name}",
        swift_store_key=service.password,
        swift_store_admin_tenants=["operators"],
        **SEGMENTED,
        **options,
    )


@pytest.fixture(scope="class")
def reseller(keystone):
    """The service's user has the role that opens every account."""
    role = keystone._find_or_make("role", "ResellerAdmin", {})
    service = keystone.service
    path = f"/projects/{service.project_id}/users/{service.user_id}/roles/{role}"
    keystone.request("PUT", path)
    yield
    keystone.request("DELETE", path)


@pytest.fixture
def image(shared, alice, image_id, keystone_swift):
    content = content_of(2 * MIB + 7)
    url, _ = shared.add(alice, image_id, upload_of(content, len(content)))
    yield url
    with contextlib.suppress(errors.NotFound):
        shared.delete(alice, url)
    assert not keystone_swift.objects()
    assert not own_containers(keystone_swift)


def own_containers(server):
    """Those that hold one image each."""
    return frozenset(name for name in server.containers() if "/glance_" in name)


def test_urls_name_the_uploaders_account(shared, alice, image, image_id, keystone_swift):
    account = f"AUTH_{alice.tenant}"
    host = keystone_swift.url.removeprefix("http://")
    assert image == f"swift+http://{host}/v1/{account}/glance_{image_id}/{image_id}"
    assert shared.capabilities & Capability.ACL
    assert not shared.capabilities & Capability.LIST
    assert list(own_containers(keystone_swift)) == [f"{account}/glance_{image_id}"]


def test_only_whom_the_acl_lets_in_can_read(shared, alice, bob, image):
    with pytest.raises(errors.Forbidden):
        shared.get(bob, image)
    shared.set_acls(alice, image, public=False, read=[bob.tenant])
    assert len(read(shared, bob, image)) == 2 * MIB + 7
    shared.set_acls(alice, image, public=False)
    with pytest.raises(errors.Forbidden):
        shared.size(bob, image)
    shared.set_acls(alice, image, public=True)
    assert shared.size(bob, image) == 2 * MIB + 7
    for change in (shared.delete, lambda *args: shared.set_acls(*args, public=True)):
        with pytest.raises((errors.Forbidden, StorageWriteDenied)):
            change(bob, image)


def test_public_images_are_closed_to_the_anonymous(shared, alice, image):
    """SEC-035."""
    shared.set_acls(alice, image, public=True)
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(image.removeprefix("swift+"))
    assert caught.value.code == 401
    caught.value.close()


def test_admin_tenants_are_always_in_the_acl(shared, alice, image, image_id, keystone_swift):
    """SEC-035."""

    def acls():
        request = urllib.request.Request(
            image.removeprefix("swift+").rpartition("/")[0],
            headers={"X-Auth-Token": alice.token},
            method="HEAD",
        )
        with urllib.request.urlopen(request) as answer:
            headers = answer.headers
            return headers.get("X-Container-Read"), headers.get("X-Container-Write")

    assert acls() == ("operators:*", "operators:*")
    shared.set_acls(alice, image, public=False, read=["t1", "t2"], write=["t3"])
    assert acls() == ("t1:*,t2:*,operators:*", "t3:*,operators:*")
    shared.set_acls(alice, image, public=True)
    assert acls() == ("*:*", "operators:*")


def test_a_token_goes_to_no_store_outside_the_catalog(shared, alice, image):
    """SEC-037."""
    with Liar("127.0.0.1", "http://127.0.0.1:1/v1/AUTH_x") as liar:
        url = f"swift+http://127.0.0.1:{liar.port}/v1/AUTH_x/container/object"
        with pytest.raises(BadLocation):
            shared.get(alice, url)
        assert not liar.asked


@pytest.fixture(scope="class")
def entitled(keystone, keystone_swift, reseller):
    """Like `shared`, with a token that has the reseller's role."""
    return make_shared_store(keystone, swift_store_use_trusts=False)


class TestWithTheServicesRights:
    def test_an_image_whose_owners_token_died_can_be_deleted(
        self, entitled, keystone, alice, image, keystone_swift
    ):
        later = replace(alice, token=keystone.expired_token())
        with pytest.raises(errors.Forbidden):
            entitled.get(later, image)
        entitled.delete(later, image)
        assert not keystone_swift.objects()

    def test_the_scrubber_needs_no_token(self, entitled, image, keystone_swift):
        """REL-075."""
        entitled.delete(RequestContext(is_admin=True), image)
        assert not keystone_swift.objects()

    def test_what_a_dead_process_left_is_discarded_without_a_token(
        self, entitled, alice, image, image_id, keystone_swift
    ):
        """REL-009."""
        entitled.discard(RequestContext(tenant=alice.tenant, is_admin=True), image_id)
        assert not keystone_swift.objects()
        assert not own_containers(keystone_swift)

    def test_they_are_not_lent_to_another_tenant(self, entitled, bob, image, keystone_swift):
        """SEC-019."""
        with pytest.raises(errors.Forbidden):
            entitled.delete(bob, image)
        assert keystone_swift.objects()


def test_without_a_resellers_role_a_dead_token_is_the_end(keystone, alice, image):
    shared = make_shared_store(keystone)
    later = replace(alice, token=keystone.expired_token())
    with pytest.raises((errors.Forbidden, StorageWriteDenied)):
        shared.delete(later, image)


def test_a_long_upload_outlives_its_token_through_a_trust(
    keystone, alice, image_id, keystone_swift
):
    """REL-086; nothing is left of the trust."""
    shared = make_shared_store(keystone)
    expires = time.monotonic() + 5
    short = replace(alice, token=keystone.token("alice", lifetime=5))
    reads_left = [4]

    def outlive_the_token():
        reads_left[0] -= 1
        if not reads_left[0]:
            time.sleep(max(expires - time.monotonic(), 0) + 1)

    content = content_of(4 * MIB)
    url, _ = shared.add(short, image_id, Upload(WatchedSource(content, outlive_the_token)))
    with pytest.raises(errors.Forbidden):
        shared.get(short, url)
    assert read(shared, alice, url) == content
    shared.delete(alice, url)
    assert keystone.request("GET", "/OS-TRUST/trusts")["trusts"] == []


class Peer:
    """A server of one thread per connection, for answers that Swift would not give."""

    def __init__(self, host):
        self._listener = socket.create_server((host, 0))
        self.port = self._listener.getsockname()[1]
        self._threads = []

    def __enter__(self):
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_):
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection):
        with contextlib.suppress(OSError), connection:
            self.serve(connection)


class Liar(Peer):
    """An identity service of version 1 that names any storage URL; remembers being asked."""

    def __init__(self, host, storage_url):
        super().__init__(host)
        self.asked = False
        self._storage_url = storage_url

    def serve(self, connection):
        connection.recv(65536)
        self.asked = True
        connection.sendall(
            b"HTTP/1.1 200 OK\r\nX-Auth-Token: t\r\nContent-Length: 0\r\n"
            + f"X-Storage-Url: {self._storage_url}\r\n\r\n".encode()
        )


class Cutter(Peer):
    """Passes requests on to a port and cuts every answer after so many bytes."""

    def __init__(self, port, after):
        super().__init__("127.0.0.1")
        self._to = port
        self._after = after

    def serve(self, connection):
        with socket.create_connection(("127.0.0.1", self._to)) as server:
            threading.Thread(target=self._pass_on, args=(connection, server), daemon=True).start()
            left = self._after
            while left and (piece := server.recv(min(65536, left))):
                connection.sendall(piece)
                left -= len(piece)
            connection.shutdown(socket.SHUT_RDWR)

    def _pass_on(self, connection, server):
        with contextlib.suppress(OSError):
            while piece := connection.recv(65536):
                server.sendall(piece)
