"""Bytes in and out: declarations, broken downloads, large numbers, absent values.

REL-005, REL-012, REL-013, REL-016, REL-022, REL-023, REL-031 to REL-036.
"""

import contextlib
import hashlib
import os
import random
import time
import uuid
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.conformance.web import Page
from tests.functional.crowd import together
from tests.functional.daemons import OCTETS, RAW, Client, Service, chunked
from tests.functional.sources import Sources
from tests.functional.steps import (
    active_image,
    create,
    meta,
    path,
    queued_image,
    status_of,
    upload,
    wait_for_status,
    wait_until,
)
from tests.functional.wire import Wire, head, lines_of

CONTENT = hashlib.shake_128(b"content").digest(10_000)
MD5 = hashlib.md5(CONTENT).hexdigest()


class TestDeclarations:
    """REL-005: equality is exact, and a lie leaves nothing behind."""

    @pytest.mark.parametrize(
        "declared",
        [
            {"checksum": "0" * 32},
            {"checksum": MD5.upper()},
            {"checksum": MD5[:-1]},
            {"size": "9999"},
            {"size": "10001"},
        ],
    )
    @pytest.mark.parametrize("method", ["POST", "PUT"])
    def test_a_wrong_one_kills(
        self, service: Service, t1: Client, declared: dict[str, str], method: str
    ) -> None:
        image_id = queued_image(t1) if method == "PUT" else str(uuid.uuid4())
        if method == "PUT":
            answer = t1.put(path(image_id), {**OCTETS, **meta(**declared)}, chunked(CONTENT))
        else:
            answer = upload(t1, chunked(CONTENT), id=image_id, **declared)
        assert answer.status == 400
        assert status_of(t1, image_id) == "killed"
        assert image_id not in service.stored_files()

    def test_the_right_ones_are_kept(self, t1: Client) -> None:
        image = upload(t1, chunked(CONTENT), checksum=MD5, size="10000").image
        assert (image["status"], image["size"], image["checksum"]) == ("active", 10_000, MD5)

    def test_the_end_of_the_input_is_final(self, t1: Client) -> None:
        """REL-016: half of what was declared, and then nothing more."""
        image_id = queued_image(t1)
        lines = [*lines_of({**t1.headers, **OCTETS}), f"Content-Length: {10 * 2**20}"]
        with Wire(t1.port) as wire:
            wire.send(head(path(image_id), *lines, method="PUT"), b"x" * (5 * 2**20))
            wait_for_status(t1, image_id, "saving")
            ended = time.monotonic()
            wire.socket.shutdown(1)
            wait_for_status(t1, image_id, "killed")
        assert time.monotonic() - ended < 2


class TestNothing:
    """REL-012: no data, and data of no length."""

    def test_the_four_forms(self, t1: Client) -> None:
        forms = {
            "no body": t1.post("/v1/images", RAW),
            "size 0": t1.post("/v1/images", {**RAW, **meta(size="0")}),
            "length 0": upload(t1, b""),
            "no chunks": upload(t1, chunked(b"")),
        }
        found = {form: answer.image["status"] for form, answer in forms.items()}
        assert found == {
            "no body": "queued", "size 0": "active", "length 0": "queued", "no chunks": "active",
        }  # fmt: skip
        for form in ("size 0", "no chunks"):
            shown = t1.get(path(forms[form].image["id"]))
            assert (shown.status, shown.headers["content-length"], shown.content) == (200, "0", b"")


