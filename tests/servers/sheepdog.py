"""A private Sheepdog cluster: the real one where `dog` and `sheep` are installed, else a
stand-in `dog` program that keeps VDIs as files (see the file of that name beside this)."""

import os
from pathlib import Path

from tests.servers.process import HERE, HOST, Server, find_program, free_port, is_listening


class Sheepdog(Server):
    """A formatted cluster at `address` and `port`.

    `dog` is the program to run; `bin` is a directory with just that, and `path` a PATH that
    starts with it, for a daemon that looks `dog` up. `real` tells which one it is.
    """

    name = "sheepdog"
    install = "sheepdog"

    address = HOST

    def __init__(self, *, stand_in: bool | None = None) -> None:
        super().__init__()
        self.port = free_port()
        installed = bool(find_program("dog") and find_program("sheep"))
        self.real = installed if stand_in is None else not stand_in

    @property
    def dog(self) -> Path:
        return self.bin / "dog"

    @property
    def bin(self) -> Path:
        return self.directory / "bin"

    @property
    def path(self) -> str:
        return f"{self.bin}:{os.environ.get('PATH', os.defpath)}"

    def vdi(self, command: str, *words: str) -> str:
        """`dog vdi ...` on this cluster."""
        return self.run(self.dog, "vdi", command, *words, "-a", HOST, "-p", str(self.port))

    def vdis(self) -> dict[str, int]:
        """The writable VDIs and their sizes; snapshots are not listed."""
        found = {}
        for line in self.vdi("list", "-r").splitlines():
            # A blank in a name is escaped, so hide it from the split.
            fields = line.replace("\\ ", "\0").split(" ")
            if fields[0] != "s":
                found[fields[1].replace("\0", " ")] = int(fields[3])
        return found

    def prepare(self) -> None:
        self.bin.mkdir()
        program = find_program("dog") if self.real else HERE / "dog"
        self.dog.symlink_to(str(program))
        (self.directory / "store").mkdir()
        self._launch_daemon()
        self.run(self.dog, "cluster", "format", "--copies=1", "-a", HOST, "-p", str(self.port))
        self.shutdown()

    def launch(self) -> None:
        self._launch_daemon()

    def _launch_daemon(self) -> None:
        if self.real:
            self.spawn(
                "sheep",
                *("sheep", "-f", "-n", "-b", HOST, "-c", f"local:{self.directory}/shm"),
                *("-p", str(self.port), "-y", HOST, self.directory / "store"),
            )
        else:
            self.spawn("sheep", self.dog, "serve", str(self.port), self.directory / "store")
        self.wait_until(lambda: is_listening(self.port), "listening")
