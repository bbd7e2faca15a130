"""registry-v1.md section 4: lists, filters, order and pages, by their numbered cases."""

import random
import uuid
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any
from urllib.parse import quote

import pytest

from common.context import RequestContext
from common.image import BRIEF_FIELDS, Image
from common.query import SORT_KEYS
from glance_registry.db import listing, models, rows, visibility
from glance_registry.images import ListSettings
from tests.registry import ADMIN, ANONYMOUS, UNKNOWN_ID, Registry, statements, user


def test_brief_and_detailed_lists_show_what_they_should(registry: Registry) -> None:
    image = registry.create(name="a", properties={"p": "v"}, location="file:///x")
    (brief,) = registry.call("GET", "/images").json["images"]
    assert brief == {name: image[name] for name in BRIEF_FIELDS}
    (detailed,) = registry.call("GET", "/images/detail").json["images"]
    assert detailed == image


def test_a_user_lists_public_own_and_shared_images(registry: Registry) -> None:
    """images-v1.md section 6.2"""
    registry.create(name="mine")
    registry.create(user("t2"), name="public", is_public=True)
    registry.create(name="mine public", is_public=True)
    shared = registry.create(user("t2"), name="shared")["id"]
    registry.create(user("t2"), name="hidden")
    registry.create(ADMIN, name="ownerless", owner="")
    registry.call("PUT", f"/images/{shared}/members/t1", ctx=user("t2"))
    registry.call("PUT", f"/images/{shared}/members/t2", ctx=user("t2"))
    assert sorted(registry.names()) == ["mine", "mine public", "public", "shared"]
    assert sorted(registry.names(ctx=user("t2"))) == ["hidden", "mine public", "public", "shared"]
    assert sorted(registry.names("?is_public=none", ADMIN)) == [
        "hidden", "mine", "mine public", "ownerless", "public", "shared"
    ]  # fmt: skip
    assert sorted(registry.names("?is_public=False", ADMIN)) == [
        "hidden", "mine", "ownerless", "shared"
    ]  # fmt: skip
    assert sorted(registry.names("?is_public=True", ADMIN)) == ["mine public", "public"]
    assert sorted(registry.names("", ADMIN)) == ["mine public", "public"]


def test_a_caller_without_owner_lists_public_images_only(registry: Registry) -> None:
    """D18, SEC-010"""
    image_id = registry.create(name="shared")["id"]
    registry.call("PUT", f"/images/{image_id}/members/t2")
    registry.create(ADMIN, name="ownerless", owner="")
    registry.create(name="public", is_public=True)
    for ctx in (ANONYMOUS, user(None), user("")):
        assert registry.names(ctx=ctx) == ["public"]


@pytest.mark.parametrize("word", ["True", "junk", ""])
def test_only_admins_say_deleted(registry: Registry, word: str) -> None:
    """REG-042: for users the parameter does not exist; for admins junk means false."""
    registry.create(name="live")
    registry.call("DELETE", f"/images/{registry.create(name='gone')['id']}")
    assert registry.names(f"?deleted={word}") == ["live"]
    wanted = ["gone"] if word == "True" else ["live"]
    assert registry.names(f"?deleted={word}&is_public=none", ADMIN) == wanted


def test_only_admins_say_is_public(registry: Registry) -> None:
    """REG-043, SEC-003: no filter of a user's widens what he sees."""
    registry.create(user("t2"), name="hidden")
    for word in ("junk", "", "True", "False", "None"):
        assert registry.names(f"?is_public={word}&deleted=True&changes-since=2001-01-01") == []
    assert registry.call("GET", "/images?is_public=junk", ctx=ADMIN).status_int == 400
    assert registry.names("?is_public=NONE", ADMIN) == ["hidden"]
    assert registry.names("?is_public=0", ADMIN) == ["hidden"]
    assert registry.names("?is_public=1", ADMIN) == []


