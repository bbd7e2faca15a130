"""Requests, tokens and accounts of the swift store, without a server."""

import itertools
import logging
import sys
import time
from types import SimpleNamespace

import pytest
import requests

import glance_store
from common import errors
from common.context import RequestContext
from glance_store import AddDisabled, BackendUnavailable, BadLocation, BadStoreConfiguration
from glance_store.drivers import swift_account, swift_credentials
from glance_store.drivers.swift import SwiftStore
from glance_store.drivers.swift_account import Account, CredentialsRefused, Unreachable
from glance_store.drivers.swift_credentials import CallerCredentials, Session
from glance_store.drivers.swift_multi_tenant import MultiTenantSwiftStore
from glance_store.testing import upload_of
from tests.clock import Clock

CTX = RequestContext()


class Response:
    def __init__(self, status, headers):
        self.status = self.status_code = status
        self.headers = headers
        self.reason = "because"
        self.content = b"canary"
        self.request = SimpleNamespace(url="https://canary.example.org/v1/AUTH_a/c/o")

    def read(self, *_):
        return b"canary"

    def getheaders(self):
        return list(self.headers.items())

    def getheader(self, name, default=None):
        return self.headers.get(name, default)


class Connections:
    """Gives the answers in turn: a status, (status, headers) or an exception to raise."""

    def __init__(self, *answers, timeout=60):
        self.access = SimpleNamespace(timeout=timeout)
        self.answers = iter(answers)
        self.requests = []

    def take(self, url):
        return SimpleNamespace(path="/v1/AUTH_a"), self

    def borrow(self, url):
        import contextlib

        return contextlib.nullcontext(self.take(url))

    def end(self, connection, error):
        pass

    def request(self, method, path, data=None, headers=None):
        self.requests.append((method, path, dict(headers or {})))
        answer = next(self.answers)
        if isinstance(answer, Exception):
            raise answer
        self._response = Response(*(answer if isinstance(answer, tuple) else (answer, {})))

    def getresponse(self):
        return self._response


class Tokens:
    """Credentials with a numbered token each time they are renewed."""

    as_caller = False

    def __init__(self):
        self.number = 1

    def session(self):
        return Session("https://canary.example.org/v1/AUTH_a", f"token-{self.number}")

    def renew(self, refused):
        self.number += 1
        return True


@pytest.fixture(autouse=True)
def pauses(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(clock, "monotonic", time.monotonic)
    monkeypatch.setattr(swift_account, "time", clock)
    return clock.slept


def account_of(*answers, credentials=None, **options):
    return Account(credentials or Tokens(), Connections(*answers, **options))


def test_passing_trouble_is_waited_out_twice(pauses):
    account = account_of(503, requests.ConnectionError("canary"), (200, {"etag": "e"}))
    assert account.head("c", "o") == {"etag": "e"}
    assert len(pauses) == 2


def test_lasting_trouble_is_told_after_three_tries():
    account = account_of(*itertools.repeat(503, 9))
    with pytest.raises(BackendUnavailable) as caught:
        account.head("c", "o")
    assert len(account._connections.requests) == 3
    assert "canary" not in caught.value.message


def test_trouble_is_not_waited_out_longer_than_a_timeout():
    """REL-085."""
    account = account_of(*itertools.repeat(requests.ReadTimeout("canary"), 9), timeout=0)
    with pytest.raises(Unreachable):
        account.head("c", "o")
    assert len(account._connections.requests) == 1


def test_a_refused_token_is_renewed_once():
    """REL-086."""
    account = account_of(401, (200, {}))
    account.head("c", "o")
    tokens = [headers["X-Auth-Token"] for _, _, headers in account._connections.requests]
    assert tokens == ["token-1", "token-2"]
    with pytest.raises(CredentialsRefused):
        account_of(401, 401, 401).head("c", "o")


def test_a_stream_is_sent_with_a_token_that_was_just_good():
    account = account_of(401, (204, {}), (201, {"etag": '"e"'}))
    assert account.put_stream("c", "o", [b"content"]) == "e"
    sent = [
        (method, headers["X-Auth-Token"]) for method, _, headers in account._connections.requests
    ]
    assert sent == [("HEAD", "token-1"), ("HEAD", "token-2"), ("PUT", "token-2")]


def test_a_stream_is_sent_once_only():
    account = account_of((204, {}), 503)
    with pytest.raises(BackendUnavailable):
        account.put_stream("c", "o", [b"content"])
    assert len(account._connections.requests) == 2


def test_only_the_first_attempt_of_a_put_takes_an_object_for_somebody_elses():
    """The first may have succeeded and its answer been lost."""
    account = account_of(requests.ConnectionError(), (201, {"etag": "e"}))
    assert account.put("c", "o", b"content") == "e"
    conditions = [headers.get("If-None-Match") for _, _, headers in account._connections.requests]
    assert conditions == ["*", None]


@pytest.mark.parametrize(
    ("status", "verb", "expected"),
    [
        (404, "head", errors.NotFound),
        (404, "put", BackendUnavailable),
        (412, "put", errors.Duplicate),
        (413, "put", "StorageFull"),
        (507, "put", "StorageFull"),
        (403, "put", "StorageWriteDenied"),
        (403, "head", CredentialsRefused),
        (409, "delete", BackendUnavailable),
        (422, "put", BackendUnavailable),
        (500, "head", BackendUnavailable),
    ],
)
def test_answers_are_named_correctly_and_not_quoted(status, verb, expected, caplog):
    """REL-017, SEC-030, SEC-031."""
    caplog.set_level(logging.DEBUG)
    account = account_of(*itertools.repeat(status, 3))
    call = {"head": account.head, "delete": account.delete}.get(verb)
    kind = getattr(glance_store, expected) if isinstance(expected, str) else expected
    with pytest.raises(kind) as caught:
        call("c", "o") if call else account.put("c", "o", b"")
    assert "canary" not in caught.value.message
    assert caught.value.__suppress_context__
    assert "token" not in caplog.text


def test_a_callers_token_is_not_renewed_and_its_refusal_is_the_callers():
    caller = CallerCredentials("https://host/v1/AUTH_a", "token")
    with pytest.raises(errors.Forbidden):
        account_of(401, 401, 401, credentials=caller).head("c", "o")
    with pytest.raises(errors.Forbidden):
        account_of(403, credentials=caller).head("c", "o")


def conf(**options):
    return {option.dest: option.default for option in SwiftStore.options} | options


ACCOUNT = {
    "swift_store_auth_address": "https://auth.example.org/v3",
    "swift_store_user": "tenant:user",
    "swift_store_key": "canary",
    "swift_store_auth_version": "3",
}


def test_the_option_chooses_the_store():
    assert type(SwiftStore(conf())) is SwiftStore
    assert type(SwiftStore(conf(swift_store_multi_tenant=True))) is MultiTenantSwiftStore


def test_without_an_account_a_store_is_read_only():
    store = SwiftStore(conf())
    with pytest.raises(AddDisabled):
        store.add(CTX, "id", upload_of(b""))
    store.discard(CTX, "id")
    assert list(store.contents()) == []


def test_the_insecure_switch_is_loud(caplog):
    """SEC-036."""
    SwiftStore(conf(swift_store_auth_insecure=True))
    assert "swift_store_auth_insecure" in caplog.text


def test_a_missing_library_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "swiftclient.client", None)
    with pytest.raises(BadStoreConfiguration, match=r"\[swift\]"):
        SwiftStore(conf())


