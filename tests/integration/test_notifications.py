"""Notifications on a real RabbitMQ, as another service would consume them."""

import hashlib
import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import pytest

from tests.functional.audit import audit
from tests.functional.daemons import OCTETS, RAW, T1, Client, Service, running_service
from tests.functional.sources import CHECKSUM, CONTENT, Sources
from tests.functional.steps import (
    HalfUpload,
    active_image,
    path,
    queued_image,
    upload,
    wait_for_status,
    wait_until,
)
from tests.servers import process
from tests.servers.rabbitmq import RabbitMQ

PUBLISHER = "image.test-host"

# Longer than an event is on its way once the one before it has arrived.
QUIET_SECONDS = 0.3


@dataclass(frozen=True)
class Event:
    """One message, out of its envelope."""

    content: dict[str, Any]

    @property
    def kind(self) -> str:
        """`create` for image.create; `!upload` for an error."""
        prefix, _, name = self.content["event_type"].partition(".")
        assert prefix == "image"
        return f"!{name}" if self.content["priority"] == "ERROR" else name

    @property
    def payload(self) -> Any:
        return self.content["payload"]


class Bus:
    """A consumer of the topic `notifications` at both priorities."""

    def __init__(self, rabbitmq: RabbitMQ) -> None:
        kombu = process.client("rabbitmq", "kombu")
        self._connection = kombu.Connection(rabbitmq.amqp_url)
        channel = self._connection.channel()
        exchange = kombu.Exchange("glance", "topic", durable=False, auto_delete=False)
        self._queues = [
            kombu.Queue(topic, exchange, routing_key=topic, channel=channel, durable=False)
            for topic in ("notifications.info", "notifications.error")
        ]
        for queue in self._queues:
            queue.declare()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def take(self) -> list[Event]:
        found = []
        for queue in self._queues:
            while (message := queue.get(no_ack=True)) is not None:
                assert message.payload["oslo.version"] == "2.0"
                found.append(Event(json.loads(message.payload["oslo.message"])))
        return sorted(found, key=lambda event: str(event.content["timestamp"]))

    def events(self, count: int) -> list[Event]:
        """That many events, once it is sure that there are no more."""
        found: list[Event] = []
        deadline = time.monotonic() + 20
        while len(found) < count and time.monotonic() < deadline:
            found += self.take()
            time.sleep(0.02)
        time.sleep(QUIET_SECONDS)
        found += self.take()
        assert len(found) == count, [event.content for event in found]
        for event in found:
            require_envelope(event)
            require_no_location(event.payload)
        return found

    def kinds(self, count: int) -> list[str]:
        return [event.kind for event in self.events(count)]


def require_envelope(event: Event) -> None:
    envelope = event.content
    assert envelope["publisher_id"] == PUBLISHER
    assert envelope["priority"] in ("INFO", "ERROR")
    assert len(envelope["message_id"]) == 36


def require_no_location(found: Any) -> None:
    """MW-037: neither under that name nor as a value anywhere."""
    if isinstance(found, dict):
        assert not {"location", "locations", "location_data", "direct_url"} & found.keys()
        for value in found.values():
            require_no_location(value)
    elif isinstance(found, str):
        assert "://" not in found


@pytest.fixture(scope="module")
def rabbitmq() -> Iterator[RabbitMQ]:
    """A broker of our own, because the last tests break it."""
    RabbitMQ.require()
    with RabbitMQ() as running:
        yield running


