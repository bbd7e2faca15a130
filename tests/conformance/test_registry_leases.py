"""Leases and usage: work on bytes is found, finished or undone, and counted (REL-052, REL-057)."""

import secrets
from datetime import timedelta
from typing import Any
from unittest.mock import patch

import pytest
from oslo_utils import timeutils

from common.context import RequestContext
from glance_registry.db import models, usage
from tests.registry import ADMIN, UNKNOWN_ID, Registry, user


def lease(kind: str = "upload", **fields: Any) -> dict[str, Any]:
    return {
        "token": secrets.token_hex(16), "kind": kind, "store": "file", "worker": "w1",
        "seconds": 30, "owner": "t1", "reserve": 0, "quota": 0, "previous": None, **fields,
    }  # fmt: skip


def figures(registry: Registry, owner: str = "t1") -> tuple[int, int]:
    """(bytes, reserved) as recorded; I-7: a recount finds nothing to correct."""
    assert registry.database.write(usage.recount) == 0
    rows = registry.rows(models.owner_usage, owner=owner)
    return (rows[0].bytes, rows[0].reserved) if rows else (0, 0)


def begin(
    registry: Registry, image_id: str, ctx: RequestContext | None = None, **fields: Any
) -> dict[str, Any]:
    """Start an upload to a queued image; its lease."""
    wanted = lease(**fields)
    change = {"image": {"status": "saving"}, "from_state": "queued", "lease": wanted}
    answer = registry.put(image_id, ctx, **change)
    assert answer.status_int == 200
    return wanted


def expire(registry: Registry) -> None:
    """Every lease has run out."""
    past = models.image_leases.update().values(expires_at=timeutils.utcnow() - timedelta(seconds=9))
    registry.database.write(lambda connection: connection.execute(past).rowcount)


def listed(registry: Registry) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = registry.call("GET", "/leases", ctx=ADMIN).json["leases"]
    return found


@pytest.fixture
def image_id(registry: Registry) -> str:
    found: str = registry.create(size=0)["id"]
    return found


class TestUpload:
    def test_a_lease_begins_with_the_status(self, registry: Registry, image_id: str) -> None:
        wanted = begin(registry, image_id, reserve=10)
        (found,) = listed(registry)
        assert wanted["token"] not in str(found)
        del found["id"], found["expires_at"]
        assert found == {
            "image_id": image_id, "kind": "upload", "store": "file", "worker": "w1",
            "owner": "t1", "reserved": 10, "previous": None, "expired": False,
        }  # fmt: skip
        assert figures(registry) == (0, 10)

    def test_a_lease_begins_with_the_image(self, registry: Registry) -> None:
        wanted = lease(reserve=5)
        body = {"image": {"status": "saving"}, "lease": wanted}
        answer = registry.call("POST", "/images", body)
        assert "refused" not in answer.json
        assert listed(registry)[0]["image_id"] == answer.json["image"]["id"]
        assert figures(registry) == (0, 5)

    def test_no_lease_begins_on_a_conflict(self, registry: Registry, image_id: str) -> None:
        answer = registry.put(
            image_id, image={"status": "saving"}, from_state="active", lease=lease(reserve=5)
        )
        assert answer.status_int == 409
        assert listed(registry) == []
        assert figures(registry) == (0, 0)

    def test_it_ends_with_the_outcome(self, registry: Registry, image_id: str) -> None:
        """The bytes are counted in the same moment as their reservation goes."""
        wanted = begin(registry, image_id, reserve=10)
        done = {"status": "active", "size": 7, "location": "file:///x"}
        answer = registry.put(image_id, image=done, from_state="saving", end_lease=wanted["token"])
        assert answer.status_int == 200
        assert listed(registry) == []
        assert figures(registry) == (7, 0)
        again = registry.put(image_id, image=done, from_state="saving", end_lease=wanted["token"])
        assert again.status_int == 409
        assert figures(registry) == (7, 0)

    def test_it_goes_with_a_deleted_image(self, registry: Registry, image_id: str) -> None:
        wanted = begin(registry, image_id, reserve=10)
        path = f"/images/{image_id}"
        assert registry.call("DELETE", path, X_Glance_Lease=wanted["token"]).status_int == 200
        assert (listed(registry), figures(registry)) == ([], (0, 0))

    def test_a_token_ends_no_lease_of_another_image(
        self, registry: Registry, image_id: str
    ) -> None:
        wanted = begin(registry, image_id)
        other = registry.create()["id"]
        assert registry.put(other, image={}, end_lease=wanted["token"]).status_int == 200
        assert len(listed(registry)) == 1

    def test_a_token_is_used_once(self, registry: Registry, image_id: str) -> None:
        wanted = begin(registry, image_id)
        body = {"image": {"status": "saving"}, "lease": wanted}
        assert registry.call("POST", "/images", body).status_int == 409

    @pytest.mark.parametrize(
        "change",
        [
            {"token": ""}, {"token": 5}, {"token": "x" * 65}, {"kind": "zz"}, {"store": None},
            {"worker": "a\nb"}, {"seconds": 0}, {"seconds": "soon"}, {"owner": 5},
            {"reserve": -1}, {"quota": 2**63}, {"previous": []},
        ],
    )  # fmt: skip
    def test_an_unusable_lease_is_refused(self, registry: Registry, change: dict[str, Any]) -> None:
        body = {"image": {"status": "saving"}, "lease": lease(**change)}
        assert registry.call("POST", "/images", body).status_int == 400
        assert registry.rows(models.images) == []


