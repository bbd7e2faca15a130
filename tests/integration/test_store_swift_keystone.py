"""The Swift driver with Keystone: an account of the service, and those of the uploaders."""

import contextlib
import time
import urllib.error
import urllib.request
import uuid
from dataclasses import replace
from urllib.parse import quote

import pytest

from common import errors
from common.context import RequestContext
from common.upload import Upload
from glance_store import BadLocation, Capability, StorageWriteDenied
from glance_store.testing import WatchedSource, content_of, upload_of
from tests.integration.swift_stores import (
    MIB,
    SEGMENTED,
    Liar,
    SwiftConformance,
    account_options,
    check_that_credentials_stay_secret,
    context_of,
    make_store,
    read,
)
from tests.integration.unfinished import killed_add
from tests.servers.keystone import Keystone
from tests.servers.swift import Swift


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
def known_to_keystone(keystone_swift):
    return make_store(**account_options(keystone_swift))


@pytest.fixture
def ctx():
    return RequestContext(user="user", tenant="tenant")


@pytest.fixture
def image_id():
    return str(uuid.uuid4())


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


def test_wrong_credentials_are_unavailable_and_never_told_or_logged(keystone_swift, ctx, caplog):
    """SEC-030, SEC-031."""
    check_that_credentials_stay_secret(keystone_swift, ctx, caplog)


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

    def test_they_open_an_image_for_the_tenant_in_whose_account_it_is(
        self, entitled, alice, bob, image
    ):
        """What a location of somebody else's would gain a tenant otherwise."""
        with pytest.raises(errors.Forbidden):
            entitled.set_acls(RequestContext(tenant=bob.tenant), image, public=True)
        with pytest.raises(errors.Forbidden):
            entitled.size(bob, image)
        entitled.set_acls(RequestContext(tenant=alice.tenant), image, public=True)
        assert entitled.size(bob, image) == 2 * MIB + 7

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