class TestNumbers:
    """REL-013: 64 bits everywhere."""

    @pytest.mark.parametrize("size", [2**31 - 1, 2**31, 2**32 + 1, 5 * 2**30, 2**40])
    def test_a_size_is_kept(self, t1: Client, size: int) -> None:
        image_id = queued_image(t1, size=str(size))
        assert t1.head(path(image_id)).headers["x-image-meta-size"] == str(size)
        (shown,) = t1.mine()
        assert shown["size"] == size
        assert [image["id"] for image in t1.get(f"/v1/images?size_min={size}").json["images"]]

    def test_the_largest_is_a_number_of_the_registrys(self, t1: Client, root: Client) -> None:
        image_id = queued_image(t1)
        for size, status in ((2**63 - 1, 200), (2**63, 400)):
            document = {"image": {"size": size}}
            assert root.put_json(f"/images/{image_id}", document).status == status
        assert t1.head(path(image_id)).headers["x-image-meta-size"] == str(2**63 - 1)
        assert create(t1, size=str(2**63)).status == 400

    def test_positions_are_too(self, t1: Client, sources: Sources) -> None:
        """A part beyond four gibibytes, of a source that pretends to be that large."""

        class Large(bytes):
            def __len__(self) -> int:
                return 2**33

            def __getitem__(self, span: Any) -> Any:
                return b"%010d" % span.start

        sources.pages["/large"] = Page(Large())
        placed = t1.post("/v1/images", {**RAW, "x-image-meta-location": sources.url("/large")})
        image_id = placed.image["id"]
        assert placed.image["size"] == 2**33
        start = 2**32 + 7
        part = t1.get(path(image_id), {"Range": f"bytes={start}-{start + 9}"})
        assert part.status == 206
        assert part.content == b"%010d" % start
        assert part.headers["content-range"] == f"bytes {start}-{start + 9}/{2**33}"


class TestMetadata:
    def test_it_never_disturbs_data(self, service: Service, t1: Client) -> None:
        """REL-022: whatever is put, purging or not."""
        chance = random.Random(22)
        image_id = active_image(t1, CONTENT)
        properties: dict[str, str] = {}
        for _ in range(30):
            sent = {f"p{chance.randrange(6)}": str(chance.random()) for _ in range(3)}
            purge = chance.random() < 0.5
            headers = meta(
                name=f"name {chance.random()}",
                min_ram=str(chance.randrange(10)),
                **{f"property-{name}": value for name, value in sent.items()},
            )
            answer = t1.put(
                path(image_id), {**headers, "x-glance-registry-purge-props": str(purge)}
            )
            properties = sent if purge else {**properties, **sent}
            assert answer.image["properties"] == properties
            assert (answer.image["checksum"], answer.image["size"]) == (MD5, len(CONTENT))
        assert t1.get(path(image_id)).content == CONTENT

    def test_data_may_come_long_after_the_record(self, t1: Client) -> None:
        """REL-023: and without formats only later still."""
        image_id = create(t1).image["id"]
        assert t1.put(path(image_id), OCTETS, CONTENT).status == 400
        assert status_of(t1, image_id) == "queued"
        done = t1.put(path(image_id), {**RAW, **OCTETS}, CONTENT).image
        assert (done["status"], done["checksum"]) == ("active", MD5)

    def test_absent_values_are_absent(self, t1: Client, sources: Sources) -> None:
        """REL-035."""
        image_id = create(t1).image["id"]
        shown = t1.head(path(image_id)).headers
        for name in ("name", "checksum", "disk_format", "container_format", "deleted_at"):
            assert f"x-image-meta-{name}" not in shown
        assert "etag" not in shown
        assert "None" not in str(shown)
        place = {**RAW, "x-image-meta-location": sources.url("/ok")}
        unsummed = t1.post("/v1/images", place).image["id"]
        assert "etag" not in t1.get(path(unsummed)).headers
        for key in ("name", "size", "disk_format", "container_format", "updated_at"):
            for direction in ("asc", "desc"):
                listed = t1.get(f"/v1/images/detail?sort_key={key}&sort_dir={direction}")
                found = {image["id"] for image in listed.json["images"]}
                assert {image_id, unsummed} <= found


