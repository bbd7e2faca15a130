"""The VMware driver against vCenter's simulator, behind a front that expires and fails."""

import io
import itertools
import logging
import socket
import time
import traceback
import uuid

import pytest

from common import errors
from common.context import RequestContext
from common.upload import Upload
from glance_store import BackendUnavailable, StorageFull, StorageWriteDenied
from glance_store.drivers import vmware, vmware_files, vmware_session
from glance_store.drivers.vmware import VMwareStore
from glance_store.drivers.vmware_files import CHUNK
from glance_store.testing import (
    FailingSource,
    StoreConformance,
    WatchedSource,
    content_of,
    upload_of,
)
from tests.integration.lifecycle import StoreLifecycle
from tests.servers.vcenter import VCenter


@pytest.fixture(scope="module")
def vcenter():
    VCenter.require()
    with VCenter() as server:
        yield server


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch):
    monkeypatch.setattr(vmware_session, "FIRST_PAUSE", 0.01)
    monkeypatch.setattr(vmware, "_UNDO_AFTER", (0.0, 0.1, 0.3))


def store_on(vcenter, **conf):
    return VMwareStore(
        {
            "vmware_server_host": vcenter.host,
            "vmware_server_username": vcenter.user,
            "vmware_server_password": vcenter.password,
            "vmware_ca_file": str(vcenter.ca),
            "vmware_datastores": [f"{vcenter.datacenter}:{vcenter.datastore}:1"],
            "vmware_api_retry_count": 3,
            **conf,
        }
    )


@pytest.fixture
def store(vcenter):
    return store_on(vcenter)


@pytest.fixture
def ctx():
    return RequestContext()


class TestVMware(StoreConformance):
    chunk = CHUNK
    malformed = (
        "vsphere://",
        "vsphere:x",
        "vsphere://h/folder/openstack_glance/x",
        "vsphere://h/folder/openstack_glance/x?dcPath=DC0",
        "vsphere://h/folder/openstack_glance?dcPath=DC0&dsName=LocalDS_0",
        "vsphere://h/folder/openstack_glance/?dcPath=DC0&dsName=LocalDS_0",
        "vsphere://h/folder/openstack_glance/../secrets?dcPath=DC0&dsName=LocalDS_0",
        "vsphere://h/folder/openstack_glance/%2e%2e/secrets?dcPath=DC0&dsName=LocalDS_0",
        "vsphere://h/folder/another/directory?dcPath=DC0&dsName=LocalDS_0",
    )

    @pytest.fixture
    def store(self, store, vcenter):
        self.vcenter = vcenter
        return store

    def backend(self, store):
        return frozenset(self.vcenter.files())

    def broken(self, store):
        return self.vcenter.killed()


def when_arriving(vcenter, act):
    """A watch of a source that acts once, when the datastore shows the file being uploaded."""
    reads = itertools.count()

    def watch():
        # By the third read the first chunk is on its way; the file is there soon after.
        if next(reads) == 2:
            deadline = time.monotonic() + 10
            while not vcenter.files():
                assert time.monotonic() < deadline
                time.sleep(0.02)
            act()

    return watch


def test_url_names_host_file_datacenter_and_datastore(store, ctx, vcenter):
    image_id = str(uuid.uuid4())
    url, metadata = store.add(ctx, image_id, upload_of(b"content"))
    assert url == (
        f"vsphere://{vcenter.host}/folder/openstack_glance/{image_id}?dcPath=DC0&dsName=LocalDS_0"
    )
    assert metadata == {}
    assert vcenter.files() == {f"openstack_glance/{image_id}": 7}
    store.delete(ctx, url)


def test_building_the_store_and_its_urls_connects_to_nothing(vcenter):
    """REL-097: list and HEAD never initialise a driver."""
    before = len(vcenter.requests)
    url = f"vsphere://{vcenter.host}/folder/openstack_glance/x?dcPath=DC0&dsName=LocalDS_0"
    store_on(vcenter).validate(url)
    assert len(vcenter.requests) == before


def test_sessions_that_expired_between_transfers_are_renewed(store, ctx, vcenter):
    """REL-086."""
    url, _ = store.add(ctx, str(uuid.uuid4()), upload_of(b"content"))
    vcenter.expire_sessions()
    assert b"".join(store.get(ctx, url)) == b"content"
    vcenter.expire_sessions()
    assert store.size(ctx, url) == 7
    vcenter.expire_sessions()
    other, _ = store.add(ctx, str(uuid.uuid4()), upload_of(content_of(3 * CHUNK)))
    vcenter.expire_sessions()
    store.delete(ctx, url)
    vcenter.expire_sessions()
    assert [stored.url for stored in store.contents()] == [other]
    store.delete(ctx, other)


def test_session_that_expires_during_an_upload_is_renewed(store, ctx, vcenter):
    """REL-086: the bytes have arrived, and moving them to their place needs a new login."""
    content = content_of(4 * CHUNK)
    source = WatchedSource(content, when_arriving(vcenter, vcenter.expire_sessions))
    url, _ = store.add(ctx, str(uuid.uuid4()), Upload(source, size=len(content)))
    assert b"".join(store.get(ctx, url)) == content
    store.delete(ctx, url)


