"""What must hold of a service after any test: the invariants I-1, I-2, I-3, I-4 and I-7.

Read from the database and the files themselves, not asked of the daemons.
"""

import hashlib
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import unquote, urlsplit

import sqlalchemy as sa

from tests.functional.daemons import REGISTRY_KEY, Daemon, Service

# Work that a client no longer waits for may still be on its way out.
SETTLE_SECONDS = 8


def audit(service: Service) -> None:
    """Fail unless nothing is left over, half done, or said that should not be."""
    _eventually(lambda: _check_work_is_over(service))
    _eventually(lambda: _check_stored_bytes(service))
    _check_usage(service)
    for daemon in (service.api, service.registry):
        _check_words(daemon)


def _eventually(check: Callable[[], None]) -> None:
    deadline = time.monotonic() + SETTLE_SECONDS
    while True:
        try:
            return check()
        except AssertionError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


def _rows(service: Service, statement: str) -> list[tuple[Any, ...]]:
    engine = sa.create_engine(service.connection, poolclass=sa.NullPool)
    with engine.connect() as connection:
        return [tuple(row) for row in connection.execute(sa.text(statement))]


def _check_work_is_over(service: Service) -> None:
    """I-2: an image is `saving` only while its upload lasts; leases end with their work."""
    saving = "select id, status from images where status = 'saving'"
    assert _rows(service, saving) == []
    assert _rows(service, "select image_id, kind from image_leases") == []


def _check_stored_bytes(service: Service) -> None:
    """I-1: the store holds the bytes of every image that has some, and nothing else."""
    recorded: dict[str, tuple[int, str | None]] = {}
    for url, size, checksum in _rows(
        service,
        "select l.value, i.size, i.checksum from image_locations l join images i"
        " on i.id = l.image_id where l.status in ('active', 'pending_delete')",
    ):
        if url.startswith("file:"):
            recorded[unquote(urlsplit(url).path).rpartition("/")[2]] = (size, checksum)
    assert service.stored_files() == set(recorded)
    for name, (size, checksum) in recorded.items():
        content = (service.store / name).read_bytes()
        assert (len(content), hashlib.md5(content).hexdigest()) == (size, checksum)


def _check_usage(service: Service) -> None:
    """I-7: what owners are charged for is what they have."""
    counted = _rows(
        service,
        "select i.owner, sum(i.size) from images i join image_locations l on l.image_id = i.id"
        " where l.status != 'deleted' and i.status not in ('killed', 'deleted')"
        " and i.owner is not null group by i.owner having sum(i.size) > 0",
    )
    charged = _rows(service, "select owner, bytes from owner_usage where bytes != 0")
    assert dict(charged) == dict(counted)
    assert _rows(service, "select owner, reserved from owner_usage where reserved != 0") == []


def _check_words(daemon: Daemon) -> None:
    """I-3 and I-4: no secret, no traceback and no 500 in what a daemon has written."""
    written = daemon.log + daemon.output
    assert REGISTRY_KEY not in written
    assert "Traceback" not in written
    assert "status: 500" not in written
