"""What the filesystem store promises beyond the contract of all stores."""

import json
import os
import stat
import uuid

import pytest

from common import errors
from common.context import RequestContext
from common.upload import Upload
from glance_store import (
    BackendUnavailable,
    BadStoreConfiguration,
    StorageFull,
    StorageWriteDenied,
)
from glance_store.datadirs import Datadir
from glance_store.drivers import filesystem
from glance_store.drivers.filesystem import FilesystemStore
from glance_store.testing import WatchedSource, upload_of

CTX = RequestContext()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "images"


@pytest.fixture
def store(path):
    return FilesystemStore({"filesystem_store_datadir": str(path)})


@pytest.fixture
def named_parts(monkeypatch):
    """As on filesystems without O_TMPFILE."""
    monkeypatch.setattr(os, "O_TMPFILE", os.O_DIRECTORY)


def add(store, content=b"content", image_id=None, size=None):
    image_id = str(uuid.uuid4()) if image_id is None else image_id
    return store.add(CTX, image_id, upload_of(content, size))[0]


def read(store, url):
    body = store.get(CTX, url)
    try:
        return b"".join(body)
    finally:
        body.close()


def test_url_is_the_path(store, path):
    image_id = str(uuid.uuid4())
    assert add(store, image_id=image_id) == f"file://{path}/{image_id}"
    assert (path / image_id).read_bytes() == b"content"


def test_filesystem_urls_of_old_databases_resolve(store):
    url = add(store)
    assert read(store, url.replace("file:", "filesystem:")) == b"content"


def mode_of(store):
    return stat.S_IMODE(os.stat(add(store).removeprefix("file://")).st_mode)


@pytest.fixture
def open_umask():
    before = os.umask(0)
    yield
    os.umask(before)


@pytest.mark.usefixtures("open_umask")
def test_files_are_private_whatever_the_umask(store, path):
    """SEC-034."""
    assert mode_of(store) & 0o007 == 0
    assert stat.S_IMODE(path.stat().st_mode) & 0o007 == 0


@pytest.mark.usefixtures("named_parts", "open_umask")
def test_named_parts_are_private_too(store):
    assert mode_of(store) & 0o007 == 0


def test_configured_mode_is_honoured_exactly(path):
    """SEC-034: octal digits written as a number."""
    store = FilesystemStore(
        {"filesystem_store_datadir": str(path), "filesystem_store_file_perm": 664}
    )
    assert mode_of(store) == 0o664


# Where a path may lead.


def test_symbolic_link_is_not_followed_and_delete_removes_only_it(store, path, tmp_path):
    """SEC-041."""
    canary = tmp_path / "canary"
    canary.write_text("secret")
    (path / "link").symlink_to(canary)
    url = f"file://{path}/link"
    for call in (store.get, store.size):
        with pytest.raises(errors.NotFound):
            call(CTX, url)
    store.delete(CTX, url)
    assert canary.read_text() == "secret"
    assert not (path / "link").is_symlink()


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_special_file_does_not_hang_and_is_not_found(store, path, make):
    """SEC-041."""
    make(path / "special")
    with pytest.raises(errors.NotFound):
        store.get(CTX, f"file://{path}/special")


