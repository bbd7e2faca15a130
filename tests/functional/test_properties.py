"""Property protections by role: the cases of images-v1.md sections 21.7 and 21.10 about them."""

from collections.abc import Iterator

import pytest

from tests.functional.conftest import audited_service
from tests.functional.daemons import OCTETS, Answer, Client, Service
from tests.functional.steps import active_image, create, meta, path, queued_image

RULES = """\
[^x_billing_]
create = billing
read = billing
update = billing
delete = billing

[^x_shown$]
create = @
read = @
update = billing
delete = billing

[^x_blind$]
create = @
read = billing
update = @
delete = @

[^x_open$]
create = @
read = @
update = @
delete = @

[^x_closed$]
create = !
read = @
update = !
delete = !

[^x_case$]
create = Member
read = Member
update = Member
delete = Member

[^x_nobody$]
create =
read =
update =
delete =
"""
# What nobody here but the role billing can read.
POLICY = {"download_image": "not (role:barred and 'secret':%(x_billing_code)s)"}
KEEP = {"x-glance-registry-purge-props": "false"}


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    home = tmp_path_factory.mktemp("properties")
    rules = home / "rules.conf"
    rules.write_text(RULES)
    options = {"property_protection_file": rules, "property_protection_rule_format": "roles"}
    with audited_service(home, api=options, policy=POLICY) as running:
        yield running


@pytest.fixture
def member(service: Service) -> Client:
    """The owner of the images, without the role that matters."""
    return service.caller("owner", "member")


@pytest.fixture
def billing(member: Client) -> Client:
    """The same owner with it."""
    return Client(member.port, {**member.headers, "X-Roles": "member,Billing"})


def properties(**values: str) -> dict[str, str | bytes]:
    return meta(**{f"property-{name}": value for name, value in values.items()})


def put(caller: Client, image_id: str, *, keep: bool = False, **values: str) -> Answer:
    return caller.put(path(image_id), {**properties(**values), **(KEEP if keep else {})})


def shown(caller: Client, image_id: str) -> dict[str, str]:
    """The properties in the headers of HEAD, which are those of the detailed list."""
    head = caller.head(path(image_id)).headers
    prefix = "x-image-meta-property-"
    found = {name.removeprefix(prefix): head[name] for name in head if name.startswith(prefix)}
    (image,) = [each for each in caller.mine() if each["id"] == image_id]
    assert image["properties"] == found
    return found


def require_protected(answer: Answer, name: str) -> None:
    assert answer.status == 403
    assert f"Property &#x27;{name}&#x27; is protected" in answer.text or (
        f"Property '{name}' is protected" in answer.text
    )


def test_creating_takes_the_role(member: Client, billing: Client) -> None:
    """V1-IMG-642"""
    require_protected(create(member, **{"property-x_billing_code": "1"}), "x_billing_code")
    assert member.mine() == []
    image = create(billing, **{"property-x_billing_code": "1"}).image
    assert image["properties"] == {"x_billing_code": "1"}
    image_id = queued_image(member)
    require_protected(put(member, image_id, x_billing_code="1"), "x_billing_code")


def test_reading_takes_the_role(member: Client, billing: Client) -> None:
    """Section 6.2; every answer that shows an image leaves it out (M03)."""
    values = {"property-x_billing_code": "1", "property-x_open": "2"}
    image_id = billing.post("/v1/images", meta(size="0", **values)).image["id"]
    assert shown(billing, image_id) == {"x_billing_code": "1", "x_open": "2"}
    assert shown(member, image_id) == {"x_open": "2"}
    got = member.get(path(image_id))
    assert "x-image-meta-property-x_billing_code" not in got.headers
    assert put(member, image_id, keep=True).image["properties"] == {"x_open": "2"}
    blind = create(member, **{"property-x_blind": "1", "property-x_open": "2"})
    assert blind.image["properties"] == {"x_open": "2"}


def test_the_rule_for_downloads_sees_what_the_caller_cannot(
    member: Client, billing: Client
) -> None:
    """SEC-013, section 7: its target is the image, whatever part of it is shown."""
    values = {"property-x_billing_code": "secret", "property-x_open": "2"}
    image_id = billing.post("/v1/images", meta(size="0", **values)).image["id"]
    barred = Client(member.port, {**member.headers, "X-Roles": "barred"})
    assert shown(barred, image_id) == {"x_open": "2"}
    for headers in ({}, {"Range": "bytes=9-"}):
        assert barred.get(path(image_id), headers).status == 403
    assert member.get(path(image_id)).status == 200


