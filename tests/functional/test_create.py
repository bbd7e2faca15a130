"""Creating records without data: images-v1.md section 8, cases 21.2."""

import uuid

import pytest

from tests.functional.daemons import Client, Service
from tests.functional.steps import create

DETAIL_KEYS = {
    "id", "name", "status", "size", "virtual_size", "disk_format", "container_format",
    "min_disk", "min_ram", "is_public", "protected", "owner", "checksum", "created_at",
    "updated_at", "deleted_at", "deleted", "properties",
}  # fmt: skip
CAP = 2**40


def test_a_bare_post_makes_a_queued_private_image_of_the_caller(t1: Client) -> None:
    """V1-IMG-100"""
    answer = t1.post("/v1/images")
    assert answer.status == 201
    assert answer.headers["content-type"] == "application/json"
    image = answer.json["image"]
    assert image.keys() == DETAIL_KEYS
    assert image["created_at"] == image["updated_at"]
    uuid.UUID(image["id"])
    for name in ("id", "created_at", "updated_at"):
        del image[name]
    assert image == {
        "name": None, "status": "queued", "size": 0, "virtual_size": None, "disk_format": None,
        "container_format": None, "min_disk": 0, "min_ram": 0, "is_public": False,
        "protected": False, "owner": t1.tenant, "checksum": None, "deleted_at": None,
        "deleted": False, "properties": {},
    }  # fmt: skip


@pytest.mark.parametrize(
    "path",
    [
        pytest.param("/v1/images", id="V1-IMG-101"),
        pytest.param("/v1.1/images", id="V1-IMG-102"),
    ],
)
def test_the_answer_leads_to_the_image(t1: Client, path: str) -> None:
    answer = t1.post(path)
    expected = f"http://127.0.0.1:{t1.port}/v1/images/{answer.image['id']}"
    assert answer.headers["location"] == expected


def test_an_unknown_field_is_refused(t1: Client) -> None:
    """V1-IMG-103"""
    assert create(t1, foo="x").status == 400


@pytest.mark.parametrize("name", ["copy_from", "uri"])
def test_two_fields_of_old_clients_are_ignored(t1: Client, name: str) -> None:
    """V1-IMG-104"""
    assert create(t1, **{name: "http://x/"}).image["status"] == "queued"


class TestIds:
    def test_an_id_can_be_chosen_once(self, t1: Client, t2: Client) -> None:
        """V1-IMG-105, V1-IMG-106, V1-IMG-716"""
        image_id = str(uuid.uuid4())
        assert create(t1, id=image_id).image["id"] == image_id
        assert create(t1, id=image_id).status == 409
        assert create(t2, id=image_id).status == 409
        t1.delete(f"/v1/images/{image_id}")
        assert create(t1, id=image_id).status == 409
        assert create(t2, id=image_id).status == 409

    def test_spellings_of_a_uuid_are_ids_of_their_own(self, t1: Client) -> None:
        """V1-IMG-107, V1-IMG-108"""
        one = uuid.uuid4()
        spellings = [str(one).upper(), str(one), one.hex]
        assert [create(t1, id=each).image["id"] for each in spellings] == spellings
        assert {image["id"] for image in t1.mine()} == set(spellings)

    @pytest.mark.parametrize(
        "image_id",
        [
            pytest.param("foo", id="V1-IMG-109"),
            pytest.param(f"urn:uuid:{uuid.uuid4()}", id="V1-IMG-110 urn"),
            pytest.param(f"{{{uuid.uuid4()}}}", id="V1-IMG-110 braces"),
        ],
    )
    def test_other_forms_are_refused(self, t1: Client, image_id: str) -> None:
        assert create(t1, id=image_id).status == 400

    def test_an_empty_id_is_none(self, t1: Client) -> None:
        """V1-IMG-111"""
        uuid.UUID(create(t1, id="").image["id"])


