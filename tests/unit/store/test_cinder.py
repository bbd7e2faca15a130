"""The Cinder driver on a Cinder in memory that fails when told to."""

import contextlib
import logging
import sys
import threading
import time
import uuid

import pytest
from cinderclient import exceptions
from keystoneauth1 import exceptions as keystone

from common import errors
from common.context import RequestContext
from common.upload import Upload
from glance_store import BackendUnavailable, BadLocation, BadStoreConfiguration, StorageFull
from glance_store.drivers import cinder as driver
from glance_store.drivers import cinder_api
from glance_store.drivers.cinder import CinderStore
from glance_store.drivers.cinder_access import Access
from glance_store.drivers.cinder_api import ATTACHMENTS_WITH_MODE, Volumes
from glance_store.testing import FailingSource, StoreConformance, content_of, outcomes, upload_of
from tests.clock import Clock
from tests.registry import UNKNOWN_ID
from tests.unit.store.fake_cinder import GIB, FakeCinder

CTX = RequestContext(user="user", tenant="tenant", token="token")
MIB = 1024 * 1024


def conf(**options):
    return {option.dest: option.default for option in CinderStore.options} | options


@pytest.fixture
def cinder(tmp_path, monkeypatch):
    fake = FakeCinder(tmp_path)
    # Nothing here takes time, so nothing waits for it.
    clock = Clock()
    monkeypatch.setattr(clock, "monotonic", time.monotonic)
    monkeypatch.setattr(cinder_api, "time", clock)
    monkeypatch.setattr(
        Access, "volumes", lambda access, ctx: Volumes(fake.client, ATTACHMENTS_WITH_MODE, 0.5)
    )
    return fake


def make_store(cinder):
    store = CinderStore(conf(cinder_state_transition_timeout=1))
    store._host._connector = cinder.brick
    return store


@pytest.fixture
def store(cinder):
    return make_store(cinder)


@pytest.fixture
def image_id():
    return str(uuid.uuid4())


def read(store, url):
    with contextlib.closing(store.get(CTX, url)) as body:
        return b"".join(body)


class TestOnAFake(StoreConformance):
    chunk = 8 * MIB

    @pytest.fixture
    def store(self, cinder):
        self.cinder = cinder
        return make_store(cinder)

    def backend(self, store):
        assert not self.cinder.brick.connected
        return frozenset([*self.cinder.volumes, *self.cinder.attachments])

    @contextlib.contextmanager
    def broken(self, store):
        self.cinder.down = True
        yield
        self.cinder.down = False


def assert_nothing_is_left(cinder, volumes=frozenset()):
    assert set(cinder.volumes) == set(volumes)
    assert not cinder.attachments
    assert not cinder.brick.connected


def steps_of(cinder, work):
    """The calls that work makes when all goes well."""
    mark = len(cinder.calls)
    work()
    return cinder.calls[mark:]


def add(store, size=9):
    return store.add(CTX, str(uuid.uuid4()), upload_of(b"some text", size))[0]


class TestDetaching:
    """SEC-049: whatever fails, the host lets go of the volume, by force, and Cinder knows."""

    def test_failure_at_any_step_of_an_upload(self, cinder, store):
        steps = steps_of(cinder, lambda: store.delete(CTX, add(store)))
        steps = steps[: steps.index("delete")]
        for number, step in enumerate(steps):
            cinder.brick.disconnected.clear()
            connects = cinder.calls.count("connect_volume")
            cinder.fail(number, exceptions.ClientException(500))
            if step == "disconnect_volume":
                # The upload is whole, and Cinder will have the volume detached.
                store.delete(CTX, add(store))
            else:
                with pytest.raises(BackendUnavailable):
                    add(store)
            connects = cinder.calls.count("connect_volume") - connects
            assert [force for _, force in cinder.brick.disconnected[:connects]] == [True] * connects
            assert_nothing_is_left(cinder)

    def test_failure_at_any_step_of_a_download(self, cinder, store):
        url = add(store)
        kept = set(cinder.volumes)
        for number, step in enumerate(steps_of(cinder, lambda: read(store, url))):
            cinder.brick.disconnected.clear()
            connects = cinder.calls.count("connect_volume")
            cinder.fail(number, exceptions.ClientException(500))
            if step in ("disconnect_volume", "attachments.delete"):
                # All has been read by then.
                assert read(store, url) == b"some text"
            else:
                with pytest.raises(BackendUnavailable):
                    read(store, url)
            connects = cinder.calls.count("connect_volume") - connects
            assert [force for _, force in cinder.brick.disconnected] == [True] * connects
            if step == "attachments.delete":
                cinder.client.attachments.delete(*cinder.attachments)
            assert_nothing_is_left(cinder, kept)

    def test_an_upload_that_breaks_off(self, cinder, store, image_id):
        with pytest.raises(errors.ClientDisconnected):
            store.add(CTX, image_id, Upload(FailingSource(b"some"), size=9))
        assert [force for _, force in cinder.brick.disconnected] == []
        with pytest.raises(errors.ClientDisconnected):
            store.add(CTX, image_id, Upload(FailingSource(content_of(9 * MIB)), size=99 * MIB))
        assert [force for _, force in cinder.brick.disconnected] == [True]
        assert_nothing_is_left(cinder)

    def test_a_device_of_the_wrong_size_is_not_touched(self, cinder, store, monkeypatch):
        """REL-097, CVE-2023-2088: it may be another tenant's volume."""
        other = cinder.directory / "other"
        other.write_bytes(b"not ours")
        monkeypatch.setattr(cinder.brick, "connect_volume", lambda info: {"path": str(other)})
        with pytest.raises(BackendUnavailable):
            add(store)
        assert other.read_bytes() == b"not ours"
        assert [force for _, force in cinder.brick.disconnected] == [True]
        assert_nothing_is_left(cinder)

    def test_credentials_of_the_connection_are_not_logged(self, cinder, store, caplog):
        """SEC-031."""
        caplog.set_level(logging.DEBUG)
        steps = steps_of(cinder, lambda: store.delete(CTX, add(store)))
        cinder.fail(steps.index("connect_volume"), RuntimeError("password canary is wrong"))
        with pytest.raises(BackendUnavailable) as caught:
            add(store)
        assert "canary" not in caplog.text + caught.value.message


