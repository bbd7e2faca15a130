"""URLs and references of the swift store."""

import pytest

from glance_store import BadLocation, BadStoreConfiguration
from glance_store.drivers.swift_locations import Reference, SwiftLocation, parse, read_references


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        (
            "swift://tenant%3Auser:key@auth.example.org/v2.0/glance/id",
            SwiftLocation(
                "glance", "id", None, "https://auth.example.org/v2.0", "tenant:user", "key"
            ),
        ),
        (
            "swift+http://tenant:user:key@auth:5000/v3/glance/id",
            SwiftLocation("glance", "id", None, "http://auth:5000/v3", "tenant:user", "key"),
        ),
        (
            "swift+https://t%3Au:k%2Fe%40y%25@auth/glance/id",
            SwiftLocation("glance", "id", None, "https://auth", "t:u", "k/e@y%"),
        ),
        (
            # Before Glance quoted them, keys stood in URLs as they are.
            "swift+https://t%3Au:k/e@y@auth/v1/glance/id",
            SwiftLocation("glance", "id", None, "https://auth/v1", "t:u", "k/e@y"),
        ),
        (
            "swift+http://host:8080/v1/AUTH_abc/glance_id/id",
            SwiftLocation("glance_id", "id", None, "http://host:8080/v1/AUTH_abc"),
        ),
        ("swift+config://ref1/glance/id", SwiftLocation("glance", "id", "ref1")),
    ],
)
def test_every_form_of_url_is_understood(url, expected):
    assert parse(url) == expected
    assert parse(parse(url).url) == expected


@pytest.mark.parametrize(
    "url",
    [
        "",
        "swift",
        "swift://",
        "swift://a/b",
        "swift+config:///glance/id",
        "swift+config://u:k@ref/glance/id",
        "swift://u:k@http://auth/glance/id",
        "swift://u@auth/glance/id",
        "swift://:k@auth/glance/id",
        "swift+http:///v1/glance/id",
        "s3://a/b/c",
    ],
)
def test_malformed_urls_are_refused_without_being_quoted(url):
    with pytest.raises(BadLocation) as caught:
        parse(url)
    assert caught.value.message == BadLocation.default


def test_reprs_hold_no_credentials():
    location = parse("swift://tenant:user:canary@auth/glance/id")
    reference = Reference("https://canary", "tenant:user", "canary")
    assert "canary" not in repr(location) + repr(reference.used_by(location))


def conf(**options):
    return {
        "default_swift_reference": "ref1",
        "swift_store_config_file": None,
        "swift_store_auth_version": "2",
        "swift_store_auth_address": None,
        "swift_store_user": None,
        "swift_store_key": None,
        **options,
    }


@pytest.fixture
def file(tmp_path):
    def write(text):
        path = tmp_path / "glance-swift.conf"
        path.write_text(text)
        return conf(swift_store_config_file=str(path))

    return write


def test_deprecated_options_make_up_the_default_reference():
    found = read_references(
        conf(
            swift_store_auth_address="auth.example.org/v3",
            swift_store_user="t:u",
            swift_store_key="k",
            swift_store_auth_version="3",
        )
    )
    assert found == {"ref1": Reference("https://auth.example.org/v3", "t:u", "k", "3")}


def test_without_options_there_are_no_references():
    assert read_references(conf()) == {}


def test_references_are_read_as_glance_read_them(file):
    found = read_references(
        file(
            "[ref1]\n user = t:u\n key = per%%cent\n auth_address = http://auth/v2.0\n"
            "[ref2]\nuser = t:u\nkey = per%cent\nauth_address = https://auth/v3\n"
            "auth_version = 3\nuser_domain_name = people\nproject_domain_id = projects\n"
        )
    )
    assert found == {
        "ref1": Reference("http://auth/v2.0", "t:u", "per%cent", "2"),
        "ref2": Reference(
            "https://auth/v3",
            "t:u",
            "per%cent",
            "3",
            user_domain_id=None,
            user_domain_name="people",
            project_domain_id="projects",
        ),
    }


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[ref1]\nuser = t:u\nauth_address = https://auth\n", "ref1 has no key"),
        ("[ref1]\nuser = t:u\nkey = canary\n", "ref1 has no auth_address"),
        ("key = canary\n", "MissingSectionHeader"),
        ("[ref1]\nuser = u\nkey = canary\nauth_address = a\nauth_version = 4\n", "auth_version"),
    ],
)
def test_bad_references_are_named_and_their_keys_are_not(file, text, told):
    with pytest.raises(BadStoreConfiguration, match=told) as caught:
        read_references(file(text))
    assert "canary" not in str(caught.value)


def test_a_missing_file_is_named_by_its_option(tmp_path):
    with pytest.raises(BadStoreConfiguration, match="swift_store_config_file"):
        read_references(conf(swift_store_config_file=str(tmp_path / "missing")))
