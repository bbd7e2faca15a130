"""What the VMware driver decides without a server."""

import sys
import uuid

import pytest

from common import errors
from common.context import RequestContext
from glance_store import BackendUnavailable, BadLocation, BadStoreConfiguration, StorageFull
from glance_store.drivers import vmware, vmware_files, vmware_session
from glance_store.drivers.vmware import VMwareStore
from glance_store.drivers.vmware_files import DatastoreFile, FileServer, parse_url
from glance_store.drivers.vmware_session import Server, Transient, VSphereFault, VSphereSession
from glance_store.drivers.vmware_settings import Datastore
from glance_store.testing import content_of, upload_of
from tests.clock import Clock

SECRET = "canary-pa55word"
CONF = {
    "vmware_server_host": "vc.example",
    "vmware_server_username": "glance",
    "vmware_server_password": SECRET,
    "vmware_datastores": ["dc1:ds1:100"],
}
URL = "vsphere://vc.example/folder/openstack_glance/name?dcPath=dc1&dsName=ds1"


@pytest.mark.parametrize(
    ("change", "option"),
    [
        ({"vmware_server_host": None}, "vmware_server_host"),
        ({"vmware_server_host": "vc.example:port"}, "vmware_server_host"),
        ({"vmware_server_username": ""}, "vmware_server_username"),
        ({"vmware_server_password": None}, "vmware_server_password"),
        ({"vmware_datastores": []}, "vmware_datastores"),
        ({"vmware_datastores": ["dc1"]}, "vmware_datastores"),
        ({"vmware_datastores": [":ds1:1"]}, "vmware_datastores"),
        ({"vmware_datastores": ["dc1::1"]}, "vmware_datastores"),
        ({"vmware_datastores": ["dc1:ds1:-1"]}, "vmware_datastores"),
        ({"vmware_datastores": ["dc1:ds1:heavy"]}, "vmware_datastores"),
        ({"vmware_api_retry_count": 0}, "vmware_api_retry_count"),
        ({"vmware_task_poll_interval": -1}, "vmware_task_poll_interval"),
        ({"vmware_store_image_dir": "/"}, "vmware_store_image_dir"),
        ({"vmware_store_image_dir": "/a/../b"}, "vmware_store_image_dir"),
        ({"vmware_ca_file": "/does/not/exist"}, "vmware_ca_file"),
    ],
)
def test_configuration_that_cannot_work_is_refused_by_option_name(change, option):
    with pytest.raises(BadStoreConfiguration, match=option) as caught:
        VMwareStore({**CONF, **change})
    assert SECRET not in str(caught.value)


def test_missing_library_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "oslo_vmware", None)
    with pytest.raises(BadStoreConfiguration, match="`vmware`"):
        VMwareStore(CONF)


def test_options_are_those_of_mitaka_with_their_defaults():
    """middleware-and-config.md 10.23."""
    assert {option.name: option.default for option in VMwareStore.options} == {
        "vmware_server_host": None,
        "vmware_server_username": None,
        "vmware_server_password": None,
        "vmware_api_retry_count": 10,
        "vmware_task_poll_interval": 5,
        "vmware_store_image_dir": "/openstack_glance",
        "vmware_insecure": False,
        "vmware_ca_file": None,
        "vmware_datastores": [],
    }


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ("dc1:ds1:100", Datastore("dc1", "ds1", 100)),
        ("dc1:ds1", Datastore("dc1", "ds1", 0)),
        ("dc1:ds1:", Datastore("dc1", "ds1", 0)),
        (" folder/dc 1 : ds 1 : 5 ", Datastore("folder/dc 1", "ds 1", 5)),
        ("a:b:ds1:7", Datastore("a:b", "ds1", 7)),
    ],
)
def test_datastores_are_read_from_the_right(entry, expected):
    assert VMwareStore({**CONF, "vmware_datastores": [entry]})._datastores == (expected,)


def mounted(name, weight, free):
    return vmware._Mounted(Datastore("dc1", name, weight), None, None, free)


@pytest.mark.parametrize(
    ("size", "expected"),
    [(0, "heavy, free"), (50, "heavy, free"), (150, "light, free"), (250, None)],
)
def test_weight_and_free_space_choose_the_datastore(size, expected):
    candidates = [
        mounted("light, full", 1, 10),
        mounted("light, free", 1, 200),
        mounted("heavy, full", 9, 20),
        mounted("heavy, free", 9, 100),
    ]
    if expected is None:
        with pytest.raises(StorageFull):
            vmware._choose(candidates, size)
    else:
        assert vmware._choose(candidates, size).datastore.name == expected