class TestReaders:
    def test_of_one_process_share_an_attachment(self, cinder, store):
        url = add(store)
        mark = len(cinder.calls)
        first, second = store.get(CTX, url), store.get(CTX, url)
        assert cinder.calls[mark:].count("attachments.create") == 1
        first.close()
        assert b"".join(second) == b"some text"
        second.close()
        assert_nothing_is_left(cinder, cinder.volumes)

    def test_have_let_go_when_they_hand_out_the_last_piece(self, cinder, store):
        """Or a delete that follows a download would find the volume in use."""
        url = add(store)
        body = store.get(CTX, url)
        assert next(iter(body)) == b"some text"
        store.delete(CTX, url)
        body.close()

    def test_wait_for_a_volume_that_is_in_use(self, cinder, store, monkeypatch):
        url = add(store)
        [volume] = cinder.volumes.values()
        volume.status = "in-use"

        def look(_):
            if len(clock.slept) == 3:
                volume.status = "available"

        clock = Clock(look)
        monkeypatch.setattr(cinder_api, "time", clock)
        assert read(store, url) == b"some text"
        assert clock.slept == sorted(clock.slept)

    def test_do_not_wait_without_end(self, cinder, store, monkeypatch):
        url = add(store)
        [volume] = cinder.volumes.values()
        volume.status = "in-use"
        clock = Clock()
        monkeypatch.setattr(cinder_api, "time", clock)
        with pytest.raises(BackendUnavailable):
            store.get(CTX, url)
        assert clock.now == pytest.approx(1)

    def test_give_up_on_a_volume_that_is_free_and_yet_refused(self, cinder, store, monkeypatch):
        url = add(store)

        def refuse(*args, **kwargs):
            raise exceptions.BadRequest(400)

        monkeypatch.setattr(cinder.client.attachments, "create", refuse)
        with pytest.raises(BackendUnavailable):
            store.get(CTX, url)

    def test_who_wait_for_an_attachment_that_fails_fail_with_it(self, cinder, store, monkeypatch):
        """REL-085."""
        url = add(store)
        attempts = []
        together = threading.Event()

        def fail(info):
            attempts.append(None)
            assert together.wait(10)
            raise RuntimeError

        monkeypatch.setattr(cinder.brick, "connect_volume", fail)
        [volume_id] = cinder.volumes

        def watch():
            while getattr(store._readings.get(volume_id), "users", 0) < 6:
                together.wait(0.001)
            together.set()

        watching = threading.Thread(target=watch)
        watching.start()
        found = outcomes([lambda: store.get(CTX, url)] * 6)
        watching.join()
        assert [type(error) for error in found] == [BackendUnavailable] * 6
        assert len(attempts) == 1
        assert_nothing_is_left(cinder, cinder.volumes)