class TestQuota:
    def test_a_reservation_past_the_quota_kills_the_image(
        self, registry: Registry, image_id: str
    ) -> None:
        wanted = lease(reserve=11, quota=10)
        answer = registry.put(
            image_id, image={"status": "saving"}, from_state="queued", lease=wanted
        )
        assert (answer.status_int, answer.json["refused"]) == (200, "quota")
        assert answer.json["image"]["status"] == "killed"
        assert registry.show(image_id)["status"] == "killed"
        assert (listed(registry), figures(registry)) == ([], (0, 0))

    def test_a_new_image_past_the_quota_is_created_killed(self, registry: Registry) -> None:
        body = {"image": {"status": "saving"}, "lease": lease(reserve=11, quota=10)}
        answer = registry.call("POST", "/images", body).json
        assert (answer["refused"], answer["image"]["status"]) == ("quota", "killed")
        assert registry.show(answer["image"]["id"])["status"] == "killed"

    def test_what_is_stored_and_what_is_reserved_both_count(self, registry: Registry) -> None:
        registry.create(status="active", size=4, location="file:///x")
        begin(registry, registry.create()["id"], reserve=3, quota=10)
        begin(registry, registry.create()["id"], reserve=3, quota=10)
        last = registry.create()["id"]
        answer = registry.put(last, image={"status": "saving"}, lease=lease(reserve=1, quota=10))
        assert answer.json["refused"] == "quota"
        foreign = registry.create(user("t2"))["id"]
        begin(registry, foreign, user("t2"), owner="t2", reserve=10, quota=10)

    def test_an_ownerless_image_has_no_quota(self, registry: Registry, image_id: str) -> None:
        begin(registry, image_id, owner=None, reserve=100, quota=10)
        assert figures(registry) == (0, 0)


