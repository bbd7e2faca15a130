"""Who may see and change what: SEC-001 to SEC-007, SEC-011, SEC-012, SEC-016, SEC-018, SEC-064."""

import uuid
from functools import partial
from urllib.parse import quote

import orjson
import pytest

from tests.functional.crowd import together
from tests.functional.daemons import ADMIN, OCTETS, RAW, REGISTRY_KEY, Answer, Client, Service
from tests.functional.steps import (
    active_image,
    create,
    deactivated_image,
    killed_image,
    meta,
    path,
    queued_image,
    status_of,
    upload,
)
from tests.functional.wire import Wire, head, lines_of

CONTENT = b"the bytes that were there first"


@pytest.fixture
def private(t1: Client) -> str:
    return active_image(t1, CONTENT, name="private")


@pytest.fixture
def public(t1: Client, admin: Client) -> str:
    return active_image(admin, CONTENT, owner=t1.tenant, is_public="true")


def publish(caller: Client, image_id: str) -> Answer:
    return caller.put(path(image_id), meta(is_public="true"))


class TestSomebodyElses:
    def test_nothing_is_deleted_without_permission(
        self, t1: Client, t2: Client, private: str, public: str
    ) -> None:
        """SEC-001, CVE-2012-4573, CVE-2012-5482."""
        assert t2.delete(path(public)).status == 403
        assert t2.delete(path(private)).status == 404
        for image_id in (private, public):
            assert t1.get(path(image_id)).content == CONTENT

    @pytest.mark.parametrize("verb", ["GET", "HEAD", "PUT", "DELETE"])
    def test_a_private_image_is_like_none(self, t2: Client, private: str, verb: str) -> None:
        """SEC-002: the answers are the same to the byte, the id aside."""
        unknown = str(uuid.uuid4())
        for below in ("", "/members", "/members/x"):
            answers = [
                t2.request(verb, path(image_id) + below, {"x-image-meta-name": "x"})
                for image_id in (private, unknown)
            ]
            assert answers[0].status == answers[1].status
            assert answers[0].status in (400, 404, 405)
            bodies = {
                answer.content.replace(image_id.encode(), b"ID")
                for answer, image_id in zip(answers, (private, unknown), strict=True)
            }
            assert len(bodies) == 1

    def test_a_foreign_marker_is_unknown(self, t2: Client, admin: Client, private: str) -> None:
        """SEC-002."""
        assert t2.get(f"/v1/images?marker={private}").status == 400
        assert admin.get(f"/v1/images?marker={private}").status == 200

    @pytest.mark.parametrize(
        "query",
        [
            "is_public=True", "is_public=False", "is_public=None", "status=active",
            "status=in:active,queued", "name=private", "property-kind=secret", "deleted=True",
            "changes-since=2000-01-01T00:00:00Z", "size_min=0", "owner={owner}", "limit=1000",
            "is_public=None&deleted=True&owner={owner}", "visibility=private",
            "member_status=all", "is_public=%4eone", "sort_key=id&sort_dir=asc",
        ],
    )  # fmt: skip
    def test_no_filter_widens_a_list(
        self, service: Service, t1: Client, t2: Client, query: str
    ) -> None:
        """SEC-003: on both daemons."""
        image_id = active_image(t1, name="private", **{"property-kind": "secret"})
        gone = active_image(t1)
        t1.delete(path(gone))
        query = query.format(owner=quote(t1.tenant))
        registry = service.registry_client(t2.headers)
        for client, prefix in ((t2, "/v1"), (registry, "")):
            for kind in ("/images", "/images/detail"):
                answer = client.get(f"{prefix}{kind}?{query}")
                if answer.status == 200:
                    found = {image["id"] for image in answer.json["images"]}
                    assert found.isdisjoint({image_id, gone})

    def test_only_owner_and_admin_change_it(
        self, t1: Client, t2: Client, admin: Client, private: str, public: str
    ) -> None:
        """SEC-004."""
        before = t1.head(path(public)).headers
        assert t2.put(path(public), meta(name="theirs")).status == 403
        assert t2.put(path(public), {**OCTETS}, b"other bytes").status in (403, 409)
        assert (
            t1.head(path(public)).headers["x-image-meta-checksum"]
            == (before["x-image-meta-checksum"])
        )
        assert t2.put(path(private), meta(name="theirs")).status == 404
        assert admin.put(path(public), meta(name="changed")).status == 200

    def test_nobody_gives_images_away_or_takes_them(
        self, t1: Client, t2: Client, admin: Client, private: str
    ) -> None:
        """SEC-004."""
        assert create(t1, owner=t2.tenant).image["owner"] == t1.tenant
        assert t1.put(path(private), meta(owner=t2.tenant)).image["owner"] == t1.tenant
        assert create(admin, owner=t2.tenant).image["owner"] == t2.tenant

    def test_an_image_of_nobody_is_the_admins(self, t1: Client, admin: Client) -> None:
        """SEC-004."""
        image_id = active_image(admin, owner="")
        answer = t1.put(path(image_id), meta(name="mine now"))
        assert answer.status in (403, 404)
        assert t1.delete(path(image_id)).status in (403, 404)
        assert admin.delete(path(image_id)).status == 200