class TestText:
    @pytest.mark.parametrize(("length", "status"), [(255, 201), (256, 400)])
    @pytest.mark.parametrize("letter", ["n", "é"])
    def test_a_name_has_at_most_255_characters(
        self, t1: Client, letter: str, length: int, status: int
    ) -> None:
        """V1-IMG-112; D44: characters are counted, not bytes."""
        assert create(t1, name=letter * length).status == status

    @pytest.mark.parametrize(("sent", "stored"), [("", None), ("None", "None")])
    def test_only_an_empty_name_is_none(self, t1: Client, sent: str, stored: str | None) -> None:
        """V1-IMG-113"""
        assert create(t1, name=sent).image["name"] == stored

    def test_text_is_utf8_both_ways(self, t1: Client) -> None:
        """V1-IMG-114, decision 12"""
        answer = create(t1, name="é文")
        assert answer.image["name"] == "é文"
        assert "é文".encode() in answer.content
        head = t1.head(f"/v1/images/{answer.image['id']}")
        assert head.headers["x-image-meta-name"].encode("latin-1") == "é文".encode()
        assert [image["name"] for image in t1.mine()] == ["é文"]

    @pytest.mark.parametrize(
        "fields",
        [
            pytest.param({"name": "a\U0001f600"}, id="V1-IMG-115"),
            pytest.param({"property-p": "a\U0001f600"}, id="V1-IMG-116"),
            pytest.param({"name": b"\xff\xfe"}, id="V1-IMG-117"),
            pytest.param({"property-p": b"\xff\xfe"}, id="V1-IMG-117 property"),
        ],
    )
    def test_what_cannot_be_stored_is_refused(
        self, t1: Client, fields: dict[str, str | bytes]
    ) -> None:
        assert create(t1, **fields).status == 400


class TestNumbers:
    @pytest.mark.parametrize("size", ["abc", "1.5", "None", "-1", "1e3", "0x10", "\uff11"])
    def test_a_size_is_a_natural_number(self, t1: Client, size: str) -> None:
        """V1-IMG-118"""
        answer = create(t1, size=size)
        assert answer.status == 400
        assert "Invalid value" in answer.text
        reason = "Cannot be a negative value" if size == "-1" else "Cannot convert image size"
        assert reason in answer.text

    @pytest.mark.parametrize("name", ["size", "min_disk", "min_ram", "virtual_size"])
    def test_an_empty_number_is_refused(self, t1: Client, name: str) -> None:
        """V1-IMG-119, V1-IMG-127, D07"""
        assert create(t1, **{name: ""}).status == 400

    def test_blanks_around_a_number_are_nothing(self, t1: Client) -> None:
        """V1-IMG-120"""
        image = create(t1, size=" 12 ").image
        assert (image["size"], image["status"]) == (12, "queued")

    def test_a_size_of_zero_is_a_complete_image(self, t1: Client) -> None:
        """V1-IMG-121, V1-IMG-122"""
        image = create(t1, size="0").image
        assert (image["size"], image["status"], image["checksum"]) == (0, "active", None)
        answer = t1.get(f"/v1/images/{image['id']}")
        assert (answer.status, answer.content) == (200, b"")
        assert answer.headers["content-length"] == "0"

    def test_a_declared_size_waits_for_its_data(self, t1: Client) -> None:
        """V1-IMG-123"""
        image = create(t1, size="10").image
        assert (image["size"], image["status"]) == (10, "queued")

    @pytest.mark.parametrize(("size", "status"), [(CAP, 201), (CAP + 1, 400), (2**63, 400)])
    def test_a_size_is_within_the_cap(self, t1: Client, size: int, status: int) -> None:
        """V1-IMG-124"""
        assert create(t1, size=str(size)).status == status

    @pytest.mark.parametrize("name", ["min_disk", "min_ram"])
    def test_a_minimum_is_not_negative(self, t1: Client, name: str) -> None:
        """V1-IMG-125"""
        answer = create(t1, **{name: "-42"})
        assert answer.status == 400
        assert "Invalid value" in answer.text

    @pytest.mark.parametrize("name", ["min_disk", "min_ram"])
    def test_a_minimum_has_31_bits(self, t1: Client, name: str) -> None:
        """V1-IMG-126"""
        assert create(t1, **{name: "2147483647"}).image[name] == 2147483647
        for number in (2147483648, 2**63):
            answer = create(t1, **{name: str(number)})
            assert answer.status == 400
            assert "value out of range" in answer.text

    def test_the_word_none_is_a_number_for_the_virtual_size_only(self, t1: Client) -> None:
        """V1-IMG-127, V1-IMG-128"""
        assert create(t1, min_disk="None").status == 400
        assert create(t1, virtual_size="10").image["virtual_size"] == 10
        assert create(t1, virtual_size="None").image["virtual_size"] is None
        assert create(t1, virtual_size="-1").status == 400


