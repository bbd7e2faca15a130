"""HTTP URLs taken apart."""

import pytest

from glance_store import BadLocation
from glance_store.location import HttpLocation


def test_an_ordinary_url_keeps_its_path_and_query():
    """LP 1633860: the query is part of what is asked for."""
    location = HttpLocation.parse("http://mirror.example.org/a%20b/c?d=e&f#g")
    assert (location.scheme, location.host, location.port) == ("http", "mirror.example.org", 80)
    assert location.url == "http://mirror.example.org/a%20b/c?d=e&f"


@pytest.mark.parametrize(
    ("url", "port"),
    [("https://h/", 443), ("http://h:8080", 8080), ("https://[2001:db8::1]:444/x", 444)],
)
def test_port_is_given_or_the_schemes_own(url, port):
    assert HttpLocation.parse(url).port == port


def test_credentials_are_decoded_and_kept_out_of_sight():
    """SEC-031, SEC-037."""
    location = HttpLocation.parse("http://user:p%40ss:word@h:81/x")
    assert location.credentials == ("user", "p@ss:word")
    assert location.url == "http://h:81/x"
    assert "ss" not in repr(location)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "http:",
        "http://",
        "http:/host/path",
        "http:///path",
        "https://@/x",
        "HTTP://h/x",
        "ftp://h/x",
        "http://h:99999/x",
        "http://h:x/",
        "http://[::1/x",
        "http://h\\@other/x",
        "http://h\r\nX-Evil: 1/x",
        "http://h /x",
        "http://h\t/x",
    ],
)
def test_doubtful_urls_are_bad_locations(url):
    """V1-IMG-308, V1-IMG-310, SEC-040."""
    with pytest.raises(BadLocation) as caught:
        HttpLocation.parse(url)
    assert caught.value.message == "Invalid location"


@pytest.mark.parametrize(
    ("target", "credentials"),
    [
        ("/other", ("user", "password")),
        ("http://h:81/other", ("user", "password")),
        ("http://h/other", None),
        ("https://h:81/other", None),
        ("http://elsewhere:81/other", None),
        ("http://who:ever@elsewhere/other", ("who", "ever")),
    ],
)
def test_credentials_stay_with_their_own_host(target, credentials):
    """SEC-037."""
    location = HttpLocation.parse("http://user:password@h:81/x")
    assert location.redirected(target).credentials == credentials


@pytest.mark.parametrize("target", ["http://h/x", "ftp://h/x", "file:///etc/passwd", "http://"])
def test_redirects_down_or_elsewhere_are_refused(target):
    """SEC-043: no step from https to http."""
    with pytest.raises(BadLocation):
        HttpLocation.parse("https://h/x").redirected(target)


def test_relative_redirects_are_followed():
    location = HttpLocation.parse("https://h/a/b?c")
    assert location.redirected("../d?e").url == "https://h/d?e"
    assert location.redirected("//other/f").url == "https://other/f"
