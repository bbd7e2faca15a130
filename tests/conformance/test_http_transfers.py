"""The http store when transfers break off, stall, or have to look alike."""

import dataclasses
import socket
import threading
import time

import pytest

from common import errors
from common.context import RequestContext
from common.upload import Upload
from glance_store import BackendUnavailable
from glance_store.drivers.http import HttpStore
from glance_store.loader import Stores
from glance_store.testing import content_of
from tests.conformance.web import Page, Web, reaching

CTX = RequestContext(token="canary-token", user="user", tenant="tenant")
CONTENT = content_of(300_000)


@pytest.fixture
def web():
    with Web() as web:
        yield web


@pytest.fixture
def store():
    return reaching(HttpStore({}))


def read(store, url, offset=0, length=None):
    body = store.get(CTX, url, offset, length)
    try:
        return b"".join(body)
    finally:
        body.close()


def unavailable(store, url):
    for call in (store.get, store.size):
        with pytest.raises(BackendUnavailable):
            call(CTX, url)


def test_broken_transfer_goes_on_where_it_stopped(web):
    """REL-019: a copy survives a hiccup of its source."""
    web.pages["/x"] = Page(CONTENT, cuts=[100_000, 50_000])
    store = reaching(HttpStore({}), retries=2)
    assert read(store, web.url("/x")) == CONTENT
    web.pages["/x"].cuts = [10, 10]
    assert read(store, web.url("/x"), 1000, 5000) == CONTENT[1000:6000]


def test_transfer_that_keeps_breaking_is_an_error(web):
    """V1-IMG-332, REL-030: a short stream is never taken for a whole one."""
    web.pages["/x"] = Page(CONTENT, cuts=[100_000] * 9)
    with pytest.raises(BackendUnavailable):
        read(reaching(HttpStore({}), retries=1), web.url("/x"))


def test_broken_chunked_stream_is_an_error(store, web):
    web.pages["/x"] = Page(CONTENT, chunked=True, ranges=False, cuts=[100_000])
    with pytest.raises(BackendUnavailable):
        read(store, web.url("/x"))


@pytest.mark.parametrize(
    "change", [{"etag": '"two"'}, {"content": CONTENT + b"more"}, {"ranges": False}]
)
def test_another_content_is_never_joined_on(web, change):
    web.pages["/x"] = page = Page(CONTENT, cuts=[100_000])
    body = reaching(HttpStore({}), retries=2).get(CTX, web.url("/x"))
    web.pages["/x"] = dataclasses.replace(page, **change)
    with pytest.raises(BackendUnavailable):
        b"".join(body)


def test_passing_trouble_is_tried_again(web):
    web.pages["/x"] = Page(CONTENT, status=503)
    store = reaching(HttpStore({}), retries=1)
    unavailable(store, web.url("/x"))
    assert [method for method, *_ in web.requests].count("GET") >= 2


# Time.


def test_stalled_source_ends_with_the_idle_timeout(web):
    """SEC-045, REL-085."""
    web.pages["/x"] = Page(CONTENT, stalls=1000)
    store = reaching(HttpStore({}), idle_timeout=0.3)
    started = time.monotonic()
    with pytest.raises(BackendUnavailable):
        read(store, web.url("/x"))
    assert time.monotonic() - started < 3


def copying(web, **rules):
    stores = Stores({"http": HttpStore({})}, outbound=reaching(HttpStore({}), **rules).outbound)
    return stores.open_source(CTX, web.url("/x"))


def test_source_of_a_copy_is_read_to_its_end(web):
    web.pages["/x"] = Page(CONTENT)
    with copying(web) as source:
        assert source.length == len(CONTENT)
        upload = Upload(source, size=source.length)
        content = b"".join(iter(lambda: upload.read(65536), b""))
    assert content == CONTENT


@pytest.mark.parametrize("lie", [len(CONTENT) - 1, len(CONTENT) + 1])
def test_declared_length_that_lies_is_noticed(web, lie):
    """SEC-045: the length of the HEAD is not trusted."""
    web.pages["/x"] = Page(CONTENT)
    with copying(web) as source:
        upload = Upload(source, size=lie)
        with pytest.raises(errors.Invalid):
            b"".join(iter(lambda: upload.read(65536), b""))


def test_abort_wakes_a_read_that_waits(web):
    """REL-007, SEC-072."""
    web.pages["/x"] = Page(CONTENT, stalls=1000)
    with copying(web, idle_timeout=30.0) as source:
        upload = Upload(source)
        assert upload.read(1000)
        threading.Timer(0.2, upload.abort, [errors.ImageDeleted()]).start()
        started = time.monotonic()
        with pytest.raises(errors.ImageDeleted):
            upload.read(1000)
        assert time.monotonic() - started < 5


def test_failures_of_sizing_look_and_last_alike(web):
    """SEC-044: open but not HTTP, closed, refused by rule, unknown."""
    seconds = 0.6
    outbound = reaching(HttpStore({}), sizing_timeout=seconds).outbound
    stores = Stores({"http": HttpStore({})}, outbound=outbound)
    web.pages["/x"] = Page(status=403)
    with socket.create_server(("127.0.0.1", 0)) as mute:
        with socket.create_server(("127.0.0.1", 0)) as closing:
            closed = closing.getsockname()[1]
        told = set()
        for host in (
            f"127.0.0.1:{web.port}/x",
            f"127.0.0.1:{mute.getsockname()[1]}",
            f"127.0.0.1:{closed}",
            "127.0.0.2:80",
            "127.1",
        ):
            started = time.monotonic()
            with pytest.raises(BackendUnavailable) as caught:
                stores.external_size(CTX, f"http://{host}")
            told.add(caught.value.message)
            assert seconds <= time.monotonic() - started < seconds + 0.4
    assert len(told) == 1