@pytest.mark.parametrize(
    "query",
    [
        "protected=None",
        "size_min=x",
        "size_max=",
        "size_max=1.5",
        "min_ram=x",
        "limit=-1",
        "limit=a",
        "limit=",
        "sort_key=asdf",
        "sort_key=",
        "sort_dir=foo",
        "marker=zz",
        "marker=",
        "changes-since=yesterday",
        "size_min=9999999999999999999999",
        "name=%ff",
        "&".join(f"property-{n}=x" for n in range(17)),
    ],
)
def test_a_bad_parameter_is_refused(registry: Registry, query: str) -> None:
    """REG-044, REG-045, REG-046, R01, SEC-076"""
    for path in ("/images", "/images/detail", "/"):
        assert registry.call("GET", f"{path}?{query}").status_int == 400


def test_a_marker_that_cannot_be_seen_is_refused(registry: Registry) -> None:
    """REG-047: the text says that it is about the marker. SEC-002: an admin may."""
    foreign = registry.create(user("t2"))["id"]
    answers = {
        marker: registry.call("GET", f"/images?marker={marker}") for marker in (UNKNOWN_ID, foreign)
    }
    for marker, answer in answers.items():
        assert answer.status_int == 400
        assert "marker" in answer.text
        assert answer.text.replace(marker, "") == answers[foreign].text.replace(foreign, "")
    assert registry.call("GET", f"/images?marker={foreign}", ctx=ADMIN).status_int == 200


def test_a_deleted_marker_needs_changes_since_or_an_admin(registry: Registry) -> None:
    """images-v1.md section 6.3"""
    marker = registry.create(name="gone")["id"]
    registry.create(name="later")
    registry.call("DELETE", f"/images/{marker}")
    order = f"marker={marker}&sort_dir=asc"
    assert registry.call("GET", f"/images?{order}").status_int == 400
    assert registry.names(f"?{order}&changes-since=2001-01-01") == ["later"]
    assert registry.names(f"?{order}&is_public=none", ADMIN) == ["later"]


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ("name=a", ["a"]),
        ("name=A", []),
        ("name=eq:a", ["a"]),
        ("name=in:a,b,zz", ["a", "b"]),
        ('name=in:"a,x",b', ["a,x", "b"]),
        ("name=in:", []),
        ("name=foo:bar", ["foo:bar"]),
        ("status=queued", ["a"]),
        ("status=killed", []),
        ("container_format=ovf", ["b"]),
        ("disk_format=in:raw,vhd", ["a", "b"]),
        ("min_disk=7", ["b"]),
        ("min_ram=256", ["a"]),
        ("size_min=20", ["a,x", "b"]),
        ("size_max=20", ["a", "b"]),
        ("size_min=15&size_max=25", ["b"]),
        ("size_min=0", ["a", "a,x", "b"]),
        ("protected=1", ["b"]),
        ("protected=FALSE", ["a", "a,x", "foo:bar"]),
        ("property-p=x", ["a"]),
        ("property-p=x&property-q=y", ["a"]),
        ("property-p=x&property-q=z", []),
        ("property-P=x", []),
        ("property-removed=x", []),
        ("owner=t2&checksum=x&id=x&size=5", ["a", "a,x", "b", "foo:bar"]),
        ("limit=0", []),
    ],
)
@pytest.mark.parametrize("sort", ["", "&sort_key=size", "&sort_key=name&sort_dir=asc"])
def test_filters(registry: Registry, query: str, names: list[str], sort: str) -> None:
    """REG-048, D21, D23: whichever index the order follows."""
    registry.create(
        name="a", status="queued", container_format="bare", disk_format="raw", min_ram=256,
        size=10, properties={"p": "x", "q": "y"},
    )  # fmt: skip
    changed = registry.create(
        name="b", status="active", container_format="ovf", disk_format="vhd", min_disk=7,
        size=20, protected=True, properties={"p": "y", "removed": "x"},
    )["id"]  # fmt: skip
    registry.call(
        "PUT", f"/images/{changed}", {"image": {"properties": {"p": "y"}}},
        X_Glance_Registry_Purge_Props="true",
    )  # fmt: skip
    registry.create(name="a,x", status="active", size=30)
    registry.create(name="foo:bar", status="active")
    registry.create(name="dead", status="killed")
    assert sorted(registry.names(f"?{query}{sort}")) == sorted(names)


