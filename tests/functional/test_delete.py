"""Deleting: images-v1.md section 12, cases 21.8 but for policies and failing stores."""

from collections.abc import Iterator

import pytest

from tests.functional.conftest import audited_service
from tests.functional.daemons import Client, Service
from tests.functional.steps import (
    active_image,
    create,
    deactivated_image,
    killed_image,
    meta,
    path,
    queued_image,
)
from tests.registry import UNKNOWN_ID


def record(root: Client, image_id: str) -> tuple[str, bool, list[str]]:
    """Status, whether it is deleted, and the statuses of its locations."""
    listed = root.get("/images/detail?deleted=True&is_public=none&limit=1000").json["images"]
    (image,) = [each for each in listed if each["id"] == image_id]
    locations = [location["status"] for location in image["location_data"]]
    return image["status"], image["deleted"], locations


class TestAtOnce:
    def test_record_and_bytes_go_together(
        self, service: Service, t1: Client, admin: Client, root: Client
    ) -> None:
        """V1-IMG-700, V1-IMG-701"""
        image_id = active_image(t1)
        answer = t1.delete(path(image_id))
        assert (answer.status, answer.content) == (200, b"")
        assert answer.headers["content-length"] == "0"
        assert image_id not in service.stored_files()
        assert record(root, image_id)[:2] == ("deleted", True)
        assert t1.delete(path(image_id)).status == 404
        assert admin.delete(path(image_id)).status == 404

    @pytest.mark.parametrize("image_id", [UNKNOWN_ID, "zz"])
    def test_an_unknown_image(self, t1: Client, image_id: str) -> None:
        """V1-IMG-702"""
        assert t1.delete(path(image_id)).status == 404

    def test_every_status_can_be_deleted(self, service: Service, t1: Client, root: Client) -> None:
        """V1-IMG-703"""
        images = [queued_image(t1), killed_image(t1), deactivated_image(service, t1)]
        for image_id in images:
            assert t1.delete(path(image_id)).status == 200
            assert record(root, image_id)[:2] == ("deleted", True)
            assert image_id not in service.stored_files()

    def test_a_protected_image_stays(self, t1: Client, t2: Client, admin: Client) -> None:
        """V1-IMG-705, V1-IMG-706"""
        image_id = active_image(t1, protected="true")
        for caller, status in ((t1, 403), (admin, 403), (t2, 404)):
            answer = caller.delete(path(image_id))
            assert answer.status == status
        assert "Forbidden to delete image" in t1.delete(path(image_id)).text
        assert t1.get(path(image_id)).content == b"data"
        assert t1.put(path(image_id), meta(protected="false")).status == 200
        assert t1.delete(path(image_id)).status == 200

    def test_its_members_are_gone_with_it(self, t1: Client, t2: Client, admin: Client) -> None:
        """V1-IMG-714"""
        image_id = queued_image(t1)
        members = f"{path(image_id)}/members"
        assert t1.put(f"{members}/{t2.tenant}").status == 204
        assert t1.delete(path(image_id)).status == 200
        for caller in (t1, t2, admin):
            assert caller.get(members).status == 404
            assert caller.put(f"{members}/x").status == 404
            assert caller.delete(f"{members}/{t2.tenant}").status == 404
            assert caller.put_json(members, {"memberships": []}).status == 404
        assert f"Image with identifier {image_id} has been deleted." in admin.get(members).text
        listed = t2.get(f"/v1/shared-images/{t2.tenant}").json
        assert listed == {"shared_images": []}

    def test_an_empty_image_has_nothing_to_remove(self, t1: Client, root: Client) -> None:
        image_id = create(t1, size="0").image["id"]
        assert t1.delete(path(image_id)).status == 200
        assert record(root, image_id) == ("deleted", True, [])


class TestLater:
    """With delayed_delete; the scrubber's part is in test_programs_scrubber.py."""

    @pytest.fixture(scope="class")
    @classmethod
    def service(cls, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
        home = tmp_path_factory.mktemp("delayed")
        with audited_service(home, api={"delayed_delete": True}) as running:
            yield running

    def test_without_bytes_there_is_nothing_to_delay(self, t1: Client, root: Client) -> None:
        """V1-IMG-704"""
        for image_id in (queued_image(t1), killed_image(t1)):
            assert t1.delete(path(image_id)).status == 200
            assert record(root, image_id) == ("deleted", True, [])

    def test_the_bytes_wait_for_the_scrubber(
        self, service: Service, t1: Client, admin: Client, root: Client
    ) -> None:
        """V1-IMG-708, V1-IMG-709"""
        image_id = active_image(t1)
        assert t1.delete(path(image_id)).status == 200
        head = admin.head(path(image_id)).headers
        assert head["x-image-meta-status"] == "pending_delete"
        assert head["x-image-meta-deleted"] == "True"
        assert image_id in service.stored_files()
        assert record(root, image_id) == ("pending_delete", True, ["pending_delete"])
        assert t1.delete(path(image_id)).status == 404
        answer = admin.delete(path(image_id))
        assert answer.status == 403
        assert "Forbidden to delete a pending_delete image" in answer.text

    def test_it_is_gone_for_everybody(self, t1: Client, t2: Client, admin: Client) -> None:
        """V1-IMG-410"""
        image_id = active_image(t1)
        t1.delete(path(image_id))
        assert admin.get(path(image_id)).status == 404
        for caller in (t1, t2):
            assert caller.head(path(image_id)).status == 404
            assert caller.get(path(image_id)).status == 404

    def test_an_admin_may_still_describe_it(self, t1: Client, admin: Client) -> None:
        """V1-IMG-635"""
        image_id = active_image(t1)
        t1.delete(path(image_id))
        answer = admin.put(path(image_id), meta(name="r"))
        assert (answer.status, answer.image["name"]) == (200, "r")
        assert answer.image["status"] == "pending_delete"

    def test_a_deactivated_image_waits_too(
        self, service: Service, t1: Client, root: Client
    ) -> None:
        """V1-IMG-710, D30"""
        image_id = deactivated_image(service, t1)
        assert t1.delete(path(image_id)).status == 200
        assert record(root, image_id) == ("pending_delete", True, ["pending_delete"])
