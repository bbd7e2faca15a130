"""JSON bodies of requests as domain values; whatever cannot be stored is refused here.

The registry does not ask whether values make sense for an image: formats, sizes and checksums
are stored as given (registry-v1.md section 1). It does ask whether they can be stored, on every
database, and read back out of a header.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

from common import errors
from common.image import ACTIVE, DELETED, PENDING_DELETE, STATUSES, Change, Location
from common.query import is_uuid_like
from glance_registry.lease_bodies import parse_lease
from glance_registry.values import (
    MAX_INT32,
    MAX_INT64,
    optional_text,
    parse_boolean,
    parse_integer,
    require_long_text,
    require_object,
    require_text,
)

_MAX_ID: Final = 36
_MAX_OWNER: Final = 255

_LENGTHS: Final = {
    "name": 255,
    "disk_format": 20,
    "container_format": 20,
    "checksum": 32,
    "owner": _MAX_OWNER,
    "status": 30,
    "os_hash_algo": 64,
    "os_hash_value": 128,
}
_BOOLEANS: Final = ("is_public", "protected")
_LOCATION_STATUSES: Final = frozenset({ACTIVE, PENDING_DELETE, DELETED})


def new_image(body: Any) -> Change:
    """The body of POST /images, with its lease. Raises Invalid naming the field."""
    change = _change(body)
    image_id = change.fields.get("id")
    if not image_id:
        change.fields.pop("id", None)
    elif len(image_id) > _MAX_ID or not image_id.isascii() or not is_uuid_like(image_id):
        raise errors.Invalid("Invalid image id format.")
    return change


def image_change(body: Any, *, purge: bool) -> Change:
    """The body of PUT /images/{id}. Raises Invalid naming the field."""
    change = _change(body)
    change.purge = purge
    change.from_state = optional_text(body, "from_state", 30)
    change.end_lease = optional_text(body, "end_lease", 64)
    return change


def _change(body: Any) -> Change:
    document = require_object(require_object(body, "the body").get("image"), "image")
    change = Change(
        fields=_fields(document),
        properties=_properties(document.get("properties")),
        locations=_locations(document),
    )
    if body.get("lease") is not None:
        change.lease, change.quota = parse_lease(require_object(body["lease"], "lease"))
    return change


def _fields(document: Mapping[str, Any]) -> dict[str, Any]:
    """The core fields; times and the deleted flag are the registry's own and are not read."""
    fields: dict[str, Any] = {}
    for name, parse in _PARSERS.items():
        if name in document:
            fields[name] = parse(name, document[name])
    if "status" in fields and fields["status"] not in STATUSES:
        raise errors.Invalid("Invalid image status for image.")
    # No owner is null, never empty text: an empty owner would own what has none.
    if fields.get("owner") == "":
        fields["owner"] = None
    return fields


def _text(name: str, value: Any) -> str | None:
    return None if value is None else require_text(name, value, _LENGTHS.get(name, _MAX_ID))


def _flag(name: str, value: Any) -> bool:
    return False if value is None else parse_boolean(name, value)


def _bytes(name: str, value: Any) -> int | None:
    return None if value is None else parse_integer(name, value, -MAX_INT64 - 1, MAX_INT64)


def _requirement(name: str, value: Any) -> int:
    return 0 if value is None else parse_integer(name, value, -MAX_INT32 - 1, MAX_INT32)


_PARSERS: Final[dict[str, Callable[[str, Any], Any]]] = {
    "id": _text,
    **dict.fromkeys(_LENGTHS, _text),
    **dict.fromkeys(_BOOLEANS, _flag),
    "size": _bytes,
    "virtual_size": _bytes,
    "min_disk": _requirement,
    "min_ram": _requirement,
}


def _properties(value: Any) -> dict[str, str | None] | None:
    if value is None:
        return None
    properties = require_object(value, "properties")
    for name, content in properties.items():
        require_text("a property's name", name, 255)
        if content is not None:
            require_long_text("a property", content)
    return properties


def _locations(document: Mapping[str, Any]) -> list[Location] | None:
    """`location`, then what `location_data` adds; one entry per URL, described by the latter."""
    entries = document.get("location_data")
    if entries is not None and not isinstance(entries, list):
        raise errors.Invalid("Invalid value for location_data: must be a list.")
    url = document.get("location")
    found = [Location(require_long_text("location", url))] if url else []
    found += [_location(require_object(entry, "location_data")) for entry in entries or ()]
    by_url = {location.url: location for location in found}
    return list(by_url.values()) or None


def _location(entry: Mapping[str, Any]) -> Location:
    status = entry.get("status") or ACTIVE
    if not isinstance(status, str) or status not in _LOCATION_STATUSES:
        raise errors.Invalid("Invalid value for location_data: unknown status.")
    number, metadata = entry.get("id"), entry.get("metadata")
    return Location(
        require_long_text("location", entry.get("url")),
        {} if metadata is None else require_object(metadata, "location_data"),
        status,
        None if number is None else parse_integer("location_data", number, 1, MAX_INT32),
    )


def member_share(body: Any) -> bool | None:
    """The body of PUT .../members/{id}; None where there is none."""
    if body is None:
        return None
    member = require_object(require_object(body, "the body").get("member"), "member")
    if "can_share" not in member:
        raise errors.Invalid("Invalid value for member: can_share is missing.")
    return parse_boolean("can_share", member["can_share"])


def memberships(body: Any) -> dict[str, bool | None]:
    """The body of PUT .../members; the last entry for a member wins (D14)."""
    entries = require_object(body, "the body").get("memberships")
    if not isinstance(entries, list):
        raise errors.Invalid("Invalid value for memberships: must be a list.")
    wanted: dict[str, bool | None] = {}
    for entry in entries:
        member = member_id(require_object(entry, "memberships").get("member_id"))
        shared = entry.get("can_share")
        wanted[member] = None if shared is None else parse_boolean("can_share", shared)
    return wanted


def member_id(value: Any) -> str:
    member = require_text("member_id", value, _MAX_OWNER)
    if not member:
        raise errors.Invalid("Invalid value for member_id: must not be empty.")
    return member
