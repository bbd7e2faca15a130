"""Where a caller's URL may lead."""

import ipaddress
import socket

import pytest

from glance_store import BackendUnavailable, BadStoreConfiguration
from glance_store.outbound import DENIED_NETWORKS, OPTIONS, Outbound, OutboundRefused, OutboundRules


def networks(*texts):
    return tuple(ipaddress.ip_network(text) for text in texts)


def names(monkeypatch, table):
    """Resolve names by table; return the list of look-ups as it grows."""
    asked = []

    def getaddrinfo(host, port, *_, **__):
        asked.append(host)
        if host not in table:
            raise socket.gaierror(socket.EAI_NONAME, "unknown")
        return [
            (socket.AF_INET6 if ":" in address else socket.AF_INET, 1, 6, "", (address, port))
            for address in table[host]
        ]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    return asked


@pytest.mark.parametrize(
    "host",
    [
        "2130706433",
        "0x7f000001",
        "0177.0.0.1",
        "127.1",
        "127.0.0.1.",
        "127.0.0.01",
        "1.2.3.4.5",
        "256.0.0.1",
        "example.0x1",
        "\uff10.0.0.0",
        "①②⑦.⓪.⓪.①",
        "exämple.org",
        "fe80::1%25eth0",
        "::1%1",
        "[::1",
        "a b",
        "-option.example.org",
        "",
    ],
)
def test_unusual_spellings_are_refused_before_any_look_up(monkeypatch, host):
    """SEC-043, OSSA-2026-004."""
    asked = names(monkeypatch, {host: ["192.0.2.1"]})
    with pytest.raises(OutboundRefused):
        Outbound().resolve(host, 80)
    assert asked == []


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "127.255.255.254",
        "0.0.0.0",
        "169.254.169.254",
        "224.0.0.1",
        "255.255.255.255",
        "::1",
        "::",
        "fe80::1",
        "fe80::1%eth0",
        "ff02::1",
        "fd00:ec2::254",
        "::ffff:127.0.0.1",
        "::ffff:169.254.169.254",
        "::127.0.0.1",
        "64:ff9b::7f00:1",
        "64:ff9b:1::169.254.169.254",
        "2002:7f00:1::",
    ],
)
def test_this_host_its_link_and_metadata_are_denied_in_every_form(monkeypatch, address):
    """SEC-043: by address, whatever name led there."""
    names(monkeypatch, {"innocent.example.org": [address]})
    with pytest.raises(OutboundRefused):
        Outbound().resolve("innocent.example.org", 80)


@pytest.mark.parametrize("address", ["10.1.2.3", "192.168.0.9", "203.0.113.4", "2001:db8::1"])
def test_mirrors_inside_and_outside_are_allowed(monkeypatch, address):
    """decisions.md 4: private networks are where image mirrors live."""
    names(monkeypatch, {"mirror.example.org": [address]})
    [(_, found)] = Outbound().resolve("mirror.example.org", 8080)
    assert found[:2] == (address, 8080)


def test_one_bad_address_condemns_the_name(monkeypatch):
    names(monkeypatch, {"both.example.org": ["203.0.113.4", "127.0.0.1"]})
    with pytest.raises(OutboundRefused):
        Outbound().resolve("both.example.org", 80)


def test_a_name_is_looked_up_once_for_a_connection(monkeypatch):
    """SEC-043: it cannot change between the check and the use."""
    asked = names(monkeypatch, {"turning.example.org": ["203.0.113.4"]})
    reached = []

    class Socket:
        def __init__(self, *_):
            pass

        def settimeout(self, seconds):
            pass

        def connect(self, address):
            reached.append(address)

        def close(self):
            pass

    monkeypatch.setattr(socket, "socket", Socket)
    Outbound().connect("turning.example.org", 80)
    assert asked == ["turning.example.org"]
    assert reached == [("203.0.113.4", 80)]


