"""An image beyond four gibibytes, through both daemons and back (REL-013).

It is kept in memory where there is room, so that no disk is waited for.
"""

import http.client
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.functional.conftest import audited_service
from tests.functional.daemons import OCTETS, RAW, T1, Service
from tests.functional.steps import path

SIZE = 2**32 + 1
MIB = 1024 * 1024
# Of a byte 1, zeros up to 2**32, and a byte 2.
CHECKSUM = "c3c25ae79b283076ae73063666b54e44"


def content() -> Iterator[bytes]:
    yield b"\1" + bytes(MIB - 1)
    zeros = bytes(MIB)
    for _ in range(2**32 // MIB - 1):
        yield zeros
    yield b"\2"


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    memory = Path("/dev/shm")
    roomy = memory.is_dir() and shutil.disk_usage(memory).free > SIZE + 2**30
    home = memory if roomy else tmp_path_factory.mktemp("large")
    if shutil.disk_usage(home).free < SIZE + 2**30:
        pytest.skip("there is no room for an image of four gibibytes")
    with tempfile.TemporaryDirectory(dir=home) as place, audited_service(Path(place)) as running:
        yield running


@pytest.mark.large
def test_an_image_beyond_four_gibibytes_comes_back_whole_and_in_parts(service: Service) -> None:
    headers = {**RAW, **OCTETS, "Content-Length": str(SIZE)}
    image = service.t1.post("/v1/images", headers, content()).image
    try:
        assert (image["status"], image["size"]) == ("active", SIZE)
        assert image["checksum"] == CHECKSUM
        for wanted, part in (("0-0", b"\1"), (f"{2**32 - 1}-", b"\0\2"), ("-1", b"\2")):
            answer = service.t1.get(path(image["id"]), {"Range": f"bytes={wanted}"})
            assert (answer.status, answer.content) == (206, part)
        assert _download(service, image["id"]) == (SIZE, 1, 2)
    finally:
        assert service.t1.delete(path(image["id"])).status == 200


def _download(service: Service, image_id: str) -> tuple[int, int, int]:
    """The number of bytes that come, the first one and the last one."""
    connection = http.client.HTTPConnection("127.0.0.1", service.api.port, timeout=60)
    buffer = bytearray(MIB)
    count, first, last = 0, -1, -1
    try:
        connection.request("GET", path(image_id), headers=T1)
        response = connection.getresponse()
        assert response.getheader("Content-Length") == str(SIZE)
        while received := response.readinto(buffer):
            first = buffer[0] if not count else first
            count, last = count + received, buffer[received - 1]
    finally:
        connection.close()
    return count, first, last
