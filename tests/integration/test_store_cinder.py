"""The Cinder driver against a real Cinder whose volumes are in a real Ceph."""

import contextlib
import functools
import signal
import threading
import time
import urllib.error
import uuid

import pytest
from cinderclient import client
from keystoneauth1 import session, token_endpoint

from common import errors
from common.context import RequestContext
from common.upload import Upload
from glance_store import BackendUnavailable, StorageFull
from glance_store.testing import (
    FailingSource,
    StoreConformance,
    WatchedSource,
    content_of,
    upload_of,
)
from tests.integration.lifecycle import StoreLifecycle
from tests.integration.unfinished import killed_add
from tests.servers.ceph import Ceph
from tests.servers.cinder import Cinder
from tests.servers.keystone import Keystone

MIB = 1024 * 1024
GIB = 1024 * MIB


@pytest.fixture(scope="module")
def cinder():
    Cinder.require()
    with Cinder() as server:
        # So long is a killed client that had an image open taken for alive; 30 s by default.
        server.ceph.ceph("config", "set", "osd", "osd_client_watch_timeout", "3")
        yield server


def new_store(**options):
    from glance_store.drivers.cinder import CinderStore

    defaults = {option.dest: option.default for option in CinderStore.options}
    return CinderStore({**defaults, "cinder_state_transition_timeout": 60, **options})


def make_store(server, **options):
    return new_store(**{"cinder_endpoint_template": server.endpoint_template, **options})


@pytest.fixture(scope="module")
def shared_store(cinder):
    return make_store(cinder)


@pytest.fixture
def store(shared_store):
    return shared_store


@pytest.fixture
def ctx(cinder):
    return RequestContext(user="glance", tenant=cinder.project, token=cinder.token)


@pytest.fixture
def image_id():
    return str(uuid.uuid4())


@pytest.fixture
def image(store, ctx, image_id):
    """The URL of a stored image, gone after the test."""
    url, _ = store.add(ctx, image_id, upload_of(b"content", 7))
    yield url
    with contextlib.suppress(errors.NotFound):
        store.delete(ctx, url)


def read(store, ctx, url, *extent):
    with contextlib.closing(store.get(ctx, url, *extent)) as body:
        return b"".join(body)


def api_of(server):
    """Cinder's API as its administrator sees it."""
    auth = token_endpoint.Token(server.url, server.token)
    return client.Client("3.44", session=session.Session(auth=auth), os_endpoint=server.url)


def attachments_on(server):
    found = api_of(server).attachments.list(search_opts={"all_tenants": 1})
    return [attachment.id for attachment in found]


def everything_on(server):
    volumes = [f"{volume['id']} {volume['status']}" for volume in server.volumes()]
    return frozenset([*volumes, *attachments_on(server), *server.ceph.rbd_images("volumes")])


def eventually(condition, seconds=30):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.2)


class TestCinder(StoreConformance):
    chunk = 8 * MIB
    malformed = (
        "cinder://",
        "cinder:x",
        "cinder://image",
        f"cinder://{uuid.uuid4()}/more",
        f"cinder://{uuid.uuid4().hex}",
        f"cinder://x{uuid.uuid4()}",
    )

    @pytest.fixture
    def store(self, cinder, shared_store):
        self.server = cinder
        return shared_store

    @pytest.fixture
    def ctx(self, cinder):
        return RequestContext(user="glance", tenant=cinder.project, token=cinder.token)

    def lengths(self):
        return (0, 1, self.chunk, self.chunk + 1)

    def backend(self, store):
        return everything_on(self.server)

    def unfinished_add(self, store, ctx, image_id):
        stored = functools.partial(self.server.ceph.rados_objects, "volumes")
        content = content_of(self.chunk + 3)
        return killed_add(new_store, store.conf, ctx, image_id, content, stored)

    @contextlib.contextmanager
    def broken(self, store):
        with self.server.killed():
            yield


def volume_of(server, url):
    [found] = [volume for volume in server.volumes() if volume["id"] in url]
    return found


def test_volumes_are_described_as_they_always_were(cinder, ctx, image, image_id):
    volume = volume_of(cinder, image)
    assert volume["name"] == f"image-{image_id}"
    assert volume["size"] == 1
    assert volume["status"] == "available"
    assert volume["metadata"] == {
        "glance_image_id": image_id,
        "image_owner": ctx.tenant,
        "image_size": "7",
        "readonly": "True",
    }


