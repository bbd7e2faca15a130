"""What every call to a driver has in common."""

import logging

import pytest

from common import errors
from common.body import FileBody, StreamBody
from common.context import RequestContext
from common.upload import BytesSource, Upload
from glance_store import (
    AddDisabled,
    BackendUnavailable,
    BadLocation,
    Capability,
    DeleteUnsupported,
    ReadUnsupported,
    Store,
)
from glance_store.guarded import GuardedStore

CTX = RequestContext()
IMAGE_ID = "5f1b0a34-9c64-4b0e-9d38-2f0b53e4a1c7"
URL = f"odd://user:canary@host.example.org/{IMAGE_ID}"


class OddStore(Store):
    """Does in every method what `act` says."""

    schemes = ("odd",)
    capabilities = (
        Capability.READ | Capability.WRITE | Capability.DELETE | Capability.ACL | Capability.LIST
    )

    def __init__(self, act=None):
        super().__init__({})
        self.act = act or (lambda: None)

    def add(self, ctx, image_id, upload):
        return self.act()

    def get(self, ctx, url, offset=0, length=None):
        return self.act()

    def size(self, ctx, url):
        return self.act()

    def delete(self, ctx, url):
        return self.act()

    def discard(self, ctx, image_id):
        return self.act()

    def validate(self, url):
        return self.act()

    def set_acls(self, ctx, url, *, public, read=(), write=()):
        return self.act()

    def contents(self):
        yield self.act()


def calls(store):
    return {
        "add": lambda: store.add(CTX, IMAGE_ID, Upload(BytesSource(b""))),
        "get": lambda: store.get(CTX, URL),
        "size": lambda: store.size(CTX, URL),
        "delete": lambda: store.delete(CTX, URL),
        "discard": lambda: store.discard(CTX, IMAGE_ID),
        "validate": lambda: store.validate(URL),
        "set_acls": lambda: store.set_acls(CTX, URL, public=True),
        "contents": lambda: list(store.contents()),
    }


def raising(error):
    def act():
        raise error

    return act


@pytest.mark.parametrize("operation", calls(None))
def test_unexpected_error_becomes_unavailable_and_is_logged_without_the_url(operation, caplog):
    """SEC-030, SEC-031: a library's message may quote the URL."""
    store = GuardedStore("odd one", OddStore(raising(RuntimeError(f"cannot open {URL}"))))
    with caplog.at_level(logging.DEBUG), pytest.raises(BackendUnavailable) as caught:
        calls(store)[operation]()
    assert "canary" not in caught.value.message + caplog.text
    assert "odd one" in caplog.text
    assert "RuntimeError" in caplog.text
    assert caught.value.__suppress_context__


@pytest.mark.parametrize("operation", ["get", "size", "delete"])
def test_the_log_names_the_image(operation, caplog):
    store = GuardedStore("odd one", OddStore(raising(RuntimeError())))
    with pytest.raises(BackendUnavailable):
        calls(store)[operation]()
    assert IMAGE_ID in caplog.text


@pytest.mark.parametrize("operation", calls(None))
def test_domain_errors_pass_without_what_caused_them(operation):
    def act():
        try:
            raise OSError(f"no route to {URL}")
        except OSError as error:
            raise errors.InUse() from error

    with pytest.raises(errors.InUse) as caught:
        calls(GuardedStore("odd one", OddStore(act)))[operation]()
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


@pytest.mark.parametrize("operation", ["get", "size", "delete", "validate"])
def test_a_message_that_shows_the_url_is_replaced(operation):
    store = GuardedStore("odd one", OddStore(raising(errors.NotFound(f"nothing at {URL}"))))
    with pytest.raises(errors.NotFound) as caught:
        calls(store)[operation]()
    assert caught.value.message == "Not found."


@pytest.mark.parametrize("operation", ["get", "size", "delete", "validate", "set_acls"])
def test_a_url_of_another_scheme_never_reaches_the_driver(operation):
    """SEC-040: again in front of the driver."""
    store = GuardedStore("odd one", OddStore(raising(AssertionError())))
    store.__dict__["schemes"] = ("other",)
    with pytest.raises(BadLocation):
        calls(store)[operation]()


def test_missing_abilities_refuse_whatever_the_driver_would_do():
    """V1-IMG-216, V1-IMG-228, V1-IMG-418."""
    driver = OddStore()
    driver.capabilities = Capability(0)
    store = GuardedStore("odd one", driver)
    for operation, refusal in (
        ("add", AddDisabled),
        ("get", ReadUnsupported),
        ("delete", DeleteUnsupported),
    ):
        with pytest.raises(refusal):
            calls(store)[operation]()
    assert calls(store)["set_acls"]() is None


def test_an_error_in_the_middle_of_a_body_is_guarded_too(caplog):
    def chunks():
        yield b"abc"
        raise RuntimeError(f"lost {URL}")

    store = GuardedStore("odd one", OddStore(lambda: StreamBody(chunks(), 9)))
    body = store.get(CTX, URL)
    pieces = iter(body)
    assert next(pieces) == b"abc"
    with pytest.raises(BackendUnavailable):
        next(pieces)
    assert "canary" not in caplog.text
    assert body.bytes_sent == 3


def test_closing_the_body_closes_the_drivers():
    closed = []
    body = StreamBody([b"abc"], 3, lambda: closed.append(1))
    GuardedStore("odd one", OddStore(lambda: body)).get(CTX, URL).close()
    assert closed == [1]


def test_a_file_body_stays_what_the_edge_can_send_without_copying(tmp_path):
    (tmp_path / "file").write_bytes(b"abc")
    with (tmp_path / "file").open("rb") as file:
        body = FileBody(file, 0, 3)
        assert GuardedStore("odd one", OddStore(lambda: body)).get(CTX, URL) is body
