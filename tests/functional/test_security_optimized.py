"""The same promises without assertions and with more workers (SEC-016, REL-065).

Python run with -O leaves out every `assert`, so nothing may depend on one; and what one worker
has said the others must know.
"""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.functional.conftest import audited_service
from tests.functional.crowd import together
from tests.functional.daemons import OCTETS, Client, Service
from tests.functional.steps import path, queued_image

# Collected here once more, to be run against this module's service.
from tests.functional.test_security_access import (
    TestMethods,
    TestRegistry,
    TestSettledBytes,
    TestSharing,
    TestSomebodyElses,
    TestStatusAndId,
    private,
    public,
)

__all__ = [
    "TestMethods",
    "TestRegistry",
    "TestSettledBytes",
    "TestSharing",
    "TestSomebodyElses",
    "TestStatusAndId",
    "private",
    "public",
]

WORKERS = 4


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONOPTIMIZE", "1")
        workers = {"workers": WORKERS}
        home = tmp_path_factory.mktemp("optimized")
        with audited_service(home, api=workers, registry=workers) as running:
            yield running


def test_of_many_uploads_to_one_image_one_wins(service: Service, t1: Client) -> None:
    """REL-006: twenty at once, over four workers."""
    workers = service.api.workers()
    assert len(workers) == WORKERS
    assert b"PYTHONOPTIMIZE=1" in Path(f"/proc/{workers[0]}/environ").read_bytes()
    image_id = queued_image(t1)
    contents = [bytes([number]) * 50_000 for number in range(20)]
    put = partial(t1.put, path(image_id), OCTETS)
    statuses = [answer.status for answer in together(partial(put, each) for each in contents)]
    assert sorted(statuses) == [200] + [409] * 19
    assert t1.get(path(image_id)).content == contents[statuses.index(200)]
