"""Lists: images-v1.md section 6, cases 21.6. The fixture is the subsection's, in its order."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from urllib.parse import quote, urlencode

import pytest

from tests.functional.conftest import audited_service
from tests.functional.daemons import ADMIN, RAW, T1, T2, T3, Client, Service
from tests.functional.steps import active_image, create, killed_image, meta, path

BRIEF = {"id", "name", "disk_format", "container_format", "size", "checksum"}
DETAIL = {
    "id", "name", "status", "size", "virtual_size", "disk_format", "container_format",
    "min_disk", "min_ram", "is_public", "protected", "owner", "checksum", "created_at",
    "updated_at", "deleted_at", "deleted", "properties",
}  # fmt: skip

# Newest first.
OF_T1 = ["queued1", "t2priv", "t1priv", "pubA"]
OF_ALL = ["queued1", "orph", "t2priv", "t1priv", "pubA"]
PRIVATE = ["queued1", "orph", "t2priv", "t1priv"]
CHANGED = ["killed1", "deleted1", "queued1", "t2priv", "t1priv", "pubA"]


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with audited_service(tmp_path_factory.mktemp("listing")) as running:
        yield running


@dataclass(frozen=True)
class World:
    """The images by name, and the callers."""

    ids: dict[str, str]
    callers: dict[str, Client]

    def names(self, who: str, query: str = "") -> list[str | None]:
        return self.callers[who].get(f"/v1/images/detail?{query}").names

    def status(self, who: str, query: str) -> int:
        brief = self.callers[who].get(f"/v1/images?{query}").status
        assert self.callers[who].get(f"/v1/images/detail?{query}").status == brief
        return brief

    def updated(self, name: str) -> str:
        head = self.callers["admin"].head(path(self.ids[name])).headers
        return head["x-image-meta-updated_at"]


@pytest.fixture(scope="module")
def world(service: Service) -> World:
    admin, t1, t2 = service.client(ADMIN), service.client(T1), service.client(T2)
    ids = {
        "pubA": active_image(
            admin, b"1234", name="pubA", is_public="true", min_ram="512", min_disk="5",
            protected="true",
        ),
        "t1priv": active_image(
            t1, b"12345678", name="t1priv", **{"property-distro": "ubuntu", "property-arch": "x86"}
        ),
        "t2priv": active_image(
            t2, b"12", name="t2priv", disk_format="qcow2", **{"property-distro": "ubuntu"}
        ),
        "orph": admin.post("/v1/images", {**RAW, **meta(name="orph", owner="")}).image["id"],
        "queued1": create(t1, name="queued1").image["id"],
        "deleted1": active_image(t1, name="deleted1"),
    }  # fmt: skip
    assert t2.put(f"{path(ids['t2priv'])}/members/t1").status == 204
    assert t1.delete(path(ids["deleted1"])).status == 200
    ids["killed1"] = killed_image(t1, name="killed1")
    callers = {"t1": t1, "t2": t2, "t3": service.client(T3), "admin": admin}
    return World(ids, callers)


@pytest.mark.parametrize(
    ("who", "query", "expected"),
    [
        pytest.param("admin", "", ["pubA"], id="V1-IMG-500"),
        pytest.param("admin", "is_public=None", OF_ALL, id="V1-IMG-501 None"),
        pytest.param("admin", "is_public=none", OF_ALL, id="V1-IMG-501 none"),
        pytest.param("admin", "is_public=True", ["pubA"], id="V1-IMG-502 True"),
        pytest.param("admin", "is_public=1", ["pubA"], id="V1-IMG-502 1"),
        pytest.param("admin", "is_public=False", PRIVATE, id="V1-IMG-503 False"),
        pytest.param("admin", "is_public=0", PRIVATE, id="V1-IMG-503 0"),
        pytest.param("t1", "", OF_T1, id="V1-IMG-505"),
        pytest.param("t1", "is_public=None", OF_T1, id="V1-IMG-505 None"),
        pytest.param("t1", "is_public=True", OF_T1, id="V1-IMG-505 True"),
        pytest.param("t1", "is_public=False", OF_T1, id="V1-IMG-505 False"),
        pytest.param("t2", "", ["t2priv", "pubA"], id="V1-IMG-506"),
        pytest.param("t3", "", ["pubA"], id="V1-IMG-507"),
        pytest.param("t1", "deleted=True", OF_T1, id="V1-IMG-508 t1"),
        pytest.param("admin", "deleted=True", ["pubA"], id="V1-IMG-508 admin"),
        pytest.param("t1", "changes-since=2020-01-01", CHANGED, id="V1-IMG-509"),
        pytest.param(
            "admin",
            "changes-since=2020-01-01T00:00:00Z&is_public=None",
            ["killed1", "deleted1", *OF_ALL],
            id="V1-IMG-510",
        ),
        pytest.param("t1", "changes-since=2099-01-01", [], id="V1-IMG-515"),
        pytest.param("t1", "status=killed", [], id="V1-IMG-516"),
        pytest.param("t1", "status=active", OF_T1[1:], id="V1-IMG-517"),
        pytest.param("t1", "status=junk", [], id="V1-IMG-518"),
        pytest.param("t1", "protected=True", ["pubA"], id="V1-IMG-519 True"),
        pytest.param("t1", "protected=1", ["pubA"], id="V1-IMG-519 1"),
        pytest.param("t1", "protected=false", OF_T1[:3], id="V1-IMG-519 false"),
        pytest.param("t1", "name=t1priv", ["t1priv"], id="V1-IMG-521"),
        pytest.param("t1", "name=T1PRIV", [], id="V1-IMG-521 case"),
        pytest.param("t1", "name=", [], id="V1-IMG-521 empty"),
        pytest.param("t1", "name=in:t1priv,pubA", ["t1priv", "pubA"], id="V1-IMG-522 in"),
        pytest.param("t1", "name=eq:t1priv", ["t1priv"], id="V1-IMG-522 eq"),
        pytest.param("t1", "status=in:queued,active", OF_T1, id="V1-IMG-524"),
        pytest.param("t1", "disk_format=qcow2", ["t2priv"], id="V1-IMG-525 disk"),
        pytest.param("t1", "container_format=bare", OF_T1[1:], id="V1-IMG-525 container"),
        pytest.param("t1", "size_min=4", ["t1priv", "pubA"], id="V1-IMG-526 min"),
        pytest.param("t1", "size_max=4", ["queued1", "t2priv", "pubA"], id="V1-IMG-526 max"),
        pytest.param("t1", "size_min=4&size_max=4", ["pubA"], id="V1-IMG-526 both"),
        pytest.param("t1", "min_ram=512", ["pubA"], id="V1-IMG-528"),
        pytest.param("t1", "min_disk=5", ["pubA"], id="V1-IMG-529"),
        pytest.param("t1", "property-distro=ubuntu", ["t2priv", "t1priv"], id="V1-IMG-530"),
        pytest.param("t1", "property-DISTRO=ubuntu", [], id="V1-IMG-531 name"),
        pytest.param("t1", "property-distro=Ubuntu", [], id="V1-IMG-531 value"),
        pytest.param("t1", "property-boo=x", [], id="V1-IMG-531 absent"),
        pytest.param("t1", "property-distro=ubuntu&property-arch=x86", ["t1priv"], id="V1-IMG-532"),
        pytest.param(
            "t1", "owner=t2&foo=bar&checksum=zz&id=x&virtual_size_min=9", OF_T1, id="V1-IMG-533"
        ),
        pytest.param("t1", "name=t1priv&name=pubA", ["pubA"], id="V1-IMG-534"),
        pytest.param(
            "t1", "sort_key=name", ["t2priv", "t1priv", "queued1", "pubA"], id="V1-IMG-536"
        ),
        pytest.param(
            "t1",
            "sort_key=name&sort_dir=asc",
            ["pubA", "queued1", "t1priv", "t2priv"],
            id="V1-IMG-536 asc",
        ),
        pytest.param("t1", "sort_key=size", ["t1priv", "pubA", "t2priv", "queued1"]),
        pytest.param("t1", "sort_key=created_at&sort_dir=asc", OF_T1[::-1]),
        pytest.param("t1", "limit=1", ["queued1"], id="V1-IMG-538"),
        pytest.param("t1", "limit=0", [], id="V1-IMG-539"),
        pytest.param("t1", "limit=5000", OF_T1, id="V1-IMG-541"),
        pytest.param("t1", "limit=1&limit=2", ["queued1", "t2priv"], id="V1-IMG-544"),
        pytest.param("t1", "marker={t1priv}&limit=1", ["pubA"], id="V1-IMG-547"),
        pytest.param("t1", "marker={pubA}", [], id="V1-IMG-548"),
        pytest.param(
            "t1",
            "marker={deleted1}&changes-since=2020-01-01",
            ["queued1", "t2priv", "t1priv", "pubA"],
            id="V1-IMG-549",
        ),
        pytest.param("admin", "marker={deleted1}&is_public=none", OF_ALL, id="V1-IMG-550"),
        pytest.param("t1", "marker={orph}", ["t2priv", "t1priv", "pubA"], id="V1-IMG-551"),
        pytest.param("t1", "marker={queued1}&status=active", OF_T1[1:], id="marker outside"),
    ],
)
def test_a_query_finds_these(world: World, who: str, query: str, expected: list[str]) -> None:
    query = query.format(**world.ids)
    assert world.names(who, query) == expected
    assert world.callers[who].get(f"/v1/images?{query}").names == expected


@pytest.mark.parametrize(
    "query",
    [
        pytest.param("is_public=junk", id="V1-IMG-504"),
        pytest.param("is_public=", id="V1-IMG-504 empty"),
        pytest.param("changes-since=", id="V1-IMG-512 empty"),
        pytest.param("changes-since=foo", id="V1-IMG-512"),
        pytest.param("protected=None", id="V1-IMG-520"),
        pytest.param("protected=junk", id="V1-IMG-520 junk"),
        *(
            pytest.param(f"size_min={value}", id=f"V1-IMG-527 {value}")
            for value in ("-1", "abc", "1.5")
        ),
        pytest.param("size_max=", id="V1-IMG-527 empty"),
        pytest.param("min_ram=abc", id="V1-IMG-528 abc"),
        pytest.param("min_ram=-1", id="V1-IMG-528 -1"),
        pytest.param("min_disk=abc", id="V1-IMG-529, D23"),
        pytest.param("name=%ff", id="V1-IMG-535"),
        *(
            pytest.param(f"sort_key={value}", id=f"V1-IMG-537 {value}")
            for value in ("foo", "owner", "min_ram", "")
        ),
        pytest.param("sort_dir=foo", id="V1-IMG-537 dir"),
        pytest.param("sort_dir=", id="V1-IMG-537 no dir"),
        *(pytest.param(f"limit={value}", id=f"V1-IMG-540 {value}") for value in ("-1", "abc", "")),
        pytest.param("marker=zzz", id="V1-IMG-545"),
        pytest.param("marker=3d3c2a8e-0c1b-4b7e-9a71-0d3e5d9b6f10", id="V1-IMG-545 unknown"),
        pytest.param("marker=", id="V1-IMG-545 empty"),
        pytest.param("size_min=99999999999999999999", id="beyond 64 bits"),
    ],
)
def test_a_query_that_makes_no_sense_is_refused(world: World, query: str) -> None:
    for who in ("t1", "admin"):
        assert world.status(who, query) == 400


def test_a_marker_is_visible_to_the_caller(world: World) -> None:
    """V1-IMG-546, V1-IMG-549"""
    assert world.status("t2", f"marker={world.ids['t1priv']}") == 400
    assert world.status("t1", f"marker={world.ids['deleted1']}") == 400


class TestChangesSince:
    def test_it_is_strict(self, world: World) -> None:
        """V1-IMG-511"""
        moment = world.updated("t1priv")
        names = world.names("t1", f"changes-since={moment}")
        assert "t1priv" not in names
        before = datetime.fromisoformat(moment) - timedelta(microseconds=1)
        assert "t1priv" in world.names("t1", f"changes-since={before.isoformat()}")

    @pytest.mark.parametrize("form", ["%Y-%m-%d", "%Y%m%d", "%Y-%m%d"])
    def test_dates_have_three_forms(self, world: World, form: str) -> None:
        """V1-IMG-513"""
        day = datetime.fromisoformat(world.updated("pubA")) - timedelta(days=1)
        assert len(world.names("t1", f"changes-since={day.strftime(form)}")) == 6

    @pytest.mark.parametrize(("offset", "hours"), [("+01:00", 1), ("-01:00", -1)])
    def test_an_offset_counts(self, world: World, offset: str, hours: int) -> None:
        """V1-IMG-514"""
        updated = datetime.fromisoformat(world.updated("queued1"))
        for step, expected in ((-1, True), (1, False)):
            local = updated + timedelta(hours=hours, microseconds=step)
            query = f"changes-since={quote(local.isoformat() + offset)}"
            assert ("queued1" in world.names("t1", query)) is expected


class TestNames:
    @pytest.mark.parametrize(
        "name", ["foo:bar", "gt:5", "a,b", 'quo"te', "é文", "a&b=c", "in", "%41", "100%"]
    )
    def test_a_name_is_found_by_itself(self, service: Service, name: str) -> None:
        """V1-IMG-523, D21"""
        caller = service.caller("names")
        assert create(caller, name=name).status == 201
        create(caller, name="another")
        assert caller.get(f"/v1/images?{urlencode({'name': name})}").names == [name]

    def test_one_of_several_may_be_quoted(self, service: Service) -> None:
        """Section 6.1."""
        caller = service.caller("names")
        for name in ("a,b", "c", "d"):
            create(caller, name=name)
        query = urlencode({"name": 'in:"a,b",c', "sort_key": "name", "sort_dir": "asc"})
        assert caller.get(f"/v1/images?{query}").names == ["a,b", "c"]


class TestOrder:
    def test_equal_keys_are_ordered_by_time_and_id(self, service: Service) -> None:
        """V1-IMG-552"""
        caller = service.caller("order")
        created = [create(caller).image for _ in range(4)]
        images = sorted(created, key=lambda image: (image["created_at"], image["id"]))
        found = caller.get("/v1/images/detail?sort_key=status&sort_dir=asc").json["images"]
        own = [image["id"] for image in found if image["owner"] == caller.tenant]
        assert own == [image["id"] for image in images]

    @pytest.mark.parametrize("direction", ["asc", "desc"])
    @pytest.mark.parametrize("key", ["name", "size", "disk_format", "status", "id", "updated_at"])
    def test_pages_show_every_image_once(self, service: Service, key: str, direction: str) -> None:
        """V1-IMG-553"""
        caller = service.caller("pages")
        for name in ("b", None, "a", None, "c"):
            create(caller, **({"name": name, "size": "7"} if name else {}))
        query = f"sort_key={key}&sort_dir={direction}"
        whole = [image["id"] for image in caller.get(f"/v1/images?{query}").json["images"]]
        walked: list[str] = []
        marker = ""
        while page := caller.get(f"/v1/images?{query}&limit=1{marker}").json["images"]:
            walked.append(page[0]["id"])
            marker = f"&marker={walked[-1]}"
            assert len(walked) <= len(whole)
        assert walked == whole
        if key == "name":
            names = caller.get(f"/v1/images?{query}").names
            own = [name for name in names if name != "pubA"]
            expected: list[str | None] = [None, None, "a", "b", "c"]
            assert own == (expected if direction == "asc" else expected[::-1])


def test_items_have_exactly_these_keys(world: World) -> None:
    """V1-IMG-554, V1-IMG-555"""
    t1 = world.callers["t1"]
    answer = t1.get("/v1/images")
    assert answer.headers["content-type"] == "application/json; charset=UTF-8"
    assert all(image.keys() == BRIEF for image in answer.json["images"])
    detail = t1.get("/v1/images/detail").json
    assert detail.keys() == {"images"}
    assert all(image.keys() == DETAIL for image in detail["images"])
    (mine,) = [image for image in detail["images"] if image["name"] == "t1priv"]
    assert mine["properties"] == {"distro": "ubuntu", "arch": "x86"}


def test_a_caller_without_an_owner_sees_public_images(service: Service, world: World) -> None:
    """D18"""
    nobody = service.client({"X-Identity-Status": "Confirmed", "X-Roles": ""})
    assert nobody.get("/v1/images").names == ["pubA"]


def test_a_removed_property_is_not_found(service: Service) -> None:
    """Section 6.1: a live property."""
    caller = service.caller("removed")
    image_id = create(caller, **{"property-gone": "1"}).image["id"]
    assert len(caller.get("/v1/images?property-gone=1").names) == 1
    caller.put(path(image_id))
    assert caller.get("/v1/images?property-gone=1").names == []


def test_many_property_filters_are_refused(world: World) -> None:
    """SEC-076"""
    query = "&".join(f"property-p{number}=v" for number in range(17))
    assert world.status("t1", query) == 400


class TestPageSizes:
    def test_the_registry_decides(self, service: Service) -> None:
        """V1-IMG-542, V1-IMG-543"""
        service.reconfigure(registry={"limit_param_default": 2, "api_limit_max": 3})
        caller = service.caller("sizes")
        for _ in range(5):
            create(caller)
        sizes = {"": 2, "?limit=10": 3, "?limit=1": 1}
        for query, expected in sizes.items():
            for list_path in ("/v1/images", "/v1/images/detail", "/v1/"):
                assert len(caller.get(list_path + query).names) == expected
        service.reconfigure(registry={"limit_param_default": 10})
        assert len(caller.get("/v1/images").names) == 3
