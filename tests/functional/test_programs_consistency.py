"""glance-manage check and reconcile beside live daemons, on an installation that was wrecked."""

import sqlite3
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.functional.daemons import ROOT, Service, running_service
from tests.functional.steps import HalfUpload, active_image, path, queued_image, status_of

MISSING, EXTRA, STUCK, MISCOUNTED, RESIZED = 2, 4, 8, 16, 32


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    with running_service(tmp_path) as service:
        yield service


def manage(service: Service, *words: str) -> tuple[int, set[str]]:
    """Exit status and lines of `glance-manage ...`."""
    files = [f"--config-file={daemon.conf_file}" for daemon in (service.registry, service.api)]
    done = subprocess.run(
        [sys.executable, "-m", "glance_api.cmd.manage", *files, *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, set(done.stdout.splitlines())


def alter(service: Service, statement: str, *values: object) -> None:
    with closing(sqlite3.connect(service.database)) as database, database:
        assert database.execute(statement, values).rowcount == 1


LONG_AGO = "2020-01-01 00:00:00.000000"


class Wreck:
    """Every kind of damage once; each name is the image it was done to."""

    def __init__(self, service: Service) -> None:
        caller, store = service.t1, service.store
        self.whole = active_image(caller, b"whole")
        self.missing = active_image(caller, b"missing")
        (store / self.missing).unlink()
        self.resized = active_image(caller, b"resized")
        (store / self.resized).write_bytes(b"resi")
        self.deleted = active_image(caller, b"deleted")
        assert caller.delete(path(self.deleted)).status == 200
        (store / self.deleted).write_bytes(b"from a backup")
        self.unknown = str(uuid.uuid4())
        (store / self.unknown).write_bytes(b"of another service")
        self.saving = queued_image(caller)
        status = "update images set status = ?, updated_at = ? where id = ?"
        alter(service, status, "saving", LONG_AGO, self.saving)
        self.half_deleted = active_image(caller, b"half deleted")
        alter(service, status, "deleted", LONG_AGO, self.half_deleted)
        alter(service, "update owner_usage set bytes = bytes + 7 where owner = 't1'")


@pytest.fixture
def wreck(service: Service) -> Wreck:
    return Wreck(service)


def test_a_healthy_installation_has_no_problems(service: Service) -> None:
    active_image(service.t1, b"content")
    service.t1.delete(path(active_image(service.t1, b"content")))
    with HalfUpload.to(service.t1, queued_image(service.t1), 2000, b"x" * 1000):
        assert manage(service, "check") == (0, {"no problems"})
        assert manage(service, "reconcile") == (0, set())


def test_check_tells_every_kind_of_damage_and_changes_nothing(
    service: Service, wreck: Wreck
) -> None:
    files = service.stored_files()
    found = (
        MISSING | EXTRA | STUCK | MISCOUNTED | RESIZED,
        {
            f"missing {wreck.missing}: its bytes are not in the store",
            f"resized {wreck.resized}: 4 bytes are stored where 7 are recorded",
            f"extra {wreck.deleted}: bytes in store file that nothing refers to",
            f"extra {wreck.unknown}: bytes in store file that nothing refers to; "
            "the database has never heard of the image",
            f"stuck {wreck.saving}: saving, and nobody is at work on it",
            f"stuck {wreck.half_deleted}: deleted, and nobody is at work on it",
            "miscounted t1: usage differs from a recount",
            "7 problems",
        },
    )
    assert manage(service, "check") == found
    status, lines = manage(service, "reconcile", "--dry-run")
    assert status == found[0]
    extra = f"extra {wreck.deleted}: bytes in store file that nothing refers to"
    assert f"{extra} -> would be repaired" in lines
    assert manage(service, "check") == found
    assert service.stored_files() == files


def test_reconcile_repairs_what_loses_nothing_and_leaves_the_rest(
    service: Service, wreck: Wreck
) -> None:
    status, lines = manage(service, "reconcile")
    assert status == MISSING | EXTRA | RESIZED
    assert f"stuck {wreck.saving}: saving, and nobody is at work on it -> settled" in lines
    assert "miscounted t1: usage differs from a recount -> recounted" in lines
    caller = service.t1
    assert status_of(caller, wreck.saving) == "killed"
    assert caller.get(path(wreck.half_deleted)).status == 404
    assert service.stored_files() == {wreck.whole, wreck.resized, wreck.unknown}
    assert status_of(caller, wreck.missing) == "active"

    status, lines = manage(service, "reconcile", "--delete-missing", "--delete-unknown")
    assert status == RESIZED
    assert service.stored_files() == {wreck.whole, wreck.resized}
    assert caller.get(path(wreck.missing)).status == 404
    assert caller.get(path(wreck.whole)).content == b"whole"
    found = {f"resized {wreck.resized}: 4 bytes are stored where 7 are recorded", "1 problem"}
    assert manage(service, "check") == (RESIZED, found)


def test_an_unfinished_upload_of_a_dead_host_is_ended(service: Service) -> None:
    image_id = queued_image(service.t1)
    with HalfUpload.to(service.t1, image_id, 2000, b"x" * 1000):
        service.api.kill()
    dead = "update image_leases set expires_at = ?, worker = 'elsewhere:1:1'"
    alter(service, dead, LONG_AGO)
    status, lines = manage(service, "reconcile")
    assert (status, lines) == (0, {"abandoned 1 uploads, copies and deletes brought to an end"})
    service.api.start()
    assert status_of(service.t1, image_id) == "killed"
    assert manage(service, "check") == (0, {"no problems"})