class TestFlags:
    def test_publishing_is_not_a_users_right(self, t1: Client) -> None:
        """V1-IMG-129"""
        assert create(t1, is_public="yes").status == 403

    @pytest.mark.parametrize(
        ("word", "value"),
        [
            *((each, True) for each in ("true", "t", "yes", "y", "on", "1", "On", "TRUE", " y ")),
            *((each, False) for each in ("junk", "", "2", "truth", "no")),
        ],
    )
    def test_a_flag_is_a_word(self, admin: Client, word: str, value: bool) -> None:
        """V1-IMG-130, V1-IMG-131"""
        assert create(admin, is_public=word).image["is_public"] is value

    def test_an_image_can_be_protected(self, t1: Client) -> None:
        """V1-IMG-132"""
        image = create(t1, protected="on").image
        assert image["protected"] is True
        assert t1.delete(f"/v1/images/{image['id']}").status == 403


class TestServiceOwned:
    def test_only_an_admin_chooses_the_owner(self, t1: Client, admin: Client) -> None:
        """V1-IMG-133, V1-IMG-134"""
        assert create(t1, owner="zzz").image["owner"] == t1.tenant
        assert create(t1, owner="").image["owner"] == t1.tenant
        assert create(admin, owner="zzz").image["owner"] == "zzz"
        assert create(admin, owner="").image["owner"] is None
        assert create(admin).image["owner"] == admin.tenant

    @pytest.mark.parametrize("status", ["active", "junk", "killed"])
    def test_a_status_is_ignored(self, t1: Client, status: str) -> None:
        """V1-IMG-135"""
        assert create(t1, status=status).image["status"] == "queued"

    def test_no_image_is_born_deleted(self, t1: Client) -> None:
        """V1-IMG-136, D09"""
        image = create(t1, deleted="True").image
        assert image["deleted"] is False
        assert t1.head(f"/v1/images/{image['id']}").status == 200

    @pytest.mark.parametrize("name", ["created_at", "updated_at", "deleted_at"])
    @pytest.mark.parametrize(
        "moment",
        ["foo", "-42", "1100", "1899-12-31", "2012-01-01hey12:32:12", "2012-13-01", "99999"],
    )
    def test_a_time_is_one_even_where_it_is_ignored(
        self, t1: Client, name: str, moment: str
    ) -> None:
        """V1-IMG-137"""
        assert create(t1, **{name: moment}).status == 400

    @pytest.mark.parametrize("name", ["created_at", "updated_at", "deleted_at"])
    @pytest.mark.parametrize(
        "moment", ["2012-01-01T00:00:00Z", "2012-01-01", "2012", "2012-01-01T00:00:00+02:00", ""]
    )
    def test_times_are_the_servers(self, t1: Client, name: str, moment: str) -> None:
        """V1-IMG-138, V1-IMG-139, D10"""
        image = create(t1, **{name: moment}).image
        assert image["created_at"] > "2020"
        assert image["updated_at"] > "2020"
        assert image["deleted_at"] is None


class TestChecksum:
    def test_a_declared_checksum_is_stored(self, t1: Client) -> None:
        """V1-IMG-140"""
        answer = create(t1, checksum="c" * 32)
        assert answer.image["checksum"] == "c" * 32
        assert answer.headers["etag"] == "c" * 32

    @pytest.mark.parametrize("length", [33, 42])
    def test_a_checksum_has_at_most_32_characters(self, t1: Client, length: int) -> None:
        """V1-IMG-141"""
        answer = create(t1, checksum="c" * length)
        assert answer.status == 400
        assert "Invalid checksum" in answer.text