def test_an_image_of_unknown_size_outgrows_its_first_volume(cinder, store, ctx, image_id):
    content = content_of(MIB) * 1024 + b"the last few bytes"
    url, _ = store.add(ctx, image_id, upload_of(content))
    assert volume_of(cinder, url)["size"] == 2
    assert store.size(ctx, url) == len(content)
    assert read(store, ctx, url, GIB - MIB) == content[GIB - MIB :]
    store.delete(ctx, url)
    assert attachments_on(cinder) == []


def test_a_volume_without_a_recorded_size_is_read_whole(cinder, store, ctx):
    """Volumes that became images some other way."""
    made = cinder.request("POST", "/volumes", {"volume": {"size": 1}})["volume"]["id"]
    url = f"cinder://{made}"
    eventually(lambda: volume_of(cinder, url)["status"] == "available")
    assert store.size(ctx, url) == GIB
    assert read(store, ctx, url, GIB - 5) == bytes(5)
    store.delete(ctx, url)


def test_a_volume_with_a_snapshot_stays_and_is_readable(cinder, store, ctx, image):
    """REL-070."""
    body = {"snapshot": {"volume_id": volume_of(cinder, image)["id"], "force": True}}
    snapshot = cinder.request("POST", "/snapshots", body)["snapshot"]["id"]
    with pytest.raises(errors.InUse):
        store.delete(ctx, image)
    assert read(store, ctx, image) == b"content"
    cinder.request("DELETE", f"/snapshots/{snapshot}")
    eventually(lambda: is_missing(cinder, f"/snapshots/{snapshot}"))
    store.delete(ctx, image)


def is_missing(server, path):
    try:
        server.request("GET", path)
    except urllib.error.HTTPError as error:
        return error.code == 404
    return False


def test_a_volume_attached_elsewhere_is_neither_deleted_nor_waited_for_without_end(
    cinder, ctx, image
):
    volume_id = volume_of(cinder, image)["id"]
    attachment = api_of(cinder).attachments.create(volume_id, None)
    store = make_store(cinder, cinder_state_transition_timeout=1)
    with pytest.raises(errors.InUse):
        store.delete(ctx, image)
    with pytest.raises(BackendUnavailable):
        store.get(ctx, image)
    api_of(cinder).attachments.delete(attachment["id"])
    assert read(store, ctx, image) == b"content"


def test_servers_without_attachment_records_are_served_too(cinder, ctx, image_id, monkeypatch):
    """As before microversion 3.44."""
    monkeypatch.setattr(
        "glance_store.drivers.cinder_access.Access._microversion", lambda access, endpoint: "3.0"
    )
    store, before = make_store(cinder), everything_on(cinder)
    url, _ = store.add(ctx, image_id, upload_of(b"content", 7))
    assert read(store, ctx, url) == b"content"
    assert volume_of(cinder, url)["status"] == "available"
    store.delete(ctx, url)
    with pytest.raises(errors.ClientDisconnected):
        store.add(ctx, image_id, Upload(FailingSource(b"some"), size=9))
    assert everything_on(cinder) == before


def test_a_used_up_quota_is_a_full_store(cinder, store, ctx, image_id):
    path = f"/os-quota-sets/{cinder.project}"
    before = cinder.request("GET", path)["quota_set"]["volumes"]
    cinder.request("PUT", path, {"quota_set": {"volumes": 0}})
    with pytest.raises(StorageFull):
        store.add(ctx, image_id, upload_of(b"content", 7))
    cinder.request("PUT", path, {"quota_set": {"volumes": before}})


def test_a_backend_that_stops_for_a_while_fails_the_upload_and_nothing_remains(
    cinder, ctx, image_id
):
    """REL-085."""
    before = everything_on(cinder)
    # librbd survives a time-out or two, so this takes a few; but it is back before what cleans
    # up has to give up.
    store = make_store(cinder, cinder_store_operation_timeout=2)
    [osd] = [process for process in cinder.ceph.processes if process.name == "osd"]
    later = threading.Timer(8, osd.signal, [signal.SIGCONT])
    reads = []

    def stop_half_way():
        reads.append(None)
        if len(reads) == 3:
            osd.signal(signal.SIGSTOP)
            later.start()

    source = WatchedSource(content_of(40 * MIB), stop_half_way)
    with pytest.raises(BackendUnavailable):
        store.add(ctx, image_id, Upload(source, size=40 * MIB))
    later.join()
    eventually(lambda: everything_on(cinder) == before)


@pytest.fixture(scope="module")
def keystone_cinder(cinder):
    Keystone.require()
    with Keystone() as keystone, Cinder(cinder.ceph, keystone) as server:
        yield server


