"""python-glanceclient 2.0.0's v1 library, called as Nova called it, in front of trusted-auth.

Nova sent its user's identity in headers with every request; what it did with images is in its
`nova/image/glance.py` and in the snapshots of its drivers.
"""

import hashlib
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.functional.audit import audit
from tests.functional.daemons import ADMIN, RAW, T1, T2, Client, Service, running_service
from tests.servers.process import PROGRAMS, require, servers_directory

VENV = "glanceclient2"


class ClientError(Exception):
    """What the library raised."""

    def __init__(self, name: str, code: int | None, text: str) -> None:
        super().__init__(f"{name}: {text}")
        self.name = name
        self.code = code


class Nova:
    """One process that runs the library; every call says for whom."""

    def __init__(self, port: int) -> None:
        python = servers_directory() / VENV / "bin" / "python"
        self._process = subprocess.Popen(
            [str(python), str(PROGRAMS / "nova_images.py"), f"http://127.0.0.1:{port}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __call__(
        self,
        identity: dict[str, str],
        call: str,
        data: Path | None = None,
        save: Path | None = None,
        **arguments: Any,
    ) -> Any:
        request = {"identity": {**identity, "X-Auth-Token": "t"}, "call": call}
        files = {name: str(path) for name, path in (("data", data), ("save", save)) if path}
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({**request, **files, "arguments": arguments}) + "\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline())
        if "error" in answer:
            raise ClientError(answer["error"], answer["code"], answer["text"])
        return answer["result"]

    def close(self) -> None:
        self._process.communicate(timeout=20)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    installed = (servers_directory() / VENV / ".installed").exists()
    require(VENV, [] if installed else [f"virtual environment {VENV}"], VENV)
    with running_service(tmp_path_factory.mktemp("nova")) as running:
        yield running
        audit(running)


@pytest.fixture(scope="module")
def nova(service: Service) -> Iterator[Nova]:
    program = Nova(service.api.port)
    yield program
    program.close()


@pytest.fixture
def t1(service: Service) -> Client:
    return service.t1


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    path = tmp_path / "disk"
    path.write_bytes(os.urandom(700_000))
    return path


def upload(t1: Client, name: str, content: bytes, **properties: str) -> str:
    headers = {**RAW, "x-image-meta-name": name, "Content-Type": "application/octet-stream"}
    headers |= {f"x-image-meta-property-{key}": value for key, value in properties.items()}
    return str(t1.post("/v1/images", headers, content).image["id"])


def test_a_snapshot_is_reserved_first_and_uploaded_in_chunks_later(
    nova: Nova, disk: Path, tmp_path: Path
) -> None:
    """What becomes of `nova image-create` on a running instance."""
    reserved = nova(
        T1,
        "images.create",
        name="Schnappschuß 1",
        is_public=False,
        properties={"image_type": "snapshot", "instance_uuid": "i-1", "base_image_ref": "b-1"},
    )
    image_id = reserved["id"]
    assert (reserved["status"], reserved["size"]) == ("queued", 0)
    assert (reserved["disk_format"], reserved["container_format"]) == (None, None)

    content = disk.read_bytes()
    sent = nova(
        T1,
        "images.update",
        image=image_id,
        data=disk,
        purge_props=False,
        name="Schnappschuß 1",
        disk_format="qcow2",
        container_format="bare",
        is_public=False,
        size=len(content),
        properties={"kernel_id": "k", "image_state": "available"},
    )
    assert sent["status"] == "active"
    assert sent["checksum"] == hashlib.md5(content).hexdigest()

    # HEAD, as Nova asks before it boots from the image.
    found = nova(T1, "images.get", image=image_id)
    assert (found["status"], found["size"], found["owner"]) == ("active", 700_000, "t1")
    assert found["disk_format"] == "qcow2"
    assert found["properties"] == {
        "image_type": "snapshot",
        "instance_uuid": "i-1",
        "base_image_ref": "b-1",
        "kernel_id": "k",
        "image_state": "available",
    }
    copy = tmp_path / "copy"
    nova(T1, "images.data", image=image_id, save=copy)
    assert copy.read_bytes() == content

    nova(T1, "images.delete", image=image_id)
    with pytest.raises(ClientError) as gone:
        nova(T1, "images.get", image=image_id)
    assert gone.value.code == 404


def test_a_failed_snapshot_is_killed_and_deleted(
    nova: Nova, service: Service, disk: Path, t1: Client
) -> None:
    """A body that is not as long as Nova said leaves no bytes; Nova then deletes the image."""
    image_id = nova(T1, "images.create", name="broken", is_public=False)["id"]
    words: dict[str, Any] = {"disk_format": "raw", "container_format": "bare"}
    with pytest.raises(ClientError) as refused:
        nova(
            T1, "images.update", image=image_id, data=disk, size=700_001, purge_props=False, **words
        )
    assert refused.value.code == 400
    assert t1.head(f"/v1/images/{image_id}").headers["x-image-meta-status"] == "killed"
    assert image_id not in service.stored_files()
    nova(T1, "images.delete", image=image_id)


def test_an_image_of_a_volume_has_no_bytes(nova: Nova, tmp_path: Path) -> None:
    mapping = json.dumps([{"boot_index": 0, "snapshot_id": "s-1", "source_type": "snapshot"}])
    image = nova(
        T1,
        "images.create",
        name="from a volume",
        size=0,
        is_public=False,
        properties={"block_device_mapping": mapping, "bdm_v2": "True"},
    )
    assert (image["status"], image["size"]) == ("active", 0)
    found = nova(T1, "images.get", image=image["id"])
    assert json.loads(found["properties"]["block_device_mapping"]) == json.loads(mapping)
    nova(T1, "images.data", image=image["id"], save=tmp_path / "none")
    assert (tmp_path / "none").read_bytes() == b""
    nova(T1, "images.delete", image=image["id"])


def test_lists_are_detailed_and_show_everything_visible(nova: Nova, service: Service) -> None:
    """`filters={"is_public": "none"}`, marker, limit and property filters, as Nova sent them."""
    t1 = service.t1
    made = [upload(t1, f"n{number}", b"x" * number, role=f"r{number % 2}") for number in (1, 2, 3)]
    foreign = upload(service.t2, "foreign", b"secret")

    def names(identity: dict[str, str], **arguments: Any) -> list[str]:
        filters = {"is_public": "none", **arguments.pop("filters", {})}
        found = nova(identity, "images.list", filters=filters, **arguments)
        return [image["name"] for image in found]

    order = {"sort_key": "name", "sort_dir": "asc"}
    assert names(T1, **order) == ["n1", "n2", "n3"]
    assert names(ADMIN, **order) == ["foreign", "n1", "n2", "n3"]
    assert names(T1, marker=made[0], **order) == ["n2", "n3"]
    assert names(T1, limit=1, page_size=1, marker=made[0], **order) == ["n2"]
    assert names(T1, page_size=1, **order) == ["n1", "n2", "n3"]
    assert names(T1, filters={"property-role": "r1"}, **order) == ["n1", "n3"]
    assert names(T1, filters={"status": "active", "size_min": 2}, **order) == ["n2", "n3"]
    assert {"n1", "n2", "n3"} <= set(names(T1, filters={"changes-since": "2000-01-01T00:00:00Z"}))
    with pytest.raises(ClientError) as refused:
        nova(T1, "images.list", marker="00000000-0000-0000-0000-000000000000", filters={})
    assert refused.value.code == 400
    for image_id in made:
        nova(T1, "images.delete", image=image_id)
    nova(T2, "images.delete", image=foreign)


def test_another_tenant_gets_what_nova_passes_on(nova: Nova, service: Service) -> None:
    image_id = upload(service.t1, "private", b"bytes")
    for call in ("images.get", "images.data", "images.delete"):
        with pytest.raises(ClientError) as refused:
            nova(T2, call, image=image_id)
        assert refused.value.code == 404
    nova(T1, "image_members.create", image=image_id, member_id="t2")
    assert nova(T2, "images.get", image=image_id)["name"] == "private"
    with pytest.raises(ClientError) as refused:
        nova({**T2, "X-Identity-Status": "Invalid"}, "images.get", image=image_id)
    assert refused.value.code == 401
    nova(T1, "images.delete", image=image_id)


def test_a_damaged_download_is_noticed(nova: Nova, service: Service, tmp_path: Path) -> None:
    image_id = upload(service.t1, "damaged", b"right bytes")
    stored = service.store / image_id
    stored.write_bytes(b"wrong bytes")
    with pytest.raises(ClientError, match="orrupt"):
        nova(T1, "images.data", image=image_id, save=tmp_path / "copy")
    stored.write_bytes(b"right bytes")
    nova(T1, "images.delete", image=image_id)


def test_purging_happens_only_when_it_is_asked_for(nova: Nova, service: Service) -> None:
    image_id = upload(service.t1, "purged", b"x", a="1", b="2")
    kept = nova(T1, "images.update", image=image_id, purge_props=False, properties={"c": "3"})
    assert kept["properties"] == {"a": "1", "b": "2", "c": "3"}
    purged = nova(T1, "images.update", image=image_id, purge_props=True, properties={"c": "4"})
    assert purged["properties"] == {"c": "4"}
    nova(T1, "images.delete", image=image_id)