class TestRenewal:
    def renew(self, registry: Registry, entries: Any, **more: Any) -> dict[str, Any]:
        body = {"leases": entries, "seconds": 30, "quota": 0, **more}
        answer = registry.call("PUT", "/leases", body)
        assert answer.status_int == 200, answer.text
        states: dict[str, Any] = answer.json["leases"]
        return states

    def test_it_puts_the_expiry_off(self, registry: Registry, image_id: str) -> None:
        start = timeutils.utcnow()
        with patch.object(timeutils, "utcnow") as clock:

            def at(seconds: int) -> None:
                clock.return_value = start + timedelta(seconds=seconds)

            at(0)
            wanted = begin(registry, image_id)
            at(29)
            self.renew(registry, [{"token": wanted["token"]}])
            at(58)
            assert [item["expired"] for item in listed(registry)] == [False]
            at(60)
            assert [item["expired"] for item in listed(registry)] == [True]

    def test_it_tells_how_the_image_stands(self, registry: Registry, image_id: str) -> None:
        """SEC-072: an upload learns that its image was deleted."""
        token = begin(registry, image_id)["token"]
        entries = [{"token": token}, {"token": "unknown"}]
        lost = {"state": "lost", "status": None, "deleted": False}
        held = {"state": "held", "status": "saving", "deleted": False}
        assert self.renew(registry, entries) == {token: held, "unknown": lost}
        registry.call("DELETE", f"/images/{image_id}")
        assert self.renew(registry, entries)[token] == {**held, "deleted": True}
        assert self.renew(registry, []) == {}

    def test_a_reservation_grows_within_the_quota(self, registry: Registry, image_id: str) -> None:
        token = begin(registry, image_id, reserve=2, quota=10)["token"]

        def state(reserve: int) -> str:
            entry = {"token": token, "reserve": reserve}
            return str(self.renew(registry, [entry], quota=10)[token]["state"])

        assert state(10) == "held"
        assert figures(registry) == (0, 10)
        assert state(11) == "refused"
        assert state(5) == "held"
        assert figures(registry) == (0, 10)

    def test_several_leases_in_one_call(self, registry: Registry) -> None:
        tokens = [begin(registry, registry.create()["id"])["token"] for _ in range(3)]
        states = self.renew(registry, [{"token": t, "reserve": 4} for t in tokens], quota=10)
        assert sorted(state["state"] for state in states.values()) == ["held", "held", "refused"]
        assert figures(registry) == (0, 8)

    @pytest.mark.parametrize(
        "body",
        [None, [], {}, {"leases": {}}, {"leases": ["x"], "seconds": 3},
         {"leases": [{"token": 5}], "seconds": 3}, {"leases": [], "seconds": 0},
         {"leases": [{"token": "a", "reserve": "x"}], "seconds": 3}],
    )  # fmt: skip
    def test_an_unusable_body_is_refused(self, registry: Registry, body: Any) -> None:
        assert registry.call("PUT", "/leases", body).status_int == 400


class TestEnd:
    def end(self, registry: Registry, token: str, body: Any = None) -> int:
        status: int = registry.call("DELETE", f"/leases/{token}", body).status_int
        return status

    def test_an_upload_gives_up(self, registry: Registry, image_id: str) -> None:
        token = begin(registry, image_id, reserve=10)["token"]
        body = {"status": "killed", "from_state": "saving"}
        assert self.end(registry, token, body) == 204
        assert registry.show(image_id)["status"] == "killed"
        assert (listed(registry), figures(registry)) == ([], (0, 0))
        assert self.end(registry, token, body) == 204
        assert self.end(registry, "unknown") == 204

    def test_a_status_that_has_changed_meanwhile_stays(
        self, registry: Registry, image_id: str
    ) -> None:
        token = begin(registry, image_id)["token"]
        registry.put(image_id, image={"status": "active"})
        assert self.end(registry, token, {"status": "killed", "from_state": "saving"}) == 204
        assert registry.show(image_id)["status"] == "active"
        assert listed(registry) == []

    def delete(self, registry: Registry) -> tuple[str, str]:
        image = registry.create(status="active", size=7, location="file:///x")
        wanted = lease("delete", previous="active")
        answer = registry.put(
            image["id"], image={"status": "deleted"}, from_state="active", lease=wanted
        )
        assert answer.status_int == 200
        assert listed(registry)[0]["previous"] == "active"
        return image["id"], wanted["token"]

    def test_the_end_of_a_delete_marks_the_image_deleted(self, registry: Registry) -> None:
        image_id, token = self.delete(registry)
        assert self.end(registry, token) == 204
        image = registry.show(image_id)
        assert (image["deleted"], image["status"], image["location_data"]) == (True, "deleted", [])
        assert figures(registry) == (0, 0)

    def test_a_refused_delete_puts_the_status_back(self, registry: Registry) -> None:
        """REL-070"""
        image_id, token = self.delete(registry)
        assert self.end(registry, token, {"status": "active", "from_state": "deleted"}) == 204
        image = registry.show(image_id, user())
        assert (image["deleted"], image["status"], image["location"]) == (
            False, "active", "file:///x"
        )  # fmt: skip
        assert figures(registry) == (7, 0)

    @pytest.mark.parametrize("body", [[], {"status": "zz"}, {"status": 5}, b"{"])
    def test_an_unusable_body_is_refused(self, registry: Registry, body: Any) -> None:
        assert self.end(registry, "x", body) == 400


