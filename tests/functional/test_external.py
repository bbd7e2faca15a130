"""Locations and copies: images-v1.md section 10, cases 21.4 but for policies and limits."""

import hashlib
import uuid
from collections.abc import Mapping

import pytest

from tests.conformance.web import Page
from tests.functional.daemons import OCTETS, RAW, Answer, Client, Service
from tests.functional.sources import CHECKSUM, CONTENT, Sources
from tests.functional.steps import (
    active_image,
    create,
    killed_image,
    meta,
    path,
    queued_image,
    status_of,
    wait_for_status,
    wait_until,
)

LOCATION = "x-image-meta-location"
COPY_FROM = "x-glance-api-copy-from"
BOTH = pytest.mark.parametrize("header", [LOCATION, COPY_FROM])
NOT_THERE = "HTTP datastore could not find image at URI."


def post(caller: Client, headers: Mapping[str, str], **fields: str | bytes) -> Answer:
    """POST with both formats."""
    return caller.post("/v1/images", {**RAW, **headers, **meta(**fields)})


def copied(caller: Client, url: str, **fields: str | bytes) -> str:
    """The id of an image whose copy has been started."""
    answer = post(caller, {COPY_FROM: url}, **fields)
    assert answer.status == 201
    assert answer.image["status"] == "queued"
    image_id: str = answer.image["id"]
    return image_id


def require_nothing(caller: Client) -> None:
    """D04: a refused POST leaves no record."""
    assert caller.mine() == []


def require_untouched(caller: Client, image_id: str) -> None:
    """D04: a refused PUT leaves the image as it was, so that data can still come."""
    head = caller.head(path(image_id)).headers
    assert (head["x-image-meta-status"], head["x-image-meta-size"]) == ("queued", "0")
    headers = {**RAW, **OCTETS}
    assert caller.put(path(image_id), headers, b"data").image["status"] == "active"
    assert caller.get(path(image_id)).content == b"data"


class TestLocation:
    def test_the_bytes_are_used_in_place(
        self, service: Service, t1: Client, sources: Sources
    ) -> None:
        """V1-IMG-300, V1-IMG-315, V1-IMG-316"""
        url = sources.url("/ok")
        answer = post(t1, {LOCATION: url})
        image = answer.image
        assert (image["status"], image["size"], image["checksum"]) == ("active", 5120, None)
        got = t1.get(path(image["id"]))
        assert got.content == CONTENT
        shown = (answer, got, t1.head(path(image["id"])), t1.get("/v1/images/detail"))
        for each in (*shown, t1.put(path(image["id"]))):
            assert url.encode() not in each.content
            assert not any(
                "location" in name and url in each.headers[name] for name in each.headers
            )
            assert "x-image-meta-location" not in each.headers
        assert "location" not in image
        assert image["id"] not in service.stored_files()
        before = len(sources.requests)
        assert t1.delete(path(image["id"])).status == 200
        assert len(sources.requests) == before

    @pytest.mark.parametrize(
        ("size", "status"),
        [
            pytest.param("5120", 201, id="V1-IMG-301 same"),
            pytest.param("7", 409, id="V1-IMG-301 other"),
            pytest.param("0", 201, id="V1-IMG-302"),
        ],
    )
    def test_a_declared_size_is_the_sources(
        self, t1: Client, sources: Sources, size: str, status: int
    ) -> None:
        """D06: size 0 does not make it active before its data is there."""
        answer = post(t1, {LOCATION: sources.url("/ok")}, size=size)
        assert answer.status == status
        if status == 201:
            assert (answer.image["status"], answer.image["size"]) == ("active", 5120)
        else:
            require_nothing(t1)

    def test_a_checksum_is_stored_unverified(self, t1: Client, sources: Sources) -> None:
        """V1-IMG-303"""
        assert post(t1, {LOCATION: sources.url("/ok")}, checksum="abc").image["checksum"] == "abc"

    def test_a_redirect_is_followed(self, t1: Client, sources: Sources) -> None:
        """V1-IMG-306"""
        image = post(t1, {LOCATION: sources.url("/moved")}).image
        assert image["size"] == 5120
        assert t1.get(path(image["id"])).content == CONTENT

    def test_a_source_without_a_length_is_refused(self, t1: Client, sources: Sources) -> None:
        """D43"""
        assert post(t1, {LOCATION: sources.url("/endless")}).status == 400
        require_nothing(t1)

    @pytest.mark.parametrize(
        ("formats", "text"),
        [
            ({"container_format": "bare"}, "Disk format is not specified"),
            ({"disk_format": "raw"}, "Container format is not specified"),
        ],
    )
    def test_both_formats_are_needed(
        self, t1: Client, sources: Sources, formats: dict[str, str], text: str
    ) -> None:
        """V1-IMG-313"""
        headers = {LOCATION: sources.url("/ok"), **meta(**formats)}
        answer = t1.post("/v1/images", headers)
        assert answer.status == 400
        assert text in answer.text
        require_nothing(t1)

    def test_the_store_is_checked_though_unused(self, t1: Client, sources: Sources) -> None:
        """V1-IMG-314"""
        answer = post(t1, {LOCATION: sources.url("/ok")}, store="bad")
        assert answer.status == 400
        assert "Required store bad is invalid" in answer.text
        require_nothing(t1)


