"""Both daemons on a real MariaDB: the life of an image, lists, quotas, recovery, and faults."""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any
from urllib.parse import quote

import pymysql
import pytest

from tests.functional.audit import audit
from tests.functional.daemons import OCTETS, RAW, Answer, Client, Service, running_service
from tests.functional.steps import (
    HalfUpload,
    active_image,
    meta,
    path,
    queued_image,
    upload,
    wait_for_status,
    wait_until,
)
from tests.servers.mariadb import MariaDB

KIB = 1024
QUOTA = 1024 * KIB


@pytest.fixture(scope="module")
def mariadb() -> Iterator[MariaDB]:
    """A server of our own, because tests change its settings and restart it."""
    MariaDB.require()
    with MariaDB() as running:
        # The default of fifty seconds is longer than a test should take to see an error 1205.
        running.execute("SET GLOBAL innodb_lock_wait_timeout = 1")
        yield running


@pytest.fixture(scope="module")
def service(mariadb: MariaDB, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """Two workers each, so that processes meet in the database."""
    api = {"workers": 2, "user_storage_quota": str(QUOTA), "leases": {"seconds": 5}}
    with running_service(
        tmp_path_factory.mktemp("mariadb"),
        connection=mariadb.create("glance"),
        api=api,
        registry={"workers": 2},
    ) as running:
        yield running
        _wait_until_no_leases(mariadb)
        audit(running)


@pytest.fixture
def t1(service: Service) -> Client:
    return service.caller("t1")


@pytest.fixture
def t2(service: Service) -> Client:
    return service.caller("t2")


@pytest.fixture
def database(mariadb: MariaDB) -> Iterator["pymysql.Connection[Any]"]:
    """Another client of the database, to be in the daemons' way."""
    with closing(
        pymysql.connect(host=mariadb.host, port=mariadb.port, user="root", database="glance")
    ) as connection:
        yield connection


def _wait_until_no_leases(mariadb: MariaDB) -> None:
    wait_until(lambda: mariadb.execute("SELECT count(*) FROM glance.image_leases").strip() == "0")


class TestLife:
    def test_an_image_is_created_uploaded_changed_read_and_deleted(
        self, t1: Client, t2: Client, service: Service
    ) -> None:
        name = "Größe 日本語"
        image = t1.post("/v1/images", {**RAW, **meta(name=name, **{"property-os": "Grün"})}).image
        image_id = image["id"]
        assert (image["status"], image["name"]) == ("queued", name)
        # Times keep their microseconds (decision 3).
        assert len(image["created_at"]) == len("2016-01-01T00:00:00.000000")
        assert t1.put(path(image_id), OCTETS, b"content").image["status"] == "active"
        assert t1.get(path(image_id)).content == b"content"
        changed = t1.put(path(image_id), meta(min_ram="7", **{"property-a": "1"})).image
        assert (changed["properties"], changed["min_ram"]) == ({"a": "1"}, 7)
        assert t2.get(path(image_id)).status == 404
        assert t1.delete(path(image_id)).status == 200
        assert t1.get(path(image_id)).status == 404
        assert image_id not in service.stored_files()

    def test_images_are_shared(self, t1: Client, t2: Client) -> None:
        image_id = active_image(t1, b"shared")
        member = f"{path(image_id)}/members/{t2.tenant}"
        assert t1.put_json(member, {"member": {"can_share": True}}).status == 204
        assert t1.put(member).status == 204
        assert t1.get(f"{path(image_id)}/members").json["members"] == [
            {"member_id": t2.tenant, "can_share": True}
        ]
        assert t2.get(path(image_id)).content == b"shared"
        assert t2.get("/v1/images").names == [None]
        assert t1.delete(member).status == 204
        assert t2.get(path(image_id)).status == 404
        assert (
            t1.put_json(
                f"{path(image_id)}/members",
                {"memberships": [{"member_id": t2.tenant}, {"member_id": "other"}]},
            ).status
            == 204
        )
        shared = t2.get(f"/v1/shared-images/{t2.tenant}").json["shared_images"]
        assert shared == [{"image_id": image_id, "can_share": False}]
        assert t1.delete(path(image_id)).status == 200
        assert t2.get(f"/v1/shared-images/{t2.tenant}").json["shared_images"] == []


SHELF: list[dict[str, str]] = [
    {"name": "ant", "disk_format": "raw", "container_format": "bare", "min_ram": "1"},
    {"name": "Bee", "disk_format": "qcow2", "container_format": "bare", "min_disk": "2"},
    {"name": "cat", "disk_format": "raw", "container_format": "ovf", "protected": "true"},
    {"name": "dog", "disk_format": "raw", "container_format": "bare", "property-legs": "4"},
    {"name": "eel", "disk_format": "iso", "container_format": "bare", "property-legs": "0"},
    {"name": "ant", "disk_format": "raw", "container_format": "docker", "property-legs": "6"},
    {"name": "größe", "disk_format": "raw", "container_format": "bare", "property-sex": "ö"},
]


@pytest.fixture(scope="module")
def owner(service: Service) -> Iterator[Client]:
    """Of the shelf's images, which have 0 to 6 bytes in that order; the first one is queued."""
    caller = service.caller("t1")
    made = []
    for size, fields in enumerate(SHELF):
        headers = {**meta(**fields), **(OCTETS if size else {})}
        made.append(caller.post("/v1/images", headers, b"x" * size or None).image["id"])
    yield caller
    for image_id in made:
        caller.put(path(image_id), meta(protected="false"))
        assert caller.delete(path(image_id)).status == 200


class TestLists:
    @pytest.mark.parametrize(
        ("query", "sizes"),
        [
            ("name=ant", [0, 5]),
            ("name=ANT", []),
            ("name=gr%C3%B6%C3%9Fe", [6]),
            ("name=grosse", []),
            ("status=queued", [0]),
            ("status=active", [1, 2, 3, 4, 5, 6]),
            ("status=killed", []),
            ("disk_format=raw", [0, 2, 3, 5, 6]),
            ("container_format=ovf", [2]),
            ("container_format=in:ovf,docker", [2, 5]),
            ("size_min=2&size_max=4", [2, 3, 4]),
            ("min_ram=1", [0]),
            ("min_disk=2", [1]),
            ("protected=true", [2]),
            ("protected=0&disk_format=raw", [0, 3, 5, 6]),
            ("property-legs=4", [3]),
            ("property-legs=4&property-sex=x", []),
            ("property-sex=%C3%B6", [6]),
            ("is_public=none", [0, 1, 2, 3, 4, 5, 6]),
            ("changes-since=2000-01-01T00:00:00Z", [0, 1, 2, 3, 4, 5, 6]),
            ("changes-since=2100-01-01T00:00:00Z", []),
            ("limit=0", []),
        ],
    )
    def test_filters(self, owner: Client, query: str, sizes: list[int]) -> None:
        answer = owner.get(f"/v1/images/detail?{query}&sort_key=size&sort_dir=asc")
        assert [image["size"] for image in answer.json["images"]] == sizes

    @pytest.mark.parametrize("direction", ["asc", "desc"])
    @pytest.mark.parametrize(
        "key",
        [
            "name",
            "status",
            "container_format",
            "disk_format",
            "size",
            "id",
            "created_at",
            "updated_at",
        ],
    )
    def test_every_order_has_the_same_pages(self, owner: Client, key: str, direction: str) -> None:
        query = f"sort_key={key}&sort_dir={direction}"
        whole = owner.get(f"/v1/images/detail?{query}").json["images"]
        assert len(whole) == len(SHELF)
        keys = [image[key] for image in whole]
        if key in ("size", "id", "created_at", "updated_at"):
            assert keys == sorted(keys, reverse=direction == "desc")
        for limit in (1, 2, 3):
            walked: list[str] = []
            while page := owner.get(_page(query, limit, walked)).json["images"]:
                assert len(page) <= limit
                walked += [image["id"] for image in page]
            assert walked == [image["id"] for image in whole]


def _page(query: str, limit: int, walked: list[str]) -> str:
    marker = f"&marker={quote(walked[-1])}" if walked else ""
    return f"/v1/images?{query}&limit={limit}{marker}"


def together(work: Callable[[int], Answer], count: int) -> Counter[int]:
    """How often each status was answered to so many callers at once."""
    start = threading.Barrier(count)

    def run(number: int) -> int:
        start.wait()
        return work(number).status

    with ThreadPoolExecutor(count) as pool:
        return Counter(pool.map(run, range(count)))


def test_a_quota_holds_under_concurrent_uploads(t1: Client, mariadb: MariaDB) -> None:
    """REL-057, SEC-071: sixteen at once, of which five fit."""
    content = b"x" * (200 * KIB)
    assert together(lambda _: upload(t1, content), 16) == {201: 5, 413: 11}
    assert together(lambda _: upload(t1, _chunks(content)), 4) == {413: 4}
    usage = f"SELECT bytes, reserved FROM glance.owner_usage WHERE owner = '{t1.tenant}'"
    assert mariadb.execute(usage).split() == [str(1000 * KIB), "0"]
    for image in t1.get("/v1/images").json["images"][:2]:
        assert t1.delete(path(image["id"])).status == 200
    assert upload(t1, content).status == 201
    assert mariadb.execute(usage).split() == [str(800 * KIB), "0"]


def _chunks(content: bytes) -> Iterator[bytes]:
    """A body of unknown length."""
    return (content[start : start + 8192] for start in range(0, len(content), 8192))


def test_one_of_many_uploads_to_an_image_wins(t1: Client) -> None:
    """REL-006."""
    image_id = queued_image(t1)
    won = together(lambda number: t1.put(path(image_id), OCTETS, b"%d" % number * 1000), 8)
    assert won == {200: 1, 409: 7}
    assert len(set(t1.get(path(image_id)).content)) == 1


def test_members_and_properties_change_at_once(t1: Client, service: Service) -> None:
    """REL-053: whole transactions are repeated, none is lost or made twice."""
    image_id = queued_image(t1)
    url = path(image_id)
    keep = {"x-glance-registry-purge-props": "false"}
    work: list[Callable[[int], Answer]] = [
        lambda number: t1.put(f"{url}/members/m{number}"),
        lambda number: t1.put(url, {**keep, **meta(**{f"property-p{number}": "1"})}),
        lambda number: t1.put(url, {**keep, **meta(name=f"n{number}")}),
    ]
    assert set(together(lambda number: work[number % 3](number), 24)) <= {200, 204}
    members = t1.get(f"{url}/members").json["members"]
    assert sorted(each["member_id"] for each in members) == sorted(
        f"m{number}" for number in range(0, 24, 3)
    )
    document = next(
        image for image in t1.get("/v1/images/detail").json["images"] if image["id"] == image_id
    )
    assert document["properties"].keys() == {f"p{number}" for number in range(1, 24, 3)}
    assert together(lambda _: t1.delete(url), 6)[200] >= 1
    assert t1.get("/v1/images").names == []


def test_an_upload_of_a_killed_api_is_cleared_up(t1: Client, service: Service) -> None:
    """REL-009, on this database."""
    image_id = queued_image(t1)
    with HalfUpload.to(t1, image_id, 100_000, b"x" * 50_000):
        service.api.kill()
    service.api.start()
    assert wait_for_status(t1, image_id, "killed") == "killed"
    wait_until(lambda: image_id not in "".join(service.stored_files()))
    assert upload(t1, b"x" * QUOTA).status == 201  # the reservation is gone


class TestConflicts:
    """REL-053, with a second client that holds what a request needs."""

    def test_a_lock_that_is_held_for_long_is_waited_for_again(
        self, t1: Client, mariadb: MariaDB, database: "pymysql.Connection[Any]"
    ) -> None:
        """Error 1205, more than once."""
        image_id = active_image(t1)
        before = _status(mariadb, "Innodb_row_lock_waits")
        with ThreadPoolExecutor(2) as pool, database.cursor() as cursor:
            cursor.execute("SELECT * FROM images WHERE id = %s FOR UPDATE", (image_id,))
            pending = [
                pool.submit(t1.put, path(image_id), meta(name="waited")),
                pool.submit(t1.put, f"{path(image_id)}/members/m"),
            ]
            time.sleep(3.5)
            assert not any(each.done() for each in pending)
            assert _status(mariadb, "Innodb_row_lock_waits") >= before + 4
            database.rollback()
            assert [each.result().status for each in pending] == [200, 204]
        assert t1.head(path(image_id)).headers["x-image-meta-name"] == "waited"

    def test_a_deadlock_is_overcome(
        self, t1: Client, mariadb: MariaDB, database: "pymysql.Connection[Any]"
    ) -> None:
        """Error 1213: the other side has changed more, so ours is the one that is undone."""
        image_id = active_image(t1)
        mariadb.execute(
            "CREATE OR REPLACE TABLE glance.ballast (n INT PRIMARY KEY, m INT);"
            " INSERT INTO glance.ballast SELECT seq, 0 FROM glance.seq_1_to_5000"
        )
        before = _status(mariadb, "Innodb_deadlocks")
        with ThreadPoolExecutor(1) as pool, database.cursor() as cursor:
            cursor.execute("UPDATE ballast SET m = m + 1")
            cursor.execute("UPDATE owner_usage SET bytes = bytes WHERE owner = %s", (t1.tenant,))
            pending = pool.submit(t1.delete, path(image_id))
            wait_until(lambda: _status(mariadb, "Innodb_row_lock_current_waits") > 0)
            cursor.execute("SELECT * FROM images WHERE id = %s FOR UPDATE", (image_id,))
            database.rollback()
            assert pending.result().status == 200
        assert _status(mariadb, "Innodb_deadlocks") == before + 1
        mariadb.execute("DROP TABLE glance.ballast")


def _status(mariadb: MariaDB, name: str) -> int:
    return int(mariadb.execute(f"SHOW GLOBAL STATUS LIKE '{name}'").split()[1])


def test_a_restart_of_the_database_is_survived(mariadb: MariaDB, service: Service) -> None:
    """REL-054: refusals are 503, and five seconds later all is as before, without a restart."""
    stop = threading.Event()
    answers: list[tuple[float, str, int]] = []

    def live() -> None:
        caller = service.caller("t1")
        while not stop.is_set():
            made = note(upload(caller, b"some data"))
            note(caller.get("/v1/images/detail"))
            if made.status == 201:
                image = path(made.image["id"])
                note(caller.get(image))
                note(caller.delete(image))

    def note(answer: Answer) -> Answer:
        answers.append((time.monotonic(), answer.text[:300], answer.status))
        return answer

    threads = [threading.Thread(target=live) for _ in range(6)]
    for thread in threads:
        thread.start()
    time.sleep(1)
    with mariadb.killed():
        time.sleep(1)
    back = time.monotonic()
    time.sleep(7)
    stop.set()
    for thread in threads:
        thread.join()
    statuses = Counter(status for _, _, status in answers)
    assert statuses.keys() == {200, 201, 503}, answers
    late = Counter(status for when, _, status in answers if when > back + 5)
    assert late.keys() == {200, 201}, late
    _wait_until_no_leases(mariadb)
