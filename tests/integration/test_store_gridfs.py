"""The GridFS driver over TCP, with the real pymongo on our side.

The server is a simulation (see tests/servers/mongo.py), so what it proves is the client's side.
"""

import time
import uuid
from datetime import UTC, datetime

import pytest

from common import errors
from common.context import RequestContext
from common.upload import Upload
from glance_store import BackendUnavailable
from glance_store.drivers import gridfs as driver
from glance_store.drivers.gridfs import CHUNK, GridFSStore
from glance_store.testing import (
    StoreConformance,
    WatchedSource,
    content_of,
    upload_of,
)
from tests.integration.lifecycle import StoreLifecycle
from tests.servers.mongo import Mongo
from tests.servers.process import client


@pytest.fixture(scope="module")
def server():
    Mongo.require()
    with Mongo() as server:
        yield server


@pytest.fixture
def store(server, monkeypatch):
    # A server that is gone is given up sooner than an operator would want.
    monkeypatch.setitem(driver.TIMEOUTS, "serverSelectionTimeoutMS", 1000)
    return GridFSStore({"mongodb_store_uri": server.url, "mongodb_store_db": "glance"})


@pytest.fixture
def database(server):
    pymongo = client("mongo", "pymongo")
    with pymongo.MongoClient(server.url) as connection:
        yield connection["glance"]


@pytest.fixture
def ctx():
    return RequestContext()


class TestGridFS(StoreConformance):
    chunk = CHUNK
    malformed = ("gridfs://", "gridfs:x", "gridfs://a/b", "gridfs://user@host", "gridfs://a b")
    patience = 15.0

    @pytest.fixture
    def store(self, store, server, database):
        self.server = server
        self.database = database
        return store

    def backend(self, store):
        """Every document, whether or not the driver would list it."""
        names = [f"file {file['_id']}" for file in self.database["fs.files"].find()]
        chunks = self.database["fs.chunks"].find({}, {"files_id": 1, "n": 1})
        return frozenset([*names, *(f"chunk {c['files_id']} {c['n']}" for c in chunks)])

    def broken(self, store):
        return self.server.killed()


def test_files_are_what_other_gridfs_clients_expect(store, ctx, database):
    content = content_of(2 * CHUNK + 5)
    image_id = str(uuid.uuid4())
    url, metadata = store.add(ctx, image_id, upload_of(content))
    with client("mongo", "gridfs").GridFS(database).get(image_id) as file:
        assert file.read() == content
        assert (file.length, file.chunk_size, file.filename) == (len(content), CHUNK, image_id)
    assert (url, metadata) == (f"gridfs://{image_id}", {})
    store.delete(ctx, url)


def test_files_of_an_earlier_glance_are_read_and_deleted(store, ctx, database):
    """Mitaka put an image under its id, without a name, in chunks of the library's size."""
    content = content_of(1_300_001)
    image_id = str(uuid.uuid4())
    client("mongo", "gridfs").GridFS(database).put(content, _id=image_id)
    url = f"gridfs://{image_id}"
    assert store.size(ctx, url) == len(content)
    for offset, length in ((0, None), (261_119, 3), (261_120, 261_120), (1_300_000, 5)):
        body = store.get(ctx, url, offset, length)
        found = b"".join(body)
        assert found == content[offset:][:length]
        assert body.length == len(found)
    store.delete(ctx, url)
    assert database["fs.chunks"].find_one({}) is None


def test_unfinished_adds_are_listed_as_incomplete(store, ctx, database):
    image_id = str(uuid.uuid4())
    listed = []
    content = content_of(2 * CHUNK)
    source = WatchedSource(content, lambda: listed.extend(store.contents()))
    url, _ = store.add(ctx, image_id, Upload(source))
    assert {(found.url, found.image_id, found.size, found.complete) for found in listed} == {
        (url, image_id, None, False)
    }
    age = datetime.now(UTC).replace(tzinfo=None) - listed[0].modified
    assert abs(age.total_seconds()) < 60
    store.delete(ctx, url)


def test_foreign_files_are_listed_without_an_image_id(store, database):
    files = client("mongo", "gridfs").GridFS(database)
    foreign = files.put(b"something", filename="notes.txt")
    [found] = store.contents()
    assert (found.image_id, found.size) == (None, 9)
    files.delete(foreign)


