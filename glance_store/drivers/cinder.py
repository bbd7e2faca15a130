"""Images as volumes in Cinder, each written and read while it is attached to this host."""

import contextlib
import logging
import re
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final

from oslo_config import cfg

from common import errors
from common.body import Body, empty
from common.concurrency import Behind, offload
from common.context import RequestContext
from common.upload import Upload
from glance_store.claims import Claims
from glance_store.driver import Store
from glance_store.drivers.cinder_access import Access
from glance_store.drivers.cinder_api import Refused, Volume, Volumes, attempts
from glance_store.drivers.cinder_host import Device, Host, device_errors
from glance_store.drivers.readahead import ReadAheadBody
from glance_store.errors import BackendUnavailable, BadLocation

LOG = logging.getLogger(__name__)

_GIB: Final = 1024**3
# Divides a GiB, so that a full piece never crosses the end of a volume.
_CHUNK: Final = 8 * 1024 * 1024

_URL: Final = re.compile(r"cinder://([0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12})")

# Metadata of a volume. The first three are as every release of Glance wrote them; the last is
# there until the image is complete.
_IMAGE_ID: Final = "glance_image_id"
_SIZE: Final = "image_size"
_OWNER: Final = "image_owner"
_UPLOAD: Final = "glance_upload"


_PASSING: Final = ("creating", "extending", "attaching", "reserved", "in-use", "detaching")
_MOST_REFUSALS: Final = 3

# Ceph takes a client that died for alive until its watch of the image expires, 30 s by default.
_WATCH_EXPIRES: Final = 40.0


def volume_id_of(url: str) -> str:
    """Raises BadLocation."""
    found = _URL.fullmatch(url)
    if found is None:
        raise BadLocation()
    return found[1]


def image_size(volume: Volume) -> int:
    """The size of the image in a volume; of the whole volume where that was not recorded."""
    whole = volume.gibibytes * _GIB
    recorded = volume.metadata.get(_SIZE, "")
    # The volume's owner can change its metadata.
    return min(int(recorded), whole) if recorded.isdecimal() else whole


