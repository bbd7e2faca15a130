"""glance-manage rewrite-locations, on a Swift that keeps images of both stores."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
import sqlalchemy as sa

from glance_api.location_cipher import LocationCipher
from tests.functional.daemons import OCTETS, RAW, ROOT, Service, running_service
from tests.functional.steps import path
from tests.servers.swift import Swift

KEY = "0123456789abcdef"


@pytest.fixture(params=[None, KEY], ids=["clear", "encrypted"])
def cipher(request: pytest.FixtureRequest) -> LocationCipher | None:
    return LocationCipher(request.param) if request.param else None


@pytest.fixture
def service(swift: Swift, cipher: LocationCipher | None, tmp_path: Path) -> Iterator[Service]:
    store = {
        "stores": "swift,s3,http",
        "default_store": "swift",
        "swift_store_auth_address": swift.auth_url,
        "swift_store_auth_version": 1,
        "swift_store_user": swift.user,
        "swift_store_key": swift.key,
        "swift_store_container": "rewritten",
        "swift_store_create_container_on_put": True,
        "s3_store_host": swift.s3_url,
        "s3_store_access_key": swift.user,
        "s3_store_secret_key": swift.key,
        "s3_store_bucket": "rewritten",
        "s3_store_bucket_url_format": "path",
    }
    api = {"glance_store": store, "metadata_encryption_key": KEY if cipher else ""}
    with running_service(tmp_path, api=api) as service:
        yield service


def rewrite(service: Service, *words: str) -> "subprocess.CompletedProcess[str]":
    files = [f"--config-file={daemon.conf_file}" for daemon in (service.registry, service.api)]
    return subprocess.run(
        [sys.executable, "-m", "glance_api.cmd.manage", *files, "rewrite-locations", *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )


class Rows:
    """The locations as they stand in the database, in clear text."""

    def __init__(self, service: Service, cipher: LocationCipher | None) -> None:
        self._engine = sa.create_engine(service.connection, poolclass=sa.NullPool)
        self._cipher = cipher

    def url(self, image_id: str) -> str:
        with self._engine.connect() as connection:
            statement = "select value from image_locations where image_id = :id"
            found = str(connection.scalar(sa.text(statement), {"id": image_id}))
        return self._cipher.decrypt(found) if self._cipher else found

    def set_url(self, image_id: str, url: str) -> None:
        stored = self._cipher.encrypt(url) if self._cipher else url
        with self._engine.begin() as connection:
            statement = "update image_locations set value = :url where image_id = :id"
            connection.execute(sa.text(statement), {"url": stored, "id": image_id})


def test_the_stores_own_keys_leave_the_database_and_every_image_stays_readable(
    service: Service, swift: Swift, cipher: LocationCipher | None
) -> None:
    """SEC-032."""
    rows = Rows(service, cipher)
    caller, who = service.t1, f"{quote(swift.user, safe='')}:{swift.key}"

    def image(store: str) -> str:
        headers = {**RAW, **OCTETS, "x-image-meta-store": store}
        found: str = caller.post("/v1/images", headers, b"bytes").image["id"]
        return found

    by_swift, by_s3, lost, foreign, removed = (image(s) for s in ("swift", "s3", *["swift"] * 3))
    new = {each: rows.url(each) for each in (by_swift, by_s3, lost, foreign, removed)}
    assert caller.delete(path(removed)).status == 200
    address = swift.auth_url.removeprefix("http://")
    swift_url = f"swift+http://{who}@{address}/rewritten"
    host = swift.s3_url.removeprefix("http://")
    old = {
        by_swift: f"{swift_url}/{by_swift}",
        by_s3: f"s3://{swift.user}:{swift.key}@{host}/rewritten/{by_s3}",
        lost: f"{swift_url}/nothing",
        foreign: f"swift+http://other%3Areader:reading@{address}/rewritten/{foreign}",
        removed: f"{swift_url}/{removed}",
    }
    for image_id, url in old.items():
        rows.set_url(image_id, url)
    assert caller.get(path(by_swift)).content == b"bytes"

    planned = rewrite(service, "--dry-run")
    assert planned.stdout.splitlines()[-1] == "3 locations would be rewritten, 2 left"
    assert {each: rows.url(each) for each in old} == old

    done = rewrite(service)
    assert done.returncode == 2, done.stderr
    assert set(done.stdout.splitlines()) == {
        f"left {lost}: its bytes are not found without the credentials in it",
        f"left {foreign}: its credentials are not those that the store is configured with",
        "3 locations rewritten, 2 left",
    }
    assert swift.key not in done.stdout + done.stderr
    for each in (by_swift, by_s3, removed):
        assert rows.url(each) == new[each]
    for each in (lost, foreign):
        assert rows.url(each) == old[each]
        rows.set_url(each, new[each])
    again = rewrite(service)
    assert (again.returncode, again.stdout) == (0, "0 locations rewritten, 0 left\n")
    for each in (by_swift, by_s3):
        assert caller.get(path(each)).content == b"bytes"
    for each in (by_swift, by_s3, lost, foreign):
        assert caller.delete(path(each)).status == 200
    assert not [name for name in swift.objects() if "/rewritten/" in name]
