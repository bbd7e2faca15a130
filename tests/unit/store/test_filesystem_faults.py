"""The filesystem store when the disk fails, fills, goes away, or its process dies."""

import errno
import os
import signal
import subprocess
import sys
import textwrap
import uuid

import pytest

from common import errors
from common.context import RequestContext
from common.upload import BytesSource, Upload
from glance_store import BackendUnavailable, StorageFull, StorageWriteDenied
from glance_store import disk as disk_module
from glance_store.drivers import filesystem
from glance_store.drivers.filesystem import FilesystemStore
from glance_store.testing import WatchedSource, content_of, upload_of

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


# Whole or nothing, whatever fails.


def failing(monkeypatch, function, code, after=0):
    """Let os.<function> fail with code from its call number `after` on."""
    real, calls = getattr(os, function), []

    def fail(*args, **kwargs):
        calls.append(args)
        if len(calls) > after:
            raise OSError(code, "injected", "/some/path")
        return real(*args, **kwargs)

    monkeypatch.setattr(os, function, fail)


class FailingFile(disk_module.FileIO):
    """Fails on its third write."""

    code = errno.EIO

    def write(self, chunk):
        if self.tell() >= 20:
            raise OSError(self.code, "injected", "/some/path")
        return super().write(chunk)


CODES = [
    (errno.ENOSPC, StorageFull),
    (errno.EDQUOT, StorageFull),
    (errno.EFBIG, StorageFull),
    (errno.EACCES, StorageWriteDenied),
    (errno.EROFS, StorageWriteDenied),
    (errno.EIO, BackendUnavailable),
    (errno.ESTALE, BackendUnavailable),
    (errno.ENOTCONN, BackendUnavailable),
]


@pytest.mark.parametrize("parts", ["unnamed parts", "named parts"])
@pytest.mark.parametrize("step", ["write", "fdatasync", "link", "fsync"])
@pytest.mark.parametrize(("code", "expected"), CODES)
def test_failure_at_any_step_is_named_and_leaves_nothing(
    store, path, monkeypatch, request, parts, step, code, expected
):
    """REL-001, REL-017."""
    if parts == "named parts":
        request.getfixturevalue("named_parts")
    if step == "write":
        monkeypatch.setattr(disk_module, "FileIO", FailingFile)
        monkeypatch.setattr(FailingFile, "code", code)
    else:
        failing(monkeypatch, step, code)
    small = FilesystemStore(
        {"filesystem_store_datadir": str(path), "filesystem_store_chunk_size": 10}
    )
    with pytest.raises(expected) as caught:
        add(small, content_of(55))
    assert "/some/path" not in caught.value.message
    assert list(path.iterdir()) == []


def test_partial_writes_are_continued(store, monkeypatch):
    class Grudging(disk_module.FileIO):
        def write(self, chunk):
            return super().write(chunk[:7])

    monkeypatch.setattr(disk_module, "FileIO", Grudging)
    content = content_of(1000)
    assert read(store, add(store, content)) == content


@pytest.mark.usefixtures("named_parts")
def test_filesystem_without_hard_links_is_served_by_renaming(store, path, monkeypatch):
    failing(monkeypatch, "link", errno.EPERM)
    url = add(store, b"content")
    assert read(store, url) == b"content"
    with pytest.raises(errors.Duplicate):
        add(store, b"again", image_id=url.rpartition("/")[2])
    assert len(list(path.iterdir())) == 1


@pytest.mark.usefixtures("named_parts")
def test_name_taken_meanwhile_is_not_replaced_by_renaming(store, path, monkeypatch):
    failing(monkeypatch, "link", errno.EPERM)
    source = WatchedSource(b"late", lambda: (path / "image").write_bytes(b"first"))
    with pytest.raises(errors.Duplicate):
        store.add(CTX, "image", Upload(source))
    assert (path / "image").read_bytes() == b"first"
    assert len(list(path.iterdir())) == 1


def test_a_killed_process_leaves_nothing_visible(path):
    """REL-009: where files need no name until they are whole."""
    assert killed_half_way(path) == []


def test_discard_removes_the_part_of_a_killed_process(store, path):
    """REL-009, SEC-041."""
    [part] = killed_half_way(path, "os.O_TMPFILE = os.O_DIRECTORY")
    assert part.endswith(".part")
    [stored] = store.contents()
    assert (stored.image_id, stored.complete) == ("image", False)
    with pytest.raises(errors.Invalid):
        store.get(CTX, stored.url)
    store.discard(CTX, "image")
    assert list(store.contents()) == []
    assert add(store, image_id="image")


