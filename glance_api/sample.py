"""Writes the sample configuration files: `python -m glance_api.sample DIRECTORY`.

They come from the same tables that `common.config` registers, from the enabled drivers' entry
points and from the source filter, so that a sample never promises an option that is not there.
"""

import sys
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from oslo_config import cfg, types

from common.options import AREAS, Area
from common.options.area import StorageQuota
from glance_store.loader import option_groups

_WIDTH: Final = 78

FILES: Final = {
    "glance-api.conf": "A",
    "glance-registry.conf": "R",
    "glance-cache.conf": "C",
    "glance-scrubber.conf": "S",
    "glance-manage.conf": "M",
}

_HEADINGS: Final = {
    "glance-api.conf": "Options of glance-api.",
    "glance-registry.conf": "Options of glance-registry.",
    "glance-cache.conf": "Options of the image cache's programs, which this version does not have.",
    "glance-scrubber.conf": "Options of glance-scrubber.",
    "glance-manage.conf": "Options of glance-manage. It reads glance-registry.conf and "
    "glance-api.conf first, so there is seldom a reason for this file.",
}

_SECTIONS: Final = {
    "keystone_authtoken": "Of the token filter in the keystone flavors. See the documentation of "
    "keystonemiddleware for more. admin_user, admin_password, admin_tenant_name and identity_uri "
    "of older files are understood too.",
    "profiler": "Of the osprofiler filter.",
    "oslo_messaging_rabbit": "Of oslo.messaging, with its driver for RabbitMQ.",
    "oslo_messaging_amqp": "Of oslo.messaging, with its driver for AMQP 1.0.",
    "matchmaker_redis": "Of oslo.messaging's former driver for ZeroMQ: accepted and ignored.",
    "cors": "A further origin with other rules can have a section of its own, [cors.NAME].",
    "leases": "Every upload, copy and delete that is under way has a record in the database, so "
    "that nothing is lost when a worker or a host dies.",
    "limits": "What one caller may take from the others.",
    "sharing": "Images that tenants share with one another.",
    "copy_from": "Which addresses the service itself may be made to connect to, by "
    "x-glance-api-copy-from and by x-image-meta-location.",
    "glance_store": "Which stores there are, and each one's options.",
}

_TYPES: Final[tuple[tuple[type, str], ...]] = (
    (types.Port, "port"),
    (types.Integer, "integer"),
    (types.Float, "number"),
    (types.Boolean, "boolean"),
    (types.List, "list"),
    (types.Dict, "name:value pairs"),
    (StorageQuota, "bytes"),
)

# The defaults that depend on the program.
_PORTS: Final = {"glance-api.conf": 9292, "glance-registry.conf": 9191}


def areas() -> tuple[Area, ...]:
    """Every option there is, those of the installed stores included."""
    files = {"glance_store": "ARCS", "copy_from": "A"}
    stores = (Area(section, files[section], options) for section, options in option_groups())
    return (*AREAS, *stores)


def sample(name: str) -> str:
    """The text of one sample file."""
    letter = FILES[name]
    sections: dict[str, list[cfg.Opt]] = {"DEFAULT": []}
    for area in areas():
        if letter in area.files:
            listed = sections.setdefault(area.section, [])
            listed.extend(option for option in area.options if option not in listed)
    paragraphs = [_comment(f"{_HEADINGS[name]} Every option is shown with its default.")]
    for section, options in sections.items():
        paragraphs.append("\n".join((f"[{section}]", *_comment_lines(_SECTIONS.get(section, "")))))
        paragraphs.extend(_paragraph(option, name) for option in options)
    return "\n\n".join(paragraphs) + "\n"


def _paragraph(option: cfg.Opt, file: str) -> str:
    lines = _comment_lines(f"{option.help or ''} ({', '.join(_facts(option))})".strip())
    former = sorted({old.name.replace("-", "_") for old in option.deprecated_opts if old.name})
    if former not in ([], [option.dest]):
        lines += _comment_lines(f"Former names: {', '.join(former)}")
    if option.deprecated_for_removal:
        lines += _comment_lines("Deprecated.")
    default = _PORTS.get(file, option.default) if option.name == "bind_port" else option.default
    return "\n".join((*lines, *(f"#{option.dest} ={value}" for value in _values(option, default))))


def _facts(option: cfg.Opt) -> Iterator[str]:
    kind = next((name for cls, name in _TYPES if isinstance(option.type, cls)), "string")
    yield "string, may be repeated" if option.multi else kind
    if option.default is None:
        yield "unset"
    for bound, text in (("min", "at least"), ("max", "at most")):
        value = getattr(option.type, bound, None)
        if value is not None and not isinstance(option.type, types.Port):
            yield f"{text} {value}"
    choices: Sequence[Any] | None = getattr(option.type, "choices", None)
    if choices:
        yield f"one of: {', '.join(str(choice) or 'nothing' for choice in choices)}"


def _values(option: cfg.Opt, default: Any) -> list[str]:
    if option.multi:
        return [_text(value) for value in default or [""]]
    return [_text(default)]


def _text(value: Any) -> str:
    """A value as a file says it, with the blank that follows the sign of equality."""
    if isinstance(value, bool):
        text = str(value).lower()
    elif isinstance(value, list):
        text = ",".join(map(str, value))
    elif isinstance(value, dict):
        text = ",".join(f"{key}:{entry}" for key, entry in value.items())
    else:
        text = "" if value is None else str(value)
    if text != text.strip():
        text = f'"{text}"'
    return f" {text}" if text else ""


def _comment(text: str) -> str:
    return "\n".join(_comment_lines(text))


def _comment_lines(text: str) -> list[str]:
    return [f"# {line}" for line in textwrap.wrap(text, _WIDTH - 2, break_on_hyphens=False)]


def main() -> None:
    directory = Path(sys.argv[1])
    for name in FILES:
        (directory / name).write_text(sample(name), encoding="utf-8")


if __name__ == "__main__":
    main()
