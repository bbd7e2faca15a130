"""What the driver asks of Cinder, and what Cinder's answers mean.

python-cinderclient uses the standard library's sockets, which are cooperative on the event
loop: nothing here goes through `offload`.
"""

import contextlib
import logging
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

from common import errors
from glance_store.errors import BackendUnavailable, StorageFull

LOG = logging.getLogger(__name__)

# Microversions of the API. With these a volume is attached by a record of its own, and the
# newer one lets the record say how the volume is used; before there were only its own states.
ATTACHMENTS: Final = "3.44"
ATTACHMENTS_WITH_MODE: Final = "3.54"
WITHOUT_ATTACHMENTS: Final = "3.0"

_SHORTEST_PAUSE: Final = 0.1
_LONGEST_PAUSE: Final = 2.0

_MOUNT_POINT: Final = "glance_store"


class Refused(BackendUnavailable):
    """Cinder will not do this to the volume in the state in which it is."""


@dataclass(frozen=True, slots=True)
class Volume:
    """A volume as Cinder last described it; `gibibytes` is its size."""

    id: str
    status: str
    gibibytes: int
    created_at: str
    multiattach: bool
    metadata: Mapping[str, str]

    @classmethod
    def of(cls, found: Any) -> "Volume":
        return cls(
            found.id,
            found.status,
            int(found.size),
            found.created_at or "",
            bool(getattr(found, "multiattach", False)),
            dict(found.metadata),
        )


class Attachment(Protocol):
    """The right of this host to use one volume."""

    def begin(self) -> Mapping[str, Any]:
        """Obtain it; what os-brick needs to know to connect. Raises Refused."""

    def complete(self) -> None:
        """Tell Cinder that the volume is connected."""

    def end(self) -> None:
        """Give it up, however far `begin` and `complete` came."""


@contextlib.contextmanager
def domain_errors() -> Iterator[None]:
    """Turn the libraries' errors into the domain's; their texts hold URLs and stay in the log."""
    from cinderclient import exceptions as cinder
    from keystoneauth1 import exceptions as keystone

    try:
        yield
    except cinder.NotFound as error:
        raise errors.NotFound() from error
    except cinder.OverLimit as error:
        raise StorageFull() from error
    except cinder.Forbidden as error:
        raise errors.Forbidden() from error
    except cinder.Unauthorized as error:
        LOG.error("Cinder does not accept the credentials it is given")
        raise BackendUnavailable() from error
    except cinder.ClientException as error:
        LOG.warning("Cinder answered with status %s", error.code)
        if error.code in (400, 409):
            raise Refused() from error
        raise BackendUnavailable() from error
    except keystone.ClientException as error:
        LOG.error("Cinder or Keystone cannot be used: %s", type(error).__name__)
        raise BackendUnavailable() from error


def attempts(seconds: float) -> Iterator[float]:
    """Yield so many seconds long, pausing longer and longer in between; the seconds left."""
    deadline = time.monotonic() + seconds
    pause = _SHORTEST_PAUSE
    while (left := deadline - time.monotonic()) > 0:
        yield left
        time.sleep(min(pause, max(left, 0)))
        pause = min(pause * 1.5, _LONGEST_PAUSE)