@pytest.mark.parametrize(
    ("file", "target"),
    [
        (
            DatastoreFile("dc1", "ds1", "openstack_glance/name"),
            "/folder/openstack_glance/name?dcPath=dc1&dsName=ds1",
        ),
        (
            DatastoreFile("folder/dc 1", "ds&1", "images/{a b}%20?#"),
            "/folder/images/%7Ba%20b%7D%2520%3F%23?dcPath=folder%2Fdc+1&dsName=ds%261",
        ),
    ],
)
def test_urls_read_back_as_the_files_they_were_made_of(file, target):
    assert file.target == target
    assert parse_url(file.url("vc.example:444")) == ("vc.example:444", file)


@pytest.mark.parametrize(
    "url",
    [
        URL.replace("vsphere", "https"),
        URL.replace("/folder/", "/folders/"),
        URL.replace("vc.example", ""),
        URL.replace("vc.example", "user:secret@vc.example"),
        URL.replace("name", "name%0d%0aX-Header:%20x/.."),
        URL.replace("name", "a/b"),
        URL.replace("name", "na\nme"),
        URL.replace("openstack_glance/", ""),
        URL.replace("openstack_glance/name", "openstack_glance"),
        URL.replace("openstack_glance/name", "vm-1/disk.vmdk"),
        URL.replace("openstack_glance", "openstack_glance/../vm-1"),
        URL.replace("openstack_glance", "openstack_glance%2f.."),
        URL.replace("dc1", ""),
        URL.replace("&dsName=ds1", ""),
        URL + "&dsName=ds2",
        URL + "#fragment",
        URL.replace("vc.example", "[::1"),
        "vsphere:",
        "",
    ],
)
def test_anything_but_a_file_among_the_images_is_a_bad_location(url):
    """SEC-040: no other file on a datastore can be named, let alone deleted with its directory."""
    with pytest.raises(BadLocation):
        VMwareStore(CONF).validate(url)


def test_url_of_another_server_is_not_accepted_from_a_caller():
    """SEC-043."""
    store = VMwareStore(CONF)
    store.validate(URL)
    with pytest.raises(BadLocation):
        store.validate(URL.replace("vc.example", "attacker.example"))


class FakeSession(VSphereSession):
    """Logged in already; nothing is ever sent."""

    def __init__(self):
        super().__init__(Server("vc.example", 443, "glance", SECRET), retries=3, poll_interval=1)
        self.renewals = 0

    def cookie(self):
        return f"vmware_soap_session={self.renewals}"

    def renew(self, cookie):
        self.renewals += 1


class FakeAnswer:
    def __init__(self, status, location="", length=None):
        self.status, self.location, self.length = status, location, length
        self.closed = False

    def close(self):
        self.closed = True


@pytest.fixture
def server(monkeypatch):
    """A FileServer whose answers are scripted; `asked` has what it would have sent."""
    monkeypatch.setattr(vmware_session, "FIRST_PAUSE", 0)
    session = FakeSession()
    server = FileServer(Server("vc.example", 443, "glance", SECRET), session)
    server.answers, server.asked = [], []

    def exchange(method, target, headers):
        server.asked.append((method, target, headers))
        return server.answers.pop(0)

    monkeypatch.setattr(server, "_exchange", exchange)
    return server


FILE = DatastoreFile("dc1", "ds1", "openstack_glance/name")


def test_expired_session_is_renewed_once_for_a_read(server):
    """REL-086."""
    server.answers = [FakeAnswer(401), FakeAnswer(200, length=5)]
    assert server.size(FILE) == 5
    assert [headers["Cookie"][-1] for _, _, headers in server.asked] == ["0", "1"]
    server.answers = [FakeAnswer(401), FakeAnswer(401)]
    with pytest.raises(BackendUnavailable):
        server.size(FILE)


@pytest.mark.parametrize(
    "location",
    ["/folder/other?dcPath=dc1&dsName=ds1", "https://vc.example/folder/other?dcPath=x"],
)
def test_redirect_within_the_server_is_followed(server, location):
    server.answers = [FakeAnswer(302, location), FakeAnswer(200, length=5)]
    assert server.size(FILE) == 5
    assert server.asked[1][1].startswith("/folder/other?dcPath=")