def test_changes_since_shows_what_changed_strictly_later_deleted_ones_too(
    registry: Registry,
) -> None:
    """REL-063; images-v1.md section 6.2: killed and deleted images appear."""
    first = registry.create(name="first")
    for name, status in (("killed", "killed"), ("live", "active")):
        registry.create(name=name, status=status)
    gone = registry.create(name="gone", location="file:///x")["id"]
    registry.call("DELETE", f"/images/{gone}")
    since = f"changes-since={first['updated_at']}"
    assert sorted(registry.names(f"?{since}")) == ["gone", "killed", "live"]
    assert sorted(registry.names(f"?{since}Z&sort_key=updated_at")) == ["gone", "killed", "live"]
    assert sorted(registry.names(f"?{since}%2B01:00")) == ["first", "gone", "killed", "live"]
    assert registry.names("?changes-since=2999-01-01") == []
    assert registry.names(f"?{since}&deleted=true", ADMIN) == []
    assert registry.names(f"?{since}&deleted=true&is_public=none", ADMIN) == ["gone"]
    detailed = registry.call("GET", f"/images/detail?{since}&name=gone").json["images"][0]
    assert [entry["status"] for entry in detailed["location_data"]] == ["deleted"]


def test_former_members_do_not_see_a_deleted_image(registry: Registry) -> None:
    """images-v1.md section 6.2, SEC-011"""
    image_id = registry.create(name="shared")["id"]
    registry.call("PUT", f"/images/{image_id}/members/t2")
    assert registry.names("?changes-since=2001-01-01", user("t2")) == ["shared"]
    registry.call("DELETE", f"/images/{image_id}")
    assert registry.names("?changes-since=2001-01-01", user("t2")) == []


def test_page_sizes_are_the_registrys_own(registry: Registry) -> None:
    """SEC-076: a larger limit is reduced silently."""
    for _ in range(5):
        registry.create()
    small = Registry.over(registry.database, lists=ListSettings(default=2, largest=3))
    assert len(small.ids()) == 2
    assert len(small.ids("?limit=1")) == 1
    assert len(small.ids("?limit=1000000000")) == 3
    assert len(Registry.over(registry.database, lists=ListSettings(9, 4)).ids()) == 4


def test_a_page_costs_the_same_statements_whatever_its_length(registry: Registry) -> None:
    """REL-056"""
    for number in range(30):
        registry.create(properties={"a": "b", "c": "d"}, location=f"file:///{number}")
    costs = []
    for path in ("/images/detail?limit=1", "/images/detail?limit=30", "/images?limit=30"):
        with statements(registry.database) as sent:
            registry.call("GET", path)
        costs.append(len(sent))
    assert costs == [3, 3, 1]


class Crowd:
    """A few hundred images with ties and nulls in every sort key, put straight into the tables."""

    OWNERS = (None, "t1", "t2", "t3")

    def __init__(self, registry: Registry, seed: int = 7) -> None:
        chance = random.Random(seed)
        self.registry = registry
        self.images = [self._image(chance) for _ in range(300)]
        self.members = {
            (chance.choice(self.images).id, chance.choice(("t1", "t2"))) for _ in range(80)
        }
        now = datetime(2020, 1, 1)
        with registry.database.migration() as connection:
            for image in self.images:
                values = {column.name: getattr(image, column.name) for column in rows.IMAGE_COLUMNS}
                connection.execute(models.images.insert().values(**values))
            connection.execute(
                models.image_members.insert(),
                [
                    {"image_id": image_id, "member": member, "can_share": False,
                     "created_at": now, "deleted": False}
                    for image_id, member in self.members
                ],
            )  # fmt: skip

    @classmethod
    def _image(cls, chance: random.Random) -> Image:
        moment = datetime(2020, 1, 1)
        deleted = chance.random() < 0.2
        return Image(
            id=str(uuid.UUID(int=chance.getrandbits(128))),
            name=chance.choice((None, "", "a", "b", "é", "日")),
            status=chance.choice(("active", "queued", "killed")),
            size=chance.choice((None, 0, 1, 2**40)),
            disk_format=chance.choice((None, "raw", "vhd")),
            container_format=chance.choice((None, "bare")),
            is_public=chance.random() < 0.3,
            owner=chance.choice(cls.OWNERS),
            created_at=moment + timedelta(microseconds=chance.randrange(5)),
            updated_at=moment + timedelta(microseconds=chance.randrange(5)),
            deleted=deleted,
            deleted_at=moment if deleted else None,
        )

    def visible(self, ctx: RequestContext, scope: str, *, changed: bool) -> set[str]:
        """What the rules of visibility.py say, one image at a time."""

        def is_listed(image: Image) -> bool:
            if not changed and (image.deleted or image.status == "killed"):
                return False
            if scope == "all":
                return True
            if scope == "private":
                return not image.is_public
            if image.deleted:
                return image.is_public or (ctx.owner is not None and image.owner == ctx.owner)
            as_user = user(ctx.owner)
            # Images without owner are for those who know their id.
            return (image.owner is not None or image.is_public or self.is_member(image, ctx)) and (
                visibility.is_visible(as_user, image, lambda _: self.is_member(image, ctx))
            )

        return {image.id for image in self.images if is_listed(image)}

    def is_member(self, image: Image, ctx: RequestContext) -> bool:
        return (image.id, ctx.owner) in self.members

    def walk(self, query: str, ctx: RequestContext, size: int) -> list[str]:
        found: list[str] = []
        marker = ""
        while page := self.registry.ids(f"?limit={size}&{query}{marker}", ctx):
            found += page
            assert len(found) <= len(self.images)
            marker = f"&marker={page[-1]}"
        return found


