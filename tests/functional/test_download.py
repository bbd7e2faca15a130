"""HEAD and GET of one image: images-v1.md section 7, cases 21.5, and decision 13."""

import http.client
import socket
import uuid
from collections.abc import Mapping

import pytest

from tests.functional.daemons import ADMIN, Client, Service
from tests.functional.steps import (
    active_image,
    create,
    deactivated_image,
    killed_image,
    meta,
    path,
    queued_image,
    wait_until,
)
from tests.registry import UNKNOWN_ID

CONTENT = b"0123456789"
MD5 = "781e5e245d69b566979b86e28d23f2c7"
CORE = {
    "id", "name", "status", "size", "disk_format", "container_format", "min_disk", "min_ram",
    "is_public", "protected", "owner", "checksum", "created_at", "updated_at", "deleted",
}  # fmt: skip
UNKNOWN = [UNKNOWN_ID, "zz", "4" * 40]


@pytest.fixture
def image_id(t1: Client) -> str:
    return active_image(t1, CONTENT, name="image", **{"property-Kernel-Id": "k"})


def metadata(headers: Mapping[str, str]) -> dict[str, str]:
    prefix = "x-image-meta-"
    return {
        name.removeprefix(prefix): value
        for name, value in headers.items()
        if name.startswith(prefix)
    }


def deleted_image(caller: Client) -> str:
    image_id = active_image(caller)
    assert caller.delete(path(image_id)).status == 200
    return image_id


class TestWhole:
    def test_head_describes_the_image(self, t1: Client, image_id: str) -> None:
        """V1-IMG-400"""
        answer = t1.head(path(image_id))
        assert (answer.status, answer.content) == (200, b"")
        assert answer.headers["content-length"] == "0"
        assert answer.headers["content-type"] == "text/html; charset=UTF-8"
        assert answer.headers["etag"] == MD5
        found = metadata(answer.headers)
        assert found.keys() == {*CORE, "property-kernel_id"}
        assert found["created_at"][10] == "T"
        assert len(found["created_at"]) == len("2016-01-01T00:00:00.000000")
        for name in ("created_at", "updated_at"):
            del found[name]
        assert found == {
            "id": image_id, "name": "image", "status": "active", "size": "10",
            "disk_format": "raw", "container_format": "bare", "min_disk": "0", "min_ram": "0",
            "is_public": "False", "protected": "False", "owner": t1.tenant, "checksum": MD5,
            "deleted": "False", "property-kernel_id": "k",
        }  # fmt: skip

    def test_get_adds_the_bytes(self, t1: Client, image_id: str) -> None:
        """V1-IMG-401"""
        answer = t1.get(path(image_id))
        assert (answer.status, answer.content) == (200, CONTENT)
        assert answer.headers["content-length"] == "10"
        assert answer.headers["content-type"] == "application/octet-stream"
        head = t1.head(path(image_id)).headers
        assert metadata(answer.headers) == metadata(head)
        assert answer.headers["etag"] == head["etag"]

    def test_large_images_arrive_whole(self, t1: Client) -> None:
        content = bytes(range(256)) * 20_000
        assert t1.get(path(active_image(t1, content))).content == content

    def test_text_is_utf8(self, t1: Client) -> None:
        """V1-IMG-420"""
        created = create(t1, **{"property-city": "Zürich 文"}).image["id"]
        header = t1.head(path(created)).headers["x-image-meta-property-city"]
        assert header.encode("latin-1") == "Zürich 文".encode()

    @pytest.mark.parametrize("method", ["GET", "HEAD", "DELETE"])
    @pytest.mark.parametrize("body", [b'{"a": 1}', b"junk"])
    def test_a_body_is_ignored(self, t1: Client, image_id: str, method: str, body: bytes) -> None:
        """V1-IMG-419, V1-IMG-715, D27"""
        headers = {"Content-Type": "application/json"}
        assert t1.request(method, path(image_id), headers, body).status == 200
        assert t1.request("GET", "/v1/images", headers, body).status == 200
        assert t1.request("GET", "/v1/images/detail", headers, body).status == 200