class TestClaim:
    def claim(self, registry: Registry, lease_id: str, worker: str = "w1", **more: bool) -> Any:
        body = {"worker": "w2", "seconds": 30, "token": "new", "expected_worker": worker, **more}
        return registry.call("POST", f"/leases/{lease_id}/claim", body, ADMIN)

    @pytest.mark.parametrize(
        ("kind", "status", "after"),
        [
            ("upload", "saving", "killed"),
            ("upload", "queued", "queued"),
            ("upload", "active", "active"),
            ("copy", "queued", "killed"),
            ("copy", "saving", "killed"),
            ("copy", "active", "active"),
            ("delete", "deleted", "deleted"),
        ],
    )
    def test_what_is_unfinished_is_given_up(
        self, registry: Registry, image_id: str, kind: str, status: str, after: str
    ) -> None:
        """REL-009, REL-052"""
        old = lease(kind)
        change = {"status": status, "location": "file:///x", "size": 3}
        registry.put(image_id, image=change, lease=old)
        (found,) = listed(registry)
        answer = self.claim(registry, found["id"])
        assert answer.status_int == 200
        assert answer.json["image"]["status"] == after
        assert answer.json["image"]["location"] == "file:///x"
        assert (answer.json["lease"]["worker"], answer.json["lease"]["id"]) == ("w2", found["id"])
        renewal = {"leases": [{"token": old["token"]}, {"token": "new"}], "seconds": 30}
        states = registry.call("PUT", "/leases", renewal).json["leases"]
        assert (states[old["token"]]["state"], states["new"]["state"]) == ("lost", "held")
        assert figures(registry) == (0 if after in ("killed", "deleted") else 3, 0)

    def test_a_deleted_image_shows_what_is_still_stored(
        self, registry: Registry, image_id: str
    ) -> None:
        wanted = begin(registry, image_id)
        registry.put(image_id, image={"location_data": [
            {"url": "file:///x", "status": "pending_delete"}]})  # fmt: skip
        registry.call("DELETE", f"/images/{image_id}")
        image = self.claim(registry, listed(registry)[0]["id"]).json["image"]
        assert (image["deleted"], image["status"]) == (True, "saving")
        assert [entry["url"] for entry in image["location_data"]] == ["file:///x"]
        assert wanted["token"] not in str(image)

    def test_only_one_worker_claims(self, registry: Registry, image_id: str) -> None:
        begin(registry, image_id)
        (found,) = listed(registry)
        assert self.claim(registry, found["id"]).status_int == 200
        assert self.claim(registry, found["id"]).status_int == 409
        assert self.claim(registry, "999").status_int == 409
        assert self.claim(registry, "zz").status_int == 404

    def test_a_lease_that_was_renewed_after_all_stays_its_workers(
        self, registry: Registry, image_id: str
    ) -> None:
        """REL-009: it had expired when it was listed, as all have after an outage."""
        wanted = begin(registry, image_id)
        expire(registry)
        (found,) = listed(registry)
        renew = {"leases": [{"token": wanted["token"]}], "seconds": 30}
        assert registry.call("PUT", "/leases", renew).status_int == 200
        assert self.claim(registry, found["id"], only_expired=True).status_int == 409
        assert registry.show(image_id)["status"] == "saving"
        expire(registry)
        assert self.claim(registry, found["id"], only_expired=True).status_int == 200
        assert registry.show(image_id)["status"] == "killed"

    def test_the_soonest_expiry_comes_first(self, registry: Registry) -> None:
        for seconds in (50, 10, 30):
            begin(registry, registry.create()["id"], seconds=seconds, worker=f"w{seconds}")
        assert [found["worker"] for found in listed(registry)] == ["w10", "w30", "w50"]
        few = registry.call("GET", "/leases?limit=1", ctx=ADMIN).json["leases"]
        assert [found["worker"] for found in few] == ["w10"]
        assert registry.call("GET", "/leases?limit=x", ctx=ADMIN).status_int == 400

    def test_users_see_and_claim_none(self, registry: Registry, image_id: str) -> None:
        begin(registry, image_id)
        assert registry.call("GET", "/leases").status_int == 403
        read_only = RequestContext(is_admin=True, read_only=True)
        assert registry.call("GET", "/leases", ctx=read_only).status_int == 403
        assert registry.call("POST", "/leases/1/claim", {}).status_int == 403


