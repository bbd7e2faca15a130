"""Images and members as the JSON documents that the daemons exchange (registry-v1.md section 3).

The registry writes these and the API's registry client reads them back, so both directions
stand side by side here.
"""

from collections.abc import Mapping
from datetime import datetime
from operator import itemgetter
from typing import Any

from common.image import BRIEF_FIELDS, CORE_FIELDS, Image, Location, Member


def format_time(moment: datetime | None) -> str | None:
    """`YYYY-MM-DDTHH:MM:SS.ffffff`, always with six digits of fraction, UTC, no zone."""
    return None if moment is None else moment.isoformat("T", "microseconds")


def parse_time(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)


def _json_time(moment: datetime | None) -> datetime | str | None:
    """What the JSON encoder writes as `format_time` does. It writes times itself, six times
    faster, but a whole second without its fraction."""
    return moment if moment is None or moment.microsecond else format_time(moment)


# In the order of Image's own fields.
_core_values = itemgetter(*CORE_FIELDS)


def image_fields(image: Image) -> dict[str, Any]:
    """The CORE_FIELDS and properties of an image, ready for JSON; never a location."""
    # Written out, because a list makes a hundred of these: 45 microseconds for them, not 215.
    return {
        "id": image.id,
        "name": image.name,
        "status": image.status,
        "size": image.size,
        "virtual_size": image.virtual_size,
        "disk_format": image.disk_format,
        "container_format": image.container_format,
        "min_disk": image.min_disk,
        "min_ram": image.min_ram,
        "is_public": image.is_public,
        "protected": image.protected,
        "owner": image.owner,
        "checksum": image.checksum,
        "created_at": _json_time(image.created_at),
        "updated_at": _json_time(image.updated_at),
        "deleted_at": _json_time(image.deleted_at),
        "deleted": image.deleted,
        "properties": image.properties,
    }


def brief_fields(image: Image) -> dict[str, Any]:
    return {name: getattr(image, name) for name in BRIEF_FIELDS}


def image_document(image: Image) -> dict[str, Any]:
    """The registry's document: all fields plus `location_data` and `location`."""
    document = image_fields(image)
    locations = image.locations
    document["location_data"] = [location_document(location) for location in locations]
    current = image.location if locations else None
    document["location"] = current.url if current is not None else None
    return document


def location_document(location: Location) -> dict[str, Any]:
    found = {"url": location.url, "metadata": location.metadata, "status": location.status}
    return found if location.id is None else {**found, "id": location.id}


def image_from_document(document: Mapping[str, Any]) -> Image:
    """Read a registry document, whole or brief. Keys it lacks keep the Image's defaults."""
    try:
        image = Image(*_core_values(document))
    except KeyError:
        return Image(**{name: document[name] for name in BRIEF_FIELDS})
    image.created_at = parse_time(document["created_at"])
    image.updated_at = parse_time(document["updated_at"])
    image.deleted_at = parse_time(document["deleted_at"])
    image.properties = document["properties"]
    if locations := document["location_data"]:
        image.locations = [location_from_document(item) for item in locations]
    return image


def location_from_document(document: Mapping[str, Any]) -> Location:
    return Location(
        url=document["url"],
        metadata=document.get("metadata") or {},
        status=document.get("status", "active"),
        id=document.get("id"),
    )


def member_from_document(image_id: str, document: Mapping[str, Any]) -> Member:
    return Member(image_id, document["member_id"], document["can_share"])