@pytest.mark.parametrize("version", ["4", "", "two"])
def test_an_unknown_identity_version_is_named(version):
    with pytest.raises(BadStoreConfiguration, match="swift_store_auth_version"):
        SwiftStore(conf(swift_store_auth_version=version))


@pytest.mark.parametrize(
    ("seed", "image_id", "container"),
    [
        (0, "aB3f5042-9c9e-4c3b-8c9e-1f3f5d2c7a11", "glance"),
        (2, "aB3f5042-9c9e-4c3b-8c9e-1f3f5d2c7a11", "glance_ab"),
        (9, "aB3f5042-9c9e-4c3b-8c9e-1f3f5d2c7a11", "glance_ab3f5042-9"),
        (32, "aB3f5042-9c9e-4c3b-8c9e-1f3f5d2c7a11", "glance_ab3f5042-9c9e-4c3b-8c9e-1f3f5d2c7a11"),
    ],
)
def test_containers_are_spread_as_in_glance(seed, image_id, container):
    store = SwiftStore(conf(swift_store_multiple_containers_seed=seed))
    assert store._container_for(image_id) == container


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("swift+config://ref1/glance/id", "swift+config://ref1/glance/id"),
        ("swift+https://host/v1/AUTH_a/glance_id/id", "swift+https://host/v1/AUTH_a/glance_id/id"),
        ("swift+https://tenant%3Auser:canary@auth/v2.0/glance/id", "swift+config://ref1/glance/id"),
        ("swift://tenant%3Auser:canary@auth/v3/old/id", "swift+config://ref1/old/id"),
        ("swift+https://other%3Auser:canary@auth/v2.0/glance/id", "swift+config://ref2/glance/id"),
        # A caller's own, of another service, or one that the file means otherwise.
        ("swift+https://tenant%3Auser:other@auth/v2.0/glance/id", None),
        ("swift+https://somebody:canary@auth/v2.0/glance/id", None),
        ("swift+http://tenant%3Auser:canary@auth/v2.0/glance/id", None),
        ("swift+https://tenant%3Auser:canary@elsewhere/v3/glance/id", None),
        ("swift+https://foreign%3Auser:canary@auth/v3/glance/id", None),
    ],
)
def test_only_configured_credentials_can_be_taken_out_of_a_url(url, expected, tmp_path):
    """SEC-032."""
    account = "auth_version = 3\nauth_address = https://auth/v3\nkey = canary\n"
    file = tmp_path / "glance-swift.conf"
    file.write_text(
        f"[ref0]\n{account}user = foreign:user\nuser_domain_id = elsewhere\n"
        f"[ref1]\n{account}user = tenant:user\n"
        f"[ref2]\n{account}user = other:user\n"
    )
    store = SwiftStore(conf(swift_store_config_file=str(file)))
    assert store.without_credentials(url) == expected


