"""The smaller parts of the API: rules, limits, turns, ciphers, leases."""

import contextlib
import threading
from pathlib import Path
from typing import Any, cast

import pytest

from common import errors
from common.context import RequestContext
from common.image import Image
from common.policy import PolicyEnforcer
from common.wsgi.resource import CONTEXT, Request
from glance_api.copies import Copies
from glance_api.formats import Formats
from glance_api.layers.base import ImageRepo, Source
from glance_api.leases import is_dead_here, worker_name
from glance_api.location_cipher import LocationCipher, LocationUnreadable
from glance_api.property_rules import BadProtectionFile, PropertyRules
from glance_api.rate_limit import RateLimitFilter
from glance_api.v1.download import DownloadSettings
from glance_api.v1.images import ImagesController, ImagesSettings

MEMBER = RequestContext(user="u", tenant="t", roles=("member",))
ADMIN = RequestContext(user="a", tenant="adm", roles=("admin",), is_admin=True)


def rules_from(tmp_path: Path, text: str, rule_format: Any = "roles") -> PropertyRules:
    path = tmp_path / "protections.conf"
    path.write_text(text)
    return PropertyRules(str(path), rule_format, lambda ctx, rule: rule in ctx.roles)


def section(pattern: str, words: str) -> str:
    return f"[{pattern}]\n" + "".join(
        f"{operation} = {words}\n" for operation in ("create", "read", "update", "delete")
    )


def test_the_first_matching_section_decides_even_when_it_denies(tmp_path: Path) -> None:
    """SEC-015, MW-026, MW-027."""
    rules = rules_from(tmp_path, section("^x_.*", "admin") + section(".*", "@"))
    assert not rules.allows(MEMBER, "read", "x_a")
    assert rules.allows(ADMIN, "read", "x_a")
    assert rules.allows(MEMBER, "create", "y")


def test_a_property_without_a_section_is_denied_and_no_section_protects_nothing(
    tmp_path: Path,
) -> None:
    """V1-IMG-649, MW-025."""
    assert not rules_from(tmp_path, section("^x$", "@")).allows(ADMIN, "read", "y")
    assert rules_from(tmp_path, "").allows(MEMBER, "read", "y")


def test_roles_are_compared_without_case_and_an_empty_value_denies_all(tmp_path: Path) -> None:
    """V1-IMG-647, V1-IMG-648, MW-024."""
    assert rules_from(tmp_path, section(".*", "Member")).allows(MEMBER, "update", "y")
    assert not rules_from(tmp_path, section(".*", "!")).allows(ADMIN, "update", "y")
    assert not rules_from(tmp_path, section(".*", "")).allows(ADMIN, "create", "y")


@pytest.mark.parametrize(
    ("text", "rule_format"),
    [
        (section("[(]", "@").replace("[[(]]", "[(]"), "roles"),
        ("[.*]\ncreate = @\n", "roles"),
        (section(".*", "@,!"), "roles"),
        (section(".*", "one,two"), "policies"),
        (section(".*", "@"), "nonsense"),
        ("not an ini file", "roles"),
    ],
)
def test_a_faulty_protection_file_keeps_the_service_down(
    tmp_path: Path, text: str, rule_format: str
) -> None:
    """MW-023."""
    with pytest.raises(BadProtectionFile):
        rules_from(tmp_path, text, rule_format)


def enforcer(tmp_path: Path, text: str) -> PolicyEnforcer:
    path = tmp_path / "policy.json"
    path.write_text(text)
    return PolicyEnforcer([str(path)], [], "default")


def test_an_undefined_rule_falls_back_to_default(tmp_path: Path) -> None:
    """SEC-013."""
    rules = enforcer(tmp_path, '{"default": "!", "get_image": ""}')
    assert rules.passes(MEMBER, "get_image")
    assert not rules.passes(MEMBER, "something_new")


def test_rules_compare_roles_owners_and_properties(tmp_path: Path) -> None:
    """V1-IMG-413, V1-IMG-414."""
    rules = enforcer(tmp_path, """{"a": "tenant:%(owner)s", "b": "not 'secret':%(kind)s"}""")
    assert rules.passes(MEMBER, "a", {"owner": "t"})
    assert not rules.passes(MEMBER, "a", {"owner": "other"})
    assert rules.passes(MEMBER, "b", {"kind": "open"})
    assert not rules.passes(MEMBER, "b", {"kind": "secret"})


def test_without_a_file_the_built_in_rules_hold() -> None:
    """MW-022."""
    rules = PolicyEnforcer([], [], "default")
    assert rules.passes(MEMBER, "publicize_image")
    assert not rules.passes(MEMBER, "manage_image_cache")
    assert rules.is_admin(ADMIN)


def test_no_rule_about_admins_makes_nobody_an_admin(tmp_path: Path) -> None:
    """SEC-013: the default rule says who may list images, not who is an administrator."""
    assert not enforcer(tmp_path, '{"default": ""}').is_admin(MEMBER)
    assert enforcer(tmp_path, '{"context_is_admin": "role:member"}').is_admin(MEMBER)


def test_a_broken_file_at_start_is_refused_and_yaml_is_read(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"policy\.json"):
        enforcer(tmp_path, "{bad")
    assert not enforcer(tmp_path, "add_image: '!'\n").passes(ADMIN, "add_image")


