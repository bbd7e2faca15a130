"""The samples in etc/ are what the tables say, complete, and a configuration that loads."""

import csv
import logging
import re
from pathlib import Path

import pytest
from oslo_config import cfg

from common import config
from common.options.area import Area
from glance_api.sample import FILES, areas, sample
from glance_store.loader import option_groups
from tests.unit.config.test_options import TYPES, as_text

ETC = Path(__file__).parents[3] / "etc"

# Where a store's option differs from Mitaka's on purpose: our default, None where it is free.
DEFAULTS = {
    "https_insecure": "false",  # M05
}


def rows() -> list[dict[str, str]]:
    with (Path(__file__).parent / "options.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def shown(name: str) -> set[tuple[str, str]]:
    """Every (section, option) of a sample file."""
    found, section = set(), ""
    for line in (ETC / name).read_text(encoding="utf-8").splitlines():
        if heading := re.fullmatch(r"\[(.+)\]", line):
            section = heading[1]
        elif setting := re.match(r"#(\w+) =", line):
            found.add((section, setting[1]))
    return found


@pytest.mark.parametrize("name", FILES)
def test_a_sample_is_up_to_date(name: str) -> None:
    """If not: python -m glance_api.sample etc"""
    assert (ETC / name).read_text(encoding="utf-8") == sample(name)


@pytest.mark.parametrize("name", FILES)
def test_a_sample_shows_every_option_of_mitakas(name: str) -> None:
    wanted = {(row["section"], row["option"]) for row in rows() if FILES[name] in row["files"]}
    assert wanted - shown(name) == set()


@pytest.mark.parametrize("name", FILES)
def test_a_sample_with_every_option_set_to_its_default_loads_without_a_complaint(
    name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / name
    text = (ETC / name).read_text(encoding="utf-8")
    path.write_text(re.sub(r"^#(\w+ = .+)$", r"\1", text, flags=re.MULTILINE), encoding="utf-8")
    program = name.removeprefix("glance-").removesuffix(".conf")
    conf = config.load(program, ["--config-file", str(path)], extra_groups=option_groups())
    with caplog.at_level(logging.WARNING):
        config.report(conf)
    assert [message for message in caplog.messages if "unknown" in message] == []


@pytest.mark.parametrize(
    "row",
    [row for row in rows() if row["section"] == "glance_store"],
    ids=lambda row: row["option"],
)
def test_a_store_option_is_as_in_mitaka(row: dict[str, str]) -> None:
    (option,) = [
        option
        for area in areas()
        if area.section == "glance_store"
        for option in area.options
        if option.dest == row["option"]
    ]
    assert isinstance(option.type, TYPES[row["type"]])
    assert option.multi == (row["type"] == "multi")
    assert as_text(option.default) == DEFAULTS.get(row["option"], row["default"])


def test_every_option_says_what_it_is_for() -> None:
    silent = [
        f"[{area.section}] {option.name}"
        for area in areas()
        for option in area.options
        if not option.help
    ]
    assert silent == []


def test_store_options_that_hold_credentials_are_secret() -> None:
    named = {option.dest for option in _store_options() if option.secret}
    assert named >= {
        "cinder_store_password",
        "s3_store_secret_key",
        "s3_store_proxy_password",
        "swift_store_key",
        "vmware_server_password",
    }


def _store_options() -> list[cfg.Opt]:
    stores: list[Area] = [area for area in areas() if area.section == "glance_store"]
    return [option for area in stores for option in area.options]


@pytest.mark.parametrize(
    "name",
    [
        "policy.json",
        "glance-api-paste.ini",
        "glance-registry-paste.ini",
        "glance-swift.conf.sample",
        "property-protections-policies.conf.sample",
        "property-protections-roles.conf.sample",
    ],
)
def test_the_other_files_are_there(name: str) -> None:
    assert (ETC / name).stat().st_size > 0
