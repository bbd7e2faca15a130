"""Both daemons, the scrubber, Keystone and Swift: images in the accounts of their uploaders."""

import contextlib
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from glance_store.testing import content_of
from tests.conformance.web import Page, Web
from tests.functional.audit import audit
from tests.functional.daemons import OCTETS, RAW, ROOT, Client, Daemon, Service
from tests.functional.steps import (
    HalfUpload,
    active_image,
    path,
    queued_image,
    upload,
    wait_for_status,
    wait_until,
)
from tests.integration.keystone_service import caller, options, running
from tests.integration.lifecycle import StoreLifecycle
from tests.servers.keystone import Keystone
from tests.servers.swift import Swift

MIB = 1024 * 1024
# Six segments of a MiB.
CONTENT = content_of(5 * MIB + 7)


@contextlib.contextmanager
def reselling(keystone: Keystone) -> Iterator[None]:
    """The service's user has the role that opens every account."""
    role = keystone._find_or_make("role", "ResellerAdmin", {})
    user = keystone.service
    assignment = f"/projects/{user.project_id}/users/{user.user_id}/roles/{role}"
    keystone.request("PUT", assignment)
    yield
    keystone.request("DELETE", assignment)


def store_options(home: Path, keystone: Keystone, **more: Any) -> dict[str, Any]:
    """The [glance_store] section, with the service's account in a file."""
    user = keystone.service
    accounts = home / "glance-swift.conf"
    accounts.write_text(
        f"[ref1]\nauth_version = 3\nauth_address = {keystone.url}\n"
        f"user = {user.project}:{user.name}\nkey = {user.password}\n"
    )
    return {
        "stores": "swift,http",
        "default_store": "swift",
        "swift_store_multi_tenant": True,
        "swift_store_config_file": accounts,
        **more,
    }


@pytest.fixture(scope="module")
def service(
    keystone: Keystone, swift_keystone: Swift, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Service]:
    home = tmp_path_factory.mktemp("many-tenants")
    store = store_options(
        home,
        keystone,
        swift_store_large_object_size=0,
        swift_store_large_object_chunk_size=1,
        swift_store_timeout=15,
    )
    with reselling(keystone), running(home, keystone, glance_store=store) as service:
        yield service
        audit(service)
        for each in keystone.users.values():
            assert each.password not in service.api.log
            assert each.password not in service.registry.log
    assert not left_in(swift_keystone)


def left_in(swift: Swift) -> set[str]:
    return set(swift.objects()) | {name for name in swift.containers() if "/glance_" in name}


@dataclass(frozen=True)
class People:
    service: Service
    keystone: Keystone

    def __getattr__(self, name: str) -> Client:
        return caller(self.service, self.keystone.token(name))


@pytest.fixture
def people(service: Service, keystone: Keystone) -> People:
    return People(service, keystone)


@pytest.fixture
def alice(people: People) -> Client:
    return people.alice


@pytest.fixture
def bob(people: People) -> Client:
    return people.bob


def account_of(keystone: Keystone, name: str) -> str:
    return f"AUTH_{keystone.users[name].project_id}"


def test_an_image_lives_in_its_uploaders_account_and_leaves_nothing(
    keystone: Keystone, swift_keystone: Swift, alice: Client, bob: Client
) -> None:
    image = upload(alice, CONTENT, name="hers").image
    target = path(image["id"])
    assert (image["status"], image["size"]) == ("active", len(CONTENT))
    container = f"{account_of(keystone, 'alice')}/glance_{image['id']}"
    stored = swift_keystone.objects()
    assert {name.rpartition("/")[0] for name in stored} == {container}
    assert sum(stored.values()) == len(CONTENT)
    assert alice.head(target).headers["x-image-meta-size"] == str(len(CONTENT))
    assert alice.get(target).content == CONTENT
    part = alice.get(target, {"Range": f"bytes={MIB - 5}-{2 * MIB + 4}"})
    assert (part.status, part.content) == (206, CONTENT[MIB - 5 : 2 * MIB + 5])
    for method in ("GET", "HEAD", "DELETE"):
        assert bob.request(method, target).status == 404
    assert alice.delete(target).status == 200
    assert not left_in(swift_keystone)


def test_an_upload_of_unknown_size_to_a_queued_image(swift_keystone: Swift, alice: Client) -> None:
    image_id = queued_image(alice)
    pieces = (CONTENT[start : start + 100_003] for start in range(0, len(CONTENT), 100_003))
    assert alice.put(path(image_id), OCTETS, pieces).image["size"] == len(CONTENT)
    assert alice.get(path(image_id)).content == CONTENT
    assert alice.delete(path(image_id)).status == 200
    assert not left_in(swift_keystone)


