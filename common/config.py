"""Configuration of every program: which files are read, what they may say, what they said.

`load` returns a ConfigOpts of its own for each call; there is no global one. Attribute access on
it is slow, so the programs read it once, while they wire themselves together. `report` says what
was strange about the files and is called when the log is set up. Libraries that register options
of their own (Keystone's filter, oslo.messaging, osprofiler) are given `for_library(conf)`.
"""

import argparse
import glob
import importlib.metadata
import logging
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

from oslo_config import cfg
from oslo_log import log as oslo_log
from oslo_policy import opts as oslo_policy_opts

from common.options import AREAS, logs

LOG = logging.getLogger(__name__)

PROJECT: Final = "glance"
PORTS: Final[Mapping[str, int]] = {"api": 9292, "registry": 9191}
MOST_WORKERS: Final = 8

# Programs that read other files than glance.conf and glance-<program>.conf; later ones win.
FILES: Final[Mapping[str, Sequence[str]]] = {
    "manage": ("glance-registry", "glance-api", "glance-manage"),
    "cache-cleaner": ("glance-cache",),
    "cache-prefetcher": ("glance-cache",),
    "cache-pruner": ("glance-cache",),
}

# Sections of which we do not know every option: libraries read them too, or others' plugins.
_OPEN_SECTIONS: Final = {area.section for area in AREAS if area.library} - {"DEFAULT"} | {
    "oslo_messaging_notifications",
    "oslo_middleware",
    "profiler",
}

# What plugins and stores call their secrets, in sections that others declare.
_SECRET_NAME: Final = re.compile(r"password|passwd|secret|token$|_key$|_url$|^connection$")

Options = Sequence[tuple[str, Sequence[cfg.Opt]]]


class ConfigurationError(Exception):
    """A file or an option is unusable; the message names it and is meant for the operator."""


class Configuration(cfg.ConfigOpts):
    """The values of one load. `files` were read in this order; `declared` are known options."""

    files: Sequence[str]
    declared: Options


def load(
    program: str, argv: Sequence[str], *, extra_groups: Options = (), cli: Sequence[cfg.Opt] = ()
) -> Configuration:
    """Read the command line and the configuration files of glance-<program>.

    extra_groups: further (section, options) that this program knows, its stores' for example;
    without a "glance_store" among them that section is not looked into. cli: options and
    arguments of its own on the command line. Every value is checked. Raises ConfigurationError;
    --help, --version and mistakes on the command line exit.
    """
    conf = Configuration()
    conf.files = _files(program, argv)
    conf.declared = [(area.section, area.options) for area in AREAS] + [*extra_groups]
    _register(conf, program, extra_groups, cli)
    _parse(conf, program, argv)
    _register_cors_subsections(conf)
    _check_values(conf, extra_groups)
    return conf


def find_files(program: str, extension: str = ".conf") -> list[str]:
    """The files of a program that exist in ~/.glance, ~, /etc/glance and /etc."""
    names = FILES.get(program, (f"{PROJECT}-{program}",))
    return [file for name in names for file in cfg.find_config_files(PROJECT, name, extension)]


def for_library(conf: Configuration) -> cfg.ConfigOpts:
    """A ConfigOpts over the same files, in which a library may register what it likes."""
    fresh = cfg.ConfigOpts()
    fresh(
        [],
        project=PROJECT,
        prog=conf.prog,
        default_config_files=list(conf.files),
        default_config_dirs=[],
    )
    return fresh


def settings(conf: Configuration) -> dict[tuple[str, str], list[str]]:
    """What the files say, as text: all values of each (section, name), later files last."""
    found: dict[tuple[str, str], list[str]] = {}
    for file in conf.files:
        sections: dict[str, dict[str, list[str]]] = {}
        cfg.ConfigParser(file, sections).parse()
        for section, values in sections.items():
            for name, value in values.items():
                found.setdefault((_normal(section), name), []).extend(value)
    return found


def secrets(conf: Configuration) -> set[str]:
    """Every value that is declared a secret, or whose option's name in a file says it is."""
    declared = {
        (section, option): _names(section, option)
        for section, options in conf.declared
        for option in options
        if option.secret
    }
    found = {_value(conf, section, option) for section, option in declared}
    names = {name for former in declared.values() for name in former}
    for setting, values in settings(conf).items():
        if setting in names or _SECRET_NAME.search(setting[1]):
            found.update(values)
    return {value for value in found if value}


def _value(conf: Configuration, section: str, option: cfg.Opt) -> str:
    """The value in force, which the environment may have given; "" for a default, which is no
    secret, and for an option that a library registers.
    """
    try:
        values: Mapping[str, Any] = conf if section == "DEFAULT" else conf[section]
        value = values[option.dest]
    except (cfg.Error, KeyError):
        return ""
    return "" if value == option.default else str(value)


def report(conf: Configuration) -> None:
    """Log, in one warning each, the unknown and the deprecated options found in the files.

    Called when the stores have been made: those of others declare their options only then.
    """
    known = set[tuple[str, str]]()
    deprecated = dict[tuple[str, str], str]()
    for section, options in conf.declared:
        for option in options:
            current, *former = _names(section, option)
            known.update((current, *former))
            if option.deprecated_for_removal:
                deprecated.update(dict.fromkeys((current, *former), ""))
            else:
                deprecated.update(dict.fromkeys(former, f" (now {_shown(current)})"))
    found = settings(conf).keys()
    unknown = {
        setting
        for setting in found - known
        if not _is_open(conf, setting[0]) and not _is_registered(conf, *setting)
    }
    if unknown:
        LOG.warning(
            "The configuration files hold unknown options: %s",
            ", ".join(map(_shown, sorted(unknown))),
        )
    old = sorted(found & deprecated.keys())
    if old:
        LOG.warning(
            "The configuration files hold deprecated options: %s",
            ", ".join(_shown(setting) + deprecated[setting] for setting in old),
        )