class TestAbsent:
    @pytest.mark.parametrize("method", ["HEAD", "GET"])
    @pytest.mark.parametrize("image_id", UNKNOWN)
    def test_an_unknown_image(self, t1: Client, method: str, image_id: str) -> None:
        """V1-IMG-404"""
        assert t1.request(method, path(image_id)).status == 404

    def test_anothers_private_image_is_unknown(self, t1: Client, t2: Client, image_id: str) -> None:
        """Section 14, SEC-002: word for word."""
        other = str(uuid.uuid4())
        for method in ("GET", "HEAD"):
            found = t2.request(method, path(image_id))
            absent = t2.request(method, path(other))
            assert found.status == absent.status == 404
            assert found.text.replace(image_id, other) == absent.text

    def test_there_is_no_data_before_it_is_complete(self, t1: Client, admin: Client) -> None:
        """V1-IMG-405, V1-IMG-406"""
        for image_id in (queued_image(t1), killed_image(t1)):
            for caller in (t1, admin):
                assert caller.get(path(image_id)).status == 404
                assert caller.head(path(image_id)).status == 200

    def test_a_deactivated_image_is_for_nobody(
        self, service: Service, t1: Client, admin: Client
    ) -> None:
        """V1-IMG-407, V1-IMG-408"""
        image_id = deactivated_image(service, t1)
        for caller in (t1, admin):
            assert caller.get(path(image_id)).status == 403
            head = caller.head(path(image_id))
            assert (head.status, head.headers["x-image-meta-status"]) == (200, "deactivated")
        service.set_status(image_id, "active")
        assert t1.get(path(image_id)).content == b"data"

    def test_only_an_admin_sees_what_was_deleted(self, t1: Client, admin: Client) -> None:
        """V1-IMG-409, V1-IMG-410"""
        image_id = deleted_image(t1)
        assert t1.head(path(image_id)).status == 404
        assert t1.get(path(image_id)).status == 404
        head = admin.head(path(image_id))
        assert head.status == 200
        found = metadata(head.headers)
        assert (found["deleted"], found["status"]) == ("True", "deleted")
        assert found["deleted_at"] > "2020"
        assert admin.get(path(image_id)).status == 404


