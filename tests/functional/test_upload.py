"""Uploading data: images-v1.md section 9, cases 21.3 but for the limits (test_limits.py)."""

import hashlib
import uuid
from collections.abc import Mapping

import pytest

from tests.functional.daemons import OCTETS, RAW, Answer, Client, Service, chunked
from tests.functional.steps import (
    HalfUpload,
    active_image,
    create,
    deactivated_image,
    killed_image,
    meta,
    path,
    queued_image,
    status_of,
    upload,
    wait_for_status,
    wait_until,
)

HELLO = b"hello"
HELLO_MD5 = "5d41402abc4b2a76b9719d911017c592"
NOTHING_MD5 = "d41d8cd98f00b204e9800998ecf8427e"
JSON = {"Content-Type": "application/json"}


def put(caller: Client, image_id: str, content: object = b"data", **fields: str) -> Answer:
    return caller.put(path(image_id), {**OCTETS, **meta(**fields)}, content)


def refused(
    caller: Client, headers: Mapping[str, str | bytes], content: bytes
) -> tuple[Answer, str]:
    """A POST that is refused, and the id that its record has."""
    image_id = str(uuid.uuid4())
    answer = caller.post("/v1/images", {**headers, **meta(id=image_id)}, content)
    assert answer.status >= 400
    return answer, image_id


class TestPost:
    def test_data_makes_an_active_image(self, t1: Client) -> None:
        """V1-IMG-200"""
        answer = upload(t1, HELLO)
        assert answer.status == 201
        image = answer.image
        assert (image["status"], image["size"], image["checksum"]) == ("active", 5, HELLO_MD5)
        assert answer.headers["etag"] == HELLO_MD5
        assert t1.get(path(image["id"])).content == HELLO

    @pytest.mark.parametrize(
        "content",
        [
            pytest.param(b"x" * 10000, id="V1-IMG-201"),
            pytest.param(b"", id="V1-IMG-202"),
        ],
    )
    def test_the_length_need_not_be_told(self, t1: Client, content: bytes) -> None:
        image = upload(t1, chunked(content)).image
        checksum = hashlib.md5(content).hexdigest()
        assert image["status"] == "active"
        assert (image["size"], image["checksum"]) == (len(content), checksum)
        assert t1.get(path(image["id"])).content == content

    def test_a_length_of_zero_is_no_data(self, t1: Client) -> None:
        """V1-IMG-203"""
        image = upload(t1, b"").image
        assert (image["status"], image["size"]) == ("queued", 0)

    @pytest.mark.parametrize(
        "headers",
        [
            pytest.param({}, id="V1-IMG-204"),
            pytest.param({"Content-Type": "text/plain"}, id="V1-IMG-205"),
        ],
    )
    def test_another_content_type_kills(self, t1: Client, headers: dict[str, str]) -> None:
        answer, image_id = refused(t1, {**RAW, **headers}, HELLO)
        assert answer.status == 400
        assert status_of(t1, image_id) == "killed"

    def test_a_content_type_may_have_parameters(self, t1: Client) -> None:
        """V1-IMG-206"""
        headers = {**RAW, "Content-Type": "application/octet-stream; charset=x"}
        assert t1.post("/v1/images", headers, HELLO).status == 201

    @pytest.mark.parametrize(
        ("fields", "text"),
        [
            pytest.param({}, "Disk format is not specified", id="V1-IMG-207"),
            pytest.param(
                {"disk_format": "raw"}, "Container format is not specified", id="V1-IMG-208"
            ),
        ],
    )
    def test_data_needs_both_formats(self, t1: Client, fields: dict[str, str], text: str) -> None:
        """D04: and nothing is left of the request."""
        answer = t1.post("/v1/images", {**OCTETS, **meta(**fields)}, HELLO)
        assert answer.status == 400
        assert text in answer.text
        assert t1.mine() == []

    @pytest.mark.parametrize("size", ["3", "5"])
    @pytest.mark.parametrize("as_chunks", [False, True])
    def test_a_wrong_size_kills_and_leaves_nothing(
        self, service: Service, t1: Client, size: str, as_chunks: bool
    ) -> None:
        """V1-IMG-209"""
        image_id = str(uuid.uuid4())
        content = chunked(b"four") if as_chunks else b"four"
        assert upload(t1, content, size=size, id=image_id).status == 400
        assert status_of(t1, image_id) == "killed"
        assert image_id not in service.stored_files()

    def test_a_size_of_zero_is_no_declaration(self, t1: Client) -> None:
        """V1-IMG-210"""
        assert upload(t1, b"four", size="0").image["size"] == 4

    @pytest.mark.parametrize(
        "checksum",
        [
            pytest.param("f" * 32, id="V1-IMG-211"),
            pytest.param(HELLO_MD5.upper(), id="V1-IMG-212"),
            "x",
        ],
    )
    def test_a_wrong_checksum_kills(self, service: Service, t1: Client, checksum: str) -> None:
        answer, image_id = refused(t1, {**RAW, **OCTETS, **meta(checksum=checksum)}, HELLO)
        assert answer.status == 400
        assert status_of(t1, image_id) == "killed"
        assert image_id not in service.stored_files()
        assert t1.mine() == []
        since = t1.get("/v1/images/detail?changes-since=2020-01-01").json["images"]
        assert image_id in [image["id"] for image in since]

    def test_the_right_checksum_is_accepted(self, t1: Client) -> None:
        """V1-IMG-213"""
        assert upload(t1, HELLO, checksum=HELLO_MD5).image["status"] == "active"

    def test_content_md5_is_ignored(self, t1: Client) -> None:
        """V1-IMG-214"""
        headers = {**RAW, **OCTETS, "Content-MD5": "AAAAAAAAAAAAAAAAAAAAAA=="}
        assert t1.post("/v1/images", headers, HELLO).status == 201

    def test_an_unknown_store_is_refused(self, t1: Client) -> None:
        """V1-IMG-215"""
        answer = upload(t1, HELLO, store="bad")
        assert answer.status == 400
        assert "Required store bad is invalid" in answer.text
        assert t1.mine() == []

    def test_a_read_only_store_kills(self, t1: Client) -> None:
        """V1-IMG-216"""
        answer, image_id = refused(t1, {**RAW, **OCTETS, **meta(store="http")}, HELLO)
        assert answer.status == 410
        assert status_of(t1, image_id) == "killed"

    def test_the_store_can_be_named(self, t1: Client) -> None:
        assert upload(t1, HELLO, store="file").image["status"] == "active"


