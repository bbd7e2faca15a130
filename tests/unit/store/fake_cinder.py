"""A Cinder in memory whose volumes are sparse files, and an os-brick that connects them.

`FakeCinder.client` has the parts of python-cinderclient that the driver uses, with its errors;
`FakeBrick` stands in for os_brick.initiator.connector. Either can fail at a chosen call.
"""

import itertools
import os
import threading
import uuid
from types import SimpleNamespace

from cinderclient import exceptions

GIB = 1024**3


class FakeCinder:
    """`volumes` and `attachments` by id. Every call is appended to `calls`."""

    def __init__(self, directory):
        self.directory = directory
        self.volumes = {}
        self.attachments = {}
        self.calls = []
        self.busy = set()
        self.down = False
        self.client = SimpleNamespace(volumes=_Volumes(self), attachments=_Attachments(self))
        self.brick = FakeBrick(self)
        self._failures = {}
        self._ages = itertools.count()
        self._lock = threading.Lock()

    def fail(self, call, error):
        """Have the call that comes after so many others raise error."""
        self._failures[len(self.calls) + call] = error

    def called(self, name):
        with self._lock:
            number = len(self.calls)
            self.calls.append(name)
        if self.down:
            raise exceptions.ClientException(503)
        if number in self._failures:
            raise self._failures.pop(number)

    def volume(self, volume_id):
        if volume_id not in self.volumes:
            raise exceptions.NotFound(404)
        return self.volumes[volume_id]

    def path(self, volume_id):
        return self.directory / volume_id

    def make(self, size, name, metadata, status="creating"):
        volume = SimpleNamespace(
            id=str(uuid.uuid4()),
            size=size,
            name=name,
            metadata=dict(metadata),
            status=status,
            created_at=f"2026-01-01T00:00:{next(self._ages):09}",
            readonly=False,
        )
        self.volumes[volume.id] = volume
        self.resize(volume, size)
        return volume

    def resize(self, volume, size):
        volume.size = size
        with self.path(volume.id).open("ab") as file:
            file.truncate(size * GIB)


class _Volumes:
    def __init__(self, cinder):
        self._cinder = cinder

    def get(self, volume_id):
        self._cinder.called("get")
        volume = self._cinder.volume(volume_id)
        shown = SimpleNamespace(**vars(volume))
        # What was asked for has happened by the time of the next look.
        if volume.status == "creating":
            volume.status = "available"
        return shown

    def list(self, search_opts):
        self._cinder.called("list")
        return [one for one in self._cinder.volumes.values() if one.name == search_opts["name"]]

    def create(self, size, name, metadata):
        self._cinder.called("create")
        return SimpleNamespace(**vars(self._cinder.make(size, name, metadata)))

    def extend(self, volume_id, size):
        self._cinder.called("extend")
        self._require(volume_id, "available")
        self._cinder.resize(self._cinder.volume(volume_id), size)

    def update_readonly_flag(self, volume_id, flag):
        self._cinder.called("update_readonly_flag")
        self._require(volume_id, "available")
        self._cinder.volume(volume_id).readonly = flag

    def update_all_metadata(self, volume_id, metadata):
        self._cinder.called("update_all_metadata")
        self._cinder.volume(volume_id).metadata = metadata

    def delete(self, volume_id):
        self._cinder.called("delete")
        self._require(volume_id, "available", "error")
        if volume_id not in self._cinder.busy:
            del self._cinder.volumes[volume_id]
            self._cinder.path(volume_id).unlink()

    def _require(self, volume_id, *statuses):
        if self._cinder.volume(volume_id).status not in statuses:
            raise exceptions.BadRequest(400)


class _Attachments:
    def __init__(self, cinder):
        self._cinder = cinder

    def create(self, volume_id, connector, mode):
        self._cinder.called("attachments.create")
        volume = self._cinder.volume(volume_id)
        if volume.status != "available" or (volume.readonly and mode != "ro"):
            raise exceptions.BadRequest(400)
        volume.status = "reserved"
        attachment_id = str(uuid.uuid4())
        self._cinder.attachments[attachment_id] = volume_id
        return {"id": attachment_id}

    def update(self, attachment_id, connector):
        self._cinder.called("attachments.update")
        self._cinder.volume(self._cinder.attachments[attachment_id]).status = "attaching"
        return self._shown(attachment_id)

    def complete(self, attachment_id):
        self._cinder.called("attachments.complete")
        self._cinder.volume(self._cinder.attachments[attachment_id]).status = "in-use"

    def delete(self, attachment_id):
        self._cinder.called("attachments.delete")
        if attachment_id not in self._cinder.attachments:
            raise exceptions.NotFound(404)
        self._cinder.volume(self._cinder.attachments.pop(attachment_id)).status = "available"

    def list(self, search_opts):
        self._cinder.called("attachments.list")
        wanted = search_opts["volume_id"]
        attachments = self._cinder.attachments.items()
        return [SimpleNamespace(id=one) for one, volume_id in attachments if volume_id == wanted]

    def show(self, attachment_id):
        self._cinder.called("attachments.show")
        return self._shown(attachment_id)

    def _shown(self, attachment_id):
        volume_id = self._cinder.attachments[attachment_id]
        info = {"driver_volume_type": "iscsi", "volume_id": volume_id, "auth_password": "canary"}
        return SimpleNamespace(id=attachment_id, connection_info=info)


class FakeBrick:
    """`connected` holds the ids of the volumes that are devices of this host now.

    `disconnected` holds (volume id, whether by force) of every call.
    """

    def __init__(self, cinder):
        self._cinder = cinder
        self.connected = set()
        self.disconnected = []
        self.InitiatorConnector = SimpleNamespace(factory=lambda protocol, helper, conn: self)

    def get_connector_properties(self, helper, ip, multipath, enforce, host):
        return {"host": host, "ip": ip}

    def connect_volume(self, info):
        # What happens before a connector fails is not undone by it.
        self.connected.add(info["volume_id"])
        self._cinder.called("connect_volume")
        return {"path": os.fspath(self._cinder.path(info["volume_id"]))}

    def disconnect_volume(self, info, device, force, ignore_errors):
        self.disconnected.append((info["volume_id"], force))
        self.connected.discard(info["volume_id"])
        self._cinder.called("disconnect_volume")
