"""Cleans up after a test run that was itself killed, and knows how to clean up at all.

Run as a program it is a child of the test run and reads what to clean from a pipe: when the
pipe closes without a word the run has died, whatever killed it, and the servers it started
go with it. It imports only the standard library, so it starts in a few milliseconds.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

# Every server process carries its private directory under this name; children inherit it
# even where they leave the process group, as Erlang's and PostgreSQL's do.
MARKER = "GLANCE_TEST_SERVER_DIRECTORY"


def processes_of(directory: Path, groups: set[int]) -> list[int]:
    """The processes, zombies aside, that belong to the server with this directory."""
    marker = f"{MARKER}={directory}".encode()
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        with contextlib.suppress(OSError):
            # The command name may hold blanks and parentheses: count from its end.
            state, _, group = (entry / "stat").read_text().rpartition(")")[2].split()[:3]
            if state == "Z":
                continue
            if int(group) in groups or marker in (entry / "environ").read_bytes().split(b"\0"):
                found.append(int(entry.name))
    return found


def mounts_below(directory: Path) -> list[str]:
    """Mount points at or below the directory, the innermost first."""
    points = [line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()]
    return [p for p in reversed(points) if p == str(directory) or p.startswith(f"{directory}/")]


def unmount(point: str) -> None:
    """Unmount, detaching where something still holds the mount or its server is gone."""
    for options in ((), ("-l",)):
        done = subprocess.run(["umount", *options, point], capture_output=True)
        if done.returncode == 0:
            return


def kill_all(directory: Path, groups: set[int]) -> None:
    """SIGKILL whatever belongs to the server, and see it gone."""
    deadline = time.monotonic() + 10
    while (left := processes_of(directory, groups)) and time.monotonic() < deadline:
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.02)


def clean(directory: Path, groups: set[int]) -> None:
    """End what is left of one server: its mounts, its processes, its files."""
    for point in mounts_below(directory):
        unmount(point)
    kill_all(directory, groups)
    if not mounts_below(directory):
        shutil.rmtree(directory, ignore_errors=True)


def main() -> None:
    """Read "+ DIRECTORY", "- DIRECTORY" and "= DIRECTORY GROUP" lines until the pipe closes."""
    # A terminal's Ctrl-C is for the test run, which then cleans up in order.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    servers: dict[str, set[int]] = {}
    for line in sys.stdin:
        action, directory, *group = line.rstrip("\n").split("\t")
        if action == "+":
            servers[directory] = set()
        elif action == "-":
            servers.pop(directory, None)
        else:
            servers[directory].add(int(group[0]))
    for directory, groups in servers.items():
        clean(Path(directory), groups)


if __name__ == "__main__":
    main()