class TestStatusAndId:
    """SEC-005, CVE-2015-5251: both are the service's."""

    @pytest.mark.parametrize("name", ["status", "Status", "STATUS"])
    def test_a_status_is_not_set(
        self, service: Service, t1: Client, private: str, name: str
    ) -> None:
        for status in ("queued", "killed", "saving", "deleted", "nonsense"):
            assert t1.put(path(private), meta(**{name: status})).status == 403
        assert t1.put(path(private), meta(**{name: "active"})).status == 200
        disabled = deactivated_image(service, t1)
        assert t1.put(path(disabled), meta(**{name: "active"})).status == 403
        assert t1.get(path(disabled)).status == 403
        assert status_of(t1, disabled) == "deactivated"

    @pytest.mark.parametrize("status", ["active", "queued", "killed", "deleted", "nonsense"])
    def test_a_status_is_not_chosen(self, t1: Client, status: str) -> None:
        assert create(t1, status=status).image["status"] == "queued"

    @pytest.mark.parametrize("name", ["id", "Id", "ID"])
    def test_an_id_does_not_change(self, t1: Client, private: str, name: str) -> None:
        other = str(uuid.uuid4())
        assert t1.put(path(private), meta(**{name: other})).status == 403
        assert t1.put(path(private), meta(**{name: private})).status == 200
        assert t1.head(path(other)).status == 404

    @pytest.mark.parametrize("image_id", ["../../x", "x", "/etc/passwd", "a" * 36, "{" * 40, "%00"])
    def test_an_id_is_a_uuid(self, service: Service, t1: Client, image_id: str) -> None:
        """SEC-041."""
        assert upload(t1, id=image_id).status == 400

    def test_times_and_deletion_are_not_set(self, t1: Client, private: str) -> None:
        """SEC-064."""
        before = t1.head(path(private)).headers
        sent = meta(deleted="True", deleted_at="2000-01-01", created_at="2000-01-01")
        assert t1.put(path(private), sent).status == 200
        after = t1.head(path(private)).headers
        assert after["x-image-meta-deleted"] == "False"
        assert after["x-image-meta-created_at"] == before["x-image-meta-created_at"]
        assert t1.get(path(private)).content == CONTENT


class TestSettledBytes:
    @pytest.mark.parametrize("deactivated", [False, True])
    def test_size_and_checksum_are_frozen(
        self, service: Service, t1: Client, private: str, deactivated: bool
    ) -> None:
        """SEC-006."""
        shown = t1.head(path(private)).headers
        if deactivated:
            service.set_status(private, "deactivated")
        assert t1.put(path(private), meta(checksum="f" * 32)).status == 403
        assert t1.put(path(private), meta(size="1")).status == 403
        same = meta(checksum=shown["x-image-meta-checksum"], size=shown["x-image-meta-size"])
        assert t1.put(path(private), same).status == 200

    def test_bytes_never_change(self, service: Service, t1: Client, private: str) -> None:
        """SEC-007, CVE-2016-0757: neither by data nor by another place to read them from."""
        for image_id in (private, killed_image(t1), deactivated_image(service, t1)):
            assert t1.put(path(image_id), OCTETS, b"other").status == 409
            elsewhere = {"x-image-meta-location": "http://203.0.113.1/other"}
            assert t1.put(path(image_id), elsewhere).status == 400
            assert t1.put(path(image_id), meta(location="")).status in (200, 400)
        assert t1.get(path(private)).content == CONTENT

    def test_of_two_uploads_one_wins(self, t1: Client) -> None:
        """SEC-007: and bytes, checksum and size are all the winner's."""
        contents = [b"a" * 70_000, b"b" * 80_000]
        for _ in range(5):
            put = partial(t1.put, path(image_id := queued_image(t1)), OCTETS)
            answers = together(partial(put, content) for content in contents)
            assert sorted(answer.status for answer in answers) == [200, 409]
            winner = contents[[answer.status for answer in answers].index(200)]
            served = t1.get(path(image_id))
            assert served.content == winner
            assert served.headers["x-image-meta-size"] == str(len(winner))


