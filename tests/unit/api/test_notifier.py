"""Events on their way to the drivers: in order, and dropped only when there are too many."""

import json
import logging
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from oslo_config import cfg

from common.options import notifications
from glance_api import notifier
from glance_api.notifier import Notifier, notifier_from

PUBLISHER = "image.here"


class Recorder:
    """A driver that keeps what it is given, once it may."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.open.set()
        self.called = threading.Event()
        self.events: list[tuple[str, dict[str, Any]]] = []

    def __call__(self, priority: str, event: dict[str, Any]) -> None:
        self.called.set()
        self.open.wait(20)
        self.events.append((priority, event))

    @property
    def types(self) -> list[str]:
        return [event["event_type"] for _, event in self.events]


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


def test_events_are_delivered_in_order_with_their_envelope(recorder: Recorder) -> None:
    to_test = Notifier([recorder], PUBLISHER)
    to_test.notify("image.create", {"id": "1"})
    to_test.notify("image.upload", "it failed", "ERROR")
    to_test.stop()
    assert [priority for priority, _ in recorder.events] == ["INFO", "ERROR"]
    assert recorder.types == ["image.create", "image.upload"]
    first = recorder.events[0][1]
    assert first.keys() == {
        "message_id",
        "publisher_id",
        "event_type",
        "priority",
        "timestamp",
        "payload",
    }
    assert (first["publisher_id"], first["payload"]) == (PUBLISHER, {"id": "1"})
    assert first["message_id"] != recorder.events[1][1]["message_id"]


@pytest.mark.parametrize(
    ("disabled", "sent"),
    [
        ([], ["image.create", "image.update"]),
        (["image.create"], ["image.update"]),
        (["image"], []),
        (["member", "image.send"], ["image.create", "image.update"]),
    ],
)
def test_disabled_events_and_groups_are_not_sent(
    recorder: Recorder, disabled: list[str], sent: list[str]
) -> None:
    """MW-038, D31."""
    to_test = Notifier([recorder], PUBLISHER, disabled)
    to_test.notify("image.create", {})
    to_test.notify("image.update", {})
    to_test.stop()
    assert recorder.types == sent


def test_what_the_drivers_do_not_take_is_kept_up_to_a_bound_and_then_counted(
    recorder: Recorder, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """REL-024."""
    monkeypatch.setattr(notifier, "_MAX_WAITING", 5)
    recorder.open.clear()
    to_test = Notifier([recorder], PUBLISHER)
    to_test.notify("image.create", 0)
    assert recorder.called.wait(10)
    for number in range(1, 20):
        to_test.notify("image.create", number)
    # One is in the driver's hands, five wait.
    assert to_test.dropped == 14
    assert sum("dropped" in record.message for record in caplog.records) == 1
    recorder.open.set()
    kept = 20 - to_test.dropped
    deadline = threading.Event()
    while len(recorder.events) < kept and not deadline.wait(0.01):
        pass
    assert [event["payload"] for _, event in recorder.events] == list(range(kept))


def test_a_driver_that_fails_neither_stops_the_others_nor_shows_its_words(
    recorder: Recorder, caplog: pytest.LogCaptureFixture
) -> None:
    def failing(priority: str, event: dict[str, Any]) -> None:
        raise OSError("amqp://guest:secret@mq refused")

    to_test = Notifier([failing, recorder], PUBLISHER)
    to_test.notify("image.create", {})
    to_test.notify("image.delete", {})
    to_test.stop()
    assert recorder.types == ["image.create", "image.delete"]
    assert "OSError" in caplog.text
    assert "secret" not in caplog.text


def test_a_bus_that_takes_nothing_does_not_hold_up_the_end(
    recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notifier, "_LAST_SECONDS", 0.05)
    recorder.open.clear()
    to_test = Notifier([recorder], PUBLISHER)
    to_test.notify("image.create", {})
    to_test.stop()
    assert recorder.events == []
    recorder.open.set()


def configured(*names: str, library: Sequence[Path] = ()) -> Notifier:
    """The notifier with these drivers; library: the files that oslo.messaging reads."""
    conf = cfg.ConfigOpts()
    for area in notifications.AREAS:
        conf.register_opts(area.options, None if area.section == "DEFAULT" else area.section)
    conf([])
    conf.set_override("driver", list(names), "oslo_messaging_notifications")
    library_conf = cfg.ConfigOpts()
    library_conf([], default_config_files=[str(file) for file in library])
    return notifier_from(conf, lambda: library_conf)


@pytest.mark.parametrize("names", [(), ("noop",)])
def test_no_driver_means_no_thread_and_no_queue(names: tuple[str, ...]) -> None:
    before = set(threading.enumerate())
    to_test = configured(*names)
    to_test.notify("image.create", {})
    assert set(threading.enumerate()) <= before
    to_test.stop()


def test_the_log_driver_writes_one_line_of_json(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    to_test = configured("log")
    to_test.notify("image.create", {"name": "Größe"})
    to_test.notify("image.upload", "it failed", "ERROR")
    to_test.stop()
    told, failed = caplog.records
    assert told.name == "oslo.messaging.notification.image.create"
    assert (told.levelname, failed.levelname) == ("INFO", "ERROR")
    assert json.loads(told.getMessage())["payload"] == {"name": "Größe"}
    assert "\n" not in told.getMessage()


def test_a_bus_that_cannot_be_is_an_error_of_the_configuration(tmp_path: Path) -> None:
    pytest.importorskip("oslo_messaging")
    file = tmp_path / "glance-api.conf"
    file.write_text("[DEFAULT]\ntransport_url = nonsense://u:secret@mq/\n")
    with pytest.raises(ValueError, match="transport_url") as refused:
        configured("messagingv2", library=[file])
    assert "secret" not in str(refused.value)
