"""What a user does with an image, through both daemons, on any store with its real server.

Bind it in a few lines: `options` has the [glance_store] section, `backend` is the server,
`stored` says what it holds.
"""

import contextlib
import hashlib
import http.client
import time
import uuid
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

import pytest

from glance_store.testing import content_of
from tests.conformance.web import Page, Web
from tests.functional.daemons import OCTETS, RAW, Client, Service, running_service
from tests.functional.steps import HalfUpload, path, status_of, upload, wait_for_status
from tests.servers.process import Server

MIB = 1024 * 1024


class StoreLifecycle:
    """The tests; one pair of daemons serves all of them."""

    @pytest.fixture(scope="class")
    @classmethod
    def backend(cls) -> Iterator[Server]:
        raise NotImplementedError("a binding provides the server")

    @pytest.fixture(scope="class")
    @classmethod
    def options(cls, backend: Server) -> Mapping[str, Any]:
        raise NotImplementedError("a binding provides the [glance_store] section")

    @pytest.fixture(scope="class")
    @classmethod
    def stored(cls, backend: Server) -> Callable[[], Collection[object]]:
        raise NotImplementedError("a binding tells what the server holds")

    @pytest.fixture(scope="class")
    @classmethod
    def service(
        cls, options: Mapping[str, Any], tmp_path_factory: pytest.TempPathFactory
    ) -> Iterator[Service]:
        home = tmp_path_factory.mktemp("service")
        with running_service(home, api={"glance_store": options}) as service:
            yield service

    @pytest.fixture
    def caller(self, service: Service) -> Client:
        return service.caller("t1")

    def test_image_of_200_mib_lives_and_leaves_nothing(
        self, caller: Client, stored: Callable[[], Collection[object]]
    ) -> None:
        before = list(stored())
        content = content_of(200 * MIB)
        image = upload(caller, content, name="large").image
        assert (image["status"], image["size"]) == ("active", len(content))
        assert image["checksum"] == hashlib.md5(content).hexdigest()
        head = caller.head(path(image["id"]))
        assert head.headers["x-image-meta-size"] == str(len(content))
        assert caller.get(path(image["id"])).content == content
        part = caller.get(path(image["id"]), {"Range": f"bytes={50 * MIB}-{60 * MIB}"})
        assert part.status == 206
        assert part.content == content[50 * MIB : 60 * MIB + 1]
        assert caller.delete(path(image["id"])).status == 200
        assert list(stored()) == before

    def test_upload_of_unknown_size(self, caller: Client) -> None:
        content = content_of(11 * MIB + 7)
        pieces = (content[start : start + 100_003] for start in range(0, len(content), 100_003))
        image = upload(caller, pieces).image
        assert (image["status"], image["size"]) == ("active", len(content))
        assert caller.get(path(image["id"])).content == content
        assert caller.delete(path(image["id"])).status == 200

    def test_copy_into_the_store(self, caller: Client) -> None:
        content = content_of(20 * MIB)
        with Web() as web:
            web.pages["/image"] = Page(content)
            source = {"x-glance-api-copy-from": web.url("/image")}
            image_id = caller.post("/v1/images", {**RAW, **source}).image["id"]
            assert wait_for_status(caller, image_id, "active", "killed") == "active"
        assert caller.get(path(image_id)).content == content
        assert caller.delete(path(image_id)).status == 200

    def test_refused_content_leaves_nothing(
        self, caller: Client, stored: Callable[[], Collection[object]]
    ) -> None:
        before = list(stored())
        answer = upload(caller, content_of(5 * MIB), checksum="0" * 32)
        assert answer.status == 400
        assert list(stored()) == before

    def test_backend_that_dies_during_an_upload_kills_the_image(
        self, caller: Client, backend: Server
    ) -> None:
        """REL-085: an answer in bounded time, and the service goes on."""
        image_id = str(uuid.uuid4())
        headers = {**RAW, **OCTETS, "x-image-meta-id": image_id}
        started = time.monotonic()
        with HalfUpload(caller, "POST", "/v1/images", headers, 100 * MIB) as sender:
            sender.send(content_of(12 * MIB))
            backend.kill()
            # Whoever is refused in the middle may see the connection end first.
            with contextlib.suppress(OSError):
                sender.send(content_of(40 * MIB))
            assert wait_for_status(caller, image_id, "killed") == "killed"
        assert time.monotonic() - started < 60
        backend.restart()
        image = upload(caller, b"works again").image
        assert caller.get(path(image["id"])).content == b"works again"
        assert caller.delete(path(image["id"])).status == 200

    def test_backend_that_dies_during_a_download_ends_it_short(
        self, service: Service, caller: Client, backend: Server
    ) -> None:
        """REL-032: the client can tell, and the image stays active."""
        image_id = upload(caller, content_of(120 * MIB)).image["id"]
        connection = http.client.HTTPConnection("127.0.0.1", service.api.port, timeout=60)
        with contextlib.closing(connection):
            connection.request("GET", path(image_id), headers=caller.headers)
            response = connection.getresponse()
            response.read(MIB)
            backend.kill()
            with pytest.raises((http.client.IncompleteRead, OSError)):
                response.read()
        assert status_of(caller, image_id) == "active"
        backend.restart()
