"""ListQuery: what a list request asks for, parsed once and encoded once.

The API parses a caller's query string and encodes the result for the registry, which parses it
again with its own, slightly wider rules (images-v1.md section 6, registry-v1.md section 4).
"""

import csv
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, Literal
from urllib.parse import urlencode

from oslo_utils import timeutils

from common import errors
from common.documents import format_time

# What an admin may widen a list to. `visible`: what the caller sees as an ordinary user;
# `private`: every image that is not public; `all`: every image.
Scope = Literal["visible", "private", "all"]

SORT_KEYS: Final = (
    "name",
    "status",
    "container_format",
    "disk_format",
    "size",
    "id",
    "created_at",
    "updated_at",
)
MATCH_FILTERS: Final = ("name", "status", "container_format", "disk_format")

# Each property filter costs an index look-up per row (SEC-076).
MAX_PROPERTY_FILTERS: Final = 16

_BOOLEAN_WORDS: Final = frozenset({"true", "t", "yes", "y", "on", "1"})


@dataclass(slots=True)
class ListQuery:
    """One page of a list.

    `matches` maps a field to the values it may have. `changes_since` is naive UTC, and keeps
    images changed strictly later, deleted ones included. `deleted` None means "not deleted,
    unless changes_since is given". `limit` None leaves the page size to the registry.
    """

    scope: Scope = "visible"
    matches: dict[str, tuple[str, ...]] = field(default_factory=dict)
    properties: dict[str, str] = field(default_factory=dict)
    size_min: int | None = None
    size_max: int | None = None
    min_ram: int | None = None
    min_disk: int | None = None
    protected: bool | None = None
    changes_since: datetime | None = None
    deleted: bool | None = None
    marker: str | None = None
    limit: int | None = None
    sort_key: str = "created_at"
    sort_dir: Literal["asc", "desc"] = "desc"

    def encode(self) -> str:
        """The query string that `parse_registry` reads back as an equal query."""
        params: list[tuple[str, str]] = [
            (name, _encode_match(values)) for name, values in self.matches.items()
        ]
        params += [(f"property-{name}", value) for name, value in self.properties.items()]
        for name in ("size_min", "size_max", "min_ram", "min_disk", "limit"):
            if (number := getattr(self, name)) is not None:
                params.append((name, str(number)))
        for name in ("protected", "deleted"):
            if (flag := getattr(self, name)) is not None:
                params.append((name, str(flag)))
        if self.scope != "visible":
            params.append(("is_public", "none" if self.scope == "all" else "False"))
        if self.changes_since is not None:
            params.append(("changes-since", str(format_time(self.changes_since))))
        if self.marker is not None:
            params.append(("marker", self.marker))
        params += [("sort_key", self.sort_key), ("sort_dir", self.sort_dir)]
        return urlencode(params)


def parse_public(params: Mapping[str, str], *, is_admin: bool) -> ListQuery:
    """Read the public API's parameters. Raises Invalid, naming the parameter.

    `is_public` is checked for everybody and obeyed for admins; `deleted`, `owner` and anything
    unknown are ignored (images-v1.md section 6.1).
    """
    query = _parse_common(params)
    if "is_public" in params:
        scope = _parse_scope(params["is_public"])
        if is_admin:
            query.scope = scope
    return query


def parse_registry(params: Mapping[str, str], *, is_admin: bool) -> ListQuery:
    """Read the registry's parameters: `is_public` and `deleted` exist for admins only."""
    query = _parse_common(params)
    if is_admin:
        if "is_public" in params:
            query.scope = _parse_scope(params["is_public"])
        if "deleted" in params:
            query.deleted = parse_boolean(params["deleted"])
    return query


def parse_boolean(text: str) -> bool:
    """v1's boolean words; anything else is false (images-v1.md section 4.1)."""
    return text.strip().lower() in _BOOLEAN_WORDS


