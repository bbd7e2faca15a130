"""Single values out of JSON, checked: what every database holds and every header can carry."""

import re
from collections.abc import Mapping
from typing import Any, Final

from common import errors

MAX_INT32: Final = 2**31 - 1
MAX_INT64: Final = 2**63 - 1
MAX_TEXT: Final = 65535  # bytes in a TEXT column of MySQL

_WORDS: Final = {
    **dict.fromkeys(("true", "t", "yes", "y", "on", "1"), True),
    **dict.fromkeys(("false", "f", "no", "n", "off", "0", ""), False),
}

# Control characters could forge a header (SEC-063); the rest is beyond what a database of
# MySQL's "utf8" holds, or not text at all.
_UNSTORABLE: Final = re.compile("[\x00-\x1f\x7f\ud800-\udfff\U00010000-\U0010ffff]")


def require_object(value: Any, name: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise errors.Invalid(f"Invalid value for {name}: must be an object.")
    return value


def require_text(name: str, value: Any, longest: int) -> str:
    """value, if it is text that every database can hold and every header can carry."""
    if not isinstance(value, str):
        raise errors.Invalid(f"Invalid value for {name}: must be text.")
    if len(value) > longest:
        raise errors.Invalid(f"Invalid value for {name}: longer than {longest} characters.")
    if _UNSTORABLE.search(value):
        raise errors.Invalid(
            f"Invalid value for {name}: holds a control character, or one beyond U+FFFF."
        )
    return value


def parse_boolean(name: str, value: Any) -> bool:
    """A JSON boolean or a boolean word (R03, D12); anything else is refused."""
    if isinstance(value, bool):
        return value
    word = str(value).strip().lower() if isinstance(value, str | int) else None
    if word not in _WORDS:
        raise errors.Invalid(f"Invalid value for {name}: must be true or false.")
    return _WORDS[word]


def parse_integer(name: str, value: Any, least: int, most: int) -> int:
    if isinstance(value, str):
        try:
            value = int(value)
        except ValueError:
            value = None
    if not isinstance(value, int) or isinstance(value, bool):
        raise errors.Invalid(f"Invalid value for {name}: must be an integer.")
    if not least <= value <= most:
        raise errors.Invalid(f"Invalid value for {name}: value out of range.")
    return value


def require_long_text(name: str, value: Any) -> str:
    """`require_text` for a TEXT column, whose limit is in bytes."""
    text = require_text(name, value, MAX_TEXT)
    if len(text.encode()) > MAX_TEXT:
        raise errors.Invalid(f"Invalid value for {name}: longer than {MAX_TEXT} bytes.")
    return text


def optional_text(body: Mapping[str, Any], name: str, longest: int) -> str | None:
    value = body.get(name)
    return None if value is None else require_text(name, value, longest)