class TestSharing:
    def test_only_who_may_share_shares(
        self, t1: Client, t2: Client, t3: Client, private: str
    ) -> None:
        """SEC-011."""
        url = f"{path(private)}/members"
        assert t2.put(f"{url}/{t3.tenant}").status == 404
        assert t1.put(f"{url}/{t2.tenant}").status == 204
        assert t2.put(f"{url}/{t3.tenant}").status in (403, 404)
        assert t2.put_json(url, {"memberships": []}).status in (403, 404)
        assert t3.get(path(private)).status == 404
        assert t1.put_json(f"{url}/{t2.tenant}", {"member": {"can_share": True}}).status == 204
        assert t2.put(f"{url}/{t3.tenant}").status == 204
        assert t3.get(path(private)).content == CONTENT
        # A member reads; he neither changes nor deletes.
        assert t2.put(path(private), meta(name="x")).status == 404
        assert t2.delete(path(private)).status == 404

    def test_a_deleted_image_has_no_members(self, t1: Client, t2: Client, private: str) -> None:
        """SEC-011."""
        url = f"{path(private)}/members"
        assert t1.put(f"{url}/{t2.tenant}").status == 204
        assert t1.delete(path(private)).status == 200
        for caller in (t1, t2):
            assert caller.get(url).status == 404
            assert caller.put(f"{url}/x").status == 404
            assert caller.delete(f"{url}/{t2.tenant}").status == 404
        shared = t2.get(f"/v1/shared-images/{t2.tenant}").json["shared_images"]
        assert shared == []

    def test_members_are_bounded(self, t1: Client, private: str) -> None:
        """SEC-011, SEC-075: 128 by default; the 129th is refused."""
        url = f"{path(private)}/members"
        entries = [{"member_id": f"m{number}"} for number in range(128)]
        assert t1.put_json(url, {"memberships": entries}).status == 204
        assert t1.put(f"{url}/m128").status == 413
        assert t1.delete(f"{url}/m0").status == 204
        assert t1.put(f"{url}/m128").status == 204

    def test_publishing_is_a_privilege(self, t1: Client, admin: Client, private: str) -> None:
        """SEC-012."""
        assert create(t1, is_public="True").status == 403
        assert publish(t1, private).status == 403
        assert t1.head(path(private)).headers["x-image-meta-is_public"] == "False"
        assert create(admin, is_public="True").status == 201


class TestMethods:
    """SEC-016: the request line decides, and nothing else."""

    @pytest.mark.parametrize("method", ["PATCH", "TRACE", "FOO", "get", "CONNECT"])
    def test_other_methods_are_refused(self, t1: Client, private: str, method: str) -> None:
        answer = t1.request(method, path(private))
        assert answer.status == 405
        assert set(answer.headers["allow"].split(", ")) == {"GET", "HEAD", "PUT", "DELETE"}
        assert t1.request("HEAD", "/v1/images/detail").status == 405
        assert t1.delete("/v1/images/detail").status in (404, 405)
        assert t1.get(path(private)).content == CONTENT

    @pytest.mark.parametrize("method", ["GET", "POST", "PUT"])
    def test_a_parameter_changes_no_method(self, t1: Client, private: str, method: str) -> None:
        """Decision 18: Routes would obey `_method`."""
        for override in ("_method=DELETE", "_method=delete", "a=b&_method=DELETE"):
            t1.request(method, f"{path(private)}?{override}")
        headers = {
            "Content-Type": "application/x-www-form-urlencoded",
            "X-HTTP-Method-Override": "DELETE",
            "X-Method-Override": "DELETE",
        }
        t1.request(method, path(private), headers, b"_method=DELETE")
        assert t1.get(path(private)).content == CONTENT

    def test_nor_does_the_registrys(self, service: Service, t1: Client, private: str) -> None:
        registry = service.registry_client(t1.headers)
        for method in ("GET", "PUT", "POST"):
            registry.request(method, f"/images/{private}?_method=DELETE", body=b"{}")
        assert t1.get(path(private)).content == CONTENT


class TestRegistry:
    """SEC-018 as decision 6 has it: with a key, the registry answers nobody but the API."""

    @pytest.mark.parametrize("key", [None, "", "wrong", "functional-registry-ke", "*"])
    def test_nobody_gets_in_without_the_key(
        self, service: Service, t1: Client, admin: Client, private: str, key: str | None
    ) -> None:
        document = {"image": {"status": "active", "location": "file:///etc/passwd"}}
        for caller in (t1, admin):
            headers = {**caller.headers, **({} if key is None else {"X-Glance-Registry-Key": key})}
            registry = Client(service.registry.port, headers)
            for method, target in (
                ("GET", "/images"), ("GET", "/images/detail"), ("GET", f"/images/{private}"),
                ("GET", "/leases"), ("PUT", "/leases"), ("DELETE", "/leases/x"),
                ("POST", "/images"), ("DELETE", f"/images/{private}"), ("GET", "/"),
                ("GET", "/healthcheck/"), ("GET", "/healthcheck/../images"),
            ):  # fmt: skip
                body = orjson.dumps(document) if method == "POST" else None
                assert registry.request(method, target, body=body).status == 401
            assert registry.get("/healthcheck").status == 200

    def test_the_key_is_not_found_in_other_spellings(self, service: Service) -> None:
        for name in ("X_Glance_Registry_Key", "X-Glance_Registry-Key"):
            with Wire(service.registry.port) as wire:
                lines = [*lines_of(ADMIN), f"{name}: {REGISTRY_KEY}"]
                assert wire.send(head("/images", *lines)).answer().status == 401


def test_uploads_are_for_octets_only(service: Service, t1: Client) -> None:
    """SEC-067: killed, and no bytes stay."""
    for kind in ("text/plain", "application/json", "multipart/form-data", ""):
        image_id = str(uuid.uuid4())
        headers = {**RAW, **meta(id=image_id), "Content-Type": kind}
        assert t1.post("/v1/images", headers, b"data").status == 400
        assert status_of(t1, image_id) == "killed"
        assert image_id not in service.stored_files()