def test_refused_content_leaves_nothing(swift_keystone: Swift, alice: Client) -> None:
    assert upload(alice, CONTENT, checksum="0" * 32).status == 400
    assert not left_in(swift_keystone)


def test_a_copy_lands_in_the_account_of_who_asked_for_it(
    keystone: Keystone, swift_keystone: Swift, alice: Client
) -> None:
    with Web() as web:
        web.pages["/image"] = Page(CONTENT)
        source = {"x-glance-api-copy-from": web.url("/image")}
        image_id = alice.post("/v1/images", {**RAW, **source}).image["id"]
        assert wait_for_status(alice, image_id, "active", "killed") == "active"
    account = account_of(keystone, "alice")
    assert all(name.startswith(f"{account}/") for name in swift_keystone.objects())
    assert alice.get(path(image_id)).content == CONTENT
    assert alice.delete(path(image_id)).status == 200
    assert not left_in(swift_keystone)


def test_members_and_the_public_read_it_and_nobody_else(
    keystone: Keystone, swift_keystone: Swift, people: People, alice: Client, bob: Client
) -> None:
    """SEC-035: the containers' ACLs follow the members and is_public."""
    image_id = active_image(alice, CONTENT)
    target, member = path(image_id), keystone.users["bob"].project_id
    assert alice.put(f"{target}/members/{member}").status == 204
    assert bob.get(target).content == CONTENT
    assert alice.delete(f"{target}/members/{member}").status == 204
    assert bob.get(target).status == 404
    admin = people.admin
    assert admin.put(target, {"x-image-meta-is_public": "true"}).status == 200
    assert bob.get(target).content == CONTENT
    assert bob.delete(target).status == 403
    assert alice.get(target).content == CONTENT
    assert alice.delete(target).status == 200
    assert not left_in(swift_keystone)


def test_whoever_may_share_an_image_opens_it_to_others(
    keystone: Keystone, swift_keystone: Swift, people: People, alice: Client, bob: Client
) -> None:
    """The container is another's, and so are the members that he does not see."""
    projects = {name: keystone.users[name].project_id for name in ("admin", "bob", "glance")}
    image_id = active_image(alice, CONTENT)
    target, admin = path(image_id), people.admin
    share = {"member": {"can_share": True}}
    assert alice.put_json(f"{target}/members/{projects['bob']}", share).status == 204
    assert alice.put(f"{target}/members/{projects['glance']}").status == 204
    assert admin.get(target).status == 403
    assert bob.put(f"{target}/members/{projects['admin']}").status == 204
    for reader in (admin, bob, people.glance, alice):
        assert reader.get(target).content == CONTENT
    assert alice.delete(target).status == 200
    assert not left_in(swift_keystone)


def test_whom_an_administrator_makes_an_image_for_can_read_it(
    keystone: Keystone, swift_keystone: Swift, people: People, alice: Client, bob: Client
) -> None:
    """Its bytes are in the administrator's account."""
    admin, owner = people.admin, keystone.users["alice"].project_id
    target = path(active_image(admin, CONTENT, owner=owner))
    assert alice.get(target).content == CONTENT
    assert bob.get(target).status == 404
    member = keystone.users["bob"].project_id
    assert alice.put(f"{target}/members/{member}").status == 204
    assert admin.put(target, {"x-image-meta-is_public": "true"}).status == 200
    assert admin.put(target, {"x-image-meta-is_public": "false"}).status == 200
    for reader in (alice, bob):
        assert reader.get(target).content == CONTENT
    assert admin.delete(target).status == 200
    assert not left_in(swift_keystone)


def test_an_administrator_deletes_anybodys_image(
    swift_keystone: Swift, people: People, alice: Client
) -> None:
    image_id = active_image(alice, CONTENT)
    assert people.admin.delete(path(image_id)).status == 200
    assert not left_in(swift_keystone)


