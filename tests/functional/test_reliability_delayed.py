"""Deletes that the scrubber finishes: SEC-001, SEC-009, SEC-080, REL-007, REL-077."""

import sqlite3
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import closing

import pytest

from tests.functional.conftest import audited_service
from tests.functional.daemons import OCTETS, ROOT, Client, Service
from tests.functional.steps import (
    HalfUpload,
    active_image,
    create,
    deactivated_image,
    meta,
    path,
    queued_image,
    upload,
)

CONTENT = b"x" * 1000


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    options = {"delayed_delete": True, "user_storage_quota": "2500"}
    with audited_service(tmp_path_factory.mktemp("delayed"), api=options) as running:
        yield running


def manage(service: Service, *arguments: str) -> str:
    files = [service.registry.conf_file, service.api.conf_file]
    options = [word for file in files for word in ("--config-file", str(file))]
    command = [sys.executable, "-m", "glance_api.cmd.manage", *options, *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout


def test_nobody_marks_what_is_not_theirs(t1: Client, t2: Client, admin: Client) -> None:
    """SEC-001."""
    private = active_image(t1, CONTENT)
    public = active_image(admin, CONTENT, owner=t1.tenant, is_public="true")
    assert t2.delete(path(private)).status == 404
    assert t2.delete(path(public)).status == 403
    for image_id in (private, public):
        assert t1.get(path(image_id)).content == CONTENT


def test_what_is_pending_is_inert(
    service: Service, t1: Client, t2: Client, admin: Client, root: Client
) -> None:
    """REL-077: nobody reads, changes or deletes it again; its bytes wait."""
    for image_id in (active_image(t1, CONTENT), deactivated_image(service, t1, CONTENT)):
        assert t1.delete(path(image_id)).status == 200
        assert root.get(f"/images/{image_id}").json["image"]["status"] == "pending_delete"
        for caller in (t1, t2):
            assert caller.get(path(image_id)).status == 404
            assert caller.put(path(image_id), meta(name="x")).status == 404
            assert caller.put(path(image_id), OCTETS, b"other").status == 404
            assert caller.delete(path(image_id)).status == 404
            assert caller.put(f"{path(image_id)}/members/x").status == 404
        assert admin.get(path(image_id)).status == 404
        assert admin.put(path(image_id), OCTETS, b"other").status in (403, 404, 409)
        assert admin.delete(path(image_id)).status in (403, 404)
        assert image_id in service.stored_files()


def test_waiting_bytes_are_charged(service: Service, t1: Client) -> None:
    """SEC-080: they are stored, so they count, until they are scrubbed."""
    first = active_image(t1, CONTENT)
    active_image(t1, CONTENT)
    assert t1.delete(path(first)).status == 200
    assert upload(t1, CONTENT).status == 413
    assert manage(service, "db", "recount").startswith("0 ")


@pytest.mark.parametrize("part", [0, 1, 2])
def test_a_delete_during_an_upload_is_clean(
    service: Service, t1: Client, root: Client, part: int
) -> None:
    """REL-007: at the start, half-way, and when all bytes but the last are there."""
    image_id = queued_image(t1)
    sent = [1, 500, 999][part]
    with HalfUpload.to(t1, image_id, 1000, b"x" * sent) as half:
        assert t1.delete(path(image_id)).status == 200
        half.send(b"x" * (1000 - sent))
        assert half.answer().status == 412
    assert root.get(f"/images/{image_id}").json["image"]["deleted"] is True
    assert image_id not in service.stored_files()


def test_an_id_is_never_used_again(service: Service, t1: Client, t2: Client) -> None:
    """SEC-009: not after the delete, nor after the record has been purged."""
    image_id = str(uuid.uuid4())
    assert create(t1, id=image_id).status == 201
    assert t1.delete(path(image_id)).status == 200
    assert create(t2, id=image_id).status == 409
    with closing(sqlite3.connect(service.database)) as database, database:
        database.execute("update images set deleted_at = '2020-01-01' where id = ?", (image_id,))
    assert "images: 1 rows" in manage(service, "db", "purge", "--age_in_days", "100")
    assert create(t2, id=image_id).status == 409
    assert upload(t2, b"trusted", id=image_id).status == 409
    assert t1.head(path(image_id)).status == 404