@pytest.fixture(scope="module")
def service(rabbitmq: RabbitMQ, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with notifying(tmp_path_factory.mktemp("notifications"), rabbitmq) as running:
        yield running
        audit(running)


def notifying(home: Path, rabbitmq: RabbitMQ, **more: Any) -> Any:
    api = {
        "transport_url": rabbitmq.url,
        "default_publisher_id": PUBLISHER,
        "oslo_messaging_notifications": {"driver": "messagingv2"},
        # The smallest that Mitaka's options allow, so that a broken bus is noticed soon.
        "oslo_messaging_rabbit": {"kombu_reconnect_delay": 0.1},
        **more,
    }
    return running_service(home, api=api)


@pytest.fixture
def bus(rabbitmq: RabbitMQ) -> Iterator[Bus]:
    with Bus(rabbitmq) as bus:
        yield bus


@pytest.fixture
def sources() -> Iterator[Sources]:
    running = Sources()
    with running:
        yield running


@pytest.fixture
def t1(service: Service) -> Client:
    return service.t1


def statuses(events: list[Event]) -> list[str]:
    return [event.payload["status"] for event in events]


def test_a_post_with_data(bus: Bus, t1: Client) -> None:
    """MW-029, and what each event says of the image at that time."""
    headers = {"x-image-meta-property-os_type": "linux"}
    image = t1.post("/v1/images", {**RAW, **OCTETS, **headers}, b"some bytes").image
    events = bus.events(5)
    assert [event.kind for event in events] == ["create", "prepare", "upload", "activate", "update"]
    assert statuses(events) == ["queued", "queued", "saving", "active", "active"]
    for event in events:
        assert event.payload["id"] == image["id"]
        assert event.payload["owner"] == "t1"
        assert event.payload["properties"] == {"os_type": "linux"}
        assert event.payload.keys() == image.keys()
    checksum = hashlib.md5(b"some bytes").hexdigest()
    assert [(event.payload["size"], event.payload["checksum"]) for event in events[2:]] == [
        (10, checksum)
    ] * 3


def test_a_put_with_data(bus: Bus, t1: Client) -> None:
    """MW-030."""
    image_id = queued_image(t1)
    assert bus.kinds(1) == ["create"]
    assert t1.put(path(image_id), OCTETS, b"data").status == 200
    events = bus.events(5)
    assert [event.kind for event in events] == ["prepare", "upload", "activate", "update", "update"]
    assert statuses(events) == ["queued", "saving", "active", "active", "active"]


def test_metadata_and_deletion(bus: Bus, t1: Client) -> None:
    """MW-031, MW-034; member changes are not told."""
    image_id = queued_image(t1)
    bus.events(1)
    assert t1.put(path(image_id), {"x-image-meta-name": "new"}).status == 200
    (event,) = bus.events(1)
    assert (event.kind, event.payload["name"]) == ("update", "new")
    assert t1.put(f"{path(image_id)}/members/t2").status == 204
    assert t1.delete(f"{path(image_id)}/members/t2").status == 204
    assert t1.delete(path(image_id)).status == 200
    (event,) = bus.events(1)
    assert event.kind == "delete"
    payload = event.payload
    assert (payload["status"], payload["deleted"], payload["deleted_at"]) == (
        "deleted",
        False,
        None,
    )


def test_refused_requests_tell_nothing(bus: Bus, t1: Client) -> None:
    image_id = queued_image(t1)
    bus.events(1)
    assert t1.post("/v1/images", {**RAW, "x-image-meta-size": "x"}).status == 400
    assert t1.put(path(image_id), {"x-image-meta-status": "active"}).status == 403
    assert t1.delete(path("00000000-0000-0000-0000-000000000000")).status == 404
    assert t1.head(path(image_id)).status == 200
    assert t1.get("/v1/images/detail").status == 200
    assert bus.events(0) == []


def test_an_image_of_size_zero(bus: Bus, t1: Client) -> None:
    assert t1.post("/v1/images", {"x-image-meta-size": "0"}).image["status"] == "active"
    assert bus.kinds(1) == ["create"]


def test_a_location(bus: Bus, t1: Client, sources: Sources) -> None:
    """MW-035, MW-037."""
    assert t1.post("/v1/images", {**RAW, "x-image-meta-location": sources.url("/ok")}).image
    events = bus.events(3)
    assert [event.kind for event in events] == ["create", "activate", "update"]
    assert statuses(events) == ["active"] * 3


def test_a_copy(bus: Bus, t1: Client, sources: Sources) -> None:
    """MW-037: not even an event of a copy says where it comes from."""
    image = t1.post("/v1/images", {**RAW, "x-glance-api-copy-from": sources.url("/ok")}).image
    events = bus.events(5)
    assert [event.kind for event in events] == ["create", "prepare", "upload", "activate", "update"]
    assert events[-1].payload["id"] == image["id"]
    assert events[-1].payload["checksum"] == CHECKSUM
    assert events[-1].payload["size"] == len(CONTENT)


class TestSending:
    def test_a_download(self, bus: Bus, t1: Client) -> None:
        """MW-032."""
        image_id = active_image(t1, b"twelve bytes")
        bus.events(5)
        assert t1.get(path(image_id)).content == b"twelve bytes"
        (event,) = bus.events(1)
        assert event.kind == "send"
        assert event.payload == {
            "image_id": image_id,
            "owner_id": "t1",
            "receiver_tenant_id": "t1",
            "receiver_user_id": T1["X-User-Id"],
            "destination_ip": "127.0.0.1",
            "bytes_sent": 12,
        }

    def test_a_range(self, bus: Bus, t1: Client) -> None:
        image_id = active_image(t1, b"twelve bytes")
        bus.events(5)
        assert t1.get(path(image_id), {"Range": "bytes=2-4"}).content == b"elv"
        (event,) = bus.events(1)
        assert (event.kind, event.payload["bytes_sent"]) == ("send", 3)

    def test_a_download_that_is_broken_off(self, bus: Bus, t1: Client) -> None:
        """MW-033."""
        size = 64 * 1024 * 1024
        image_id = active_image(t1, os.urandom(1024 * 1024) * 64)
        bus.events(5)
        with HalfUpload(t1, "GET", path(image_id), {}, 0) as download:
            download.read(100_000)
        (event,) = bus.events(1)
        assert event.kind == "!send"
        assert event.payload["image_id"] == image_id
        assert 0 < event.payload["bytes_sent"] < size
        assert t1.delete(path(image_id)).status == 200
        bus.events(1)


class TestFailures:
    def test_a_wrong_checksum(self, bus: Bus, t1: Client) -> None:
        """MW-036."""
        assert upload(t1, b"data", checksum="0" * 32).status == 400
        events = bus.events(3)
        assert [event.kind for event in events] == ["create", "prepare", "!upload"]
        assert isinstance(events[2].payload, str)
        assert "checksum" in events[2].payload

    def test_a_source_that_breaks(self, bus: Bus, t1: Client, sources: Sources) -> None:
        source = sources.url("/short")
        image = t1.post("/v1/images", {**RAW, "x-glance-api-copy-from": source}).image
        assert wait_for_status(t1, image["id"], "killed") == "killed"
        kinds = [event.kind for event in bus.events(2)]
        assert kinds == ["create", "prepare"]

    def test_a_client_that_leaves(self, bus: Bus, t1: Client) -> None:
        """No error event: nothing failed here."""
        image_id = queued_image(t1)
        with HalfUpload.to(t1, image_id, 1000, b"x" * 500):
            pass
        assert wait_for_status(t1, image_id, "killed") == "killed"
        assert bus.kinds(2) == ["create", "prepare"]


class TestABrokenBus:
    """REL-024: nobody waits for the bus, and it is used again when it is back."""

    def test_a_bus_that_takes_nothing_delays_no_request(
        self, rabbitmq: RabbitMQ, service: Service
    ) -> None:
        caller = service.caller("t1")
        _wait_until_heard(rabbitmq, caller)
        with rabbitmq.paused():
            assert _slowest_of_many_lives(caller) < 3
        _wait_until_heard(rabbitmq, caller)

    def test_a_bus_that_is_down_delays_neither_requests_nor_the_end_of_the_daemon(
        self, rabbitmq: RabbitMQ, service: Service
    ) -> None:
        caller = service.caller("t1")
        _wait_until_heard(rabbitmq, caller)
        with rabbitmq.killed():
            assert _slowest_of_many_lives(caller) < 3
            started = time.monotonic()
            service.api.stop()
            assert time.monotonic() - started < 10
            service.api.start()
            active_image(caller)
        _wait_until_heard(rabbitmq, caller)


def _slowest_of_many_lives(caller: Client) -> float:
    """Seconds that the slowest of thirty images took to be made, read and deleted."""
    slowest = 0.0
    for _ in range(30):
        started = time.monotonic()
        image_id = active_image(caller, b"some data")
        assert caller.get(path(image_id)).content == b"some data"
        assert caller.delete(path(image_id)).status == 200
        slowest = max(slowest, time.monotonic() - started)
    return slowest


def _wait_until_heard(rabbitmq: RabbitMQ, caller: Client) -> None:
    """Until the events of a new image arrive, behind what is left of older ones."""

    def heard() -> bool:
        image_id = queued_image(caller)
        deadline = time.monotonic() + 1
        while time.monotonic() < deadline:
            if any(event.payload.get("id") == image_id for event in listener.take()):
                return True
            time.sleep(0.05)
        return False

    with Bus(rabbitmq) as listener:
        wait_until(heard)