class Volumes:
    """The volumes that one caller sees. Every method raises domain errors."""

    def __init__(self, client: Any, microversion: str, seconds: float) -> None:
        """seconds: how long a change of a volume's state may take."""
        self._client = client
        self._microversion = microversion
        self._seconds = seconds

    def get(self, volume_id: str) -> Volume:
        with domain_errors():
            return Volume.of(self._client.volumes.get(volume_id))

    def named(self, name: str) -> list[Volume]:
        with domain_errors():
            found = self._client.volumes.list(search_opts={"name": name})
            return [Volume.of(volume) for volume in found if volume.name == name]

    def create(self, name: str, gibibytes: int, metadata: Mapping[str, str]) -> Volume:
        """Ask for a volume; it is not ready to be used yet."""
        with domain_errors():
            made = self._client.volumes.create(gibibytes, name=name, metadata=dict(metadata))
            return Volume.of(made)

    def wait(self, volume_id: str, wanted: str, passing: Collection[str]) -> Volume:
        """Wait until a volume has the status wanted. Raises BackendUnavailable as soon as its
        status is not one of those that come before."""
        for _ in attempts(self._seconds):
            volume = self.get(volume_id)
            if volume.status == wanted:
                return volume
            if volume.status not in passing:
                break
        LOG.error("Volume %s did not become %s", volume_id, wanted)
        raise BackendUnavailable()

    def extend(self, volume_id: str, gibibytes: int) -> Volume:
        """Make an unattached volume larger."""
        with domain_errors():
            self._client.volumes.extend(volume_id, gibibytes)
        return self.wait(volume_id, "available", ("extending",))

    def finish(self, volume_id: str, metadata: Mapping[str, str]) -> None:
        """Have a volume never be written again, and then replace its metadata."""
        with domain_errors():
            self._client.volumes.update_readonly_flag(volume_id, True)
            self._client.volumes.update_all_metadata(volume_id, dict(metadata))

    def delete(self, volume_id: str) -> None:
        """Delete a volume and wait until it is gone. Raises NotFound, or InUse if Cinder keeps
        it: it has snapshots, is attached, or the backend found something that depends on it."""
        try:
            with domain_errors():
                self._client.volumes.delete(volume_id)
        except Refused as error:
            raise errors.InUse() from error
        with contextlib.suppress(errors.NotFound):
            # One that is busy after all becomes available again.
            self.wait(volume_id, "available", ("deleting",))
            raise errors.InUse()

    def attachment(self, volume_id: str, mode: str, connector: Mapping[str, Any]) -> Attachment:
        """A way to attach a volume to the host that connector describes; mode is rw or ro."""
        kind = _Actions if self._microversion == WITHOUT_ATTACHMENTS else _Record
        return kind(self, self._client, volume_id, mode, {**connector, "mode": mode})

    def forget_attachments(
        self, volume_id: str, disconnect: Callable[[Mapping[str, Any]], object]
    ) -> None:
        """End what attachments a process that died has left, disconnecting each first."""
        with domain_errors():
            if self._microversion == WITHOUT_ATTACHMENTS:
                if self._client.volumes.get(volume_id).status in ("in-use", "attaching"):
                    self._client.volumes.detach(volume_id)
                return
            for found in self._client.attachments.list(search_opts={"volume_id": volume_id}):
                disconnect(self._client.attachments.show(found.id).connection_info or {})
                self._client.attachments.delete(found.id)


class _Record:
    """An attachment in Cinder's records of attachments."""

    def __init__(
        self,
        volumes: Volumes,
        client: Any,
        volume_id: str,
        mode: str,
        connector: Mapping[str, Any],
    ) -> None:
        self._client = client
        self._volume_id = volume_id
        self._mode = mode
        self._connector = connector
        self._id: str | None = None

    def begin(self) -> Mapping[str, Any]:
        with domain_errors():
            # In two steps: if the second fails, the record is there and its name is known.
            made = self._client.attachments.create(self._volume_id, None, mode=self._mode)
            self._id = made["id"]
            made = self._client.attachments.update(self._id, dict(self._connector))
            info: Mapping[str, Any] = made.connection_info
            return info

    def complete(self) -> None:
        with domain_errors():
            self._client.attachments.complete(self._id)

    def end(self) -> None:
        if self._id is not None:
            with contextlib.suppress(errors.NotFound), domain_errors():
                self._client.attachments.delete(self._id)


class _Actions:
    """An attachment as servers without records of them know it: by the volume's states."""

    def __init__(
        self,
        volumes: Volumes,
        client: Any,
        volume_id: str,
        mode: str,
        connector: Mapping[str, Any],
    ) -> None:
        self._volumes = volumes
        self._actions = client.volumes
        self._volume_id = volume_id
        self._mode = mode
        self._connector = dict(connector)
        self._undo: list[Callable[[], object]] = []

    def begin(self) -> Mapping[str, Any]:
        with domain_errors():
            self._actions.reserve(self._volume_id)
            self._undo.append(self._unreserve)
            self._undo.append(self._terminate)
            made = self._actions.initialize_connection(self._volume_id, self._connector)
            return {**made["data"], "driver_volume_type": made["driver_volume_type"]}

    def complete(self) -> None:
        with domain_errors():
            host = self._connector.get("host")
            self._actions.attach(self._volume_id, None, _MOUNT_POINT, self._mode, host)
        self._undo[0] = self._detach
        self._volumes.wait(self._volume_id, "in-use", ("attaching", "reserved"))

    def end(self) -> None:
        failure: errors.GlanceError | None = None
        while self._undo:
            try:
                with domain_errors():
                    self._undo.pop()()
            except errors.GlanceError as error:
                failure = failure or error
        if failure is not None:
            raise failure

    def _terminate(self) -> None:
        self._actions.terminate_connection(self._volume_id, self._connector)

    def _unreserve(self) -> None:
        self._actions.unreserve(self._volume_id)

    def _detach(self) -> None:
        self._actions.detach(self._volume_id)