class TestRefused:
    @BOTH
    def test_a_source_that_is_not_there(self, t1: Client, sources: Sources, header: str) -> None:
        """V1-IMG-304, V1-IMG-333"""
        answer = post(t1, {header: sources.url("/absent")})
        assert answer.status == 404
        assert NOT_THERE in answer.text
        require_nothing(t1)

    @BOTH
    @pytest.mark.parametrize("page", ["/forbidden", "/broken", "refused", "unknown host", "/loop"])
    def test_a_source_that_cannot_be_read(
        self, t1: Client, sources: Sources, header: str, page: str
    ) -> None:
        """V1-IMG-305, V1-IMG-307, V1-IMG-333; D03: the text does not tell why."""
        urls = {"refused": sources.refused, "unknown host": "http://nowhere.invalid/x"}
        answer = post(t1, {header: urls.get(page) or sources.url(page), "Accept": ""})
        assert answer.status == 400
        assert answer.text.endswith("The source cannot be read.\n\n   ")
        require_nothing(t1)

    @BOTH
    def test_a_url_without_a_host(self, t1: Client, header: str) -> None:
        """V1-IMG-308"""
        answer = post(t1, {header: "http://"})
        assert answer.status == 400
        assert "Invalid location" in answer.text
        require_nothing(t1)

    @BOTH
    @pytest.mark.parametrize(
        "url",
        [
            "ftp://x/y",
            "foo",
            "/etc/passwd",
            "file:///etc/passwd",
            "FILE:///etc/passwd",
            "filesystem:///x",
            "swift+config://x",
            "rbd://a/b/c/d",
            pytest.param("HTTP://example.org/x", id="V1-IMG-310"),
        ],
    )
    def test_a_scheme_that_callers_may_not_name(self, t1: Client, header: str, url: str) -> None:
        """V1-IMG-309, V1-IMG-334"""
        answer = post(t1, {header: url, "Accept": "application/json"})
        assert answer.status == 400
        text = answer.json["error"]["message"]
        assert text == f"External sources are not supported: '{url}'"
        require_nothing(t1)

    @BOTH
    def test_an_empty_url(self, t1: Client, header: str) -> None:
        """V1-IMG-311"""
        assert post(t1, {header: ""}).status == 400
        require_nothing(t1)

    @pytest.mark.parametrize(
        ("names", "body"),
        [
            ([LOCATION], b"data"),
            ([COPY_FROM], b"data"),
            ([LOCATION, COPY_FROM], None),
            ([LOCATION, COPY_FROM], b"data"),
        ],
    )
    def test_more_than_one_source(
        self, t1: Client, sources: Sources, names: list[str], body: bytes | None
    ) -> None:
        """V1-IMG-312"""
        headers = {**RAW, **OCTETS, **dict.fromkeys(names, sources.url("/ok"))}
        assert t1.post("/v1/images", headers, body).status == 400
        require_nothing(t1)

    def test_credentials_in_a_url_are_not_repeated(self, t1: Client) -> None:
        """SEC-030"""
        answer = post(t1, {LOCATION: "ftp://user:hushhush@host/x"})
        assert answer.status == 400
        assert "hushhush" not in answer.text