def killed_half_way(path, before="pass"):
    """The names left by a process that is killed while it adds an image."""
    script = f"""
        import os, signal
        {before}
        from common.context import RequestContext
        from common.upload import Upload
        from glance_store.drivers.filesystem import FilesystemStore
        from glance_store.testing import WatchedSource
        reads = []
        def die():
            reads.append(1)
            if len(reads) == 3:
                os.kill(os.getpid(), signal.SIGKILL)
        store = FilesystemStore({{"filesystem_store_datadir": {str(path)!r}}})
        upload = Upload(WatchedSource(bytes(5 << 20), die))
        store.add(RequestContext(), "image", upload)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], check=False)
    assert done.returncode == -signal.SIGKILL
    return os.listdir(path)


# Durability.


@pytest.fixture
def events(monkeypatch):
    """What is asked of the operating system, in order."""
    events = []
    for name in ("fdatasync", "link", "fsync"):
        monkeypatch.setattr(os, name, recording(events, getattr(os, name)))
    return events


def recording(events, function):
    def record(*args, **kwargs):
        events.append(function.__name__)
        return function(*args, **kwargs)

    return record


def test_bytes_are_on_disk_before_the_name_and_the_name_before_add_returns(store, events):
    """REL-018, decisions.md 9."""
    add(store)
    assert events == ["fdatasync", "link", "fsync"]


def test_durability_can_be_traded_for_speed(path, events):
    add(FilesystemStore({"filesystem_store_datadir": str(path), "filesystem_store_fsync": False}))
    assert events == ["link"]


def test_long_uploads_are_made_durable_as_they_come(store, events, monkeypatch):
    monkeypatch.setattr(filesystem, "SYNC_EVERY", 2 * filesystem.CHUNK)
    add(store, bytes(10 * filesystem.CHUNK))
    assert events == ["fdatasync"] * 6 + ["link", "fsync"]


def test_failure_of_a_background_sync_fails_the_upload(store, path, monkeypatch):
    monkeypatch.setattr(filesystem, "SYNC_EVERY", 1 << 20)
    failing(monkeypatch, "fdatasync", errno.EIO)
    with pytest.raises(BackendUnavailable):
        add(store, bytes(5 << 20))
    assert list(path.iterdir()) == []


# Claiming space.


def blocks_while_adding(store, path, size, monkeypatch):
    """The bytes claimed on disk when the first bytes have been written."""
    claimed = []
    real = disk_module.NewFile.write

    def write(self, chunk):
        real(self, chunk)
        claimed.append(os.fstat(self._file.fileno()).st_blocks * 512)

    monkeypatch.setattr(disk_module.NewFile, "write", write)
    content = bytes(1 << 20)
    with pytest.raises(errors.GlanceError):
        store.add(CTX, "image", Upload(BytesSource(content), size=size))
    return claimed[0]


def test_space_is_claimed_ahead_but_not_more_than_a_step(store, path, monkeypatch):
    monkeypatch.setattr(disk_module, "RESERVE_STEP", 8 << 20)
    claimed = blocks_while_adding(store, path, 100 << 20, monkeypatch)
    assert 8 << 20 <= claimed < 10 << 20
    assert list(path.iterdir()) == []


def test_filesystem_that_cannot_claim_space_is_written_to_all_the_same(store, monkeypatch):
    class Libc:
        calls = 0

        def fallocate(self, *_):
            Libc.calls += 1
            disk_module.ctypes.set_errno(errno.EOPNOTSUPP)
            return -1

    monkeypatch.setattr(disk_module, "_libc", Libc())
    content = content_of(3 << 20)
    assert read(store, add(store, content, size=len(content))) == content
    assert Libc.calls == 1


def test_disk_that_fills_while_space_is_claimed_is_full(store, path, monkeypatch):
    class Libc:
        def fallocate(self, *_):
            disk_module.ctypes.set_errno(errno.ENOSPC)
            return -1

    monkeypatch.setattr(disk_module, "_libc", Libc())
    with pytest.raises(StorageFull):
        add(store, b"content", size=7)
    assert list(path.iterdir()) == []


# Directories that go away.


def test_lost_mount_is_unavailable_rather_than_empty(store, path, monkeypatch):
    """REL-032: what lies under a mount point that lost its mount is not the store."""
    url = add(store)
    ismount = os.path.ismount
    [datadir] = store._datadirs
    monkeypatch.setattr(os.path, "ismount", lambda at: at != datadir.mount and ismount(at))
    os.rename(path / url.rpartition("/")[2], path / "elsewhere")
    for call in (
        lambda: store.get(CTX, url),
        lambda: store.size(CTX, url),
        lambda: store.delete(CTX, url),
        lambda: store.discard(CTX, "image"),
        lambda: add(store),
        lambda: list(store.contents()),
    ):
        with pytest.raises(BackendUnavailable):
            call()
