"""The daemons' processes: cooperative before anything else is imported (REL-088)."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

_LOOK = """
import sys
import eventlet

patch, seen = eventlet.monkey_patch, []

def look(*args, **kwargs):
    ours = ("common", "glance_api", "glance_registry", "glance_store", "requests", "sqlalchemy")
    imported = {name.partition(".")[0] for name in sys.modules}
    # The package of the program itself is there, and nothing of it but that.
    seen.append(imported & set(ours) - {PACKAGE})
    patch(*args, **kwargs)

eventlet.monkey_patch = look
PACKAGE = sys.argv[1].partition(".")[0]
__import__(sys.argv[1])
assert seen == [set()], seen

import os, select, socket, threading, time
from eventlet.green import socket as green_socket
from eventlet.patcher import is_monkey_patched

for name in ("os", "select", "socket", "thread", "time"):
    assert is_monkey_patched(name), name
assert socket.socket is green_socket.socket
print("green")
"""


DAEMONS = pytest.mark.parametrize("module", ["glance_api.cmd.api", "glance_registry.cmd.registry"])


@DAEMONS
def test_everything_is_cooperative_before_the_first_import(module: str) -> None:
    looked = run(_LOOK, module)
    assert looked.stdout == "green\n", looked.stderr


@DAEMONS
def test_names_are_looked_up_by_the_system(module: str) -> None:
    """The event loop's own resolver knows nothing of this host's name services."""
    looked = run(f"import sys, {module}; print('eventlet.support.greendns' in sys.modules)")
    assert looked.stdout == "False\n", looked.stderr


def run(program: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-W", "ignore", "-c", program, *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