class TestPutLocation:
    def test_a_queued_image_gets_its_data(self, t1: Client, sources: Sources) -> None:
        """V1-IMG-317"""
        image_id = queued_image(t1)
        answer = t1.put(path(image_id), {LOCATION: sources.url("/ok")})
        assert answer.image["status"] == "active"
        assert answer.image["size"] == 5120
        assert t1.get(path(image_id)).content == CONTENT

    def test_formats_may_come_with_it(self, t1: Client, sources: Sources) -> None:
        image_id = create(t1).image["id"]
        answer = t1.put(path(image_id), {**RAW, LOCATION: sources.url("/ok")})
        assert answer.image["status"] == "active"

    @pytest.mark.parametrize(
        ("formats", "headers", "body", "page", "status"),
        [
            pytest.param({}, {}, None, "/ok", 400, id="V1-IMG-318"),
            pytest.param(RAW, OCTETS, b"data", "/ok", 400, id="V1-IMG-319"),
            pytest.param(RAW, meta(size="7"), None, "/ok", 409, id="V1-IMG-320"),
            pytest.param(RAW, {}, None, "/absent", 404, id="V1-IMG-321"),
            pytest.param(RAW, {}, None, "/broken", 400, id="V1-IMG-321 broken"),
        ],
    )
    def test_a_refusal_changes_nothing(
        self,
        t1: Client,
        sources: Sources,
        formats: dict[str, str],
        headers: dict[str, str],
        body: bytes | None,
        page: str,
        status: int,
    ) -> None:
        image_id = t1.post("/v1/images", formats).image["id"]
        sent = {**headers, LOCATION: sources.url(page)}
        assert t1.put(path(image_id), sent, body).status == status
        require_untouched(t1, image_id)

    @BOTH
    def test_only_a_queued_image_takes_one(self, t1: Client, sources: Sources, header: str) -> None:
        """V1-IMG-322"""
        for image_id in (active_image(t1), killed_image(t1)):
            before = status_of(t1, image_id)
            assert t1.put(path(image_id), {header: sources.url("/ok")}).status == 400
            assert status_of(t1, image_id) == before

    @BOTH
    def test_a_url_without_a_host(self, t1: Client, header: str) -> None:
        """V1-IMG-323"""
        image_id = queued_image(t1)
        answer = t1.put(path(image_id), {header: "http://"})
        assert answer.status == 400
        assert "Invalid location" in answer.text
        require_untouched(t1, image_id)

    def test_properties_not_sent_are_removed(self, t1: Client, sources: Sources) -> None:
        """Section 11.3: only a body protects them."""
        image_id = queued_image(t1, **{"property-k": "1"})
        headers = {LOCATION: sources.url("/ok"), **meta(**{"property-z": "2"})}
        assert t1.put(path(image_id), headers).image["properties"] == {"z": "2"}