class TestDamage:
    def test_missing_bytes_are_not_found(self, service: Service, t1: Client) -> None:
        """V1-IMG-415; D34: the text shows no path."""
        image_id = active_image(t1)
        (service.store / image_id).unlink()
        assert t1.head(path(image_id)).status == 200
        answer = t1.get(path(image_id))
        assert answer.status == 404
        assert str(service.store) not in answer.text
        assert "/" not in answer.text.replace("</", "").replace("/>", "")
        assert t1.delete(path(image_id)).status == 200

    @pytest.mark.parametrize("size", [10, 3_000_000])
    def test_a_short_file_is_never_a_whole_image(
        self, service: Service, t1: Client, size: int
    ) -> None:
        """V1-IMG-416, REL-030"""
        image_id = active_image(t1, b"x" * size)
        with (service.store / image_id).open("r+b") as file:
            file.truncate(size // 2)
        with pytest.raises((http.client.IncompleteRead, ConnectionError)):
            t1.get(path(image_id))
        assert "The stored bytes ended before the recorded size" in service.api.log
        assert t1.delete(path(image_id)).status == 200

    def test_a_client_that_leaves_is_no_fault(self, service: Service, t1: Client) -> None:
        image_id = active_image(t1, b"x" * 20_000_000)
        with socket.create_connection(("127.0.0.1", t1.port)) as connection:
            lines = [f"GET {path(image_id)} HTTP/1.1", "Host: x"]
            lines += [f"{name}: {value}" for name, value in t1.headers.items()]
            connection.sendall("\r\n".join([*lines, "", ""]).encode())
            assert connection.recv(1000).startswith(b"HTTP/1.1 200")
        wait_until(lambda: "the client left or was too slow" in service.api.log)


class TestRanges:
    """Decision 13: beyond v1, unless switched off (test_options.py)."""

    @pytest.mark.parametrize(
        ("asked", "start", "end"),
        [
            ("bytes=0-1", 0, 2),
            ("bytes=5-", 5, 10),
            ("bytes=-3", 7, 10),
            ("bytes=9-9", 9, 10),
            ("bytes=4-100", 4, 10),
            ("bytes=-100", 0, 10),
        ],
    )
    def test_a_range_is_sent_alone(
        self, t1: Client, image_id: str, asked: str, start: int, end: int
    ) -> None:
        """V1-IMG-402 as decision 13 has it."""
        answer = t1.get(path(image_id), {"Range": asked})
        assert answer.status == 206
        assert answer.content == CONTENT[start:end]
        assert answer.headers["content-range"] == f"bytes {start}-{end - 1}/10"
        assert answer.headers["content-length"] == str(end - start)
        assert answer.headers["x-image-meta-size"] == "10"
        assert answer.headers["etag"] == MD5

    @pytest.mark.parametrize("asked", ["bytes=10-", "bytes=10-20", "bytes=-0"])
    def test_a_range_outside_is_refused(self, t1: Client, image_id: str, asked: str) -> None:
        answer = t1.get(path(image_id), {"Range": asked})
        assert answer.status == 416
        assert answer.headers["content-range"] == "bytes */10"

    @pytest.mark.parametrize(
        "asked", ["bytes=0-1,3-4", "chunks=0-1", "bytes=5-2", "bytes=x-", "bytes=-", "bytes=", ""]
    )
    def test_other_ranges_are_ignored(self, t1: Client, image_id: str, asked: str) -> None:
        answer = t1.get(path(image_id), {"Range": asked})
        assert (answer.status, answer.content) == (200, CONTENT)

    @pytest.mark.parametrize(
        ("tag", "status"),
        [(MD5, 206), (f'"{MD5}"', 206), ("0" * 32, 200), ("Wed, 21 Oct 2015 07:28:00 GMT", 200)],
    )
    def test_a_range_of_what_one_has_already(
        self, t1: Client, image_id: str, tag: str, status: int
    ) -> None:
        headers = {"Range": "bytes=0-1", "If-Range": tag}
        assert t1.get(path(image_id), headers).status == status

    def test_an_empty_image_has_no_ranges(self, t1: Client) -> None:
        image_id = create(t1, size="0").image["id"]
        answer = t1.get(path(image_id), {"Range": "bytes=0-1"})
        assert (answer.status, answer.content) == (200, b"")

    def test_a_range_of_a_large_image(self, t1: Client) -> None:
        content = bytes(range(256)) * 20_000
        image_id = active_image(t1, content)
        answer = t1.get(path(image_id), {"Range": "bytes=1000000-4000000"})
        assert answer.content == content[1_000_000:4_000_001]


def test_an_image_whose_size_was_never_recorded_is_sent_as_the_store_has_it(
    service: Service, t1: Client
) -> None:
    """Section 7: the store's word on the size counts. v2 leaves such rows, of locations."""
    image_id = active_image(t1, CONTENT)
    registry = service.registry_client(ADMIN)
    for size in (None, len(CONTENT)):
        assert registry.put_json(f"/images/{image_id}", {"image": {"size": size}}).status == 200
        answer = t1.get(path(image_id))
        assert (answer.status, answer.content) == (200, CONTENT)
        assert answer.headers["content-length"] == str(len(CONTENT))


class TestConditions:
    @pytest.mark.parametrize("tag", [MD5, f'"{MD5}"', f'"x", W/"{MD5}"', "*"])
    def test_what_one_has_already_is_not_sent(self, t1: Client, image_id: str, tag: str) -> None:
        """V1-IMG-403 as decision 13 has it."""
        answer = t1.get(path(image_id), {"If-None-Match": tag})
        assert (answer.status, answer.content) == (304, b"")
        assert answer.headers["etag"] == MD5

    @pytest.mark.parametrize("tag", ["0" * 32, '""', ""])
    def test_another_version_is_sent(self, t1: Client, image_id: str, tag: str) -> None:
        assert t1.get(path(image_id), {"If-None-Match": tag}).content == CONTENT

    def test_without_a_checksum_there_is_no_condition(self, t1: Client) -> None:
        image_id = create(t1, size="0").image["id"]
        answer = t1.get(path(image_id), {"If-None-Match": "*"})
        assert answer.status == 200
        assert "etag" not in answer.headers

    def test_times_are_no_condition(self, t1: Client, image_id: str) -> None:
        """Section 7."""
        headers = {"If-Modified-Since": "Wed, 21 Oct 2099 07:28:00 GMT"}
        assert t1.get(path(image_id), headers).status == 200

    def test_a_condition_opens_no_door(self, service: Service, t1: Client, t2: Client) -> None:
        image_id = active_image(t1)
        checksum = t1.head(path(image_id)).headers["etag"]
        assert t2.get(path(image_id), {"If-None-Match": checksum}).status == 404
        service.set_status(image_id, "deactivated")
        assert t1.get(path(image_id), {"If-None-Match": checksum}).status == 403


def test_a_download_can_be_named_by_media_type(t1: Client, image_id: str) -> None:
    headers = {"Accept": "application/vnd.openstack.images-v1"}
    assert t1.get(f"/images/{image_id}", headers).content == CONTENT


def test_put_with_headers_of_get_changes_nothing(t1: Client, image_id: str) -> None:
    """What HEAD shows can be sent back as it is."""
    shown = t1.head(path(image_id)).headers
    sent = {name: shown[name] for name in shown if name.startswith("x-image-meta-")}
    changed = t1.put(path(image_id), sent).image
    assert changed["properties"] == {"kernel_id": "k"}
    assert metadata(t1.head(path(image_id)).headers).keys() == metadata(shown).keys()
    assert t1.put(path(image_id), meta(name="x")).image["name"] == "x"