class TestFormats:
    @pytest.mark.parametrize("value", ["foo", "", "None", "RAW"])
    @pytest.mark.parametrize(
        ("name", "text"),
        [
            pytest.param("disk_format", "Invalid disk format", id="V1-IMG-142"),
            pytest.param("container_format", "Invalid container format", id="V1-IMG-143"),
        ],
    )
    def test_a_format_is_a_known_one(self, t1: Client, name: str, text: str, value: str) -> None:
        answer = create(t1, **{name: value})
        assert answer.status == 400
        assert text in answer.text

    @pytest.mark.parametrize(
        ("name", "formats"),
        [
            ("disk_format", "vhd vmdk raw qcow2 vdi iso vhdx ploop"),
            ("container_format", "bare ovf ova docker"),
        ],
    )
    def test_the_default_formats(self, t1: Client, name: str, formats: str) -> None:
        """Decision 16."""
        for each in formats.split():
            image = create(t1, **{name: each}).image
            other = "container_format" if name == "disk_format" else "disk_format"
            assert (image[name], image[other]) == (each, None)

    @pytest.mark.parametrize("name", ["disk_format", "container_format"])
    @pytest.mark.parametrize("value", ["ami", "aki", "ari"])
    def test_an_amazon_format_is_both(self, t1: Client, name: str, value: str) -> None:
        """V1-IMG-145, V1-IMG-146"""
        image = create(t1, **{name: value}).image
        assert (image["disk_format"], image["container_format"]) == (value, value)

    @pytest.mark.parametrize(
        ("disk", "container"), [("ami", "bare"), ("ami", "aki"), ("raw", "ari")]
    )
    def test_an_amazon_format_does_not_mix(self, t1: Client, disk: str, container: str) -> None:
        """V1-IMG-147"""
        answer = create(t1, disk_format=disk, container_format=container)
        assert answer.status == 400
        assert "Invalid mix of disk and container formats" in answer.text


class TestHeaderNames:
    def test_hyphens_and_case_do_not_matter(self, admin: Client) -> None:
        """V1-IMG-148"""
        headers = {
            "X-Image-Meta-Disk-Format": "raw",
            "x-image-meta-Is-Public": "true",
            "X-IMAGE-META-MIN-RAM": "5",
        }
        image = admin.post("/v1/images", headers).image
        assert (image["disk_format"], image["is_public"], image["min_ram"]) == ("raw", True, 5)

    def test_a_property_name_is_lower_case_with_underscores(self, t1: Client) -> None:
        """V1-IMG-149"""
        assert create(t1, **{"property-Foo-Bar": "A"}).image["properties"] == {"foo_bar": "A"}

    def test_an_empty_property_is_null_and_has_no_header(self, t1: Client) -> None:
        """V1-IMG-150"""
        image = create(t1, **{"property-x": "", "property-y": "1"}).image
        assert image["properties"] == {"x": None, "y": "1"}
        head = t1.head(f"/v1/images/{image['id']}").headers
        assert "x-image-meta-property-x" not in head
        assert head["x-image-meta-property-y"] == "1"

    @pytest.mark.parametrize(
        ("first", "second"),
        [("property-a-b", "property-a_b"), ("min-ram", "min_ram"), ("name", "NAME")],
    )
    def test_two_headers_for_one_field_are_refused(
        self, t1: Client, first: str, second: str
    ) -> None:
        """V1-IMG-151, section 4.1"""
        assert create(t1, **{first: "1", second: "2"}).status == 400

    def test_a_property_may_have_no_name(self, t1: Client) -> None:
        """Section 3."""
        assert create(t1, **{"property-": "v"}).image["properties"] == {"": "v"}


class TestStores:
    def test_an_unknown_store_is_refused(self, t1: Client) -> None:
        """V1-IMG-152"""
        answer = create(t1, store="bad")
        assert answer.status == 400
        assert "Required store bad is invalid" in answer.text
        assert t1.mine() == []

    def test_a_store_is_not_asked_before_there_is_data(self, t1: Client) -> None:
        """V1-IMG-153"""
        assert create(t1, store="http").image["status"] == "queued"


def test_clients_that_encode_their_headers_are_understood(service: Service) -> None:
    """Decision 11."""
    coded = {"x-image-meta-name": "My%20%E6%96%87", "x-image-meta-property-p": "50%25"}
    agent = {"User-Agent": "python-glanceclient"}
    caller = service.caller("t")
    image = caller.post("/v1/images", {**coded, **agent}).image
    assert (image["name"], image["properties"]) == ("My 文", {"p": "50%"})
    assert caller.post("/v1/images", coded).image["name"] == "My%20%E6%96%87"
    # What is no encoding of text means itself.
    odd = {"x-image-meta-name": "100%ff", **agent}
    assert caller.post("/v1/images", odd).image["name"] == "100%ff"
