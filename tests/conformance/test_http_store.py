"""The http store: what it takes for an image, where it goes, and what it tells on the way."""

import http.server
import socket
import ssl
import threading

import pytest

from common import errors
from common.context import RequestContext
from glance_store import BackendUnavailable
from glance_store.drivers.http import HttpStore
from glance_store.outbound import OutboundRefused
from glance_store.testing import content_of
from tests.certificates import certificate
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


# Answers.


def test_missing_image_is_said_in_the_words_clients_look_for(store, web):
    """V1-IMG-304, images-v1.md section 16."""
    for status in (404, 410):
        web.pages["/x"] = Page(status=status)
        for call in (store.get, store.size):
            with pytest.raises(errors.NotFound, match="could not find image at URI"):
                call(CTX, web.url("/x"))


@pytest.mark.parametrize("status", [204, 301, 400, 401, 403, 500, 503])
def test_other_statuses_are_no_image(store, web, status):
    """V1-IMG-305."""
    web.pages["/x"] = Page(CONTENT, status=status)
    unavailable(store, web.url("/x"))


@pytest.mark.parametrize("head", [400, 403, 405, 500, 501])
@pytest.mark.parametrize("ranges", [True, False])
def test_size_is_found_where_head_is_refused(store, web, head, ranges):
    """REL-096."""
    web.pages["/x"] = Page(CONTENT, head_status=head, ranges=ranges)
    assert store.size(CTX, web.url("/x")) == len(CONTENT)


def test_size_is_unknown_where_the_source_does_not_tell(store, web):
    """V1-IMG-330, D43."""
    web.pages["/x"] = Page(CONTENT, chunked=True, ranges=False)
    assert store.size(CTX, web.url("/x")) is None
    assert store.get(CTX, web.url("/x")).length is None
    assert read(store, web.url("/x")) == CONTENT


def test_empty_source_has_size_zero(store, web):
    web.pages["/x"] = Page(b"")
    assert store.size(CTX, web.url("/x")) == 0


def test_more_than_the_recorded_size_is_never_yielded(store, web):
    """REL-096: the registered size is enforced on a source without one."""
    web.pages["/x"] = Page(CONTENT, chunked=True, ranges=False)
    body = store.get(CTX, web.url("/x"))
    body.length = 1000
    assert b"".join(body) == CONTENT[:1000]


# Redirects.


def test_redirect_is_followed_with_its_query(store, web):
    """V1-IMG-306, LP 1633860."""
    web.pages["/x"] = Page(redirect="/y?a=b&c=d")
    web.pages["/y?a=b&c=d"] = Page(CONTENT)
    assert store.size(CTX, web.url("/x")) == len(CONTENT)
    assert read(store, web.url("/x")) == CONTENT


@pytest.mark.parametrize(("hops", "followed"), [(5, True), (6, False)])
def test_five_redirects_are_followed(store, web, hops, followed):
    for hop in range(hops):
        web.pages[f"/{hop}"] = Page(redirect=f"/{hop + 1}")
    web.pages[f"/{hops}"] = Page(CONTENT)
    if followed:
        assert read(store, web.url("/0")) == CONTENT
    else:
        unavailable(store, web.url("/0"))


def test_redirect_to_itself_ends(store, web):
    """V1-IMG-307."""
    web.pages["/x"] = Page(redirect="/x")
    unavailable(store, web.url("/x"))


@pytest.mark.parametrize(
    "host", ["127.0.0.2", "2130706434", "0x7f000002", "127.2", "[::ffff:127.0.0.2]", "inner.test"]
)
def test_redirect_inwards_reaches_nobody(store, web, monkeypatch, host):
    """SEC-043: at every hop, by the resolved address."""
    resolving(monkeypatch, {"inner.test": "127.0.0.2"})
    with Web("127.0.0.2") as inner:
        inner.pages["/y"] = Page(CONTENT)
        web.pages["/x"] = Page(redirect=f"http://{host}:{inner.port}/y")
        unavailable(store, web.url("/x"))
        assert inner.requests == []


def test_redirect_to_another_protocol_is_refused(store, web):
    for target in ("ftp://127.0.0.1/x", "file:///etc/passwd", "gopher://127.0.0.1/"):
        web.pages["/x"] = Page(redirect=target)
        unavailable(store, web.url("/x"))


# Who we are is nobody's business.


def sent(web):
    return [
        {name.lower(): value for name, value in headers.items()} for *_, headers in web.requests
    ]


def test_requests_carry_no_identity(store, web, monkeypatch):
    """SEC-037: no token, no cookie, nothing out of the environment."""
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    web.pages["/x"] = Page(CONTENT, cookie="session=1")
    for _ in range(2):
        read(store, web.url("/x"))
    for headers in sent(web):
        assert set(headers) <= {"host", "user-agent", "accept", "accept-encoding", "connection"}
        assert headers["accept-encoding"] == "identity"


