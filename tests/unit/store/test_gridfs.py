"""What the GridFS driver decides without a server."""

import logging
import sys
import traceback
import uuid

import pymongo
import pytest
from pymongo import errors as mongo_errors

from common import errors
from common.context import RequestContext
from glance_store import (
    BackendUnavailable,
    BadLocation,
    BadStoreConfiguration,
    StorageFull,
    StorageWriteDenied,
)
from glance_store.drivers import gridfs as driver
from glance_store.drivers.gridfs import GridFSStore
from glance_store.testing import upload_of

SECRET = "canary-in-the-uri"
URI = f"mongodb://glance:{SECRET}@db.example:27018/images"


def store_at(uri=URI, **conf):
    return GridFSStore({"mongodb_store_uri": uri, **conf})


def client_of(store, monkeypatch):
    """The client the store would use; nothing listens at its address, and nothing connects."""
    made = []

    class Client(pymongo.MongoClient):
        def __init__(self, *args, **kwargs):
            made.append((self, kwargs))
            super().__init__(*args, **kwargs)

    monkeypatch.setattr(pymongo, "MongoClient", Client)
    store._connect()
    return made


@pytest.mark.parametrize(
    ("conf", "option"),
    [
        ({}, "mongodb_store_uri"),
        ({"mongodb_store_uri": None, "mongodb_store_db": "glance"}, "mongodb_store_uri"),
        ({"mongodb_store_uri": "mongodb://db.example"}, "mongodb_store_db"),
        ({"mongodb_store_uri": "db.example:27017", "mongodb_store_db": ""}, "mongodb_store_db"),
        ({"mongodb_store_uri": "mongodb://db.example:port/x"}, "mongodb_store_uri"),
        ({"mongodb_store_uri": "https://db.example/x"}, "mongodb_store_uri"),
        ({"mongodb_store_uri": "mongodb://db.example/x?w=0"}, "mongodb_store_uri"),
    ],
)
def test_configuration_that_cannot_work_is_refused_by_option_name(conf, option):
    with pytest.raises(BadStoreConfiguration, match=option):
        GridFSStore(conf)


@pytest.mark.parametrize(
    ("uri", "db", "found"),
    [
        ("mongodb://db.example/images", None, "images"),
        ("mongodb://db.example/images", "glance", "glance"),
        ("mongodb://db.example/images.fs?w=majority", None, "images"),
        ("mongodb+srv://db.example/images", None, "images"),
        ("db1.example,db2.example:27018", "glance", "glance"),
        ("[::1]:27017", "glance", "glance"),
    ],
)
def test_every_form_of_address_finds_its_database(uri, db, found):
    store = store_at(uri, mongodb_store_db=db)
    assert store._database == found


def test_malformed_address_with_a_password_is_not_repeated():
    """SEC-031: an unescaped slash makes pymongo quote what follows as a port."""
    with pytest.raises(BadStoreConfiguration) as caught:
        store_at(f"mongodb://glance:{SECRET}/x@db.example/images")
    assert SECRET not in "".join(traceback.format_exception(caught.value))


def test_missing_library_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "pymongo", None)
    with pytest.raises(BadStoreConfiguration, match="`gridfs`"):
        store_at()


def test_building_the_store_connects_to_nothing(monkeypatch):
    """REL-097: list and HEAD never initialise a driver."""
    monkeypatch.setattr(pymongo, "MongoClient", None)
    store_at().validate(f"gridfs://{uuid.uuid4()}")


def test_every_wait_is_bounded_and_the_operators_bounds_win(monkeypatch):
    """REL-085."""
    [(client, given)] = client_of(store_at(), monkeypatch)
    assert given == {"connect": False, **driver.TIMEOUTS}
    assert client.options.pool_options.socket_timeout == 60
    assert client.options.pool_options.wait_queue_timeout == 30
    own = f"{URI}?sockettimeoutms=5000"
    [(client, _)] = client_of(store_at(own), monkeypatch)
    assert client.options.pool_options.socket_timeout == 5


def test_each_process_has_a_client_of_its_own(monkeypatch):
    """A client carried through a fork shares its sockets with the parent."""
    store = store_at()
    made = client_of(store, monkeypatch)
    store._connect()
    assert len(made) == 1
    monkeypatch.setattr(driver.os, "getpid", lambda: -1)
    store._connect()
    assert len(made) == 2


@pytest.mark.parametrize(
    ("raised", "expected"),
    [
        (mongo_errors.OperationFailure("not authorized on images", 13), StorageWriteDenied),
        (mongo_errors.OperationFailure("Out of diskspace", 14031), StorageFull),
        (mongo_errors.OperationFailure("Authentication failed.", 18), BackendUnavailable),
        (mongo_errors.ServerSelectionTimeoutError("db.example: timed out"), BackendUnavailable),
        (mongo_errors.AutoReconnect("connection closed"), BackendUnavailable),
        (mongo_errors.WaitQueueTimeoutError("no free connection"), BackendUnavailable),
    ],
)
def test_failures_are_named_without_saying_where(monkeypatch, caplog, raised, expected):
    """REL-017, SEC-030, SEC-031."""
    caplog.set_level(logging.DEBUG)
    store = store_at()

    def fail():
        raise raised

    monkeypatch.setattr(store, "_connect", fail)
    ctx, url = RequestContext(), f"gridfs://{uuid.uuid4()}"
    for call in (
        lambda: store.add(ctx, str(uuid.uuid4()), upload_of(b"content")),
        lambda: store.get(ctx, url),
        lambda: store.size(ctx, url),
        lambda: store.delete(ctx, url),
        lambda: store.discard(ctx, str(uuid.uuid4())),
        lambda: list(store.contents()),
    ):
        with pytest.raises(errors.GlanceError) as caught:
            call()
        assert type(caught.value) is expected
        assert "db.example" not in caught.value.message
        assert SECRET not in "".join(traceback.format_exception(caught.value))
    assert SECRET not in caplog.text


@pytest.mark.parametrize(
    "url",
    ["", "gridfs:", "gridfs://", "gridfs:/x", "GRIDFS:x", "gridfsx://x", "gridfs://u:p@h/x",
     "gridfs://a/b", "gridfs://a?b", "gridfs://a#b", "gridfs://a b", "gridfs://a\n"],
)  # fmt: skip
def test_anything_but_a_plain_name_is_a_bad_location(url):
    with pytest.raises(BadLocation):
        store_at().validate(url)


def test_locations_are_never_a_callers():
    """SEC-040: whoever could name one would read, or delete, anybody's image."""
    assert not store_at().accepts_external