class TestCopy:
    def test_the_bytes_are_copied(self, t1: Client, sources: Sources) -> None:
        """V1-IMG-326, V1-IMG-338"""
        sources.pages["/passing"] = Page(CONTENT)
        image_id = copied(t1, sources.url("/passing"))
        assert wait_for_status(t1, image_id, "active", "killed") == "active"
        del sources.pages["/passing"]
        got = t1.get(path(image_id))
        assert got.content == CONTENT
        assert got.headers["x-image-meta-size"] == "5120"
        assert got.headers["etag"] == CHECKSUM

    def test_formats_are_not_needed(self, t1: Client, sources: Sources) -> None:
        """V1-IMG-327"""
        image_id = t1.post("/v1/images", {COPY_FROM: sources.url("/ok")}).image["id"]
        assert wait_for_status(t1, image_id, "active", "killed") == "active"
        head = t1.head(path(image_id)).headers
        assert "x-image-meta-disk_format" not in head
        assert "x-image-meta-container_format" not in head

    @pytest.mark.parametrize(
        ("page", "fields", "size_at_first"),
        [
            pytest.param("/ok", {"size": "7"}, 7, id="V1-IMG-328"),
            pytest.param("/endless", {}, 0, id="V1-IMG-330"),
            pytest.param("/moved", {}, 5120, id="V1-IMG-306"),
            pytest.param("/ok", {"size": "0"}, 5120, id="D06"),
            pytest.param("/ok", {"checksum": CHECKSUM}, 5120, id="right checksum"),
        ],
    )
    def test_the_sources_length_counts(
        self, t1: Client, sources: Sources, page: str, fields: dict[str, str], size_at_first: int
    ) -> None:
        answer = post(t1, {COPY_FROM: sources.url(page)}, **fields)
        assert (answer.image["status"], answer.image["size"]) == ("queued", size_at_first)
        image_id = answer.image["id"]
        assert wait_for_status(t1, image_id, "active", "killed") == "active"
        got = t1.get(path(image_id))
        assert (got.content, got.headers["x-image-meta-size"]) == (CONTENT, "5120")

    @pytest.mark.parametrize(
        ("page", "fields"),
        [
            pytest.param("/ok", {"checksum": "f" * 32}, id="V1-IMG-329"),
            pytest.param("/unreadable", {}, id="V1-IMG-331"),
            pytest.param("/short", {}, id="V1-IMG-332"),
            pytest.param("/reset", {}, id="V1-IMG-332 reset"),
            pytest.param("/ok", {"store": "http"}, id="V1-IMG-336"),
        ],
    )
    def test_a_failure_shows_in_the_status(
        self, service: Service, t1: Client, sources: Sources, page: str, fields: dict[str, str]
    ) -> None:
        image_id = copied(t1, sources.url(page), **fields)
        assert wait_for_status(t1, image_id, "active", "killed") == "killed"
        assert image_id not in service.stored_files()

    def test_a_content_type_is_irrelevant(self, t1: Client, sources: Sources) -> None:
        """V1-IMG-335"""
        image_id = post(t1, {COPY_FROM: sources.url("/ok"), "Content-Type": "text/plain"}).image[
            "id"
        ]
        assert wait_for_status(t1, image_id, "active", "killed") == "active"

    def test_a_queued_image_gets_its_data(self, t1: Client, sources: Sources) -> None:
        """V1-IMG-340"""
        image_id = queued_image(t1)
        answer = t1.put(path(image_id), {COPY_FROM: sources.url("/ok")})
        assert (answer.status, answer.image["status"]) == (200, "queued")
        assert wait_for_status(t1, image_id, "active", "killed") == "active"
        assert t1.get(path(image_id)).content == CONTENT

    def test_an_image_deleted_meanwhile_stays_deleted(
        self, service: Service, t1: Client, sources: Sources, root: Client
    ) -> None:
        image_id = copied(t1, sources.url("/stalled"))
        wait_for_status(t1, image_id, "saving")
        assert t1.delete(path(image_id)).status == 200
        assert root.get(f"/images/{image_id}").json["image"]["status"] == "deleted"
        wait_until(lambda: image_id not in service.stored_files())

    def test_an_image_is_copied_from_another_one_of_ours(
        self, service: Service, t1: Client, sources: Sources
    ) -> None:
        content = uuid.uuid4().bytes * 1000
        sources.pages["/other"] = Page(content)
        image_id = copied(t1, sources.url("/other"))
        assert wait_for_status(t1, image_id, "active", "killed") == "active"
        assert t1.head(path(image_id)).headers["etag"] == hashlib.md5(content).hexdigest()