@pytest.mark.parametrize(
    "location",
    [
        "https://attacker.example/folder/x",
        "https://vc.example:444/folder/x",
        "http://vc.example/folder/x",
        "//attacker.example/folder/x",
        "/elsewhere",
        "",
    ],
)
def test_redirect_never_takes_the_session_elsewhere(server, location):
    """SEC-037."""
    server.answers = [FakeAnswer(302, location)]
    with pytest.raises(BackendUnavailable):
        server.size(FILE)
    assert len(server.asked) == 1


def test_redirects_without_end_are_given_up(server):
    server.answers = [FakeAnswer(302, "/folder/again") for _ in range(50)]
    with pytest.raises(BackendUnavailable):
        server.size(FILE)
    assert len(server.asked) == 1 + vmware_files.MAX_REDIRECTS


class ScriptedAnswer(vmware_files._Answer):
    """An answer with these bytes behind it, closed by the server when they are used up."""

    def __init__(self, status, content, length):
        self.status, self.location, self.length = status, "", length
        self._content = content

    def close(self):
        pass

    def _read(self, left, *, whole):
        self._response = self
        return super()._read(left, whole=whole)

    def read(self, size):
        piece, self._content = self._content[: min(size, 3)], self._content[min(size, 3) :]
        return piece


@pytest.mark.parametrize("length", [10, None], ids=["size told", "size not told"])
def test_server_that_ignores_the_range_is_cut_to_it(server, length):
    for offset, wanted in ((0, None), (4, None), (4, 3), (0, 3)):
        server.answers = [ScriptedAnswer(200, b"0123456789", length)]
        assert b"".join(server.open(FILE, offset, wanted)) == b"0123456789"[offset:][:wanted]


def test_body_that_is_cut_off_is_an_error(server):
    """REL-032."""
    server.answers = [ScriptedAnswer(206, b"01234", 6)]
    with pytest.raises(BackendUnavailable):
        list(server.open(FILE, 4))


@pytest.mark.parametrize(
    ("read_before_failing", "attempts"), [(0, 4), (1, 1)], ids=["nothing lost", "something lost"]
)
def test_upload_is_repeated_only_while_all_of_it_is_in_hand(
    server, monkeypatch, read_before_failing, attempts
):
    seen = []

    def fail(file, upload, first):
        seen.append(first)
        for _ in range(read_before_failing):
            upload.read(1)
        raise Transient()

    monkeypatch.setattr(server, "_put", fail)
    upload = upload_of(content_of(2 * vmware_files.CHUNK))
    with pytest.raises(BackendUnavailable) as caught:
        server.put(FILE, upload)
    assert len(seen) == attempts
    assert isinstance(caught.value, Transient) is (read_before_failing == 0)


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        ("FileNotFound", errors.NotFound),
        ("FileLocked", errors.InUse),
        ("CannotDeleteFile", errors.InUse),
        ("ResourceInUse", errors.InUse),
        ("NoPermission", errors.ServiceUnavailable),
        ("SomethingElse", BackendUnavailable),
    ],
)
def test_refused_delete_says_why(monkeypatch, fault, error):
    """REL-070: bytes in use answer 409, and the image stays."""
    store = VMwareStore(CONF)

    def refuse(*_, **__):
        raise VSphereFault(fault)

    monkeypatch.setattr(store._session, "call", lambda *_, **__: "a datacenter")
    monkeypatch.setattr(store._session, "run", refuse)
    with pytest.raises(error) as caught:
        store.delete(RequestContext(), URL)
    assert "vc.example" not in caught.value.message


def test_password_is_in_no_text_form():
    """SEC-031."""
    assert SECRET not in repr(Server("vc.example", 443, "glance", SECRET))


def test_retries_are_bounded_in_number_and_time(monkeypatch):
    """REL-085."""
    session = FakeSession()
    assert len(list(session._pauses())) == 3
    monkeypatch.setattr(session, "_retries", 10**6)
    clock = Clock()
    monkeypatch.setattr(clock, "monotonic", iter(range(10**6)).__next__)
    monkeypatch.setattr(vmware_session, "time", clock)
    assert len(list(session._pauses())) <= vmware_session.RETRY_FOR


def test_unfinished_uploads_are_told_from_images():
    image_id = str(uuid.uuid4())
    assert vmware._UNFINISHED.fullmatch(f"{image_id}.{'0a' * 8}.part")["image_id"] == image_id
    assert vmware._UNFINISHED.fullmatch(image_id) is None
    assert vmware._UNFINISHED.fullmatch(f"{image_id}.part") is None


def test_locations_are_never_a_callers():
    """SEC-040: whoever could name one would read, or delete, anybody's image."""
    assert not VMwareStore(CONF).accepts_external
