"""Pytest fixtures for the servers, one instance per run, started when first asked for.

Use: `pytest_plugins = ["tests.servers.fixtures"]` in tests/conftest.py. A test that breaks
its server (kills, pauses, fills) starts one of its own: `with Swift() as swift:`. When a test
fails, the logs of the servers it used are in its report.
"""

from collections.abc import Generator, Iterator
from typing import TypeVar

import pytest

from tests.servers.ceph import Ceph
from tests.servers.cinder import Cinder
from tests.servers.gluster import Gluster
from tests.servers.keystone import Keystone
from tests.servers.mariadb import MariaDB
from tests.servers.mongo import Mongo
from tests.servers.mounts import Tmpfs
from tests.servers.nginx import Nginx
from tests.servers.postgresql import PostgreSQL
from tests.servers.process import Server
from tests.servers.rabbitmq import RabbitMQ
from tests.servers.radosgw import Radosgw
from tests.servers.sheepdog import Sheepdog
from tests.servers.swift import Swift
from tests.servers.vcenter import VCenter

AnyServer = TypeVar("AnyServer", bound=Server)


def _running(server: AnyServer) -> Iterator[AnyServer]:
    server.require()
    with server:
        yield server


@pytest.fixture(scope="session")
def mariadb() -> Iterator[MariaDB]:
    yield from _running(MariaDB())


@pytest.fixture(scope="session")
def postgresql() -> Iterator[PostgreSQL]:
    yield from _running(PostgreSQL())


@pytest.fixture(scope="session")
def rabbitmq() -> Iterator[RabbitMQ]:
    yield from _running(RabbitMQ())


@pytest.fixture(scope="session")
def keystone() -> Iterator[Keystone]:
    yield from _running(Keystone())


@pytest.fixture(scope="session")
def swift() -> Iterator[Swift]:
    yield from _running(Swift())


@pytest.fixture(scope="session")
def swift_keystone(keystone: Keystone) -> Iterator[Swift]:
    yield from _running(Swift(keystone=keystone))


@pytest.fixture(scope="session")
def ceph() -> Iterator[Ceph]:
    yield from _running(Ceph())


@pytest.fixture(scope="session")
def radosgw() -> Iterator[Radosgw]:
    yield from _running(Radosgw())


@pytest.fixture(scope="session")
def cinder(ceph: Ceph) -> Iterator[Cinder]:
    yield from _running(Cinder(ceph))


@pytest.fixture(scope="session")
def mongo() -> Iterator[Mongo]:
    yield from _running(Mongo())


@pytest.fixture(scope="session")
def vcenter() -> Iterator[VCenter]:
    yield from _running(VCenter())


@pytest.fixture(scope="session")
def gluster() -> Iterator[Gluster]:
    yield from _running(Gluster())


@pytest.fixture(scope="session")
def sheepdog() -> Iterator[Sheepdog]:
    yield from _running(Sheepdog())


@pytest.fixture(scope="session")
def nginx() -> Iterator[Nginx]:
    yield from _running(Nginx())


@pytest.fixture
def small_filesystem() -> Iterator[Tmpfs]:
    """Sixteen MiB that can be filled, made read-only or resized; of this test only."""
    Tmpfs.require()
    with Tmpfs("16m") as tmpfs:
        yield tmpfs


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.failed:
        for server in getattr(item, "funcargs", {}).values():
            if isinstance(server, Server) and (tail := server.log_tail()):
                report.sections.append((f"Log of {server.name}", tail))
    return report