def _files(program: str, argv: Sequence[str]) -> list[str]:
    """Every file that will be read, in the order in which they are read."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--config-file", dest="sources", action="append", type=lambda path: [path])
    parser.add_argument(
        "--config-dir",
        dest="sources",
        action="append",
        type=lambda path: sorted(glob.glob(os.path.join(os.path.expanduser(path), "*.conf"))),
    )
    named = parser.parse_known_args(list(argv))[0].sources or []
    replaced = any(arg.split("=")[0] == "--config-file" for arg in argv)
    defaults = [] if replaced else find_files(program)
    return defaults + [os.path.abspath(os.path.expanduser(f)) for files in named for f in files]


def _register(
    conf: Configuration, program: str, extra_groups: Options, cli: Sequence[cfg.Opt]
) -> None:
    on_command_line = {option.name for option in logs.DROPPED}
    if program == "scrubber":
        on_command_line.add("daemon")
    for area in AREAS:
        for option in () if area.library else area.options:
            conf.register_opt(option, _group(area.section), cli=option.name in on_command_line)
    for section, options in extra_groups:
        conf.register_opts(options, _group(section))
    conf.register_cli_opts(cli)
    _register_log_options(conf)
    oslo_policy_opts.set_defaults(conf, policy_file="policy.json")
    if program in PORTS:
        conf.set_default("bind_port", PORTS[program])
    conf.set_default("workers", min(MOST_WORKERS, len(os.sched_getaffinity(0))))


def _register_log_options(conf: Configuration) -> None:
    root = logging.getLogger()
    handlers = list(root.handlers)
    oslo_log.register_options(conf)
    # It also adds a handler for the time until the log is set up: Python's last resort will do.
    root.handlers[:] = handlers
    for option in logs.LIBRARY:
        conf.set_default(option.dest, option.default)


def _parse(conf: Configuration, program: str, argv: Sequence[str]) -> None:
    try:
        with _quiet():
            conf(
                list(argv),
                project=PROJECT,
                prog=f"{PROJECT}-{program}",
                version=importlib.metadata.version("glance-v1"),
                default_config_files=find_files(program),
                default_config_dirs=[],
            )
    except cfg.Error as error:
        raise ConfigurationError(str(error)) from error
    except SystemExit as error:
        # A value that is not of its option's type; oslo.config has printed which.
        if error.code == 1:
            raise ConfigurationError("An option has an invalid value") from error
        raise
    except UnicodeDecodeError as error:
        raise ConfigurationError("A configuration file is not UTF-8 text") from error


def _register_cors_subsections(conf: Configuration) -> None:
    """[cors.<anything>] allows a further origin; what it leaves out is as in [cors]."""
    options = next(options for section, options in conf.declared if section == "cors")
    for section in conf.list_all_sections():
        if section.startswith("cors."):
            conf.register_opts(options, section)
            for option in options:
                if option.name != "allowed_origin":
                    conf.set_default(option.dest, conf.cors[option.dest], section)


def _check_values(conf: Configuration, extra_groups: Options) -> None:
    ours = [(area.section, area.options) for area in AREAS if not area.library]
    for section, options in (*ours, ("DEFAULT", logs.LIBRARY), *extra_groups):
        for option in options:
            _check_value(conf, section, option)


def _check_value(conf: Configuration, section: str, option: cfg.Opt) -> None:
    values: Mapping[str, Any] = conf if section == "DEFAULT" else conf[section]
    try:
        with _quiet():
            values[option.dest]
    except (cfg.Error, ValueError) as error:
        reason = error.__context__ if isinstance(error, ValueError) else error
        # Whatever is wrong with a secret, the reason may quote it.
        told = "" if option.secret else f": {reason or error}"
        raise ConfigurationError(
            f"Option {option.name} of section [{section}] has an invalid value{told}"
        ) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep oslo.config from logging deprecations while there is no log yet; see `report`."""
    logger = logging.getLogger(cfg.__name__)
    before, logger.disabled = logger.disabled, True
    try:
        yield
    finally:
        logger.disabled = before


def _names(section: str, option: cfg.Opt) -> list[tuple[str, str]]:
    """The (section, name) an option is set by: the current first, then former ones."""
    former = [
        (_normal(old.group or section), (old.name or option.name).replace("-", "_"))
        for old in option.deprecated_opts
    ]
    return [(section, option.dest), *former]


def _is_open(conf: Configuration, section: str) -> bool:
    if section == "glance_store":
        return all(section != declared for declared, _ in conf.declared)
    return section in _OPEN_SECTIONS or section.startswith("cors.")


def _is_registered(conf: Configuration, section: str, name: str) -> bool:
    """Whether a store of somebody else's has declared the option since conf was loaded."""
    try:
        return name in conf[section]
    except cfg.NoSuchOptError:
        return False


def _normal(section: str) -> str:
    return "DEFAULT" if section == "DEFAULT" else section.lower()


def _group(section: str) -> str | None:
    return None if section == "DEFAULT" else section


def _shown(setting: tuple[str, str]) -> str:
    section, name = setting
    return f"[{section}] {name}"