def test_user_info_is_sent_to_its_own_host_only(store, web):
    """SEC-037."""
    with Web() as other:
        other.pages["/y"] = Page(CONTENT)
        web.pages["/x"] = Page(redirect=other.url("/y"))
        assert read(store, web.url("/x").replace("//", "//me:secret@")) == CONTENT
        assert sent(web)[0]["authorization"].startswith("Basic ")
        assert "authorization" not in sent(other)[0]


def test_failures_never_show_the_url(store, web, caplog):
    """SEC-030, SEC-031."""
    caplog.set_level(0)
    with web.stopped(), pytest.raises(BackendUnavailable) as caught:
        store.get(CTX, web.url("/secret-path").replace("//", "//me:canary@"))
    assert caught.value.__suppress_context__
    ours = [record.getMessage() for record in caplog.records if record.name.startswith("glance")]
    assert not any("canary" in line or "secret-path" in line for line in ours)
    assert "canary" not in caplog.text


# Names and TLS.


def resolving(monkeypatch, table):
    """Let names resolve by table; return the names looked up, as they are."""
    real, asked = socket.getaddrinfo, []

    def getaddrinfo(host, *args, **kwargs):
        asked.append(host)
        return real(table.get(host, host), *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    return asked


@pytest.fixture
def secure(tmp_path, monkeypatch):
    """A server whose certificate is for mirror.test, and the file of that certificate."""
    file = str(certificate(tmp_path, "mirror.test"))
    names = []
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    context.sni_callback = lambda _socket, name, _context: names.append(name)
    resolving(monkeypatch, {"mirror.test": "127.0.0.1", "other.test": "127.0.0.1"})
    with Web(tls=context) as web:
        web.pages["/x"] = Page(CONTENT)
        web.server_names = names
        yield web, file


def test_tls_goes_by_the_name_though_the_address_was_checked(secure):
    """SEC-036, SEC-043."""
    web, file = secure
    store = reaching(HttpStore({"https_ca_certificates_file": file}))
    assert read(store, web.url("/x", host="mirror.test")) == CONTENT
    assert web.server_names == ["mirror.test"]
    assert sent(web)[0]["host"] == f"mirror.test:{web.port}"


def test_certificate_of_another_host_is_refused(secure):
    """SEC-036: no request is sent after such a handshake."""
    web, file = secure
    store = reaching(HttpStore({"https_ca_certificates_file": file}))
    unavailable(store, web.url("/x", host="other.test"))
    assert web.requests == []


def test_unknown_authority_is_refused_by_default(secure):
    """M05, SEC-036."""
    web, _ = secure
    unavailable(reaching(HttpStore({})), web.url("/x", host="mirror.test"))
    assert web.requests == []


def test_certificates_can_be_left_unchecked_loudly(secure, caplog):
    web, _ = secure
    store = reaching(HttpStore({"https_insecure": True}))
    assert "https_insecure" in caplog.text
    assert read(store, web.url("/x", host="mirror.test")) == CONTENT


def test_step_down_from_https_is_refused(secure, web):
    """SEC-043."""
    tls, file = secure
    web.pages["/y"] = Page(CONTENT)
    tls.pages["/x"] = Page(redirect=web.url("/y"))
    store = reaching(HttpStore({"https_ca_certificates_file": file}))
    unavailable(store, tls.url("/x", host="mirror.test"))
    assert web.requests == []


def test_each_connection_is_made_to_what_was_looked_up_for_it(store, web, monkeypatch):
    """SEC-043: a name that changes between look-ups gains nothing."""
    asked = resolving(monkeypatch, {"turning.test": "127.0.0.1"})
    web.pages["/x"] = Page(CONTENT)
    assert read(store, web.url("/x", host="turning.test")) == CONTENT
    assert asked == ["turning.test"]


def test_hosts_and_ports_are_checked_before_anything_is_sent(web):
    web.pages["/x"] = Page(CONTENT)
    for rules in ({"denied_hosts": ("127.0.0.1",)}, {"allowed_ports": frozenset({443})}):
        store = reaching(HttpStore({}), **rules)
        with pytest.raises(OutboundRefused):
            store.get(CTX, web.url("/x"))
    assert web.requests == []


# A proxy.


def test_proxy_is_asked_where_one_is_configured(web):
    """The proxy is the operator's: it may be on this host, and looks names up itself."""
    asked = []

    class Proxy(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_response(200)
            self.send_header("Content-Length", "7")
            self.end_headers()
            self.wfile.write(b"proxied")

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Proxy) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,)).start()
        proxies = {"http": f"127.0.0.1:{server.server_address[1]}"}
        store = HttpStore({"http_proxy_information": proxies})
        assert read(store, "http://mirror.test/x") == b"proxied"
        with pytest.raises(OutboundRefused):
            store.get(CTX, "http://127.1/x")
        server.shutdown()
    assert asked == ["http://mirror.test/x"]