class TestPut:
    @pytest.mark.parametrize(
        ("declared", "content", "status", "after"),
        [
            pytest.param({"size": "4"}, b"abc", 400, "killed", id="V1-IMG-234 short"),
            pytest.param({"size": "4"}, b"abcd", 200, "active", id="V1-IMG-234 right"),
            pytest.param({"checksum": "f" * 32}, b"abcd", 400, "killed", id="V1-IMG-235"),
            pytest.param({"checksum": HELLO_MD5}, HELLO, 200, "active", id="V1-IMG-235 right"),
        ],
    )
    def test_what_was_declared_before_still_holds(
        self,
        t1: Client,
        declared: dict[str, str],
        content: bytes,
        status: int,
        after: str,
    ) -> None:
        image_id = queued_image(t1, **declared)
        assert put(t1, image_id, content).status == status
        assert status_of(t1, image_id) == after

    def test_without_formats_it_stays_queued(self, t1: Client) -> None:
        """V1-IMG-236"""
        image_id = create(t1).image["id"]
        assert put(t1, image_id).status == 400
        assert status_of(t1, image_id) == "queued"
        assert put(t1, image_id, disk_format="raw", container_format="bare").status == 200

    def test_another_content_type_kills(self, t1: Client) -> None:
        """V1-IMG-237"""
        image_id = queued_image(t1)
        assert t1.put(path(image_id), {"Content-Type": "text/plain"}, b"data").status == 400
        assert status_of(t1, image_id) == "killed"

    def test_after_an_unknown_store_a_retry_works(self, t1: Client) -> None:
        """V1-IMG-238"""
        image_id = queued_image(t1)
        assert put(t1, image_id, store="bad").status == 400
        assert status_of(t1, image_id) == "queued"
        assert put(t1, image_id).image["status"] == "active"

    def test_no_chunks_are_data(self, t1: Client) -> None:
        """V1-IMG-239"""
        image = put(t1, queued_image(t1), chunked(b"")).image
        assert (image["status"], image["size"], image["checksum"]) == ("active", 0, NOTHING_MD5)

    @pytest.mark.parametrize(
        "fields",
        [pytest.param({}, id="V1-IMG-240"), pytest.param({"size": "0"}, id="V1-IMG-241")],
    )
    def test_a_length_of_zero_is_no_data(self, t1: Client, fields: dict[str, str]) -> None:
        assert put(t1, queued_image(t1), b"", **fields).image["status"] == "queued"

    @pytest.mark.parametrize("content", [b"data", pytest.param(b"", id="V1-IMG-243")])
    def test_bytes_never_change(self, service: Service, t1: Client, content: bytes) -> None:
        """V1-IMG-242"""
        images = [
            active_image(t1, b"first"),
            killed_image(t1),
            deactivated_image(service, t1, b"first"),
        ]
        for image_id in images:
            before = status_of(t1, image_id)
            assert put(t1, image_id, chunked(content)).status == 409
            assert status_of(t1, image_id) == before
        assert t1.get(path(images[0])).content == b"first"

    def test_a_json_body_is_data_too(self, t1: Client) -> None:
        """V1-IMG-244"""
        assert t1.put(path(active_image(t1)), JSON, b'{"name": "x"}').status == 409

    def test_properties_are_added_and_kept(self, t1: Client) -> None:
        """V1-IMG-245"""
        image_id = queued_image(t1, **{"property-k": "1"})
        image = put(t1, image_id, **{"property-z": "2"}).image
        assert image["properties"] == {"k": "1", "z": "2"}
        assert image["status"] == "active"

    def test_nobody_else_fills_a_private_image(self, t1: Client, t2: Client) -> None:
        """V1-IMG-246"""
        image_id = queued_image(t1)
        assert put(t2, image_id).status == 404
        assert status_of(t1, image_id) == "queued"