class TestUsage:
    def test_three_images(self, registry: Registry) -> None:
        """DB-017"""
        registry.create(status="killed", size=100, location="file:///a")
        registry.create(status="queued", size=90)
        registry.create(status="active", size=30, location="file:///b")
        assert figures(registry) == (30, 0)

    def test_every_location_counts(self, registry: Registry) -> None:
        """DB-018"""
        data = [{"url": f"file:///{name}"} for name in "ab"]
        registry.create(status="active", size=30, location_data=data)
        assert figures(registry) == (60, 0)

    def test_what_awaits_the_scrubber_counts(self, registry: Registry) -> None:
        """SEC-080, database.md section 10"""
        image = registry.create(status="active", size=30, location="file:///a")
        (entry,) = image["location_data"]
        waiting = {"status": "pending_delete",
                   "location_data": [{**entry, "status": "pending_delete"}]}  # fmt: skip
        registry.put(image["id"], image=waiting)
        registry.call("DELETE", f"/images/{image['id']}")
        assert figures(registry) == (30, 0)
        gone = {"location_data": [{**entry, "status": "deleted"}]}
        registry.put(image["id"], ADMIN, image=gone)
        assert figures(registry) == (0, 0)

    def test_it_follows_every_change(self, registry: Registry) -> None:
        """I-7"""
        image_id = registry.create(status="active", size=30, location="file:///a")["id"]
        registry.put(image_id, image={"size": 40})
        assert figures(registry) == (40, 0)
        registry.put(image_id, image={"location": "file:///b"})
        assert figures(registry) == (40, 0)
        registry.put(image_id, ADMIN, image={"owner": "t2"})
        assert (figures(registry), figures(registry, "t2")) == ((0, 0), (40, 0))
        registry.put(image_id, ADMIN, image={"owner": None})
        assert figures(registry, "t2") == (0, 0)
        registry.put(image_id, ADMIN, image={"owner": "t1", "size": None})
        assert figures(registry) == (0, 0)
        registry.put(image_id, image={"size": 2**62})
        assert figures(registry) == (2**62, 0)
        registry.put(image_id, image={"status": "killed"})
        assert figures(registry) == (0, 0)

    def test_a_recount_corrects_what_is_wrong(self, registry: Registry) -> None:
        registry.create(status="active", size=30, location="file:///a")
        registry.create(user("t2"), status="active", size=5, location="file:///b")
        with registry.database.migration() as connection:
            connection.execute(models.owner_usage.update().values(bytes=1, reserved=1))
            connection.execute(
                models.owner_usage.insert(), {"owner": "t9", "bytes": 5, "reserved": 5}
            )
        recount = registry.database.write
        assert recount(lambda connection: usage.recount(connection, "t1")) == 1
        assert recount(usage.recount) == 2
        assert (figures(registry), figures(registry, "t2")) == ((30, 0), (5, 0))


def test_a_lease_on_no_image(registry: Registry) -> None:
    assert registry.put(UNKNOWN_ID, image={}, lease=lease()).status_int == 404
    assert registry.rows(models.image_leases) == []
