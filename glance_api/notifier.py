"""Events for whoever listens: handed to the configured drivers, never in a request's way.

A broken or slow bus delays nothing: events wait in a bounded queue, and what does not fit is
counted and dropped (REL-024).
"""

import contextlib
import logging
import queue
import threading
import uuid
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, Final, Literal, Protocol

import orjson
from oslo_config import cfg

LOG = logging.getLogger(__name__)

Priority = Literal["INFO", "ERROR"]

_MAX_WAITING: Final = 10_000
_STOP: Final = None

# A daemon that stops gives the bus this long to take what is waiting.
_LAST_SECONDS: Final = 5.0

# How often one event is tried before it is given up for the next one.
_RETRIES: Final = 3


class Driver(Protocol):
    """Delivers one event; may block, and may raise."""

    def __call__(self, priority: Priority, event: dict[str, Any]) -> None: ...


class Notifier:
    """Queues events and delivers them, in order, from one background thread."""

    def __init__(
        self, drivers: Sequence[Driver], publisher_id: str, disabled: Sequence[str] = ()
    ) -> None:
        self._drivers = drivers
        self._publisher_id = publisher_id
        self._disabled = frozenset(disabled)
        self._waiting: queue.Queue[tuple[Priority, dict[str, Any]] | None] | None = None
        self._thread: threading.Thread | None = None
        self.dropped = 0

    def notify(self, event_type: str, payload: Any, priority: Priority = "INFO") -> None:
        """Queue an event, unless it or its group is in disabled_notifications (D31)."""
        group = event_type.partition(".")[0]
        if not self._drivers or not self._disabled.isdisjoint({event_type, group}):
            return
        event = {
            "message_id": str(uuid.uuid4()),
            "publisher_id": self._publisher_id,
            "event_type": event_type,
            "priority": priority,
            "timestamp": datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S.%f"),
            "payload": payload,
        }
        try:
            self._queue().put_nowait((priority, event))
        except queue.Full:
            self.dropped += 1
            if self.dropped % 1000 == 1:
                LOG.warning("%s notifications dropped: the bus does not take them", self.dropped)

    def stop(self) -> None:
        """Deliver what is waiting, as far as the bus takes it within seconds."""
        if self._waiting is not None and self._thread is not None:
            with contextlib.suppress(queue.Full):
                self._waiting.put_nowait(_STOP)
            self._thread.join(_LAST_SECONDS)

    def _queue(self) -> "queue.Queue[tuple[Priority, dict[str, Any]] | None]":
        # Made on first use, so that it belongs to the worker and not to its parent.
        if self._waiting is None:
            self._waiting = queue.Queue(_MAX_WAITING)
            self._thread = threading.Thread(target=self._deliver, args=(self._waiting,))
            self._thread.daemon = True
            self._thread.start()
        return self._waiting

    def _deliver(self, waiting: "queue.Queue[tuple[Priority, dict[str, Any]] | None]") -> None:
        while (item := waiting.get()) is not _STOP:
            priority, event = item
            for driver in self._drivers:
                try:
                    driver(priority, event)
                except Exception as error:
                    # The bus's own text may name its URL, and that holds a password.
                    LOG.warning(
                        "notification %s was not delivered: %s",
                        event["event_type"],
                        type(error).__name__,
                    )


def log_driver(priority: Priority, event: dict[str, Any]) -> None:
    """The `log` driver: one JSON line per event."""
    logger = logging.getLogger(f"oslo.messaging.notification.{event['event_type']}")
    level = logging.ERROR if priority == "ERROR" else logging.INFO
    logger.log(level, "%s", orjson.dumps(event).decode())


class BusDriver:
    """`messaging`, `messagingv2` and `routing`: oslo.messaging, which connects when it must."""

    def __init__(
        self, library_conf: Callable[[], cfg.ConfigOpts], names: Sequence[str], publisher_id: str
    ) -> None:
        """Raises ValueError naming the option that oslo.messaging cannot use."""
        try:
            import oslo_messaging
        except ImportError:
            raise ValueError(
                "[oslo_messaging_notifications] driver: messaging needs oslo.messaging; "
                "install it with: pip install '.[messaging]'"
            ) from None
        oslo_messaging.set_transport_defaults("glance")
        try:
            transport = oslo_messaging.get_notification_transport(library_conf())
        except (oslo_messaging.InvalidTransportURL, oslo_messaging.DriverLoadFailure):
            # The error's text is the URL, and that holds a password.
            raise ValueError("transport_url: oslo.messaging cannot use it") from None
        # One each: a notifier of the library has one driver, or all that the file names.
        self._notifiers = [
            oslo_messaging.Notifier(transport, publisher_id, name, retry=_RETRIES) for name in names
        ]
        logging.getLogger(_LIBRARY_LOG).addFilter(_say_it_briefly)

    def __call__(self, priority: Priority, event: dict[str, Any]) -> None:
        for notifier in self._notifiers:
            send = notifier.error if priority == "ERROR" else notifier.info
            send({}, event["event_type"], event["payload"])


_LIBRARY_LOG: Final = "oslo_messaging.notify.messaging"


def _say_it_briefly(record: logging.LogRecord) -> bool:
    """One line for an event that the bus did not take, not the event and a traceback each time."""
    error = record.exc_info[0] if record.exc_info else None
    if error is not None:
        record.msg, record.args = "a notification was not delivered: %s", (error.__name__,)
        record.exc_info = record.exc_text = None
    return True


def notifier_from(conf: cfg.ConfigOpts, library_conf: Callable[[], cfg.ConfigOpts]) -> Notifier:
    """The notifier that [oslo_messaging_notifications] driver asks for.

    library_conf makes a configuration in which oslo.messaging may register its options. Raises
    ValueError naming the option where it cannot be built.
    """
    names = [name for name in conf.oslo_messaging_notifications.driver if name != "noop"]
    bus = [name for name in names if name != "log"]
    drivers: list[Driver] = [log_driver] if "log" in names else []
    if bus:
        drivers.append(BusDriver(library_conf, bus, conf.default_publisher_id))
    return Notifier(drivers, conf.default_publisher_id, conf.disabled_notifications)
