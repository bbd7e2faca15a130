"""SEC-036: swift and s3 verify whom they talk to before they say anything."""

import ssl

import pytest

from common import errors
from common.context import RequestContext
from glance_store import BackendUnavailable
from glance_store.drivers.s3 import S3Store
from glance_store.drivers.swift import SwiftStore
from tests.certificates import certificate
from tests.conformance.web import Web

CTX = RequestContext()


def swift(version):
    def make(port, cacert=None, **options):
        defaults = {option.dest: option.default for option in SwiftStore.options}
        account = {
            "swift_store_auth_address": f"https://localhost:{port}/v{version}",
            "swift_store_auth_version": version,
            "swift_store_user": "tenant:user",
            "swift_store_key": "key",
            "swift_store_cacert": cacert,
            "swift_store_timeout": 5,
        }
        return SwiftStore({**defaults, **account, **options}), "swift+config://ref1/glance/id"

    return make


def s3(port, cacert=None, **options):
    defaults = {option.dest: option.default for option in S3Store.options}
    account = {
        "s3_store_host": f"https://localhost:{port}",
        "s3_store_access_key": "access",
        "s3_store_secret_key": "secret",
        "s3_store_bucket": "glance",
        "s3_store_bucket_url_format": "path",
        "s3_store_cacert": cacert,
        "s3_store_timeout": 5,
    }
    store = S3Store({**defaults, **account, **options})
    return store, f"s3+https://localhost:{port}/glance/id"


STORES = pytest.mark.parametrize(
    "make", [swift("1"), swift("3"), s3], ids=["swift with tempauth", "swift with keystone", "s3"]
)


@pytest.fixture
def web_as(tmp_path):
    """A TLS server with a certificate of its own making, and the file to trust it by."""
    running = []

    def start(name):
        file = certificate(tmp_path, name)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(file)
        web = Web(tls=context)
        running.append(web)
        return web.__enter__(), str(file)

    yield start
    for web in running:
        web.__exit__()


@STORES
def test_a_certificate_nobody_vouches_for_ends_it(make, web_as, caplog):
    web, _ = web_as("localhost")
    store, url = make(web.port)
    with pytest.raises(BackendUnavailable):
        store.get(CTX, url)
    assert not was_asked(web, caplog)


@STORES
def test_a_certificate_of_another_host_ends_it(make, web_as, caplog):
    web, file = web_as("elsewhere.example.org")
    store, url = make(web.port, file)
    with pytest.raises(BackendUnavailable):
        store.get(CTX, url)
    assert not was_asked(web, caplog)


def was_asked(web, caplog):
    """The server knows nothing and counts no POST, which is how Keystone is asked."""
    return bool(web.requests) or "status 501" in caplog.text


@STORES
def test_a_certificate_of_the_configured_bundle_is_trusted(make, web_as, caplog):
    web, file = web_as("localhost")
    store, url = make(web.port, file)
    with pytest.raises((BackendUnavailable, errors.NotFound)):
        store.get(CTX, url)
    assert was_asked(web, caplog)


@pytest.mark.parametrize("version", ["1", "3"])
@pytest.mark.filterwarnings("ignore:Unverified HTTPS request")
def test_the_switch_for_swift_trusts_anybody(version, web_as, caplog):
    web, _ = web_as("localhost")
    store, url = swift(version)(web.port, swift_store_auth_insecure=True)
    with pytest.raises(BackendUnavailable):
        store.get(CTX, url)
    assert was_asked(web, caplog)