class TestSizes:
    @pytest.mark.parametrize(
        ("size", "gibibytes"), [(0, 1), (1, 1), (GIB, 1), (GIB + 1, 2), (5 * GIB, 5)]
    )
    def test_a_known_size_is_rounded_up_to_gibibytes(
        self, cinder, store, image_id, size, gibibytes
    ):
        made = []
        cinder.make = lambda size, name, metadata: made.append(size) or 1 / 0
        with pytest.raises(ZeroDivisionError):
            store.add(CTX, image_id, upload_of(b"", size))
        assert made == [gibibytes]

    def test_a_growing_volume_is_extended_a_few_times_and_little_too_far(
        self, cinder, store, monkeypatch
    ):
        monkeypatch.setattr(driver, "_GIB", MIB)
        monkeypatch.setattr("glance_store.drivers.cinder_host._GIB", MIB)
        monkeypatch.setattr(driver, "_CHUNK", MIB)
        monkeypatch.setattr("tests.unit.store.fake_cinder.GIB", MIB)
        content = content_of(MIB) * 100 + b"more"
        url, _ = store.add(CTX, str(uuid.uuid4()), upload_of(content))
        [volume] = cinder.volumes.values()
        assert volume.size <= 114
        assert cinder.calls.count("extend") <= 35
        assert store.size(CTX, url) == len(content)
        assert read(store, url) == content

    @pytest.mark.parametrize(
        ("recorded", "size"), [("7", 7), ("-1", GIB), ("x", GIB), (str(2 * GIB), GIB), ("", GIB)]
    )
    def test_a_recorded_size_is_believed_within_the_volume(self, cinder, store, recorded, size):
        url = add(store)
        [volume] = cinder.volumes.values()
        volume.metadata["image_size"] = recorded
        assert store.size(CTX, url) == size


class TestInUse:
    """REL-070."""

    def test_a_volume_that_cinder_finds_busy_stays(self, cinder, store):
        url = add(store)
        cinder.busy.update(cinder.volumes)
        with pytest.raises(errors.InUse):
            store.delete(CTX, url)
        assert read(store, url) == b"some text"

    def test_a_volume_that_is_read_stays(self, cinder, store):
        url = add(store)
        body = store.get(CTX, url)
        with pytest.raises(errors.InUse):
            store.delete(CTX, url)
        assert b"".join(body) == b"some text"
        body.close()
        store.delete(CTX, url)


def test_of_two_processes_that_add_one_image_the_older_volume_stays(cinder, store, image_id):
    """REL-006: neither saw the other's when it looked."""
    create = cinder.client.volumes.create

    def create_second(size, name, metadata):
        cinder.make(1, name, {"glance_image_id": image_id, "glance_upload": "theirs"})
        return create(size, name=name, metadata=metadata)

    cinder.client.volumes.create = create_second
    with pytest.raises(errors.Duplicate):
        store.add(CTX, image_id, upload_of(b"content"))
    [volume] = cinder.volumes.values()
    assert volume.metadata["glance_upload"] == "theirs"


def test_a_volume_whose_creation_got_no_answer_is_found_and_deleted(cinder, store, image_id):
    create = cinder.client.volumes.create

    def create_without_answer(size, name, metadata):
        create(size, name=name, metadata=metadata)
        raise keystone.ConnectTimeout()

    cinder.client.volumes.create = create_without_answer
    with pytest.raises(BackendUnavailable):
        store.add(CTX, image_id, upload_of(b"content"))
    assert_nothing_is_left(cinder)


def test_volumes_of_that_name_which_are_nobodys_image_do_not_matter(cinder, store, image_id):
    cinder.make(1, f"image-{image_id}", {}, "available")
    url, _ = store.add(CTX, image_id, upload_of(b"content"))
    store.discard(CTX, image_id)
    assert len(cinder.volumes) == 1
    with pytest.raises(errors.NotFound):
        store.size(CTX, url)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (exceptions.NotFound(404), errors.NotFound),
        (exceptions.OverLimit(413), StorageFull),
        (exceptions.Forbidden(403), errors.Forbidden),
        (exceptions.Unauthorized(401), BackendUnavailable),
        (exceptions.ClientException(500), BackendUnavailable),
        (exceptions.BadRequest(400), BackendUnavailable),
        (keystone.ConnectFailure("http://secret.example"), BackendUnavailable),
        (keystone.EndpointNotFound("http://secret.example"), BackendUnavailable),
    ],
)
def test_what_cinder_answers_gets_the_domains_meaning(cinder, store, image_id, error, expected):
    """SEC-030."""
    cinder.fail(1, error)
    with pytest.raises(expected) as caught:
        store.add(CTX, image_id, upload_of(b"content"))
    assert "secret" not in caught.value.message


