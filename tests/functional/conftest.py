"""Services for the functional tests, and callers of them.

One pair of daemons serves every test that needs no options of its own: each test gets tenants
that no other test knows. A module that needs options overrides the fixture `service`.
"""

import contextlib
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.functional.audit import audit
from tests.functional.daemons import ADMIN, Client, Daemon, Service, running_service
from tests.functional.sources import Sources


@contextlib.contextmanager
def audited_service(home: Path, **options: Any) -> Iterator[Service]:
    """A running service whose state is checked when the block ends."""
    with running_service(home, **options) as service:
        yield service
        audit(service)


@pytest.fixture(scope="session")
def shared_service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    # A failing source is told of after this long; see SEC-044.
    options = {"copy_from": {"sizing_timeout": 0.3, "idle_timeout": 5}}
    with running_service(tmp_path_factory.mktemp("shared"), api=options) as running:
        yield running


@pytest.fixture(scope="module")
def service(shared_service: Service) -> Iterator[Service]:
    """The service under test, checked for left-overs after every module."""
    yield shared_service
    audit(shared_service)


@pytest.fixture(scope="session")
def sources() -> Iterator[Sources]:
    with Sources() as running:
        yield running


@pytest.fixture
def t1(service: Service) -> Client:
    """A user; the owner of most images."""
    return service.caller("t1")


@pytest.fixture
def t2(service: Service) -> Client:
    """A user of another tenant."""
    return service.caller("t2")


@pytest.fixture
def t3(service: Service) -> Client:
    """A user of a third tenant."""
    return service.caller("t3")


@pytest.fixture
def t4(service: Service) -> Client:
    return service.caller("t4")


@pytest.fixture
def admin(service: Service) -> Client:
    """An administrator, whose own tenant no other test knows either."""
    return service.caller("adm", "admin")


@pytest.fixture
def root(service: Service) -> Client:
    """An administrator of the registry itself."""
    return service.registry_client(ADMIN)


_written_before = pytest.StashKey[dict[str, int]]()


def _daemons(item: pytest.Item) -> dict[str, Daemon]:
    services = [each for each in _arguments(item).values() if isinstance(each, Service)]
    return {each.name: each for service in services for each in (service.api, service.registry)}


def _arguments(item: pytest.Item) -> dict[str, object]:
    return getattr(item, "funcargs", {})


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_call(item: pytest.Item) -> None:
    item.stash[_written_before] = {name: len(daemon.log) for name, daemon in _daemons(item).items()}


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show what the daemons logged during a test that failed."""
    report = yield
    if report.failed:
        starts = item.stash.get(_written_before, {})
        for name, daemon in _daemons(item).items():
            report.sections.append((f"Log of {name}", daemon.log[starts.get(name, 0) :]))
    return report