def test_an_upload_outlives_its_callers_token(
    service: Service, keystone: Keystone, swift_keystone: Swift, alice: Client, bob: Client
) -> None:
    """REL-021, REL-086: it is completed, its readers are let in, and the trust is gone."""
    image_id = queued_image(alice)
    target, member = path(image_id), keystone.users["bob"].project_id
    assert alice.put(f"{target}/members/{member}").status == 204
    short = caller(service, keystone.token("alice", lifetime=4))
    expires = time.monotonic() + 4
    with HalfUpload.to(short, image_id, len(CONTENT), CONTENT[: 3 * MIB]) as started:
        time.sleep(max(expires - time.monotonic(), 0) + 1)
        started.send(CONTENT[3 * MIB :])
        assert started.answer().image["status"] == "active"
    assert keystone.request("GET", "/OS-TRUST/trusts")["trusts"] == []
    assert bob.get(target).content == CONTENT
    assert alice.get(target).content == CONTENT
    assert alice.delete(target).status == 200
    assert not left_in(swift_keystone)


def test_what_a_killed_daemon_left_is_cleared_from_the_uploaders_account(
    service: Service, swift_keystone: Swift, alice: Client
) -> None:
    """REL-009."""
    image_id = queued_image(alice)
    with HalfUpload.to(alice, image_id, len(CONTENT), CONTENT[: 3 * MIB + MIB // 2]):
        wait_until(lambda: len(swift_keystone.objects()) >= 2)
        service.api.kill()
    service.api.start()
    assert wait_for_status(alice, image_id, "killed") == "killed"
    wait_until(lambda: not left_in(swift_keystone))
    assert alice.delete(path(image_id)).status == 200


@pytest.fixture
def delaying(service: Service) -> Iterator[Service]:
    service.reconfigure(api={"delayed_delete": True})
    yield service
    service.reconfigure(api={"delayed_delete": False})


def test_the_scrubber_empties_the_uploaders_account(
    delaying: Service, keystone: Keystone, swift_keystone: Swift, alice: Client
) -> None:
    """REL-075: with its own credentials, when the uploader's are long gone."""
    image_id = active_image(alice, CONTENT)
    assert alice.delete(path(image_id)).status == 200
    assert alice.get(path(image_id)).status == 404
    assert sum(swift_keystone.objects().values()) == len(CONTENT)
    done = scrub(delaying, keystone)
    assert done.returncode == 0, done.stderr
    assert not left_in(swift_keystone)


def scrub(service: Service, keystone: Keystone) -> "subprocess.CompletedProcess[str]":
    """One run of glance-scrubber, configured as its manual page says."""
    registry = {"registry_host": "127.0.0.1", "registry_port": service.registry.port}
    names = ("auth_url", "admin_user", "admin_password", "admin_tenant_name")
    account = {name: options(keystone)[name] for name in names}
    conf = {"DEFAULT": {**registry, **account}, "glance_store": service.api.conf["glance_store"]}
    scrubber = Daemon("glance_api.cmd.scrubber", "scrubber", service.home, 0, conf)
    scrubber.write_conf()
    return subprocess.run(
        [sys.executable, "-m", scrubber.module, "--config-file", str(scrubber.conf_file)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )


class TestLifecycle(StoreLifecycle):
    """Both servers are its own: a Swift that is killed, and a catalog that names it."""

    @pytest.fixture(scope="class")
    @classmethod
    def identity(cls) -> Iterator[Keystone]:
        Keystone.require()
        with Keystone() as keystone, reselling(keystone):
            yield keystone

    @pytest.fixture(scope="class")
    @classmethod
    def backend(cls, identity: Keystone) -> Iterator[Swift]:
        Swift.require()
        with Swift(keystone=identity) as server:
            yield server

    @pytest.fixture(scope="class")
    @classmethod
    def stored(cls, backend: Swift) -> Callable[[], list[str]]:
        return lambda: sorted(left_in(backend))

    @pytest.fixture(scope="class")
    @classmethod
    def service(
        cls, identity: Keystone, backend: Swift, tmp_path_factory: pytest.TempPathFactory
    ) -> Iterator[Service]:
        home = tmp_path_factory.mktemp("many-tenants")
        store = store_options(
            home,
            identity,
            swift_store_large_object_size=50,
            swift_store_large_object_chunk_size=20,
            swift_store_timeout=5,
        )
        with running(home, identity, glance_store=store, leases={"seconds": 5}) as service:
            yield service
            alice = caller(service, identity.token("alice"))
            for image in alice.get("/v1/images").json["images"]:
                assert alice.delete(path(image["id"])).status == 200
            # What could not be removed when Swift was killed has been since.
            wait_until(lambda: not left_in(backend))

    @pytest.fixture
    def caller(self, service: Service, identity: Keystone) -> Client:
        return caller(service, identity.token("alice"))