@pytest.mark.parametrize("size", [7, None], ids=["size known", "size unknown"])
def test_upload_that_is_refused_before_anything_is_lost_is_sent_again(store, ctx, vcenter, size):
    """REL-086: 401 on the upload itself, while all of it is still in hand."""
    vcenter.answer(401, method="PUT")
    url, _ = store.add(ctx, str(uuid.uuid4()), upload_of(b"content", size))
    assert b"".join(store.get(ctx, url)) == b"content"
    store.delete(ctx, url)


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (401, BackendUnavailable),
        (403, (StorageWriteDenied, BackendUnavailable)),
        (409, (errors.Duplicate, BackendUnavailable)),
        (500, BackendUnavailable),
        (503, BackendUnavailable),
        (507, (StorageFull, BackendUnavailable)),
        (0, BackendUnavailable),
    ],
)
def test_refused_upload_fails_cleanly_and_leaves_nothing(store, ctx, vcenter, status, error):
    """REL-001, REL-017.

    Where the server closes at once, its answer may be lost on the way: then it is just away.
    """
    vcenter.answer(status, times=99, method="PUT")
    with pytest.raises(error) as caught:
        store.add(ctx, str(uuid.uuid4()), upload_of(content_of(8 * CHUNK), 8 * CHUNK))
    assert vcenter.host not in caught.value.message
    vcenter.recover()
    assert vcenter.files() == {}


@pytest.mark.parametrize(
    ("status", "error"),
    [(403, StorageWriteDenied), (409, errors.Duplicate), (507, StorageFull)],
)
def test_short_upload_tells_why_it_was_refused(store, ctx, vcenter, status, error):
    """REL-017."""
    vcenter.answer(status, method="PUT")
    with pytest.raises(error):
        store.add(ctx, str(uuid.uuid4()), upload_of(b"content", 7))
    assert vcenter.files() == {}


@pytest.mark.parametrize("status", [503, 0])
def test_passing_failure_of_a_read_goes_unnoticed(store, ctx, vcenter, status):
    url, _ = store.add(ctx, str(uuid.uuid4()), upload_of(b"content"))
    vcenter.answer(status, times=2, path="/folder")
    assert b"".join(store.get(ctx, url)) == b"content"
    vcenter.answer(status, times=2, path="/sdk")
    store.delete(ctx, url)
    assert vcenter.files() == {}


@pytest.mark.parametrize("status", [401, 403, 500, 503, 0])
def test_lasting_failure_of_a_read_is_reported(store, ctx, vcenter, status):
    url, _ = store.add(ctx, str(uuid.uuid4()), upload_of(b"content"))
    for call in (store.get, store.size):
        vcenter.answer(status, times=4, path="/folder")
        with pytest.raises(BackendUnavailable) as caught:
            call(ctx, url)
        assert vcenter.host not in caught.value.message
        vcenter.recover()
    store.delete(ctx, url)


def test_move_whose_answer_was_lost_counts(store, ctx, vcenter, monkeypatch):
    """REL-001: a repeated move finds nothing to move, and the image is whole."""
    run = store._session.run

    def run_twice(method, *args, **arguments):
        if method == "MoveDatastoreFile_Task":
            run(method, *args, **arguments)
        return run(method, *args, **arguments)

    monkeypatch.setattr(store._session, "run", run_twice)
    url, _ = store.add(ctx, str(uuid.uuid4()), upload_of(b"content"))
    assert b"".join(store.get(ctx, url)) == b"content"
    store.delete(ctx, url)


def test_upload_discarded_before_it_ended_is_refused(store, ctx, vcenter):
    """REL-009: an upload that was given up for dead must not end as an image."""
    image_id = str(uuid.uuid4())
    content = content_of(4 * CHUNK)
    discard = when_arriving(vcenter, lambda: store.discard(ctx, image_id))
    with pytest.raises(errors.Conflict):
        store.add(ctx, image_id, Upload(WatchedSource(content, discard)))
    assert vcenter.files() == {}


def test_server_that_dies_during_an_upload_fails_it_soon(store, ctx, vcenter):
    """REL-085. What the server had received stays until the upload is discarded (REL-009)."""
    image_id = str(uuid.uuid4())
    started = time.monotonic()
    source = WatchedSource(content_of(20 * CHUNK), when_arriving(vcenter, vcenter.kill))
    with pytest.raises(BackendUnavailable):
        store.add(ctx, image_id, Upload(source, size=20 * CHUNK))
    assert time.monotonic() - started < 15
    vcenter.restart()
    [left] = store.contents()
    assert (left.image_id, left.complete) == (image_id, False)
    store.discard(ctx, image_id)
    assert vcenter.files() == {}


def test_server_that_dies_during_a_download_ends_it_with_an_error(store, ctx, vcenter):
    """REL-032: never a short image passed off as whole."""
    url, _ = store.add(ctx, str(uuid.uuid4()), upload_of(content_of(64 * CHUNK)))
    body = store.get(ctx, url)
    chunks = iter(body)
    next(chunks)
    with vcenter.killed(), pytest.raises(BackendUnavailable):
        list(chunks)
    body.close()
    store.delete(ctx, url)


