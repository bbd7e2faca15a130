"""Random life cycles by several tenants and an admin, held against a small model of the spec.

REL-008 and images-v1.md sections 6, 7, 8, 11, 12, 13, 14 and 17: every answer, and everything
that is there in the end, must be what the model says.
"""

import hashlib
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import hypothesis
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    multiple,
    rule,
    run_state_machine_as_test,
)

from tests.functional.conftest import audited_service
from tests.functional.daemons import OCTETS, RAW, Answer, Client, Service
from tests.functional.steps import meta, path

TENANTS = ("t1", "t2", "t3")
EVERYBODY = (*TENANTS, "admin")


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """One of its own: lists must not be longer than a page."""
    with audited_service(tmp_path_factory.mktemp("model")) as running:
        yield running


actors = st.sampled_from(EVERYBODY)
tenants = st.sampled_from(TENANTS)
contents = st.sampled_from([b"a", b"bytes" * 100, b"x" * 70_000])
names = st.sampled_from(["one", "zwei", "Größe", "a b"])
properties = st.dictionaries(st.sampled_from(["p", "q"]), st.sampled_from(["1", "2"]))
flags = st.booleans()


@dataclass
class Known:
    """An image as the model has it."""

    owner: str | None
    status: str
    name: str
    properties: dict[str, str]
    public: bool = False
    protected: bool = False
    content: bytes | None = None
    members: dict[str, bool] = field(default_factory=dict)
    size: int = 0

    @property
    def deleted(self) -> bool:
        return self.status == "deleted"

    def is_shared_with(self, actor: str) -> bool:
        return self.public or self.owner == actor or actor in self.members

    def is_visible(self, actor: str) -> bool:
        if actor == "admin":
            return True
        return not self.deleted and (self.owner is None or self.is_shared_with(actor))

    def may_change(self, actor: str) -> bool:
        return actor == "admin" or (self.owner is not None and self.owner == actor)

    def may_share(self, actor: str) -> bool:
        return self.may_change(actor) or self.members.get(actor, False)

    @property
    def refusal(self) -> int:
        """For somebody who sees it and may not change it."""
        return 403 if self.public else 404