def test_failed_add_leaves_the_chunks_of_the_one_that_holds_the_id(store, ctx, database):
    """REL-006: the loser of a race takes back its own bytes only."""
    image_id = str(uuid.uuid4())
    losses = []

    def add_another():
        if not losses and database["fs.chunks"].find_one({"files_id": image_id}):
            with pytest.raises(errors.Duplicate):
                store.add(ctx, image_id, upload_of(content_of(CHUNK, seed=2)))
            losses.append(image_id)

    content = content_of(2 * CHUNK)
    url, _ = store.add(ctx, image_id, Upload(WatchedSource(content, add_another)))
    assert losses
    assert b"".join(store.get(ctx, url)) == content
    store.delete(ctx, url)


def test_add_that_was_discarded_meanwhile_is_refused(store, ctx, database):
    """REL-009: an upload that was given up for dead must not end in half an image."""
    image_id = str(uuid.uuid4())
    source = WatchedSource(content_of(CHUNK), lambda: store.discard(ctx, image_id))
    with pytest.raises(errors.Conflict):
        store.add(ctx, image_id, Upload(source))
    assert database["fs.files"].find_one({"_id": image_id}) is None


def test_missing_chunk_ends_a_read_with_an_error(store, ctx, database):
    """REL-032: never a short image passed off as whole."""
    url, _ = store.add(ctx, str(uuid.uuid4()), upload_of(content_of(3 * CHUNK)))
    database["fs.chunks"].delete_one({"n": 1})
    chunks = iter(store.get(ctx, url))
    assert len(next(chunks)) == CHUNK
    with pytest.raises(BackendUnavailable):
        next(chunks)
    store.delete(ctx, url)


def test_server_that_dies_during_an_upload_fails_it_soon(store, ctx, server):
    """REL-085."""
    reads = iter([lambda: None, lambda: None, server.kill])
    started = time.monotonic()
    source = WatchedSource(content_of(8 * CHUNK), lambda: next(reads, lambda: None)())
    with pytest.raises(BackendUnavailable):
        store.add(ctx, str(uuid.uuid4()), Upload(source))
    assert time.monotonic() - started < 10
    server.restart()


def test_server_that_dies_during_a_download_ends_it_with_an_error(store, ctx, server):
    url, _ = store.add(ctx, str(uuid.uuid4()), upload_of(content_of(4 * CHUNK)))
    chunks = iter(store.get(ctx, url))
    next(chunks)
    with server.killed(), pytest.raises(BackendUnavailable):
        list(chunks)


def test_silent_server_is_given_up_in_bounded_time(server, ctx):
    """REL-085: connected, and then nothing."""
    options = "socketTimeoutMS=500&serverSelectionTimeoutMS=500&connectTimeoutMS=500"
    store = GridFSStore({"mongodb_store_uri": f"{server.url}/glance?{options}"})
    url, _ = store.add(ctx, str(uuid.uuid4()), upload_of(b"content"))
    started = time.monotonic()
    with server.paused(), pytest.raises(BackendUnavailable):
        store.size(ctx, url)
    assert time.monotonic() - started < 10
    store.delete(ctx, url)


class TestLifecycle(StoreLifecycle):
    @pytest.fixture(scope="class")
    @classmethod
    def backend(cls):
        Mongo.require()
        with Mongo() as server:
            yield server

    @pytest.fixture(scope="class")
    @classmethod
    def options(cls, backend):
        return {
            "stores": "gridfs,http",
            "default_store": "gridfs",
            "mongodb_store_uri": f"{backend.url}/?serverSelectionTimeoutMS=2000",
            "mongodb_store_db": "glance",
        }

    @pytest.fixture(scope="class")
    @classmethod
    def stored(cls, backend):
        def chunks_and_files():
            with client("mongo", "pymongo").MongoClient(backend.url) as connection:
                database = connection["glance"]
                return [
                    document["_id"]
                    for collection in ("fs.files", "fs.chunks")
                    for document in database[collection].find({}, {"_id": 1})
                ]

        return chunks_and_files