def test_rules_whose_file_is_gone_hold_until_it_is_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """M02, SEC-082: replacing the file must not open everything for a moment."""
    monkeypatch.setattr("common.policy._LOOK_SECONDS", 0)
    rules = enforcer(tmp_path, '{"add_image": "!"}')
    (tmp_path / "policy.json").unlink()
    assert not rules.passes(ADMIN, "add_image")
    assert not rules.passes(ADMIN, "add_image")
    (tmp_path / "policy.json").write_text('{"add_image": "@"}')
    assert rules.passes(ADMIN, "add_image")


def test_a_tenant_is_slowed_down_without_slowing_others() -> None:
    """SEC-074."""
    app = RateLimitFilter(lambda environ, start: [], per_second=2)
    for _ in range(4):
        app({CONTEXT: MEMBER}, None)
    with pytest.raises(errors.TooManyRequests):
        app({CONTEXT: MEMBER}, None)
    app({CONTEXT: ADMIN}, None)


def test_whoever_goes_on_asking_is_answered_at_the_average_rate(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """SEC-074: a refused request costs nothing, or whoever hurries would be shut out for good."""
    clock = iter(range(1_000))
    monkeypatch.setattr("glance_api.rate_limit.time.monotonic", lambda: next(clock) / 10)
    app = RateLimitFilter(lambda environ, start: [], per_second=2)
    answered = 0
    for _ in range(100):
        with contextlib.suppress(errors.TooManyRequests):
            app({CONTEXT: MEMBER}, None)
            answered += 1
    assert 20 <= answered <= 24


def test_tenants_take_turns_in_copying() -> None:
    """SEC-079: one tenant's thousand copies do not make another's one wait."""
    copies, order, gate = Copies(at_once=1), list[str | None](), threading.Event()

    def work(ctx: RequestContext, image: Any, source: Any) -> None:
        gate.wait(10)
        order.append(ctx.tenant)

    for ctx in (MEMBER, MEMBER, MEMBER, ADMIN):
        copies.start(work, ctx, Image(), Source())
    gate.set()
    copies.finish()
    assert order == ["t", "t", "adm", "t"] or order == ["t", "adm", "t", "t"]


def test_a_copy_that_finds_no_room_is_refused_before_anything_is_recorded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """SEC-079, D04: a record with its lease would wait for ever for a copy that never starts."""
    monkeypatch.setattr("glance_api.copies._MAX_WAITING", 0)

    class Untouched:
        def permit(self, ctx: RequestContext, plan: Any) -> None:
            pass

        def get(self, ctx: RequestContext, image_id: str) -> Image:
            return Image(id=image_id)

    settings = ImagesSettings(Formats(frozenset(), frozenset()), 1, "never", DownloadSettings())
    images = ImagesController(cast(ImageRepo, Untouched()), Copies(at_once=1), settings)
    headers = [("x-glance-api-copy-from", "http://source/image")]
    request = Request({CONTEXT: MEMBER, "headers_raw": headers})
    with pytest.raises(errors.TooManyRequests):
        images.create(request)
    with pytest.raises(errors.TooManyRequests):
        images.update(request, "id")


def test_a_failing_copy_is_told_of_and_makes_room_for_the_next(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """REL-019, REL-092."""
    copies, done, bound = Copies(at_once=1), threading.Event(), list[tuple[object, ...]]()
    monkeypatch.setattr("common.log.bind_request", lambda *identity: bound.append(identity))

    def fail(ctx: RequestContext, image: Image, source: Source) -> None:
        raise errors.NotFound()

    asker = RequestContext(user="u", tenant="t", request_id="req-copy")
    copies.start(fail, asker, Image(id="the-image"), Source())
    copies.start(lambda ctx, image, source: done.set(), MEMBER, Image(), Source())
    copies.finish()
    assert done.is_set()
    (record,) = caplog.records
    assert record.getMessage() == "image the-image could not be copied: Not found."
    assert bound[0] == ("req-copy", "u", "t")


def test_a_location_survives_encryption_and_only_under_its_key() -> None:
    """SEC-032; registry-v1.md section 9."""
    url = "swift+https://user:pässword@host/container/object"
    sealed = LocationCipher("k" * 16).encrypt(url)
    assert "pässword" not in sealed
    assert sealed != LocationCipher("k" * 16).encrypt(url)
    assert LocationCipher("k" * 16).decrypt(sealed) == url
    with pytest.raises(LocationUnreadable):
        LocationCipher("q" * 16).decrypt(sealed)
    with pytest.raises(LocationUnreadable):
        LocationCipher("k" * 16).decrypt("file:///plain")
    with pytest.raises(ValueError, match="metadata_encryption_key"):
        LocationCipher("short")


def test_a_worker_is_dead_when_its_process_is_not_the_one_that_took_the_lease() -> None:
    """REL-009."""
    assert not is_dead_here(worker_name("here"), "here")
    assert is_dead_here("here:999999:1", "here")
    host, pid, started = worker_name("here").rsplit(":", 2)
    assert is_dead_here(f"{host}:{pid}:{int(started) - 1}", "here")
    assert not is_dead_here("there:999999:1", "here")
    assert not is_dead_here("not a worker", "here")