@pytest.mark.parametrize("form", ["{outside}/canary", "{path}/../outside/canary"])
def test_files_elsewhere_are_neither_read_nor_removed(store, path, tmp_path, form):
    """SEC-040, SEC-041."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "canary").write_text("secret")
    url = "file://" + form.format(outside=outside, path=path)
    for call in (store.get, store.size, store.delete):
        with pytest.raises(errors.NotFound) as caught:
            call(CTX, url)
        assert str(tmp_path) not in caught.value.message
    assert (outside / "canary").read_text() == "secret"


def test_directory_reached_by_a_link_is_the_same_directory(store, path, tmp_path):
    (tmp_path / "old").symlink_to(path)
    url = add(store)
    assert read(store, url.replace("/images/", "/old/")) == b"content"


@pytest.mark.parametrize("image_id", ["../x", ".", "..", ".x.part", "a/b", "a\0b", "", "é", "a b"])
def test_id_that_is_no_file_name_is_refused(store, path, image_id):
    """SEC-041."""
    with pytest.raises(errors.Invalid):
        add(store, image_id=image_id)
    assert list(path.iterdir()) == []


# Several directories.


@pytest.fixture
def several(tmp_path, monkeypatch):
    """Directories by name and priority, with room for as many bytes as `room` says."""
    room = {"a": 100, "b": 200, "c": 1000}
    monkeypatch.setattr(Datadir, "free", lambda self: room[os.path.basename(self.path)])
    entries = [f"{tmp_path}/a:10", f"{tmp_path}/b:10", f"{tmp_path}/c"]
    return FilesystemStore({"filesystem_store_datadirs": entries}), room


def test_highest_priority_and_then_most_room_decide(several):
    store, room = several
    assert "/b/" in add(store)
    room["b"] = 50
    assert "/a/" in add(store)
    room["a"] = room["b"] = 5
    assert "/c/" in add(store, size=7)
    assert "/a/" in add(store)


def test_no_room_anywhere_is_told_before_a_byte_is_read(several):
    """REL-017."""
    store, _ = several

    def unexpected():
        raise AssertionError("the source was read")

    with pytest.raises(StorageFull):
        store.add(CTX, str(uuid.uuid4()), Upload(WatchedSource(b"", unexpected), size=1001))


def test_broken_directory_is_left_out(several, monkeypatch):
    store, _ = several
    free = Datadir.free

    def broken(self):
        if self.priority == 10:
            raise BackendUnavailable()
        return free(self)

    monkeypatch.setattr(Datadir, "free", broken)
    assert "/c/" in add(store)
    with pytest.raises(StorageFull):
        add(store, bytes(1001), size=1001)


def test_a_directory_of_somebody_elses_is_named_and_left_out(tmp_path, monkeypatch, caplog):
    """At the start too: uploads to the only directory are 503 until its owner is put right."""
    foreign = f"{tmp_path}/foreign"
    allowed = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: path != foreign and allowed(path, mode))
    entries = [f"{foreign}:10", f"{tmp_path}/ours"]
    store = FilesystemStore({"filesystem_store_datadirs": entries})
    assert caplog.messages == [f"the image directory {foreign} may not be written to"]
    caplog.clear()
    assert "/ours/" in add(store)
    assert [foreign in message for message in caplog.messages] == [True]
    with pytest.raises(StorageWriteDenied):
        add(FilesystemStore({"filesystem_store_datadir": foreign}))


def test_image_in_one_directory_is_a_duplicate_for_all(several):
    store, room = several
    image_id = str(uuid.uuid4())
    add(store, image_id=image_id)
    room["b"] = 0
    with pytest.raises(errors.Duplicate):
        add(store, image_id=image_id)


def test_contents_and_discard_cover_every_directory(several):
    store, room = several
    ids = {}
    for name in "abc":
        room.update(dict.fromkeys("abc", 0) | {name: 100})
        ids[name] = str(uuid.uuid4())
        add(store, image_id=ids[name])
    assert {stored.image_id for stored in store.contents()} == set(ids.values())
    store.discard(CTX, ids["c"])
    assert {stored.image_id for stored in store.contents()} == {ids["a"], ids["b"]}


@pytest.mark.parametrize(
    ("conf", "option"),
    [
        ({"filesystem_store_datadirs": ["{tmp}/a:x"]}, "filesystem_store_datadirs"),
        ({"filesystem_store_datadirs": ["{tmp}/a", "{tmp}/b/../a"]}, "filesystem_store_datadirs"),
        (
            {"filesystem_store_datadirs": ["{tmp}/a"], "filesystem_store_datadir": "{tmp}/b"},
            "exclude each other",
        ),
        ({"filesystem_store_datadir": "images"}, "filesystem_store_datadir"),
        ({"filesystem_store_datadir": "/dev/null/images"}, "filesystem_store_datadir"),
        ({"filesystem_store_file_perm": 8}, "filesystem_store_file_perm"),
        ({"filesystem_store_metadata_file": "{tmp}/none"}, "filesystem_store_metadata_file"),
    ],
)
def test_unusable_configuration_names_the_option(tmp_path, conf, option):
    filled = {
        name: [entry.format(tmp=tmp_path) for entry in value]
        if isinstance(value, list)
        else value.format(tmp=tmp_path)
        if isinstance(value, str)
        else value
        for name, value in conf.items()
    }
    if "datadir" not in option and "exclude" not in option:
        filled["filesystem_store_datadir"] = str(tmp_path / "images")
    with pytest.raises(BadStoreConfiguration, match=option):
        FilesystemStore(filled)


# The description of mounts.


def described(tmp_path, text):
    (tmp_path / "mounts.json").write_text(text)
    return FilesystemStore(
        {
            "filesystem_store_datadir": str(tmp_path / "images"),
            "filesystem_store_metadata_file": str(tmp_path / "mounts.json"),
        }
    )


def test_location_carries_the_description_of_its_mount(tmp_path):
    here = {"id": "here", "mountpoint": str(tmp_path), "share": "nfs"}
    there = {"id": "there", "mountpoint": str(tmp_path / "image")}
    store = described(tmp_path, json.dumps([there, here]))
    assert store.add(CTX, str(uuid.uuid4()), upload_of(b"x"))[1] == here
    store = described(tmp_path, json.dumps(there))
    assert store.add(CTX, str(uuid.uuid4()), upload_of(b"x"))[1] == {}


@pytest.mark.parametrize("text", ["{", "[1]", '{"id": "x"}', '{"id": 1, "mountpoint": "/"}', "7"])
def test_description_that_cannot_be_read_is_refused(tmp_path, text):
    with pytest.raises(BadStoreConfiguration, match="filesystem_store_metadata_file"):
        described(tmp_path, text)


def test_contents_of_a_long_directory_are_listed_in_batches(store, path, monkeypatch):
    monkeypatch.setattr(filesystem, "_SCAN_BATCH", 2)
    for number in range(5):
        (path / f"image-{number}").write_bytes(bytes(number))
    (path / "not an image").write_bytes(b"")
    (path / "directory").mkdir()
    found = {stored.url.rpartition("/")[2]: stored for stored in store.contents()}
    assert {name: stored.size for name, stored in found.items()} == {
        **{f"image-{number}": number for number in range(5)},
        "not an image": 0,
    }
    assert found["not an image"].image_id is None