@dataclass(slots=True)
class _Reading:
    """A volume that is attached for everybody in this process who reads it."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    users: int = 0
    failed: bool = False
    device: Device | None = None
    held: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)


class CinderStore(Store):
    """Stores an image as volume `image-<image id>`, under `cinder://<volume id>`.

    With `cinder_store_auth_address` and its companions the volumes belong to that project,
    otherwise to the caller's.
    """

    schemes: ClassVar[tuple[str, ...]] = ("cinder",)
    options: ClassVar[Sequence[cfg.Opt]] = (
        cfg.StrOpt(
            "cinder_catalog_info",
            default="volumev2::publicURL",
            help="Which endpoint of the service catalogue to use, as service_type:service_name:"
            "endpoint_type. Where there is no volumev2, its successors are looked for.",
        ),
        cfg.StrOpt(
            "cinder_endpoint_template",
            help="Use this URL, with %(tenant)s filled in, instead of the catalogue.",
        ),
        cfg.StrOpt("cinder_os_region_name", help="Region of the endpoint in the catalogue."),
        cfg.StrOpt("cinder_ca_certificates_file", help="CA bundle to check Cinder with."),
        cfg.IntOpt(
            "cinder_http_retries", default=3, min=0, help="Times a failed request is repeated."
        ),
        cfg.IntOpt(
            "cinder_state_transition_timeout",
            default=300,
            min=1,
            help="Seconds to wait for a volume to be created, attached, extended or deleted.",
        ),
        cfg.BoolOpt(
            "cinder_api_insecure", default=False, help="Do not check Cinder's certificate."
        ),
        cfg.StrOpt(
            "cinder_store_auth_address",
            help="Keystone's URL; with the next three, images belong to that project.",
        ),
        cfg.StrOpt("cinder_store_user_name", help="User to act as."),
        cfg.StrOpt("cinder_store_password", secret=True, help="The user's password."),
        cfg.StrOpt("cinder_store_project_name", help="Project that owns the volumes."),
        cfg.StrOpt(
            "rootwrap_config",
            default="/etc/glance/rootwrap.conf",
            help="Configuration of glance-rootwrap, which attaches volumes as root.",
        ),
        cfg.IntOpt(
            "cinder_store_operation_timeout",
            default=60,
            min=1,
            help="Seconds after which a request to Cinder, or an operation on a volume in "
            "Ceph, has failed.",
        ),
        cfg.StrOpt(
            "cinder_store_lock_path",
            default="/var/lib/glance/os-brick",
            help="Directory for os-brick's locks; share it with other services on this host that "
            "attach volumes.",
        ),
    )

    def __init__(self, conf: Mapping[str, Any]) -> None:
        super().__init__(conf)
        self._access = Access(conf)
        self._host = Host(
            conf["rootwrap_config"],
            conf["cinder_store_lock_path"],
            conf["cinder_store_operation_timeout"],
        )
        self._patience: float = conf["cinder_state_transition_timeout"]
        self._claims = Claims()
        self._readings: dict[str, _Reading] = {}
        self._counting = threading.Lock()

    def add(self, ctx: RequestContext, image_id: str, upload: Upload) -> tuple[str, dict[str, Any]]:
        volumes = self._access.volumes(ctx)
        metadata = {_IMAGE_ID: image_id, _OWNER: ctx.tenant or ""}
        token = uuid.uuid4().hex
        with self._claims.hold(image_id):
            if _volumes_of(volumes, image_id):
                raise errors.Duplicate()
            try:
                volume = self._create(volumes, image_id, {**metadata, _UPLOAD: token}, upload.size)
                written = self._fill(volumes, volume, upload)
                volumes.finish(volume.id, {**metadata, _SIZE: str(written)})
            except BaseException:
                self._undo(volumes, image_id, token)
                raise
        return f"cinder://{volume.id}", {}

    def get(
        self, ctx: RequestContext, url: str, offset: int = 0, length: int | None = None
    ) -> Body:
        volumes = self._access.volumes(ctx)
        volume = volumes.get(volume_id_of(url))
        available = max(image_size(volume) - offset, 0)
        wanted = available if length is None else min(length, available)
        if not wanted:
            return empty()
        with contextlib.ExitStack() as held:
            device = held.enter_context(self._shared(volumes, volume))
            return ReadAheadBody(device.read, offset, wanted, device_errors, held.pop_all())

    def size(self, ctx: RequestContext, url: str) -> int:
        return image_size(self._access.volumes(ctx).get(volume_id_of(url)))

    def delete(self, ctx: RequestContext, url: str) -> None:
        self._access.volumes(ctx).delete(volume_id_of(url))

    def discard(self, ctx: RequestContext, image_id: str) -> None:
        """ctx must have credentials that see the volumes, or the configuration."""
        volumes = self._access.volumes(ctx)
        self._remove_when_free(volumes, lambda: _volumes_of(volumes, image_id))

    def validate(self, url: str) -> None:
        volume_id_of(url)

    def lends_rights(self, ctx: RequestContext, url: str) -> bool:
        return self._access.is_own

    def _create(
        self, volumes: Volumes, image_id: str, metadata: Mapping[str, str], size: int | None
    ) -> Volume:
        gibibytes = max(-(-(size or 0) // _GIB), 1)
        volume = volumes.create(_name_of(image_id), gibibytes, metadata)
        # Names need not be unique: of two that both found nothing, the older one stays.
        found = min(_volumes_of(volumes, image_id), key=lambda one: (one.created_at, one.id))
        if found.id != volume.id:
            raise errors.Duplicate()
        return volumes.wait(volume.id, "available", ("creating", "downloading"))

    def _fill(self, volumes: Volumes, volume: Volume, upload: Upload) -> int:
        offset, chunk = 0, upload.read_full(_CHUNK)
        while chunk:
            if offset + len(chunk) > volume.gibibytes * _GIB:
                # One GiB at first, then by an eighth: neither many extensions nor much waste.
                larger = volume.gibibytes + max(volume.gibibytes // 8, 1)
                volume = volumes.extend(volume.id, larger)
            with self._attached(volumes, volume, "rw") as device:
                end, writing = volume.gibibytes * _GIB, Behind(depth=2)
                try:
                    while chunk and offset + len(chunk) <= end:
                        with device_errors():
                            writing.start(device.write, offset, chunk)
                        offset += len(chunk)
                        chunk = upload.read_full(_CHUNK)
                finally:
                    with device_errors():
                        writing.wait()
                with device_errors():
                    offload(device.flush)
            volumes.wait(volume.id, "available", ("in-use", "detaching"))
        return offset

    @contextlib.contextmanager
    def _attached(self, volumes: Volumes, volume: Volume, mode: str) -> Iterator[Device]:
        """The volume as a device of this host; whatever happens, it is detached afterwards."""
        attachment = volumes.attachment(volume.id, mode, self._host.properties())
        try:
            info = attachment.begin()
            with self._host.connected(info, volume.gibibytes, mode) as device:
                attachment.complete()
                yield device
        finally:
            try:
                attachment.end()
            except errors.GlanceError:
                LOG.error("Volume %s could not be detached", volume.id)
                raise

    def _attached_when_free(
        self, volumes: Volumes, volume: Volume, held: contextlib.ExitStack
    ) -> Device:
        """Attach for reading, after other processes have let go of the volume."""
        refusals = 0
        for _ in attempts(self._patience):
            try:
                return held.enter_context(self._attached(volumes, volume, "ro"))
            except Refused:
                # It may be free again by now; a volume that is free and refused stays so.
                refusals += volumes.get(volume.id).status == "available"
                if refusals > _MOST_REFUSALS:
                    raise
        LOG.error("Volume %s is in use elsewhere", volume.id)
        raise BackendUnavailable()

    @contextlib.contextmanager
    def _shared(self, volumes: Volumes, volume: Volume) -> Iterator[Device]:
        """The volume attached for reading, together with everybody else in this process who is
        reading it: a second attachment would be refused."""
        with self._counting:
            reading = self._readings.setdefault(volume.id, _Reading())
            reading.users += 1
        try:
            yield self._device_of(reading, volumes, volume)
        finally:
            with self._counting:
                reading.users -= 1
                last = not reading.users
                if last:
                    self._leave(reading, volume)
            if last:
                # That it failed has been logged; who was reading has all the bytes.
                with contextlib.suppress(errors.GlanceError):
                    reading.held.close()

    def _device_of(self, reading: _Reading, volumes: Volumes, volume: Volume) -> Device:
        with reading.lock:
            if reading.failed:
                raise BackendUnavailable()
            if reading.device is None:
                try:
                    reading.device = self._attached_when_free(volumes, volume, reading.held)
                except BaseException:
                    # Those who have waited fail with it; who comes now tries anew.
                    reading.failed = True
                    with self._counting:
                        self._leave(reading, volume)
                    raise
            return reading.device

    def _leave(self, reading: _Reading, volume: Volume) -> None:
        if self._readings.get(volume.id) is reading:
            del self._readings[volume.id]

    def _undo(self, volumes: Volumes, image_id: str, token: str) -> None:
        """Remove what this upload has made, even if Cinder's answer to that was lost."""

        def made() -> list[Volume]:
            found = _volumes_of(volumes, image_id)
            return [volume for volume in found if volume.metadata.get(_UPLOAD) == token]

        try:
            self._remove_when_free(volumes, made)
        except errors.GlanceError:
            LOG.error("A volume of image %s was left in Cinder", image_id)

    def _remove_when_free(self, volumes: Volumes, find: Callable[[], list[Volume]]) -> None:
        """Remove the volumes that find returns.

        The process that used one, ourselves included, may be gone without Ceph having noticed.
        """
        for _ in attempts(_WATCH_EXPIRES):
            with contextlib.suppress(errors.InUse):
                for volume in find():
                    self._remove(volumes, volume)
                return
        raise BackendUnavailable()

    def _remove(self, volumes: Volumes, volume: Volume) -> None:
        with contextlib.suppress(errors.NotFound):
            if volume.status not in ("available", "error"):
                volumes.forget_attachments(volume.id, self._host.disconnect)
                with contextlib.suppress(BackendUnavailable):
                    volumes.wait(volume.id, "available", _PASSING)
            volumes.delete(volume.id)


def _name_of(image_id: str) -> str:
    return f"image-{image_id}"


def _volumes_of(volumes: Volumes, image_id: str) -> list[Volume]:
    named = volumes.named(_name_of(image_id))
    return [volume for volume in named if volume.metadata.get(_IMAGE_ID) == image_id]