def test_silent_server_is_given_up_in_bounded_time(vcenter, ctx, monkeypatch):
    """REL-085: connected, and then nothing."""
    monkeypatch.setattr(vmware_files, "TIMEOUT", 0.3)
    monkeypatch.setattr(vmware_session, "CALL_TIMEOUT", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        host = f"127.0.0.1:{silent.getsockname()[1]}"
        store = store_on(vcenter, vmware_server_host=host)
        started = time.monotonic()
        with pytest.raises(BackendUnavailable):
            store.add(ctx, str(uuid.uuid4()), upload_of(b"content"))
        assert time.monotonic() - started < 10


def test_failed_upload_is_undone_when_its_client_left(store, ctx, vcenter):
    with pytest.raises(errors.ClientDisconnected):
        store.add(ctx, str(uuid.uuid4()), Upload(FailingSource(content_of(3 * CHUNK)), size=9**9))
    assert vcenter.files() == {}


def test_server_without_a_trusted_certificate_sees_no_request(vcenter, ctx):
    """SEC-036: verified by default, and nothing is sent after the handshake."""
    store = store_on(vcenter, vmware_ca_file=None)
    url = f"vsphere://{vcenter.host}/folder/openstack_glance/x?dcPath=DC0&dsName=LocalDS_0"
    before = len(vcenter.requests)
    for call in (store.get, store.size, store.delete):
        started = time.monotonic()
        with pytest.raises(BackendUnavailable):
            call(ctx, url)
        assert time.monotonic() - started < 5
    assert len(vcenter.requests) == before


def test_wrong_host_name_in_the_certificate_is_not_trusted(vcenter, ctx):
    """SEC-036."""
    store = store_on(vcenter, vmware_server_host=f"wrong.localhost:{vcenter.port}")
    url = f"vsphere://x/folder/openstack_glance/{uuid.uuid4()}?dcPath=DC0&dsName=LocalDS_0"
    with pytest.raises(BackendUnavailable):
        store.size(ctx, url)


@pytest.mark.filterwarnings("ignore:Unverified HTTPS")
def test_verification_can_be_switched_off(vcenter, ctx):
    store = store_on(vcenter, vmware_ca_file=None, vmware_insecure=True)
    url, _ = store.add(ctx, str(uuid.uuid4()), upload_of(b"content"))
    assert b"".join(store.get(ctx, url)) == b"content"
    store.delete(ctx, url)


def test_password_is_never_logged(vcenter, ctx, caplog):
    """SEC-031: with everything at DEBUG, with a login that works and one that does not."""
    for name in ("", "suds", "oslo_vmware", "urllib3", "requests"):
        caplog.set_level(logging.DEBUG, logger=name)
    store = store_on(vcenter)
    url, _ = store.add(ctx, str(uuid.uuid4()), upload_of(b"content"))
    store.delete(ctx, url)
    canary = "canary-pa55word"
    with pytest.raises(BackendUnavailable) as caught:
        store_on(vcenter, vmware_server_password=canary).delete(ctx, url)
    shown = io.StringIO()
    traceback.print_exception(caught.value, file=shown)
    for text in (caplog.text, shown.getvalue()):
        assert vcenter.password not in text
        assert canary not in text


def test_one_missing_datacenter_does_not_sink_the_rest(vcenter, ctx):
    """REL-087."""
    place = f"{vcenter.datacenter}:{vcenter.datastore}"
    store = store_on(vcenter, vmware_datastores=["DC9:other:9", "DC0:missing:5", place])
    url, _ = store.add(ctx, str(uuid.uuid4()), upload_of(b"content"))
    assert url.endswith("?dcPath=DC0&dsName=LocalDS_0")
    store.delete(ctx, url)


def test_upload_larger_than_every_datastore_is_refused_unread(store, ctx, vcenter):
    """REL-017: the simulator has 8 GiB free."""
    upload = upload_of(b"content", 9 << 30)
    with pytest.raises(StorageFull):
        store.add(ctx, str(uuid.uuid4()), upload)
    assert upload.bytes_read == 0
    assert vcenter.files() == {}


class TestLifecycle(StoreLifecycle):
    @pytest.fixture(scope="class")
    @classmethod
    def backend(cls):
        VCenter.require()
        with VCenter() as server:
            yield server

    @pytest.fixture(scope="class")
    @classmethod
    def options(cls, backend):
        return {
            "stores": "vmware,http",
            "default_store": "vsphere",
            "vmware_server_host": backend.host,
            "vmware_server_username": backend.user,
            "vmware_server_password": backend.password,
            "vmware_ca_file": backend.ca,
            "vmware_datastores": f"{backend.datacenter}:{backend.datastore}:1",
            "vmware_api_retry_count": 3,
        }

    @pytest.fixture(scope="class")
    @classmethod
    def stored(cls, backend):
        return backend.files