class TestDownloads:
    @pytest.mark.parametrize(
        ("asked", "status", "part"),
        [
            ("bytes=0-0", 206, CONTENT[:1]),
            ("bytes=-1", 206, CONTENT[-1:]),
            ("bytes=5-", 206, CONTENT[5:]),
            ("bytes=5-99999", 206, CONTENT[5:]),
            ("bytes=-99999", 206, CONTENT),
            ("bytes=10000-", 416, None),
            ("bytes=10000-10000", 416, None),
            ("bytes=-0", 416, None),
            ("bytes=9-5", 200, CONTENT),
            ("bytes=0-1,5-6", 200, CONTENT),
            ("lines=0-1", 200, CONTENT),
        ],
    )
    def test_ranges_are_right_or_absent(
        self, t1: Client, asked: str, status: int, part: bytes | None
    ) -> None:
        """REL-033; decision 13."""
        image_id = active_image(t1, CONTENT)
        answer = t1.get(path(image_id), {"Range": asked})
        assert answer.status == status
        if status == 416:
            assert answer.headers["content-range"] == "bytes */10000"
        else:
            assert answer.content == part
        assert t1.get(path(image_id)).content == CONTENT

    def test_if_range_asks_for_the_same_bytes(self, t1: Client) -> None:
        """REL-033."""
        image_id = active_image(t1, CONTENT)
        for validator, status in ((f'"{MD5}"', 206), ('"other"', 200)):
            headers = {"Range": "bytes=0-9", "If-Range": validator}
            assert t1.get(path(image_id), headers).status == status

    def test_image_bytes_are_not_compressed(self, t1: Client) -> None:
        """REL-036."""
        content = b"compressible " * 1000
        image_id = active_image(t1, content)
        answer = t1.get(path(image_id), {"Accept-Encoding": "gzip, deflate, br"})
        assert answer.headers["content-length"] == str(len(content))
        assert "content-encoding" not in answer.headers
        assert answer.content == content


def descriptors(service: Service) -> int:
    pids = [*service.api.workers(), *service.registry.workers()]
    return sum(len(os.listdir(f"/proc/{pid}/fd")) for pid in pids)


def open_images(service: Service) -> int:
    """Files of the store that the API's one worker holds open."""
    (worker,) = service.api.workers()
    found = 0
    for descriptor in Path(f"/proc/{worker}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            found += str(descriptor.readlink()).startswith(str(service.store))
    return found


def memory(service: Service) -> int:
    """Bytes of the API's one worker."""
    (worker,) = service.api.workers()
    status = Path(f"/proc/{worker}/status").read_text()
    resident = next(line for line in status.splitlines() if line.startswith("VmRSS"))
    return int(resident.split()[1]) * 1024


def leave_in_the_middle(caller: Client, image_id: str) -> None:
    wire = Wire(caller.port)
    wire.send(head(path(image_id), *lines_of(caller.headers)))
    got = 0
    while got < 65536:
        got += len(wire.socket.recv(65536))
    wire.reset()


def test_clients_that_leave_take_everything_with_them(
    service: Service, t1: Client, sources: Sources
) -> None:
    """REL-031, I-5 and I-6: five hundred broken downloads."""
    content = hashlib.shake_128(b"large").digest(16 * 2**20)
    local = active_image(t1, content)
    sources.pages["/sixteen"] = Page(content)
    place = {**RAW, "x-image-meta-location": sources.url("/sixteen")}
    remote = t1.post("/v1/images", place).image["id"]
    leave = partial(leave_in_the_middle, t1)
    # The daemons keep as many connections to each other as were ever in use together.
    together([partial(leave, each) for each in (local, remote) * 20])
    wait_until(lambda: open_images(service) == 0)
    before_descriptors, before_memory = descriptors(service), memory(service)
    for _ in range(12):
        together([partial(leave, each) for each in (local,) * 38 + (remote,) * 2])
    wait_until(lambda: open_images(service) == 0)
    wait_until(lambda: descriptors(service) <= before_descriptors + 10)
    assert memory(service) < before_memory + 40 * 2**20
    assert t1.get(path(local)).content == content