def is_uuid_like(text: str) -> bool:
    """True for text that is 32 hex digits without `urn:`, `uuid:`, braces and dashes."""
    bare = text.replace("urn:", "").replace("uuid:", "").strip("{}").replace("-", "").lower()
    try:
        return uuid.UUID(bare).hex == bare
    except ValueError:
        return False


def _parse_common(params: Mapping[str, str]) -> ListQuery:
    query = ListQuery()
    for name in MATCH_FILTERS:
        if name in params:
            query.matches[name] = _parse_match(params[name])
    for name in ("size_min", "size_max", "min_ram", "min_disk", "limit"):
        if name in params:
            setattr(query, name, _parse_count(name, params[name]))
    for name, value in params.items():
        if name.startswith("property-"):
            query.properties[name.removeprefix("property-")] = value
    if len(query.properties) > MAX_PROPERTY_FILTERS:
        raise errors.Invalid(f"At most {MAX_PROPERTY_FILTERS} property filters are allowed.")
    if "protected" in params:
        query.protected = _parse_flag("protected", params["protected"])
    if "changes-since" in params:
        query.changes_since = _parse_moment(params["changes-since"])
    if "marker" in params:
        query.marker = _parse_marker(params["marker"])
    _parse_sorting(query, params)
    return query


def _parse_sorting(query: ListQuery, params: Mapping[str, str]) -> None:
    key = params.get("sort_key", query.sort_key)
    if key not in SORT_KEYS:
        raise errors.Invalid(f"Invalid sort_key: must be one of {', '.join(SORT_KEYS)}")
    query.sort_key = key
    direction = params.get("sort_dir", query.sort_dir)
    if direction == "asc":
        query.sort_dir = "asc"
    elif direction != "desc":
        raise errors.Invalid("Invalid sort_dir: must be asc or desc")


def _parse_match(text: str) -> tuple[str, ...]:
    # An unknown word before the colon is part of the value (D21).
    operator, colon, rest = text.partition(":")
    if colon and operator == "eq":
        return (rest,)
    if colon and operator == "in":
        try:
            return tuple(next(csv.reader([rest]), []))
        except csv.Error:
            raise errors.Invalid("Invalid value: a line break must be quoted.") from None
    return (text,)


def _encode_match(values: tuple[str, ...]) -> str:
    if len(values) == 1:
        return f"eq:{values[0]}"
    quoted = ('"{}"'.format(value.replace('"', '""')) for value in values)
    return "in:" + ",".join(quoted)


def _parse_count(name: str, text: str) -> int:
    try:
        number = int(text)
    except ValueError:
        raise errors.Invalid(f"Invalid value for {name}: must be an integer") from None
    if number < 0:
        raise errors.Invalid(f"Invalid value for {name}: must not be negative")
    if number >= 2**63:
        raise errors.Invalid(f"Invalid value for {name}: value out of range")
    return number


def _parse_flag(name: str, text: str) -> bool:
    flags = {"true": True, "1": True, "false": False, "0": False}
    if text.lower() not in flags:
        raise errors.Invalid(f"Invalid value for {name}: must be true or false")
    return flags[text.lower()]


def _parse_scope(text: str) -> Scope:
    if text.lower() == "none":
        return "all"
    try:
        return "visible" if _parse_flag("is_public", text) else "private"
    except errors.Invalid:
        raise errors.Invalid("Invalid value for is_public: must be true, false or none") from None


def parse_timestamp(name: str, text: str) -> datetime:
    """ISO 8601 text as naive UTC. Raises Invalid naming the field; years before 1900 too."""
    try:
        normal: datetime = timeutils.normalize_time(timeutils.parse_isotime(text))
    except (ValueError, OverflowError):
        raise errors.Invalid(f"Invalid value for {name}: must be an ISO 8601 time") from None
    if normal.year < 1900:
        raise errors.Invalid(f"Invalid value for {name}: the year must not be before 1900")
    return normal


def _parse_moment(text: str) -> datetime:
    return parse_timestamp("changes-since", text)


def _parse_marker(text: str) -> str:
    if not is_uuid_like(text):
        raise errors.Invalid("Invalid marker: must be an image id")
    return text