CATALOG_2 = (
    {
        "type": "object-store",
        "name": "swift",
        "endpoints": [
            {"region": "one", "publicURL": "https://one/v1/A", "internalURL": "http://in/v1/A"},
            {"region": "two", "publicURL": "https://two/v1/A", "internalURL": "http://in2/v1/A"},
        ],
    },
)
CATALOG_3 = (
    {
        "type": "object-store",
        "name": "swift",
        "endpoints": [
            {"region": "one", "interface": "public", "url": "https://one/v1/A", "id": "1"},
            {"region": "two", "interface": "public", "url": "https://two/v1/A", "id": "2"},
            {"region": "two", "interface": "internal", "url": "http://in2/v1/A", "id": "3"},
        ],
    },
)


@pytest.mark.parametrize("catalog", [CATALOG_2, CATALOG_3], ids=["version 2", "version 3"])
def test_the_uploaders_account_is_found_in_either_kind_of_catalog(catalog):
    def first(**options):
        store = SwiftStore(conf(swift_store_multi_tenant=True, **options))
        return store._accounts.storage_urls(RequestContext(token="t", service_catalog=catalog))[0]

    assert first(swift_store_region="two") == "https://two/v1/A"
    assert first(swift_store_region="two", swift_store_endpoint_type="internalURL") == (
        "http://in2/v1/A"
    )
    assert first(swift_store_endpoint="https://fixed/v1/B") == "https://fixed/v1/B"
    with pytest.raises(BackendUnavailable):
        first(swift_store_region="three")


def test_a_token_is_offered_to_every_store_of_the_catalog_and_no_other():
    """SEC-037."""
    store = SwiftStore(conf(swift_store_multi_tenant=True))
    ctx = RequestContext(token="t", service_catalog=CATALOG_3)
    for url in ("https://one/v1/A", "https://two/v1/B", "http://in2/v1/C"):
        place = store._place(ctx, f"swift+{url}/container/object")
        assert place.account.credentials.session() == Session(url, "t")
    for url in ("http://one/v1/A", "https://three/v1/A", "https://one:8080/v1/A"):
        with pytest.raises(BadLocation):
            store._place(ctx, f"swift+{url}/container/object")


def test_the_services_rights_are_lent_where_neither_url_nor_caller_brings_any():
    """SEC-040."""
    store = SwiftStore(conf(**ACCOUNT))
    theirs, ours = "swift+https://one/v1/A/c/o", "swift+https://t%3Au:key@one/v1/c/o"
    assert store.lends_rights(CTX, theirs)
    assert not store.lends_rights(RequestContext(token="t"), theirs)
    assert not store.lends_rights(CTX, ours)


def test_without_a_token_or_rights_of_its_own_the_store_refuses():
    store = SwiftStore(conf(swift_store_multi_tenant=True))
    with pytest.raises(errors.Forbidden):
        store.get(CTX, "swift+https://one/v1/A/container/object")
    with pytest.raises(BackendUnavailable):
        store.add(CTX, "id", upload_of(b""))


@pytest.mark.parametrize(
    ("version", "address", "expected"),
    [
        ("2", "https://auth:5000", "https://auth:5000/v2.0/tokens"),
        ("2", "https://auth:5000/v3/", "https://auth:5000/v2.0/tokens"),
        ("3", "https://auth/identity/v2.0/", "https://auth/identity/v3/auth/tokens"),
        ("3", "https://auth/v3", "https://auth/v3/auth/tokens"),
    ],
)
def test_keystone_is_asked_by_the_version_in_force(version, address, expected, monkeypatch):
    asked = []

    def request(self, url, method, **options):
        asked.append((url, options["json"]))
        raise RuntimeError("canary")

    monkeypatch.setattr("keystoneauth1.session.Session.request", request)
    options = ACCOUNT | {"swift_store_auth_version": version, "swift_store_auth_address": address}
    store = SwiftStore(conf(**options))
    with pytest.raises(BackendUnavailable) as caught:
        store.size(CTX, "swift+config://ref1/glance/object")
    assert "canary" not in caught.value.message
    [(url, body)] = asked
    assert url == expected
    assert "tenant" in str(body)


def test_a_token_about_to_expire_is_replaced():
    """swift_store_expire_soon_interval."""
    asked = []

    class Plugin:
        def get_access(self, session):
            asked.append("get")
            return SimpleNamespace(
                will_expire_soon=lambda seconds: seconds > 30 and len(asked) < 2,
                auth_token="token",
                project_id="p",
            )

        def invalidate(self):
            asked.append("invalidate")
            return True

    access = SimpleNamespace(expire_soon_interval=60, endpoint="https://host/v1/AUTH_p")
    connections = SimpleNamespace(access=access, keystone=lambda plugin: None)
    credentials = swift_credentials.KeystoneCredentials(Plugin(), connections)
    assert credentials.session().token == "token"
    assert asked == ["get", "invalidate", "get"]
    assert credentials.storage_url_of("q") == "https://host/v1/AUTH_q"
