"""TLS on both daemons: the API for everybody, the registry for whoever has a certificate."""

import http.client
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.certificates import certificate
from tests.functional.audit import audit
from tests.functional.daemons import (
    OCTETS,
    RAW,
    T1,
    Client,
    Service,
    chunked,
    make_service,
    running,
)

CONTENT = bytes(range(256)) * 12_000


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    home = tmp_path_factory.mktemp("tls")
    own = certificate(home, "localhost")
    client = certificate(home, "client.test")
    serving = {"cert_file": own, "key_file": own}
    service = make_service(
        home,
        api=serving
        | {
            "registry_host": "localhost",
            "registry_client_protocol": "https",
            "registry_client_ca_file": own,
            "registry_client_cert_file": client,
            "registry_client_key_file": client,
        },
        registry=serving | {"ca_file": client},
    )
    service.api.tls = ssl.create_default_context(cafile=own)
    service.registry.tls = ssl.create_default_context(cafile=own)
    service.registry.tls.load_cert_chain(client)
    with running(service):
        yield service
        audit(service)


def create(client: Client) -> str:
    answer = client.post("/v1/images", {**RAW, **OCTETS, "x-image-meta-name": "a"}, CONTENT)
    return str(answer.image["id"])


def test_an_image_passes_through_tls_whole(service: Service) -> None:
    image_id = create(service.t1)
    assert service.t1.get(f"/v1/images/{image_id}").content == CONTENT
    assert service.t1.head(f"/v1/images/{image_id}").headers["x-image-meta-status"] == "active"
    part = service.t1.get(f"/v1/images/{image_id}", {"Range": "bytes=1000-2000999"})
    assert part.content == CONTENT[1000:2_001_000]
    assert service.t1.delete(f"/v1/images/{image_id}").status == 200


def test_chunks_pass_through_tls(service: Service) -> None:
    answer = service.t1.post("/v1/images", {**RAW, **OCTETS}, chunked(CONTENT, 70_000))
    assert service.t1.get(f"/v1/images/{answer.image['id']}").content == CONTENT


def test_links_are_https(service: Service) -> None:
    link = service.t1.get("/").json["versions"][0]["links"][0]["href"]
    assert link.startswith("https://")


def test_plain_http_is_not_answered(service: Service) -> None:
    with pytest.raises((OSError, http.client.HTTPException)):
        Client(service.api.port).get("/")


def test_a_registry_with_ca_file_takes_no_client_without_a_certificate(service: Service) -> None:
    """MW-045."""
    trusting = ssl.create_default_context(cafile=service.registry.conf["DEFAULT"]["cert_file"])
    with pytest.raises((OSError, http.client.HTTPException)):
        Client(service.registry.port, tls=trusting).get("/healthcheck")


def test_a_client_that_never_says_hello_keeps_nobody_waiting(service: Service) -> None:
    with socket.create_connection(("127.0.0.1", service.api.port)):
        assert service.t1.get("/healthcheck").status == 200


def test_a_write_after_the_registry_has_restarted_is_carried_out(service: Service) -> None:
    """Connections that the registry has closed meanwhile are not used for it."""
    create(service.t1)
    service.registry.restart()
    create(service.t1)


def test_the_log_says_why_the_registry_cannot_be_reached(tmp_path: Path) -> None:
    own = certificate(tmp_path, "localhost")
    service = make_service(
        tmp_path,
        api={"registry_client_protocol": "https", "registry_host": "localhost"},
        registry={"cert_file": own, "key_file": own},
    )
    service.registry.tls = ssl.create_default_context(cafile=own)
    with running(service):
        assert service.client(T1).get("/v1/images").status == 503
        assert "certificate verify failed" in service.api.log


def test_a_key_of_another_certificate_stops_the_daemon(tmp_path: Path) -> None:
    """REL-090."""
    own, other = certificate(tmp_path, "localhost"), certificate(tmp_path, "other.test")
    service = make_service(tmp_path, api={"cert_file": own, "key_file": other})
    service.api.start(wait=False)
    assert service.api.process is not None
    assert service.api.process.wait(30) == 1
    assert "cert_file, key_file or ca_file cannot be used" in service.api.output
