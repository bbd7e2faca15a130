"""Images and members as the JSON documents that the daemons exchange (registry-v1.md section 3).

The registry writes these and the API's registry client reads them back, so both directions
stand side by side here.
"""

from collections.abc import Mapping
from datetime import datetime
from operator import attrgetter, itemgetter
from typing import Any

from common.image import BRIEF_FIELDS, CORE_FIELDS, Image, Location, Member


def format_time(moment: datetime | None) -> str | None:
    """`YYYY-MM-DDTHH:MM:SS.ffffff`, always with six digits of fraction, UTC, no zone."""
    return None if moment is None else moment.isoformat(timespec="microseconds")


def parse_time(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)


_TIME_FIELDS = ("created_at", "updated_at", "deleted_at")
_PLAIN_FIELDS = tuple(name for name in CORE_FIELDS if name not in _TIME_FIELDS)
_plain_values = attrgetter(*_PLAIN_FIELDS)

# In the order of Image's own fields.
_core_values = itemgetter(*CORE_FIELDS)


def image_fields(image: Image) -> dict[str, Any]:
    """The core fields and properties of an image, ready for JSON; never a location."""
    # A list makes a hundred of these, so it is spelled out.
    document: dict[str, Any] = dict(zip(_PLAIN_FIELDS, _plain_values(image), strict=True))
    document["created_at"] = format_time(image.created_at)
    document["updated_at"] = format_time(image.updated_at)
    document["deleted_at"] = format_time(image.deleted_at)
    document["properties"] = image.properties
    return document


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
    document: dict[str, Any] = {
        "url": location.url,
        "metadata": location.metadata,
        "status": location.status,
    }
    if location.id is not None:
        document["id"] = location.id
    return document


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