@pytest.mark.parametrize(
    "url",
    [
        "cinder://;id", "cinder://`id`", "cinder://$(id)", "cinder://-x", "cinder://",
        f"cinder://{UNKNOWN_ID}\n", f"cinder://{UNKNOWN_ID};id", f"cinder://-{UNKNOWN_ID}",
        f"cinder:{UNKNOWN_ID}", f"CINDER://{UNKNOWN_ID}", f"cinder://{UNKNOWN_ID}/..",
    ],
)  # fmt: skip
def test_hostile_locations_are_bad_and_ask_nothing(cinder, store, url):
    """SEC-042."""
    for call in (store.validate, lambda bad: store.get(CTX, bad)):
        with pytest.raises(BadLocation):
            call(url)
    assert cinder.calls == []


class TestConfiguration:
    @pytest.mark.parametrize("module", ["cinderclient", "os_brick"])
    def test_missing_libraries_are_named(self, monkeypatch, module):
        for name in [name for name in sys.modules if name.partition(".")[0] == module]:
            monkeypatch.delitem(sys.modules, name)
        monkeypatch.setitem(sys.modules, module, None)
        with pytest.raises(BadStoreConfiguration, match="cinder"):
            CinderStore(conf())

    @pytest.mark.parametrize("info", ["volumev3", "volumev3:publicURL", "a:b:c:d", ""])
    def test_catalogue_info_needs_three_parts(self, info):
        with pytest.raises(BadStoreConfiguration, match="cinder_catalog_info"):
            CinderStore(conf(cinder_catalog_info=info))

    def test_only_configured_credentials_are_lent(self):
        """SEC-040."""
        names = ("auth_address", "user_name", "password", "project_name")
        account = {f"cinder_store_{name}": "http://x" for name in names}
        assert CinderStore(conf(**account)).lends_rights(CTX, "cinder://id")
        assert not CinderStore(conf()).lends_rights(CTX, "cinder://id")

    def test_options_are_mitakas(self):
        """10.22."""
        defaults = {option.name: option.default for option in CinderStore.options}
        assert (
            defaults.items()
            >= {
                "cinder_catalog_info": "volumev2::publicURL",
                "cinder_endpoint_template": None,
                "cinder_os_region_name": None,
                "cinder_ca_certificates_file": None,
                "cinder_http_retries": 3,
                "cinder_state_transition_timeout": 300,
                "cinder_api_insecure": False,
                "cinder_store_auth_address": None,
                "cinder_store_user_name": None,
                "cinder_store_password": None,
                "cinder_store_project_name": None,
                "rootwrap_config": "/etc/glance/rootwrap.conf",
            }.items()
        )

    def test_the_password_is_a_secret_option(self):
        """SEC-031."""
        assert [option.name for option in CinderStore.options if option.secret] == [
            "cinder_store_password"
        ]


CATALOGUE = (
    {"type": "compute", "name": "nova", "endpoints": [{"publicURL": "http://nova"}]},
    {
        "type": "volumev3",
        "name": "cinderv3",
        "endpoints": [
            {"region": "one", "publicURL": "http://one/v3/p", "internalURL": "http://in/v3/p"},
            {"region": "two", "publicURL": "http://two/v3/p"},
        ],
    },
    {
        "type": "block-storage",
        "name": "cinder",
        "endpoints": [
            {"region_id": "one", "interface": "internal", "url": "http://new-in/v3/p"},
            {"region_id": "one", "interface": "public", "url": "http://new/v3/p"},
        ],
    },
)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, "http://one/v3/p"),
        ({"cinder_os_region_name": "two"}, "http://two/v3/p"),
        ({"cinder_catalog_info": "volumev3:cinderv3:internalURL"}, "http://in/v3/p"),
        ({"cinder_catalog_info": "block-storage::publicURL"}, "http://new/v3/p"),
        ({"cinder_catalog_info": "block-storage:cinder:internalURL"}, "http://new-in/v3/p"),
        ({"cinder_endpoint_template": "http://fixed/v3/%(tenant)s"}, "http://fixed/v3/tenant"),
        ({"cinder_endpoint_template": "http://fixed/%(project_id)s"}, "http://fixed/tenant"),
    ],
)
def test_the_callers_catalogue_leads_to_cinder(options, expected):
    ctx = RequestContext(tenant="tenant", service_catalog=CATALOGUE)
    assert Access(conf(**options))._callers_endpoint(ctx) == expected


@pytest.mark.parametrize(
    "options",
    [
        {"cinder_catalog_info": "volume:other:publicURL"},
        {"cinder_os_region_name": "three"},
        {"cinder_endpoint_template": "http://fixed/%(no such)s"},
        {"cinder_endpoint_template": "http://fixed/%d"},
    ],
)
def test_no_endpoint_is_an_unavailable_backend(options):
    with pytest.raises(BackendUnavailable):
        Access(conf(**options))._callers_endpoint(RequestContext(service_catalog=CATALOGUE))
