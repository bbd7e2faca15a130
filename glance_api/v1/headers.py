"""x-image-meta-* headers <-> images (images-v1.md sections 3 and 4)."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

import webob

from common import errors
from common.documents import format_time
from common.image import CORE_FIELDS, Image
from common.query import parse_boolean, parse_timestamp
from common.wsgi.filters import decode_value

_META: Final = "x-image-meta-"
_PROPERTY: Final = "property-"

_INTEGERS: Final = ("size", "min_disk", "min_ram", "virtual_size")
_BOOLEANS: Final = ("is_public", "protected", "deleted")
_TIMES: Final = ("created_at", "updated_at", "deleted_at")
_IGNORED: Final = ("copy_from", "uri")
_FIELDS: Final = frozenset({*CORE_FIELDS, "location", "store", *_IGNORED})

_MAX_INTEGER: Final = 2**63 - 1

_INTEGER: Final = re.compile(r"\s*[+-]?[0-9]+\s*\Z")
_MOST_DIGITS: Final = 1000


@dataclass(slots=True)
class Meta:
    """What a request's metadata headers say.

    `fields` holds the core fields that were sent, typed; a header sent empty is None there.
    `location` and `copy_from` are "" where the header was sent empty.
    """

    fields: dict[str, Any] = field(default_factory=dict)
    properties: dict[str, str | None] = field(default_factory=dict)
    location: str | None = None
    copy_from: str | None = None
    store: str | None = None
    purge: bool = True


def read_meta(environ: Mapping[str, Any], decode_mode: str) -> Meta:
    """Read the metadata headers of a POST or PUT. Raises Invalid naming the field.

    WSGI's own variables cannot be used: the server leaves out header names with an underscore,
    which v1 is full of (SEC-060).
    """
    meta = Meta()
    texts: dict[str, str] = {}
    for name, raw in environ["headers_raw"]:
        lowered = name.lower()
        if lowered == "x-glance-api-copy-from":
            if meta.copy_from is not None:
                raise errors.Invalid(f"Invalid value: header {lowered} was sent twice.")
            meta.copy_from = _check_text("copy_from", decode_value(environ, raw, decode_mode))
        elif lowered == "x-glance-registry-purge-props":
            meta.purge = parse_boolean(raw)
        elif lowered.startswith(_META):
            key = lowered[len(_META) :].replace("-", "_")
            if key in texts:
                raise errors.Invalid(f"Invalid value: header {_META}{key} was sent twice.")
            texts[key] = _check_text(key, decode_value(environ, raw, decode_mode))
    for key, text in texts.items():
        _read_one(meta, key, text)
    _convert(meta)
    return meta


def _read_one(meta: Meta, key: str, text: str) -> None:
    if key.startswith("property_"):
        meta.properties[key[len("property_") :]] = text or None
    elif key not in _FIELDS:
        raise errors.Invalid(f"Bad header: {_META}{key} is not an image field.")
    elif key == "location":
        meta.location = text
    elif key == "store":
        meta.store = text
    elif key not in _IGNORED:
        meta.fields[key] = text or None


def _convert(meta: Meta) -> None:
    fields = meta.fields
    for name in _INTEGERS:
        if name in fields:
            fields[name] = _parse_integer(name, fields[name])
    for name in _BOOLEANS:
        if name in fields:
            fields[name] = parse_boolean(fields[name] or "")
    for name in _TIMES:
        if name in fields:
            text = fields.pop(name)
            if text is not None:
                fields[name] = parse_timestamp(name, text)
    fields.pop("deleted", None)
    fields.pop("deleted_at", None)


def _parse_integer(name: str, text: str | None) -> int | None:
    if name == "virtual_size" and text == "None":
        return None
    if text is None or not _INTEGER.match(text):
        if name == "size":
            message = f"Invalid value: Cannot convert image size {text!r} to an integer."
        else:
            message = f"Invalid value {text!r} for {name}: must be an integer."
        raise errors.Invalid(message)
    # Of so many digits that int() refuses to read them.
    number = int(text) if len(text) < _MOST_DIGITS else _MAX_INTEGER + 1
    if number < 0:
        raise errors.Invalid(f"Invalid value {number} for {name}: Cannot be a negative value.")
    if number > _MAX_INTEGER:
        raise errors.Invalid(f"Invalid value for {name}: value out of range.")
    return number


def _check_text(name: str, text: str) -> str:
    if any(character > "\uffff" for character in text):
        raise errors.Invalid(f"Invalid value for {name}: characters beyond U+FFFF.")
    return text


def _wire(text: str) -> str:
    """UTF-8 bytes as WSGI wants them; what would end the header early is percent-encoded."""
    if not text.isprintable():
        text = "".join(f"%{ord(c):02X}" if c < " " or c == "\x7f" else c for c in text)
    return text.encode("utf-8", "replace").decode("latin-1")


def etag(checksum: str) -> tuple[str, str]:
    """Until there are bytes, a checksum is whatever its owner has declared."""
    return "ETag", _wire(checksum)


def add_image_headers(response: webob.Response, image: Image) -> None:
    """Describe image in headers. What goes out is chosen here; a location never does."""
    headers = response.headerlist
    for name in CORE_FIELDS:
        value = getattr(image, name)
        if value is None:
            continue
        text = format_time(value) if isinstance(value, datetime) else str(value)
        headers.append((f"{_META}{name}", _wire(str(text))))
    for name, text in image.properties.items():
        if text is not None:
            headers.append((_wire(f"{_META}{_PROPERTY}{name.lower()}"), _wire(text)))
    if image.checksum is not None:
        headers.append(etag(image.checksum))
