"""The message bus of older configuration files."""

import sys
from pathlib import Path

import pytest

from common import config
from glance_api.message_bus import library_conf, older_transport_url
from glance_api.notifier import notifier_from

RABBIT = "oslo_messaging_rabbit"


@pytest.mark.parametrize(
    ("found", "url"),
    [
        ({}, None),
        ({(RABBIT, "rabbit_retry_interval"): ["5"]}, None),
        ({(RABBIT, "rabbit_host"): ["mq"]}, "rabbit://guest:guest@mq:5672/"),
        ({("DEFAULT", "rabbit_host"): ["mq"]}, "rabbit://guest:guest@mq:5672/"),
        (
            {
                ("DEFAULT", "rpc_backend"): ["rabbit"],
                ("DEFAULT", "rabbit_host"): ["old"],
                (RABBIT, "rabbit_host"): ["mq"],
                (RABBIT, "rabbit_port"): ["5673"],
                (RABBIT, "rabbit_userid"): ["glance"],
                (RABBIT, "rabbit_password"): ["p@ss/word"],
                (RABBIT, "rabbit_virtual_host"): ["/images"],
            },
            "rabbit://glance:p%40ss%2Fword@mq:5673/images",
        ),
        (
            {(RABBIT, "rabbit_hosts"): ["a:1, b,[::1]"], (RABBIT, "rabbit_password"): ["p"]},
            "rabbit://guest:p@a:1,guest:p@b:5672,guest:p@[::1]:5672/",
        ),
        (
            {("DEFAULT", "transport_url"): ["rabbit://x/"], (RABBIT, "rabbit_host"): ["mq"]},
            None,
        ),
        ({("DEFAULT", "rpc_backend"): ["zmq"], (RABBIT, "rabbit_host"): ["mq"]}, None),
    ],
)
def test_an_older_file_names_its_bus(
    found: dict[tuple[str, str], list[str]], url: str | None
) -> None:
    assert older_transport_url(found) == url


def test_the_library_connects_to_it(tmp_path: Path) -> None:
    oslo_messaging = pytest.importorskip("oslo_messaging")
    (tmp_path / "api.conf").write_text(
        f"[{RABBIT}]\nrabbit_hosts = a:1,b:2\nrabbit_userid = glance\nrabbit_password = p@ss\n"
    )
    conf = library_conf(config.load("api", ["--config-file", str(tmp_path / "api.conf")]))
    url = oslo_messaging.TransportURL.parse(conf)
    assert url.transport == "rabbit"
    hosts = [(host.hostname, host.port, host.username, host.password) for host in url.hosts]
    assert hosts == [("a", 1, "glance", "p@ss"), ("b", 2, "glance", "p@ss")]


def test_a_bus_without_its_library_is_told_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "glance-api.conf"
    file.write_text("[oslo_messaging_notifications]\ndriver = messagingv2\n")
    conf = config.load("api", ["--config-file", str(file)])
    monkeypatch.setitem(sys.modules, "oslo_messaging", None)
    with pytest.raises(ValueError, match=r"pip install '\.\[messaging\]'"):
        notifier_from(conf, lambda: library_conf(conf))
