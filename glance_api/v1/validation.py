"""What v1 asks of metadata before anything is looked up or stored (images-v1.md sections 8, 11)."""

import uuid
from collections.abc import Mapping
from typing import Any, Final

from common import errors
from common.image import ACTIVE, QUEUED, Change, Image
from common.query import is_uuid_like
from glance_api.formats import Formats, apply_amazon_rule
from glance_api.layers.base import Source
from glance_api.v1.headers import Meta

_MAX_NAME: Final = 255
_MAX_CHECKSUM: Final = 32
_MAX_ID: Final = 36


def check_fields(fields: dict[str, Any], formats: Formats) -> None:
    """Check, and complete by the Amazon rule, what a POST or PUT sent. Raises Invalid."""
    _check_format(fields, "disk_format", formats.disk)
    _check_format(fields, "container_format", formats.container)
    apply_amazon_rule(fields)
    name = fields.get("name")
    if name is not None and len(name) > _MAX_NAME:
        raise errors.Invalid(f"Invalid value for name: longer than {_MAX_NAME} characters.")
    checksum = fields.get("checksum")
    if checksum is not None and len(checksum) > _MAX_CHECKSUM:
        raise errors.Invalid(f"Invalid checksum: longer than {_MAX_CHECKSUM} characters.")


def _check_format(fields: Mapping[str, Any], name: str, allowed: frozenset[str]) -> None:
    if name in fields and fields[name] not in allowed:
        raise errors.Invalid(f"Invalid {name.replace('_', ' ')} {fields[name]!r} for image.")


def check_size_cap(meta: Meta, source: Source, cap: int) -> None:
    """The declared length, else the size header, must be within image_size_cap."""
    declared = source.body_size or meta.fields.get("size") or 0
    if declared > cap:
        raise errors.Invalid(f"Denying attempt to upload image larger than {cap} bytes.")


def new_image(meta: Meta, source: Source, owner: str | None) -> Image:
    """The record a POST asks for; of owner, unless it names another."""
    fields = {"owner": owner, **meta.fields}
    image_id = fields.pop("id", None)
    if image_id is None:
        image_id = str(uuid.uuid4())
    elif len(image_id) > _MAX_ID or not is_uuid_like(image_id) or not image_id.isascii():
        raise errors.Invalid("Invalid value for id: must be a UUID.")
    for name in ("status", "created_at", "updated_at"):
        fields.pop(name, None)
    # v1 takes a declared size of zero as complete: there is nothing to upload. With a source
    # the bytes are still to come (D06).
    empty = fields.get("size") == 0 and not source.brings_data
    fields.setdefault("size", 0)
    return Image(
        id=image_id,
        status=ACTIVE if empty else QUEUED,
        properties=dict(meta.properties),
        **fields,
    )


def requested_change(meta: Meta, source: Source) -> Change:
    """What a PUT asks to change. A request with a body never purges (section 11.3)."""
    fields = {
        name: value
        for name, value in meta.fields.items()
        if name not in ("created_at", "updated_at")
    }
    return Change(
        fields=fields,
        properties=dict(meta.properties),
        purge=meta.purge and source.body is None,
    )