@pytest.fixture
def crowd(registry: Registry) -> Crowd:
    return Crowd(registry)


@pytest.mark.parametrize(
    ("ctx", "scope"),
    [
        (user("t1"), "visible"),
        (user("t2"), "visible"),
        (user(None), "visible"),
        (ADMIN, "visible"),
        (ADMIN, "private"),
        (ADMIN, "all"),
    ],
)
def test_every_walk_through_the_pages_meets_each_visible_image_once(
    crowd: Crowd, ctx: RequestContext, scope: str
) -> None:
    """REL-055: for every sort key, both directions, with ties and nulls; SEC-003."""
    by_id = {image.id: image for image in crowd.images}
    words = {"visible": "", "private": "is_public=False&", "all": "is_public=none&"}
    for changed in (False, True):
        expected = crowd.visible(ctx, scope, changed=changed)
        since = "changes-since=2001-01-01&" if changed else ""
        for key in SORT_KEYS:
            for direction in ("asc", "desc"):
                query = f"{words[scope]}{since}sort_key={key}&sort_dir={direction}"
                found = crowd.walk(query, ctx, 7 if key == "name" else 60)
                assert len(found) == len(set(found)), query
                assert set(found) == expected, query
                ordered = found if direction == "asc" else found[::-1]
                _assert_sorted([by_id[image_id] for image_id in ordered], key)


def _assert_sorted(images: list[Image], key: str) -> None:
    def rank(image: Image) -> tuple[Any, ...]:
        value = getattr(image, key)
        text = (value is not None, value if value is not None else 0)
        return (*text, image.created_at, image.id)

    for earlier, later in pairwise(images):
        assert rank(earlier) < rank(later)


@pytest.mark.parametrize("few", [-1, 5000])
def test_the_starting_point_changes_the_cost_not_the_answer(
    crowd: Crowd, monkeypatch: pytest.MonkeyPatch, few: int
) -> None:
    """Whether a filter counts as matching few rows, the pages are the same."""
    monkeypatch.setattr(listing, "_FEW", few)
    since = datetime(2020, 1, 1) + timedelta(microseconds=2)
    for ctx in (user("t1"), ADMIN):
        visible = crowd.visible(ctx, "visible", changed=True)
        for key in SORT_KEYS:
            for name in ("a", "é"):
                found = crowd.walk(
                    f"changes-since={since.isoformat()}&name={quote(name)}&sort_key={key}", ctx, 9
                )
                assert len(found) == len(set(found))
                assert set(found) == {
                    image.id
                    for image in crowd.images
                    if image.id in visible
                    and image.name == name
                    and image.updated_at is not None
                    and image.updated_at > since
                }


def test_filters_hold_on_every_page(crowd: Crowd) -> None:
    expected = {
        image.id
        for image in crowd.images
        if image.status == "active" and image.disk_format == "raw" and not image.deleted
    }
    for key in ("created_at", "status", "size"):
        query = f"is_public=none&status=active&disk_format=raw&sort_key={key}"
        found = crowd.walk(query, ADMIN, 10)
        assert len(found) == len(set(found))
        assert set(found) == expected
