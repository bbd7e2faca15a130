"""A private GlusterFS volume of one brick, mounted by FUSE; no management daemon."""

import os
import signal
from pathlib import Path

from tests.servers.process import HOST, Server, free_port, is_listening

_SERVER = """volume posix
  type storage/posix
  option directory {directory}/brick
end-volume
volume locks
  type features/locks
  subvolumes posix
end-volume
volume server
  type protocol/server
  option transport-type tcp
  option transport.socket.bind-address {host}
  option transport.socket.listen-port {port}
  option auth.addr.locks.allow {host}
  subvolumes locks
end-volume
"""

_CLIENT = """volume client
  type protocol/client
  option transport-type tcp
  option remote-host {host}
  option remote-port {port}
  option remote-subvolume locks
end-volume
"""


class Gluster(Server):
    """A directory `path` on a network filesystem; its bytes are in `brick`.

    `kill` ends the brick only: the mount stays and answers ENOTCONN until `restart`. While
    paused, whoever touches the mount hangs in the kernel and cannot be killed: resume.
    """

    name = "gluster"
    programs = ("glusterfsd", "glusterfs", "umount")
    install = "gluster"
    needs_root = True

    def __init__(self) -> None:
        super().__init__()
        self.port = free_port()

    @classmethod
    def missing(cls) -> list[str]:
        return super().missing() + ([] if Path("/dev/fuse").exists() else ["/dev/fuse"])

    @property
    def path(self) -> Path:
        return self.directory / "mount"

    @property
    def brick(self) -> Path:
        return self.directory / "brick"

    def prepare(self) -> None:
        self.path.mkdir()
        self.brick.mkdir()
        conf = {"directory": self.directory, "host": HOST, "port": self.port}
        self.write("server.vol", _SERVER.format(**conf))
        self.write("client.vol", _CLIENT.format(**conf))

    def launch(self) -> None:
        if not any(process.name == "brick" for process in self.processes):
            self._spawn("brick", "glusterfsd", "server")
            # First in the list: `shutdown` ends it last, after the mount.
            self.processes.insert(0, self.processes.pop())
            self.wait_until(lambda: is_listening(self.port), "brick")
        if not any(process.name == "mount" for process in self.processes):
            self._spawn("mount", "glusterfs", "client", "--direct-io-mode=disable", self.path)
        self.wait_until(self._is_mounted, "mount")

    def shutdown(self) -> None:
        self.resume()
        if os.path.ismount(self.path):
            self.run("umount", self.path)
        super().shutdown()

    def kill(self) -> None:
        self._end_brick(force=True)

    def restart(self) -> None:
        """Replace the brick; the mount reconnects by itself, within three seconds or so."""
        self._end_brick(force=False)
        self.launch()

    def pause(self) -> None:
        for process in self.processes:
            if process.name == "brick":
                process.signal(signal.SIGSTOP)

    def _end_brick(self, *, force: bool) -> None:
        for process in [one for one in self.processes if one.name == "brick"]:
            if force:
                process.kill()
            else:
                process.stop()
            self.processes.remove(process)

    def _is_mounted(self) -> bool:
        try:
            return os.path.ismount(self.path) and os.listdir(self.path) is not None
        except OSError:
            return False

    def _spawn(self, name: str, program: str, volume: str, *words: str | Path) -> None:
        self.spawn(
            name,
            *(program, "-N", "-f", self.directory / f"{volume}.vol"),
            *("-l", self.directory / f"{volume}.log", "-p", self.directory / f"{volume}.pid"),
            *words,
        )
