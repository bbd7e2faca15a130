"""x-image-meta-* headers: what they may say and what becomes of it."""

from typing import Any

import pytest
import webob

from common import errors
from common.image import Image
from glance_api.v1.headers import add_image_headers, read_meta


def read(*headers: tuple[str, str], agent: str = "curl", mode: str = "glanceclient") -> Any:
    raw = tuple((name, value.encode("utf-8").decode("latin-1")) for name, value in headers)
    return read_meta({"headers_raw": raw, "HTTP_USER_AGENT": agent}, mode)


def meta(name: str, value: str, **options: str) -> Any:
    return read((f"x-image-meta-{name}", value), **options)


def test_hyphens_and_underscores_are_the_same_in_any_case() -> None:
    """V1-IMG-148, SEC-060."""
    for name in ("disk_format", "disk-format", "Disk-Format", "DISK_FORMAT"):
        assert meta(name, "raw").fields == {"disk_format": "raw"}


def test_two_spellings_of_one_field_are_refused() -> None:
    """SEC-060: never take one silently."""
    with pytest.raises(errors.Invalid, match="twice"):
        read(("x-image-meta-disk_format", "raw"), ("x-image-meta-disk-format", "iso"))


def test_two_sources_are_refused() -> None:
    """SEC-060: never take one silently."""
    name = "x-glance-api-copy-from"
    with pytest.raises(errors.Invalid, match="twice"):
        read((name, "http://a/"), (name.title(), "http://b/"))


def test_an_unknown_field_is_refused_by_name() -> None:
    """V1-IMG-103."""
    for name in ("foo", "locations", "location_data"):
        with pytest.raises(errors.Invalid, match=name):
            meta(name, "x")


def test_fields_that_mean_nothing_here_are_accepted() -> None:
    """V1-IMG-104, V1-IMG-136."""
    for name in ("copy_from", "uri", "deleted"):
        assert meta(name, "x").fields == {}


@pytest.mark.parametrize("text", ["abc", "1.5", "None", "-1", "", "1_0", "\uff11", str(2**63)])
def test_a_size_that_is_none_is_refused(text: str) -> None:
    """V1-IMG-118, V1-IMG-119; D07."""
    with pytest.raises(errors.Invalid, match="Invalid value"):
        meta("size", text)


def test_integers_may_have_blanks_around_them_and_virtual_size_may_be_none() -> None:
    """V1-IMG-120, V1-IMG-128."""
    assert meta("size", " 12 ").fields == {"size": 12}
    assert meta("virtual_size", "None").fields == {"virtual_size": None}


@pytest.mark.parametrize("text", ["true", "T", "yes", "y", "On", "1", " true "])
def test_boolean_words_are_true(text: str) -> None:
    assert meta("is_public", text).fields == {"is_public": True}


@pytest.mark.parametrize("text", ["false", "junk", "", "2", "None"])
def test_any_other_text_is_false(text: str) -> None:
    """V1-IMG-131."""
    assert meta("is_public", text).fields == {"is_public": False}


def test_properties_are_lower_case_with_underscores_and_empty_ones_are_null() -> None:
    """V1-IMG-149, V1-IMG-150."""
    assert meta("property-Foo-Bar", "A").properties == {"foo_bar": "A"}
    assert meta("property-x", "").properties == {"x": None}
    assert meta("property-", "a").properties == {"": "a"}


def test_text_is_utf8_without_characters_beyond_the_basic_plane() -> None:
    """V1-IMG-114 to V1-IMG-117."""
    assert meta("name", "é文").fields == {"name": "é文"}
    with pytest.raises(errors.Invalid):
        meta("name", "\U0001f600")
    with pytest.raises(errors.Invalid):
        read_meta({"headers_raw": (("x-image-meta-name", "\xff\xfe"),)}, "never")


@pytest.mark.parametrize(
    ("agent", "mode", "expected"),
    [
        ("python-glanceclient", "glanceclient", "My ä"),
        ("curl", "glanceclient", "My%20%C3%A4"),
        ("curl", "always", "My ä"),
        ("python-glanceclient", "never", "My%20%C3%A4"),
    ],
)
def test_percent_encoded_values_are_decoded_for_whom_it_is_configured(
    agent: str, mode: str, expected: str
) -> None:
    """Decision 11."""
    assert meta("name", "My%20%C3%A4", agent=agent, mode=mode).fields["name"] == expected


def test_what_is_no_percent_encoded_utf8_means_itself() -> None:
    assert meta("name", "100%ff", agent="python-glanceclient").fields["name"] == "100%ff"
    assert meta("name", "100% raw", agent="python-glanceclient").fields["name"] == "100% raw"


def test_purging_is_on_unless_the_header_says_otherwise() -> None:
    assert read().purge
    for word in ("false", "no", "0", "junk"):
        assert not read(("X-Glance-Registry-Purge-Props", word)).purge


def test_emitted_headers_never_hold_a_location_or_a_line_end() -> None:
    """SEC-030, SEC-063."""
    response = webob.Response()
    image = Image(id="x", name="a\r\nX-Evil: 1", properties={"p": "é\n", "n": None})
    add_image_headers(response, image)
    found = dict(response.headerlist)
    assert found["x-image-meta-name"] == "a%0D%0AX-Evil: 1"
    assert found["x-image-meta-property-p"].encode("latin-1") == "é%0A".encode()
    assert "x-image-meta-property-n" not in found
    assert not any("location" in name for name in found)
