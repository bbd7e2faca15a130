"""Starting, stopping and watching the programs of one host, by their pid files.

No options and no printing of help here: `glance_api.cmd.control` is the command line.
"""

import contextlib
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

RUN_DIRECTORY: Final = Path("/var/run/glance")
STOP_SECONDS: Final = 15.0

# A service that dies sooner than this after its start is not started again.
BOUNCING_SECONDS: Final = 1.0

_POLL_SECONDS: Final = 0.05
_LIMITS: Final[Mapping[int, int]] = {
    resource.RLIMIT_NOFILE: 32768,
    resource.RLIMIT_DATA: 2 * 1024**3,
}


class ControlError(Exception):
    """What was asked for cannot be done; the message is for the operator."""


@dataclass(frozen=True)
class Service:
    """One program, such as glance-api, and the file that says which process it is."""

    program: str
    pid_file: Path

    def pid(self) -> int | None:
        """The process that the pid file names, if it is alive and runs this program."""
        try:
            pid = int(self.pid_file.read_text())
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
        except (OSError, ValueError):
            return None
        # After a restart of the host another program may have the number.
        return pid if self.program.encode() in command else None

    def started_at(self) -> float | None:
        """When the pid file was written; None after a deliberate stop, which removes it."""
        try:
            return self.pid_file.stat().st_mtime
        except FileNotFoundError:
            return None


def default_service(program: str) -> Service:
    """The program with its usual pid file."""
    return Service(program, RUN_DIRECTORY / f"{program}.pid")


def writable(service: Service) -> Service:
    """service, or where its pid file cannot be written, with one in a new temporary directory."""
    with contextlib.suppress(OSError):
        service.pid_file.parent.mkdir(parents=True, exist_ok=True)
    path = service.pid_file
    if os.access(path if path.exists() else path.parent, os.W_OK):
        return service
    return replace(service, pid_file=Path(tempfile.mkdtemp(prefix="glance-"), path.name))


def start(
    service: Service, config_file: str | None = None, *, capture_output: bool = False
) -> subprocess.Popen[bytes]:
    """Run the program in a session of its own. Raises ControlError if it runs already."""
    running = service.pid()
    if running is not None:
        raise ControlError(f"{service.program} appears to be already running: pid {running}")
    command = [_executable(service.program)]
    if config_file:
        command += ["--config-file", config_file]
    with _output(service.program, capture_output) as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            preexec_fn=raise_limits,
        )
    service.pid_file.write_text(f"{process.pid}\n")
    return process


def stop(service: Service) -> bool:
    """Ask the program to end, and wait for that; False if it takes longer than 15 s.

    The daemons complete what they are doing. Raises ControlError if the program does not run.
    """
    pid = _running(service)
    # Without its pid file, a program that is being watched is not started again.
    service.pid_file.unlink(missing_ok=True)
    os.kill(pid, signal.SIGTERM)
    return _ends_within(pid, STOP_SECONDS)


def reload(service: Service) -> int:
    """Make a daemon read its configuration anew; its pid. Raises ControlError."""
    pid = _running(service)
    os.kill(pid, signal.SIGHUP)
    return pid


def await_exit(process: subprocess.Popen[bytes], seconds: float) -> int:
    """The exit status of a process that ends within so many seconds, 0 for one that does not."""
    try:
        return process.wait(seconds)
    except subprocess.TimeoutExpired:
        return 0


def keep_running(
    processes: dict[Service, subprocess.Popen[bytes]],
    config_file: str | None,
    *,
    capture_output: bool,
) -> Iterator[str]:
    """Start services again when they die; yields what happened, until none is left.

    Those that were stopped on purpose or die at once are given up.
    """
    while processes:
        for service, process in list(processes.items()):
            if process.poll() is None:
                continue
            started = service.started_at()
            if started is None:
                del processes[service]
                yield f"{service.program} was stopped on purpose: it is not started again"
            elif time.time() - started < BOUNCING_SECONDS:
                del processes[service]
                yield f"{service.program} ended at once: it is not started again"
            else:
                processes[service] = start(service, config_file, capture_output=capture_output)
                yield f"{service.program} has died and is started again"
        time.sleep(_POLL_SECONDS)


def raise_limits() -> None:
    """Allow 32768 descriptors and 2 GiB of data, as far as we may; never lower a limit."""
    for limit, wanted in _LIMITS.items():
        soft, hard = resource.getrlimit(limit)
        if soft != resource.RLIM_INFINITY and soft < wanted:
            with contextlib.suppress(OSError, ValueError):
                resource.setrlimit(limit, (wanted, max(hard, wanted)))


def may_raise_limits() -> bool:
    return os.geteuid() == 0


def _running(service: Service) -> int:
    pid = service.pid()
    if pid is None:
        raise ControlError(f"{service.program} is not running (pid file {service.pid_file})")
    return pid


def _executable(program: str) -> str:
    beside = Path(sys.executable).with_name(program)
    found = str(beside) if beside.exists() else shutil.which(program)
    if found is None:
        raise ControlError(f"The program {program} is not installed")
    return found


@contextlib.contextmanager
def _output(program: str, to_syslog: bool) -> Iterator[int]:
    """Where a program's output goes: nowhere, or to syslog."""
    if not to_syslog:
        yield subprocess.DEVNULL
        return
    logger = shutil.which("logger")
    if logger is None:
        raise ControlError("--capture-output needs the command logger")
    reader, writer = os.pipe()
    try:
        # It ends by itself when the program has closed its end of the pipe.
        subprocess.Popen([logger, "-t", program], stdin=reader, start_new_session=True)
        yield writer
    finally:
        os.close(reader)
        os.close(writer)


def _ends_within(pid: int, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if not _is_alive(pid):
            return True
        time.sleep(_POLL_SECONDS)
    return False


def _is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"
