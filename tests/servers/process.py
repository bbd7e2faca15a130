"""What every test server shares: ports, a private directory, processes and their end.

A server lives on 127.0.0.1 and in one temporary directory. It is a context manager; leaving
it, failing to start or killing the test run ends all its processes and mounts. Nothing here
knows any particular server.
"""

import abc
import contextlib
import importlib
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, NoReturn, Self

from tests.servers import reaper

HOST = "127.0.0.1"
HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parent.parent
# What runs inside a server's own virtual environment, where our modules are not.
PROGRAMS = HERE / "programs"

# Generous, because a machine that runs the tests is a busy one; a process that exits is
# noticed at once and does not wait for it.
START_TIMEOUT = 90.0

_SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class ServerFailed(RuntimeError):
    """A test server did not do what it was started for; the message ends with its logs."""


def servers_directory() -> Path:
    """Where install.sh keeps the servers that are not Debian packages."""
    return Path(os.environ.get("GLANCE_TEST_SERVERS") or REPOSITORY / ".servers")


def find_program(name: str) -> str | None:
    """The full path of a program, looking also where only root's PATH looks."""
    return shutil.which(name) or shutil.which(name, path=_SYSTEM_PATH)


# Below the range from which the kernel takes ports for outgoing connections, so that no client
# can sit on one between its choice and the bind, or while a server is restarted.
_PORTS = range(20000, 32000)
_given_ports: set[int] = set()


def free_port() -> int:
    """A port nobody listens on, never the same one twice in a run."""
    # Test processes that run side by side choose from different ones.
    count = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    number = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    share = len(_PORTS) // count
    ports = _PORTS[number * share : (number + 1) * share]
    while True:
        port = random.choice(ports)
        if port in _given_ports:
            continue
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((HOST, port))
            _given_ports.add(port)
            return port


def is_listening(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex((HOST, port)) == 0


def answers(url: str, status: int = 200) -> bool:
    """Does an HTTP GET of the url give this status? Never by way of a proxy."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=5) as response:
            return bool(response.status == status)
    except urllib.error.HTTPError as error:
        return error.code == status
    except OSError:
        return False


def run(argv: Sequence[str | Path], **options: Any) -> str:
    """Run a command to its end and return its output; its errors are in the exception."""
    done: subprocess.CompletedProcess[str] = subprocess.run(
        [str(word) for word in argv],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        **{"timeout": START_TIMEOUT, **options},
    )
    if done.returncode:
        command = " ".join(str(word) for word in argv)
        raise ServerFailed(f"{command}: exit status {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


class _Reaper:
    """The pipe to the process that cleans up should this one be killed."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None
        self._lock = threading.Lock()

    def tell(self, action: str, *words: object) -> None:
        with self._lock:
            if self._process is None:
                self._process = subprocess.Popen(
                    [sys.executable, "-I", "-S", str(HERE / "reaper.py")],
                    stdin=subprocess.PIPE,
                    text=True,
                    start_new_session=True,
                )
            assert self._process.stdin is not None
            self._process.stdin.write("\t".join([action, *map(str, words)]) + "\n")
            self._process.stdin.flush()


_reaper = _Reaper()


def watch(directory: Path) -> None:
    """Have mounts, processes and files of this directory cleaned up if this run is killed."""
    _reaper.tell("+", directory)


def unwatch(directory: Path) -> None:
    _reaper.tell("-", directory)


class Process:
    """One child in a process group of its own, with its output in a file."""

    def __init__(
        self,
        name: str,
        argv: Sequence[str | Path],
        *,
        log: Path,
        env: Mapping[str, str],
        stop_signal: signal.Signals = signal.SIGTERM,
        user: str | None = None,
    ) -> None:
        self.name = name
        self.log = log
        self.stop_signal = stop_signal
        with log.open("ab") as output:
            self._popen = subprocess.Popen(
                [str(word) for word in argv],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=env,
                cwd=log.parent,
                start_new_session=True,
                user=user,
                group=user,
                extra_groups=[] if user else None,
            )
        self.pid = self._popen.pid

    @property
    def running(self) -> bool:
        """Looks without reaping: while the leader is a zombie its group number stays ours."""
        if self._popen.returncode is not None:
            return False
        flags = os.WEXITED | os.WNOHANG | os.WNOWAIT
        return os.waitid(os.P_PID, self.pid, flags) is None

    def signal(self, number: signal.Signals) -> None:
        if self._popen.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, number)

    @property
    def is_stopped(self) -> bool:
        """Whether SIGSTOP has reached every thread of the group; a zombie has none left."""
        threads = map(_stat_fields, Path("/proc").glob("[0-9]*/task/[0-9]*/stat"))
        return all(state in "TtZX" for state, _, group, *_ in threads if int(group) == self.pid)

    def stop(self, timeout: float = 15) -> None:
        """End the group in order, then by force; a stopped one is continued first."""
        self.signal(self.stop_signal)
        self.signal(signal.SIGCONT)
        deadline = time.monotonic() + timeout
        while self.running and time.monotonic() < deadline:
            time.sleep(0.01)
        self.kill()

    def kill(self) -> None:
        """End the group without warning, its leader and what the leader left behind."""
        self.signal(signal.SIGKILL)
        self._popen.wait()


