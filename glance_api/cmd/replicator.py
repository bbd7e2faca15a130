"""glance-replicator: copies images between Glance servers over v1."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from oslo_config import cfg

from common import config, log
from common.config import Configuration, ConfigurationError
from glance_api.replication import Replicator
from glance_api.replication_client import Server, ServerError

OPTIONS: Final = (
    cfg.IntOpt("chunksize", short="c", default=65536, min=1, help="Bytes moved at a time."),
    cfg.StrOpt(
        "dontreplicate",
        short="D",
        default="created_at date deleted_at location updated_at",
        help="Fields that are neither copied nor compared, separated by blanks.",
    ),
    cfg.BoolOpt("metaonly", short="m", default=False, help="Copy metadata only, no data."),
    cfg.StrOpt("token", short="t", default="", secret=True, help="Token for both servers."),
    cfg.StrOpt(
        "mastertoken", short="M", default="", secret=True, help="Token for the server copied from."
    ),
    cfg.StrOpt(
        "slavetoken", short="S", default="", secret=True, help="Token for the server copied to."
    ),
    cfg.MultiStrOpt(
        "words", positional=True, required=False, help="The command, its servers and paths."
    ),
)


class UsageError(Exception):
    """The command line is wrong; the message ends the program."""


@dataclass(frozen=True)
class Command:
    """`arguments` are the names of what must follow the command."""

    arguments: tuple[str, ...]
    summary: str
    run: Callable[[Configuration, list[str]], None]

    def usage(self, name: str) -> str:
        wanted = " ".join(f"<{argument}>" for argument in self.arguments)
        return f"glance-replicator {name} [options] {wanted}\n\n{self.summary}"


def main() -> int:
    try:
        command, argv = _split(sys.argv[1:])
        conf = config.load("replicator", argv, cli=OPTIONS)
        log.hide(*(token for token in (conf.token, conf.mastertoken, conf.slavetoken) if token))
        log.setup(conf, "replicator")
        _run(conf, [*command, *(conf.words or ())])
    except (ConfigurationError, UsageError) as error:
        print(error, file=sys.stderr)
        return 1
    except (ServerError, OSError, ValueError) as error:
        print(f"ERROR: {error}", file=sys.stderr)
        return 1
    return 0


def _split(argv: list[str]) -> tuple[list[str], list[str]]:
    """The command and the rest: argparse wants words together, not on both sides of options."""
    leading = 1 if argv and not argv[0].startswith("-") else 0
    return argv[:leading], argv[leading:]


def _run(conf: Configuration, words: list[str]) -> None:
    name, *arguments = words or ["help"]
    if name == "help":
        _help(arguments)
        return
    command = COMMANDS.get(name)
    if command is None:
        raise UsageError(f"Unknown command: {name}")
    if len(arguments) < len(command.arguments):
        print(command.usage(name))
        raise UsageError("ERROR: too few arguments")
    command.run(conf, arguments)


def _help(names: list[str]) -> None:
    if names and names[0] not in COMMANDS:
        raise UsageError(f"Unknown command: {names[0]}")
    if names:
        print(COMMANDS[names[0]].usage(names[0]))
        return
    print("glance-replicator <command> [options] [arguments]\n\nCommands:")
    for name, command in COMMANDS.items():
        print(f"  {name:<10}{command.summary.splitlines()[0]}")
    print("\nglance-replicator help <command> says more; --help lists the options.")


def _replicator(conf: Configuration) -> Replicator:
    return Replicator(conf.chunksize, frozenset(conf.dontreplicate.split()), conf.metaonly)


def _master(conf: Configuration, text: str) -> Server:
    return Server.parse(text, conf.mastertoken or conf.token)


def _slave(conf: Configuration, text: str) -> Server:
    return Server.parse(text, conf.slavetoken or conf.token)


def _size(conf: Configuration, arguments: list[str]) -> None:
    images, size = _replicator(conf).size(_slave(conf, arguments[0]))
    print(f"Total size is {size} bytes across {images} images")


def _dump(conf: Configuration, arguments: list[str]) -> None:
    _replicator(conf).dump(_master(conf, arguments[0]), Path(arguments[1]))


def _load(conf: Configuration, arguments: list[str]) -> None:
    _replicator(conf).load(_slave(conf, arguments[0]), Path(arguments[1]))


def _livecopy(conf: Configuration, arguments: list[str]) -> None:
    _replicator(conf).livecopy(_master(conf, arguments[0]), _slave(conf, arguments[1]))


def _compare(conf: Configuration, arguments: list[str]) -> None:
    source, target = _master(conf, arguments[0]), _slave(conf, arguments[1])
    for difference in _replicator(conf).compare(source, target):
        print(difference)


COMMANDS: Final = {
    "compare": Command(
        ("fromserver:port", "toserver:port"),
        "Says which images of the first server are missing on the second or differ there.",
        _compare,
    ),
    "dump": Command(
        ("server:port", "path"),
        "Writes the images of a server into a directory.\n"
        "Images that are there already stay as they are.",
        _dump,
    ),
    "livecopy": Command(
        ("fromserver:port", "toserver:port"),
        "Copies the images of one server to another.",
        _livecopy,
    ),
    "load": Command(
        ("server:port", "path"),
        "Loads a directory that dump has written into a server.\n"
        "Data of images that are there already is never replaced, their metadata is.",
        _load,
    ),
    "size": Command(
        ("server:port",), "Says how many images a server has, and how large they are.", _size
    ),
}


if __name__ == "__main__":
    sys.exit(main())