def test_the_next_address_is_tried_when_one_does_not_answer(monkeypatch):
    names(monkeypatch, {"two.example.org": ["203.0.113.4", "203.0.113.5"]})
    tried = []

    class Socket:
        def __init__(self, *_):
            pass

        def settimeout(self, seconds):
            pass

        def connect(self, address):
            tried.append(address[0])
            if address[0] == "203.0.113.4":
                raise ConnectionRefusedError

        def close(self):
            tried.append("closed")

    monkeypatch.setattr(socket, "socket", Socket)
    Outbound().connect("two.example.org", 80)
    assert tried == ["203.0.113.4", "closed", "203.0.113.5"]


def test_allowed_networks_win_over_denied_ones():
    rules = OutboundRules(allowed_networks=networks("127.0.0.1/32"))
    Outbound(rules).check_address("127.0.0.1")
    Outbound(rules).check_address("::ffff:127.0.0.1")
    with pytest.raises(OutboundRefused):
        Outbound(rules).check_address("127.0.0.2")


def test_denied_networks_are_the_operators_to_extend():
    rules = OutboundRules(denied_networks=networks("10.0.0.0/8", "2001:db8::/32"))
    for address in ("10.1.1.1", "::ffff:10.1.1.1", "2001:db8::1"):
        with pytest.raises(OutboundRefused):
            Outbound(rules).check_address(address)
    Outbound(rules).check_address("127.0.0.1")


@pytest.mark.parametrize(
    ("rules", "host", "port", "allowed"),
    [
        ({"allowed_hosts": ("mirror.example.org",)}, "Mirror.Example.org.", 80, True),
        ({"allowed_hosts": ("mirror.example.org",)}, "evilmirror.example.org", 80, False),
        ({"allowed_hosts": ("*.example.org",)}, "a.b.example.org", 80, True),
        ({"allowed_hosts": ("*.example.org",)}, "example.org", 80, False),
        ({"allowed_hosts": ("*.example.org",)}, "badexample.org", 80, False),
        ({"denied_hosts": ("secret.example.org",)}, "SECRET.example.org", 80, False),
        ({"denied_hosts": ("secret.example.org",)}, "secret.example.org.", 80, False),
        ({"denied_hosts": ("secret.example.org",)}, "other.example.org", 80, True),
        ({"denied_hosts": ("2001:db8::1",)}, "[2001:db8::1]", 80, False),
        ({"allowed_ports": frozenset({80, 443})}, "mirror.example.org", 443, True),
        ({"allowed_ports": frozenset({80, 443})}, "mirror.example.org", 22, False),
        ({}, "mirror_1.example.org", 8080, True),
        ({}, "localhost", 80, True),
    ],
)
def test_hosts_and_ports_by_rule(rules, host, port, allowed):
    outbound = Outbound(OutboundRules(**rules))
    if allowed:
        outbound.check_host(host, port)
    else:
        with pytest.raises(OutboundRefused):
            outbound.check_host(host, port)


def test_unknown_name_and_refusal_sound_alike(monkeypatch):
    """SEC-044."""
    names(monkeypatch, {"loop.example.org": ["127.0.0.1"]})
    messages = set()
    for host in ("unknown.example.org", "loop.example.org", "127.1", f"{'a' * 70}.example.org"):
        with pytest.raises(BackendUnavailable) as caught:
            Outbound().resolve(host, 80)
        messages.add(caught.value.message)
    assert len(messages) == 1


def test_a_name_that_cannot_be_encoded_is_unavailable():
    with pytest.raises(BackendUnavailable):
        Outbound().resolve("a." + "b" * 64 + ".example.invalid", 80)


def test_options_and_rules_have_the_same_defaults():
    conf = {option.dest: option.default for option in OPTIONS}
    assert OutboundRules.configured(conf) == OutboundRules()
    assert conf["denied_networks"] == list(DENIED_NETWORKS)


def test_hosts_are_configured_in_any_case():
    conf = {option.dest: option.default for option in OPTIONS}
    rules = OutboundRules.configured(conf | {"denied_hosts": ["Secret.Example.ORG."]})
    assert rules.denied_hosts == ("secret.example.org",)


def test_network_that_is_none_is_refused_by_option():
    conf = {option.dest: option.default for option in OPTIONS}
    with pytest.raises(BadStoreConfiguration, match="allowed_networks"):
        OutboundRules.configured(conf | {"allowed_networks": ["10.0.0.0/33"]})