def _stat_fields(stat: Path) -> list[str]:
    """State, parent, group and more of a thread; one that has ended is dead."""
    # They follow the program's name, which may hold blanks.
    try:
        return stat.read_text().rpartition(")")[2].split()
    except OSError:
        return ["X", "0", "0"]


class Server(abc.ABC):
    """A private server: `with Server() as server:`.

    A subclass says what it needs, writes its files in `prepare` and starts its processes in
    `launch`, which `restart` calls again on the same files and ports.
    """

    name: ClassVar[str]
    # Programs that must be on the PATH, a virtual environment of install.sh's that must be
    # there, and the names to give install.sh when they are not.
    programs: ClassVar[tuple[str, ...]] = ()
    venv: ClassVar[str | None] = None
    install: ClassVar[str]
    # Mounts, and users other than our own, are root's to make.
    needs_root: ClassVar[bool] = False

    def __init__(self) -> None:
        self.processes: list[Process] = []
        self._directory: Path | None = None
        self._groups: set[int] = set()

    # What a test asks before it uses the class.

    @classmethod
    def missing(cls) -> list[str]:
        """What this machine lacks to start the server, in words."""
        lacking = [f"program {program}" for program in cls.programs if not find_program(program)]
        if cls.venv and not (servers_directory() / cls.venv / ".installed").exists():
            lacking.append(f"virtual environment {cls.venv}")
        if cls.needs_root and os.geteuid() != 0:
            lacking.append("root")
        return lacking

    @classmethod
    def available(cls) -> bool:
        return not cls.missing()

    @classmethod
    def require(cls) -> None:
        """Skip the test if the server cannot run here, or fail it where it must run."""
        require(cls.name, cls.missing(), cls.install)

    # The life of a server.

    @abc.abstractmethod
    def prepare(self) -> None:
        """Write configuration and data into the fresh directory. Called once."""

    @abc.abstractmethod
    def launch(self) -> None:
        """Start every process and return when the server answers."""

    def start(self) -> Self:
        # Directly under /tmp: socket paths are short, and servers that drop root can reach it.
        self._directory = Path(tempfile.mkdtemp(prefix=f"glance-{self.name}-", dir="/tmp"))
        self._directory.chmod(0o755)
        watch(self._directory)
        try:
            self.prepare()
            self.launch()
        except BaseException as error:
            # An interrupt or a skip also has to clean up, but is not the server's failure.
            logs = self.log_tail()
            self.stop()
            if isinstance(error, Exception):
                raise ServerFailed(f"{self.name} did not start: {error}\n{logs}") from error
            raise
        return self

    def stop(self) -> None:
        """End every process and remove every file. Safe to repeat."""
        if self._directory is None:
            return
        try:
            self.shutdown()
        finally:
            reaper.clean(self._directory, self._groups)
            unwatch(self._directory)
            self._directory = None

    def shutdown(self) -> None:
        """End the processes, the last started first, and keep the files."""
        while self.processes:
            self.processes.pop().stop()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    # Faults.

    def kill(self) -> None:
        """SIGKILL every process; `restart` brings the server back on what it had written."""
        while self.processes:
            self.processes.pop().kill()
        reaper.kill_all(self.directory, self._groups)

    def pause(self) -> None:
        """SIGSTOP every process: connections stay open and nobody answers."""
        for process in self.processes:
            process.signal(signal.SIGSTOP)
        # A thread on another processor goes on for a moment.
        self.wait_until(lambda: all(process.is_stopped for process in self.processes), "stopped")

    def resume(self) -> None:
        for process in self.processes:
            process.signal(signal.SIGCONT)

    def restart(self) -> None:
        """Stop what runs and start again with the same data and ports."""
        self.shutdown()
        self.launch()

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        self.pause()
        try:
            yield
        finally:
            self.resume()

    @contextlib.contextmanager
    def killed(self) -> Iterator[None]:
        """The server is gone inside the block and back after it."""
        self.kill()
        try:
            yield
        finally:
            self.restart()

    @property
    def directory(self) -> Path:
        if self._directory is None:
            raise ServerFailed(f"{self.name} is not running")
        return self._directory

    def environment(self) -> dict[str, str]:
        """What the processes see: nothing of the test run's own variables or proxies."""
        return {
            "PATH": _SYSTEM_PATH,
            "HOME": str(self.directory),
            "LANG": "C.UTF-8",
            "TZ": "UTC",
            reaper.MARKER: str(self.directory),
        }

    def write(self, name: str, text: str, mode: int = 0o644) -> Path:
        path = self.directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(mode)
        return path

    def spawn(
        self,
        name: str,
        *argv: str | Path,
        env: Mapping[str, str] | None = None,
        stop_signal: signal.Signals = signal.SIGTERM,
        user: str | None = None,
    ) -> Process:
        process = Process(
            name,
            argv,
            log=self.directory / f"{name}.log",
            env={**self.environment(), **(env or {})},
            stop_signal=stop_signal,
            user=user,
        )
        self.processes.append(process)
        self._groups.add(process.pid)
        _reaper.tell("=", self.directory, process.pid)
        return process

    def run(self, *argv: str | Path, **options: Any) -> str:
        """Run a command to its end in the servers' environment."""
        env = {**self.environment(), **options.pop("env", {})}
        return run(argv, env=env, cwd=self.directory, **options)

    def process(self, name: str) -> Process:
        """One of several processes, to fail it alone; `restart` replaces it."""
        return next(process for process in self.processes if process.name == name)

    def wait_until(self, ready: Callable[[], bool], what: str) -> None:
        """Wait until the server is ready; notice at once when one of its processes ends."""
        deadline = time.monotonic() + START_TIMEOUT
        while not ready():
            for process in self.processes:
                if not process.running:
                    raise ServerFailed(f"{process.name} exited before {what}")
            if time.monotonic() > deadline:
                raise ServerFailed(f"no {what} within {START_TIMEOUT:.0f} s")
            time.sleep(0.03)

    def logs(self) -> list[Path]:
        """The files worth showing when something fails; a server may log elsewhere too."""
        return sorted(self.directory.glob("*.log"))

    def log_tail(self, lines: int = 30) -> str:
        """The last lines of every log, for a failure report."""
        if self._directory is None:
            return ""
        parts = []
        for path in self.logs():
            tail = path.read_text(errors="replace").splitlines()[-lines:]
            if tail:
                parts.append(f"--- {path.name}\n" + "\n".join(tail))
        return "\n".join(parts)

    def leftovers(self) -> list[int]:
        """The processes of this server that run now; empty after `stop` in any case."""
        return reaper.processes_of(self.directory, self._groups) if self._directory else []


def require(name: str, missing: Sequence[str], install: str) -> None:
    """Skip, or fail under GLANCE_TEST_REQUIRE_SERVERS=1, saying what to install."""
    if missing:
        remedy = f": bash tests/servers/install.sh {install}" if install else ""
        _skip_or_fail(f"{name} needs {', '.join(missing)}{remedy}")


def client(server: str, module: str) -> Any:
    """Import a server's client library; skip or fail as `require` does if it is missing."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        _skip_or_fail(f"{server}: {error}; install it into the environment of the tests")


def _skip_or_fail(message: str) -> NoReturn:
    # The servers can be started without pytest, by hand or from a benchmark.
    import pytest

    if os.environ.get("GLANCE_TEST_REQUIRE_SERVERS") == "1":
        pytest.fail(message, pytrace=False)
    pytest.skip(message)