def spoil_token(store):
    """What the store believes to be its token is none."""
    access = store._access
    access._own.auth_ref._auth_token = "spoilt"
    assert access._own.get_token(access._session) == "spoilt"


class TestWithKeystone:
    """Fixed credentials, and the caller's with a catalogue."""

    def own(self, server, **options):
        user = server.keystone.service
        return make_store(
            server,
            cinder_endpoint_template=None,
            cinder_store_auth_address=server.keystone.url,
            cinder_store_user_name=user.name,
            cinder_store_password=user.password,
            cinder_store_project_name=user.project,
            **options,
        )

    def test_configured_credentials_own_the_volumes(self, keystone_cinder, image_id):
        store, nobody = self.own(keystone_cinder), RequestContext(tenant="tenant")
        url, _ = store.add(nobody, image_id, upload_of(b"content", 7))
        assert read(store, nobody, url) == b"content"
        volume = volume_of(keystone_cinder, url)
        assert volume["os-vol-tenant-attr:tenant_id"] == keystone_cinder.project
        assert volume["metadata"]["image_owner"] == "tenant"
        store.discard(nobody, image_id)
        assert keystone_cinder.volumes() == []

    def test_a_token_that_is_refused_is_replaced(self, keystone_cinder, image_id):
        """REL-086: between requests, and while a volume is attached."""
        store, nobody = self.own(keystone_cinder), RequestContext(tenant="tenant")
        url, _ = store.add(nobody, image_id, upload_of(b"content", 7))
        body = store.get(nobody, url)
        spoil_token(store)
        body.close()
        assert attachments_on(keystone_cinder) == []
        spoil_token(store)
        store.delete(nobody, url)
        assert keystone_cinder.volumes() == []

    def test_a_callers_volumes_are_found_through_the_catalogue(self, keystone_cinder, image_id):
        alice = keystone_cinder.keystone.users["alice"]
        url_of_alice = f"{keystone_cinder.url.rpartition('/')[0]}/{alice.project_id}"
        catalogue = ({"type": "volumev3", "name": "v", "endpoints": [{"publicURL": url_of_alice}]},)
        ctx = RequestContext(
            user=alice.user_id,
            tenant=alice.project_id,
            token=keystone_cinder.keystone.token("alice"),
            service_catalog=catalogue,
        )
        store = make_store(keystone_cinder, cinder_endpoint_template=None)
        url, _ = store.add(ctx, image_id, upload_of(b"content", 7))
        assert read(store, ctx, url) == b"content"
        assert volume_of(keystone_cinder, url)["os-vol-tenant-attr:tenant_id"] == alice.project_id
        store.delete(ctx, url)

    def test_refused_credentials_are_told_to_nobody(self, keystone_cinder, caplog):
        """SEC-030, SEC-031."""
        caplog.set_level("DEBUG")
        canary = "canary-pa55word"
        store = make_store(
            keystone_cinder,
            cinder_endpoint_template=None,
            cinder_store_auth_address=keystone_cinder.keystone.url,
            cinder_store_user_name="glance",
            cinder_store_password=canary,
            cinder_store_project_name="service",
        )
        with pytest.raises(BackendUnavailable) as caught:
            store.size(RequestContext(), f"cinder://{uuid.uuid4()}")
        assert canary not in caught.value.message
        assert canary not in caplog.text


class CinderWithCeph(Cinder):
    """Dies by its Ceph, because that is where the bytes are; comes back with it."""

    def kill(self):
        self.ceph.kill()

    def restart(self):
        # This Cinder is one process, which may be standing still in one of librados's calls.
        super().kill()
        self.ceph.restart()
        super().restart()


class TestLifecycle(StoreLifecycle):
    @pytest.fixture(scope="class")
    @classmethod
    def backend(cls):
        Cinder.require()
        Keystone.require()
        # What is in memory would not survive being killed.
        with (
            Ceph(store="bluestore") as ceph,
            Keystone() as keystone,
            CinderWithCeph(ceph, keystone) as server,
        ):
            yield server

    @pytest.fixture(scope="class")
    @classmethod
    def options(cls, backend):
        user = backend.keystone.service
        return {
            "stores": "cinder,http",
            "default_store": "cinder",
            "cinder_store_auth_address": backend.keystone.url,
            "cinder_store_user_name": user.name,
            "cinder_store_password": user.password,
            "cinder_store_project_name": user.project,
            "cinder_store_operation_timeout": 3,
            "cinder_http_retries": 0,
            "cinder_state_transition_timeout": 20,
        }

    @pytest.fixture(scope="class")
    @classmethod
    def stored(cls, backend):
        return lambda: everything_on(backend)