class TestUnderWay:
    def test_a_client_that_leaves_leaves_nothing(self, service: Service, t1: Client) -> None:
        """V1-IMG-229"""
        by_put = queued_image(t1)
        with HalfUpload.to(t1, by_put, 100_000, b"x" * 50_000):
            pass
        by_post = str(uuid.uuid4())
        headers = {**RAW, **OCTETS, "x-image-meta-id": by_post}
        with HalfUpload(t1, "POST", "/v1/images", headers, 100_000) as half:
            half.send(b"x" * 50_000)
            wait_until(lambda: t1.head(path(by_post)).status == 200)
        for image_id in (by_put, by_post):
            wait_for_status(t1, image_id, "killed")
            assert image_id not in service.stored_files()

    @pytest.mark.parametrize(
        "who", [pytest.param("t1", id="V1-IMG-230"), pytest.param("admin", id="V1-IMG-231")]
    )
    def test_deleting_ends_an_upload(
        self, request: pytest.FixtureRequest, service: Service, who: str, root: Client
    ) -> None:
        """D02"""
        caller: Client = request.getfixturevalue(who)
        image_id = queued_image(caller)
        with HalfUpload.to(caller, image_id, 20_000, b"x" * 10_000) as half:
            assert caller.delete(path(image_id)).status == 200
            half.send(b"x" * 10_000)
            assert half.answer().status == 412
        assert root.get(f"/images/{image_id}").json["image"]["status"] == "deleted"
        assert image_id not in service.stored_files()

    def test_a_deleted_image_ends_an_upload_that_stalls(self, t1: Client) -> None:
        """D02, SEC-072: long before its last byte."""
        image_id = queued_image(t1)
        with HalfUpload.to(t1, image_id, 20_000, b"x" * 10_000) as half:
            assert t1.delete(path(image_id)).status == 200
            assert half.answer().status == 412

    def test_a_second_upload_is_refused(self, t1: Client) -> None:
        """V1-IMG-232"""
        image_id = queued_image(t1)
        with HalfUpload.to(t1, image_id, 10, b"first") as half:
            assert put(t1, image_id, b"other").status == 409
            half.send(b"first")
            answer = half.answer()
        assert (answer.status, answer.image["status"]) == (200, "active")
        assert t1.get(path(image_id)).content == b"firstfirst"

    def test_metadata_may_change_meanwhile(self, t1: Client) -> None:
        """V1-IMG-233"""
        image_id = queued_image(t1)
        with HalfUpload.to(t1, image_id, 10, b"first") as half:
            changed = t1.put(path(image_id), meta(name="new"))
            assert (changed.status, changed.image["status"]) == (200, "saving")
            half.send(b"first")
            answer = half.answer()
        assert (answer.image["status"], answer.image["name"]) == ("active", "new")

    def test_it_cannot_be_downloaded_meanwhile(self, t1: Client) -> None:
        """V1-IMG-405: saving; and V1-IMG-242: data for a saving image."""
        image_id = queued_image(t1)
        with HalfUpload.to(t1, image_id, 10, b"first") as half:
            assert t1.get(path(image_id)).status == 404
            half.send(b"first")
            assert half.answer().status == 200
