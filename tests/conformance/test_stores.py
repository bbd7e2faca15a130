"""The drivers that need no server, bound to the contract's suite."""

import os

import pytest

from glance_store.drivers.filesystem import FilesystemStore
from glance_store.drivers.http import HttpStore
from glance_store.drivers.memory import MemoryStore
from glance_store.testing import ReadConformance, StoreConformance
from tests.conformance.web import Page, Web, reaching


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


class TestHttp(ReadConformance):
    chunk = 64 * 1024
    malformed = (
        "http:",
        "http://",
        "https://",
        "http:///path",
        "http://host:port/path",
        "http://host:0/path",
        "http://[::1/path",
        "http://host\\@other/long-enough-to-see",
        "http://host /long-enough-to-see",
    )

    @pytest.fixture
    def web(self):
        with Web() as web:
            yield web

    @pytest.fixture
    def store(self, web):
        self.web = web
        return reaching(HttpStore({}), retries=1)

    def page(self, content):
        return Page(content)

    def put(self, store, ctx, content):
        path = f"/images/{len(self.web.pages)}/content-of-an-image"
        self.web.pages[path] = self.page(content)
        return self.web.url(path)

    def missing_url(self, store, ctx):
        return self.web.url("/images/nothing-is-here")

    def broken(self, store):
        return self.web.stopped()


class TestHttpWithoutRanges(TestHttp):
    def page(self, content):
        return Page(content, ranges=False, head_status=405)


class TestHttpWithoutLengths(TestHttp):
    knows_sizes = False

    def page(self, content):
        return Page(content, ranges=False, tells_length=False)