def test_updating_takes_the_role(member: Client, billing: Client) -> None:
    """V1-IMG-642, V1-IMG-643"""
    image_id = queued_image(member, **{"property-x_shown": "1"})
    require_protected(put(member, image_id, x_shown="2"), "x_shown")
    assert put(member, image_id, x_shown="1").status == 200
    assert put(billing, image_id, x_shown="2").image["properties"] == {"x_shown": "2"}


def test_deleting_takes_the_role(member: Client, billing: Client) -> None:
    """V1-IMG-642, V1-IMG-646"""
    image_id = queued_image(member, **{"property-x_shown": "1"})
    require_protected(put(member, image_id), "x_shown")
    assert shown(member, image_id) == {"x_shown": "1"}
    assert put(member, image_id, keep=True).status == 200
    assert put(billing, image_id).image["properties"] == {}


def test_what_cannot_be_read_cannot_be_overwritten(member: Client, billing: Client) -> None:
    """V1-IMG-644"""
    image_id = queued_image(billing, **{"property-x_blind": "1"})
    for value in ("2", "1"):
        require_protected(put(member, image_id, x_blind=value), "x_blind")
    assert shown(billing, image_id) == {"x_blind": "1"}


def test_what_cannot_be_read_survives_a_purge(member: Client, billing: Client) -> None:
    """V1-IMG-645"""
    image_id = queued_image(billing, **{"property-x_billing_code": "1", "property-x_open": "2"})
    assert put(member, image_id, x_open="3").image["properties"] == {"x_open": "3"}
    assert put(member, image_id).image["properties"] == {}
    assert shown(member, image_id) == {}
    assert shown(billing, image_id) == {"x_billing_code": "1"}


def test_data_brings_properties_under_the_same_rules(member: Client, billing: Client) -> None:
    """V1-IMG-245, V1-IMG-642"""
    image_id = queued_image(billing, **{"property-x_billing_code": "1"})
    headers = {**OCTETS, **properties(x_billing_code="2")}
    require_protected(member.put(path(image_id), headers, b"data"), "x_billing_code")
    assert shown(billing, image_id) == {"x_billing_code": "1"}
    answer = member.put(path(image_id), {**OCTETS, **properties(x_open="3")}, b"data")
    assert answer.image["status"] == "active"
    assert answer.image["properties"] == {"x_open": "3"}
    assert shown(billing, image_id) == {"x_billing_code": "1", "x_open": "3"}


def test_data_for_an_image_that_has_some_is_refused_first(member: Client) -> None:
    """Section 11.1: step 8 comes before step 13."""
    image_id = active_image(member)
    answer = member.put(path(image_id), {**OCTETS, **properties(x_billing_code="1")}, b"more")
    assert answer.status == 409


@pytest.mark.parametrize("role", ["member", "Member", "MEMBER"])
def test_roles_are_compared_without_case(service: Service, role: str) -> None:
    """V1-IMG-647"""
    caller = service.caller("owner", role)
    image_id = create(caller, **{"property-x_case": "1"}).image["id"]
    assert put(caller, image_id, x_case="2").image["properties"] == {"x_case": "2"}
    assert put(caller, image_id).status == 200


def test_everybody_and_nobody_are_meant_literally(service: Service, admin: Client) -> None:
    """V1-IMG-648: admins are no exception."""
    roleless = service.caller("owner")
    assert create(roleless, **{"property-x_open": "1"}).image["properties"] == {"x_open": "1"}
    require_protected(create(admin, **{"property-x_closed": "1"}), "x_closed")
    require_protected(create(admin, **{"property-x_nobody": "1"}), "x_nobody")


def test_what_no_section_names_is_closed(admin: Client, root: Client) -> None:
    """V1-IMG-649"""
    require_protected(create(admin, **{"property-other": "1"}), "other")
    image_id = queued_image(admin)
    require_protected(put(admin, image_id, other="1"), "other")
    body = {"image": {"properties": {"other": "old", "x_closed": "here"}}}
    assert root.put_json(f"/images/{image_id}", body).status == 200
    assert shown(admin, image_id) == {"x_closed": "here"}
    require_protected(put(admin, image_id, keep=True, other="2"), "other")
    require_protected(put(admin, image_id), "x_closed")


def test_a_filter_does_not_reveal_what_is_hidden(member: Client, billing: Client) -> None:
    """V1-IMG-917, D24"""
    image_id = queued_image(billing, **{"property-x_billing_code": "s3", "property-x_open": "1"})
    for query, seen in (("x_billing_code=s3", False), ("x_open=1", True)):
        for url in ("/v1/images", "/v1/images/detail"):
            for caller, expected in ((member, seen), (billing, True)):
                images = caller.get(f"{url}?property-{query}").json["images"]
                found = image_id in [image["id"] for image in images]
                assert found is expected