class Glance(RuleBasedStateMachine):
    """One service, as four callers see it; `service` is set by the test."""

    service: Service
    images = Bundle("images")

    def __init__(self) -> None:
        super().__init__()
        self.callers: dict[str, Client] = {
            name: self.service.caller(name, *(["admin"] if name == "admin" else []))
            for name in EVERYBODY
        }
        self.known: dict[str, Known] = {}
        # Times are the registry's own; on one machine both clocks are one.
        self.began = (datetime.now(UTC) - timedelta(seconds=1)).strftime("%Y-%m-%dT%H:%M:%SZ")

    # Making images, with data and without.

    @rule(target=images, actor=actors, name=names, sent=properties, public=flags, size0=flags)
    def record(self, actor: str, name: str, sent: dict[str, str], public: bool, size0: bool) -> Any:
        extra = {"size": "0"} if size0 else {}
        image = Known(actor, "active" if size0 else "queued", name, sent, public)
        if size0:
            image.content = b""
        return self._create(actor, image, extra, None)

    @rule(target=images, actor=actors, name=names, sent=properties, public=flags, content=contents)
    def upload(
        self, actor: str, name: str, sent: dict[str, str], public: bool, content: bytes
    ) -> Any:
        image = Known(actor, "active", name, sent, public, content=content, size=len(content))
        return self._create(actor, image, {}, content)

    @rule(target=images, actor=actors, name=names, content=contents)
    def upload_with_a_wrong_checksum(self, actor: str, name: str, content: bytes) -> Any:
        image = Known(actor, "killed", name, {})
        return self._create(actor, image, {"checksum": "0" * 32}, content)

    @rule(target=images, owner=st.sampled_from([*TENANTS, ""]), name=names, content=contents)
    def upload_for_somebody(self, owner: str, name: str, content: bytes) -> Any:
        image = Known(owner or None, "active", name, {}, content=content, size=len(content))
        named = self.callers[owner].tenant if owner else ""
        return self._create("admin", image, {"owner": named}, content)

    def _create(
        self, actor: str, image: Known, extra: dict[str, str], content: bytes | None
    ) -> Any:
        image_id = str(uuid.uuid4())
        headers = {**RAW, **meta(id=image_id, name=image.name, **extra)}
        headers |= meta(**{f"property-{name}": value for name, value in image.properties.items()})
        if image.public:
            headers |= meta(is_public="true")
        if content is not None:
            headers |= OCTETS
        answer = self.callers[actor].post("/v1/images", headers, content)
        if image.public and actor != "admin":
            assert answer.status == 403
            return multiple()
        self.known[image_id] = image
        assert answer.status == (400 if image.status == "killed" else 201)
        if answer.status == 201:
            self._compare(answer.image, image_id)
        return image_id

    # Changing them.

    @rule(image_id=images, actor=actors, content=contents, typed=flags)
    def put_data(self, image_id: str, actor: str, content: bytes, typed: bool) -> None:
        image = self.known[image_id]
        answer = self.callers[actor].put(path(image_id), OCTETS if typed else {}, content)
        if not image.is_visible(actor):
            assert answer.status == 404
        elif image.deleted:
            assert answer.status == 403
        elif image.status != "queued":
            assert answer.status == 409
        elif not image.may_change(actor):
            assert answer.status == image.refusal
        elif not typed:
            assert answer.status == 400
            image.status = "killed"
        else:
            assert answer.status == 200
            image.status, image.content, image.size = "active", content, len(content)
            self._compare(answer.image, image_id)

    @rule(image_id=images, actor=actors, name=names, sent=properties, purge=flags, protect=flags)
    def put_metadata(
        self, image_id: str, actor: str, name: str, sent: dict[str, str], purge: bool, protect: bool
    ) -> None:
        image = self.known[image_id]
        headers = meta(name=name, protected=str(protect))
        headers |= meta(**{f"property-{key}": value for key, value in sent.items()})
        headers["x-glance-registry-purge-props"] = str(purge)
        answer = self.callers[actor].put(path(image_id), headers)
        if self._is_refused(image, actor, answer):
            return
        image.name, image.protected = name, protect
        image.properties = sent if purge else {**image.properties, **sent}
        self._compare(answer.image, image_id)

    @rule(image_id=images, actor=actors, public=flags)
    def publish(self, image_id: str, actor: str, public: bool) -> None:
        image = self.known[image_id]
        headers = {**meta(is_public=str(public)), "x-glance-registry-purge-props": "false"}
        answer = self.callers[actor].put(path(image_id), headers)
        if public and actor != "admin":
            assert answer.status == 403
        elif not self._is_refused(image, actor, answer):
            image.public = public
            self._compare(answer.image, image_id)

    def _is_refused(self, image: Known, actor: str, answer: Answer) -> bool:
        if not image.is_visible(actor):
            assert answer.status == 404
        elif image.deleted:
            assert answer.status == 403
        elif not image.may_change(actor):
            assert answer.status == image.refusal
        else:
            assert answer.status == 200
            return False
        return True

    @rule(image_id=images, active=flags)
    def set_activation(self, image_id: str, active: bool) -> None:
        """What v2's admins do."""
        image = self.known[image_id]
        if image.status in ("active", "deactivated"):
            image.status = "active" if active else "deactivated"
            self.service.set_status(image_id, image.status)

    @rule(image_id=images, actor=actors)
    def delete(self, image_id: str, actor: str) -> None:
        image = self.known[image_id]
        answer = self.callers[actor].delete(path(image_id))
        if not image.is_visible(actor):
            assert answer.status == 404
        elif image.protected:
            assert answer.status == 403
        elif image.deleted:
            assert answer.status == 404
        elif not image.may_change(actor):
            assert answer.status == image.refusal
        else:
            assert answer.status == 200
            image.status, image.content, image.members = "deleted", None, {}
            image.properties = {}

    # Sharing.

    @rule(image_id=images, actor=actors, member=tenants, can_share=st.sampled_from([None, True]))
    def share(self, image_id: str, actor: str, member: str, can_share: bool | None) -> None:
        image = self.known[image_id]
        url = f"{path(image_id)}/members/{self.callers[member].tenant}"
        caller = self.callers[actor]
        if can_share is None:
            answer = caller.put(url)
        else:
            answer = caller.put_json(url, {"member": {"can_share": can_share}})
        if self._may_not_share(image, actor, answer):
            return
        sees = image.may_change(actor) or member == actor
        before = image.members.get(member)
        if before is None:
            image.members[member] = bool(can_share)
        elif can_share is not None and sees:
            image.members[member] = can_share

    @rule(image_id=images, actor=actors, member=tenants)
    def unshare(self, image_id: str, actor: str, member: str) -> None:
        image = self.known[image_id]
        url = f"{path(image_id)}/members/{self.callers[member].tenant}"
        answer = self.callers[actor].delete(url)
        sees = image.may_change(actor) or member == actor
        if image.is_visible(actor) and image.may_share(actor) and not image.deleted:
            assert answer.status == (204 if sees and member in image.members else 404)
            if answer.status == 204:
                del image.members[member]
        else:
            assert answer.status == 404

    def _may_not_share(self, image: Known, actor: str, answer: Answer) -> bool:
        allowed = image.is_visible(actor) and not image.deleted and image.may_share(actor)
        assert answer.status == (204 if allowed else 404)
        return not allowed

    # Looking.

    @rule(image_id=images, actor=actors)
    def look(self, image_id: str, actor: str) -> None:
        image, caller = self.known[image_id], self.callers[actor]
        shown = caller.head(path(image_id))
        assert shown.status == (200 if image.is_visible(actor) else 404)
        if shown.status == 200:
            assert shown.headers["x-image-meta-status"] == image.status
            assert shown.headers["x-image-meta-deleted"] == str(image.deleted)
        found = caller.get(path(image_id))
        if image.is_visible(actor) and image.status in ("active", "deactivated"):
            assert found.status == (200 if image.status == "active" else 403)
        else:
            assert found.status == 404
        if found.status == 200:
            assert found.content == image.content

    @rule(image_id=images, actor=actors)
    def look_at_members(self, image_id: str, actor: str) -> None:
        image = self.known[image_id]
        answer = self.callers[actor].get(f"{path(image_id)}/members")
        if not image.is_visible(actor) or image.deleted:
            assert answer.status == 404
            return
        seen = {
            self.callers[member].tenant: can_share
            for member, can_share in image.members.items()
            if image.may_change(actor) or member == actor
        }
        listed = {each["member_id"]: each["can_share"] for each in answer.json["members"]}
        assert listed == seen

    @rule(actor=actors, scope=st.sampled_from(["", "is_public=none", "is_public=false"]))
    def look_around(self, actor: str, scope: str) -> None:
        """REL-063 too: what has changed since the beginning includes what is gone."""
        for since in ("", f"changes-since={self.began}"):
            query = "&".join(["limit=1000", *filter(None, [scope, since])])
            listed = self.callers[actor].get(f"/v1/images/detail?{query}").json["images"]
            ours = [image for image in listed if image["id"] in self.known]
            expected = {
                image_id
                for image_id, image in self.known.items()
                if self._is_listed(image, actor, scope) and (since or not _is_gone(image))
            }
            assert {image["id"] for image in ours} == expected
            created = [image["created_at"] for image in ours]
            assert created == sorted(created, reverse=True)
            for image in ours:
                self._compare(image, image["id"])

    def _is_listed(self, image: Known, actor: str, scope: str) -> bool:
        if actor == "admin" and scope:
            return not (scope == "is_public=false" and image.public)
        return image.is_shared_with(actor)

    def _compare(self, shown: dict[str, Any], image_id: str) -> None:
        image = self.known[image_id]
        owner = None if image.owner is None else self.callers[image.owner].tenant
        checksum = hashlib.md5(image.content).hexdigest() if image.content else None
        told = {
            "id": image_id,
            "name": image.name,
            "owner": owner,
            "status": image.status,
            "is_public": image.public,
            "protected": image.protected,
            "properties": image.properties,
            "size": image.size,
            "deleted": image.deleted,
        }
        assert {key: shown[key] for key in told} == told
        if image.content:
            assert shown["checksum"] == checksum

    def teardown(self) -> None:
        """Everything is as the model has it, for who may see everything."""
        if not self.known:
            return
        self.look_around("admin", "is_public=none")
        for image_id in self.known:
            for actor in EVERYBODY:
                self.look(image_id, actor)
            self.look_at_members(image_id, "admin")
        stored = self.service.stored_files()
        expected = {image_id for image_id, image in self.known.items() if image.content}
        assert stored & self.known.keys() == expected
        self._clear_up()

    def _clear_up(self) -> None:
        """Leave no public image for the lists of the next one."""
        for image_id, image in self.known.items():
            if not image.deleted:
                assert self.callers["admin"].put(path(image_id), meta(protected="no")).status == 200
                assert self.callers["admin"].delete(path(image_id)).status == 200


def _is_gone(image: Known) -> bool:
    return image.status in ("deleted", "killed")


def test_random_lives_are_what_the_model_says(service: Service) -> None:
    Glance.service = service
    settings = hypothesis.settings(
        max_examples=60,
        stateful_step_count=40,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    run_state_machine_as_test(Glance, settings=settings)
