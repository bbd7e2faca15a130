"""The tables of options agree with Mitaka's, whose data is in options.csv beside this file."""

import csv
import re
from pathlib import Path
from typing import Any

import pytest
from oslo_config import cfg, types

from common.options import AREAS, Area
from common.options.area import StorageQuota

Row = dict[str, str]

TYPES: dict[str, type] = {
    "bool": types.Boolean,
    "dict": types.Dict,
    "float": types.Float,
    "int": types.Integer,
    "list": types.List,
    "multi": types.String,
    "port": types.Port,
    "string": types.String,
}

# Where we differ on purpose: (section, option) -> our default, as a file says it.
DEFAULTS = {
    # Decision 16: as later releases.
    ("image_format", "disk_formats"): "ami,ari,aki,vhd,vhdx,vmdk,raw,qcow2,vdi,iso,ploop",
    # The logging library's list, brought up to date with the libraries in use.
    ("DEFAULT", "default_log_levels"): None,
}


def rows() -> list[Row]:
    with (Path(__file__).parent / "options.csv").open(encoding="utf-8") as file:
        return [row for row in csv.DictReader(file) if row["section"] != "glance_store"]


def declared() -> dict[tuple[str, str], list[tuple[cfg.Opt, Area]]]:
    found: dict[tuple[str, str], list[tuple[cfg.Opt, Area]]] = {}
    for area in AREAS:
        for option in area.options:
            found.setdefault((area.section, option.dest), []).append((option, area))
    return found


def as_text(value: Any) -> str:
    if value is None:
        return "unset"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | dict):
        return ",".join(value) or "(empty)"
    return str(value) or "(empty)"


def test_no_option_is_declared_twice() -> None:
    assert [name for name, options in declared().items() if len(options) > 1] == []


@pytest.mark.parametrize("row", rows(), ids=lambda row: f"{row['section']}.{row['option']}")
def test_an_option_is_as_in_mitaka(row: Row) -> None:
    name = (row["section"], row["option"])
    ((option, area),) = declared()[name]
    assert area.files == row["files"]
    if row["option"] == "user_storage_quota":
        assert isinstance(option.type, StorageQuota)
    else:
        assert isinstance(option.type, TYPES[row["type"]])
    assert option.multi == (row["type"] == "multi")
    # A library's values are checked by the library.
    if row["max"] and not area.library:
        assert option.type.max == int(row["max"])
    if row["choices"] and not area.library:
        assert list(option.type.choices) == row["choices"].split()
    default = DEFAULTS.get(name, row["default"])
    if default is not None and default != "see sample file":
        assert as_text(option.default) == default


@pytest.mark.parametrize("area", AREAS, ids=lambda area: f"{area.section}-{area.files}")
def test_every_option_is_explained(area: Area) -> None:
    assert [option.name for option in area.options if not (option.help or "").endswith(".")] == []


def test_options_that_hold_credentials_are_secret() -> None:
    names = {name for name, ((option, _),) in declared().items() if option.secret}
    assert names >= {
        ("DEFAULT", "admin_password"),
        ("DEFAULT", "metadata_encryption_key"),
        ("DEFAULT", "registry_auth_key"),
        ("DEFAULT", "transport_url"),
        ("database", "connection"),
        ("database", "slave_connection"),
        ("keystone_authtoken", "memcache_secret_key"),
        ("keystone_authtoken", "password"),
        ("oslo_messaging_notifications", "transport_url"),
        ("oslo_messaging_rabbit", "rabbit_password"),
        ("profiler", "hmac_keys"),
    }


def test_an_option_that_nothing_reads_says_so() -> None:
    packages = ("common", "glance_api", "glance_registry", "glance_store")
    code = "".join(
        path.read_text(encoding="utf-8")
        for package in packages
        for path in Path(__file__).parents[3].joinpath(package).rglob("*.py")
        if path.parent.name != "options"
    )
    silent = [
        f"[{area.section}] {option.dest}"
        for area in AREAS
        for option in area.options
        if not area.library
        and not re.search(rf"[.\"']{option.dest}\b", code)
        and not option.help.startswith("Accepted and ignored")
    ]
    # oslo.messaging and osprofiler read them themselves.
    assert silent == ["[oslo_messaging_notifications] topics", "[profiler] connection_string"]
