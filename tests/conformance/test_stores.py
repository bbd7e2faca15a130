"""The drivers that need no server, bound to the contract's suite."""

import os

import pytest

from glance_store.drivers.filesystem import FilesystemStore
from glance_store.drivers.memory import MemoryStore
from glance_store.testing import StoreConformance


class TestMemory(StoreConformance):
    malformed = ("memory://", "memory:x", "memory://a/b")

    @pytest.fixture
    def store(self):
        return MemoryStore({})


class TestFilesystem(StoreConformance):
    malformed = (
        "file:",
        "file://",
        "file://relative",
        "file:///",
        "file:///some/directory/",
        "file:///some/directory/..",
        "file:///some/directory/.part",
        "file:///some/directory/a name",
    )

    @pytest.fixture
    def store(self, tmp_path):
        return FilesystemStore({"filesystem_store_datadir": str(tmp_path / "images")})

    @pytest.fixture(autouse=True)
    def directory(self, tmp_path):
        self.path = tmp_path / "images"

    def backend(self, store):
        return frozenset(os.listdir(self.path))

    def broken(self, store):
        return Renamed(self.path)


class TestFilesystemWithNamedParts(TestFilesystem):
    """As on filesystems without O_TMPFILE, such as FUSE mounts."""

    @pytest.fixture(autouse=True)
    def without_tmpfile(self, monkeypatch):
        monkeypatch.setattr("os.O_TMPFILE", os.O_DIRECTORY)


class Renamed:
    """A directory that is not where it was, inside the block."""

    def __init__(self, path):
        self.path = path
        self.away = path.with_name("away")

    def __enter__(self):
        self.path.rename(self.away)

    def __exit__(self, *_):
        self.away.rename(self.path)
