"""A private PostgreSQL server; `glance` is the superuser and needs no password."""

import os
import shutil
import signal
from pathlib import Path

from tests.servers.process import HOST, Server, ServerFailed, find_program, free_port

# PostgreSQL refuses to run as root.
_ACCOUNT = "postgres"


class PostgreSQL(Server):
    """`url(database)` is SQLAlchemy's; `create()` makes a fresh, empty database."""

    name = "postgresql"
    programs = ("psql",)
    install = "postgresql"

    host = HOST
    user = "glance"
    password = ""

    def __init__(self) -> None:
        super().__init__()
        self.port = free_port()
        self._databases = 0

    @classmethod
    def missing(cls) -> list[str]:
        return super().missing() + ([] if _programs() else ["program postgres"])

    def url(self, database: str = "glance", driver: str = "pg8000") -> str:
        return f"postgresql+{driver}://{self.user}@{HOST}:{self.port}/{database}"

    def create(self, database: str | None = None) -> str:
        """Make a database, dropping one of that name, and return its url."""
        self._databases += 1
        database = database or f"glance_{self._databases}"
        self.drop(database)
        self.execute(f'CREATE DATABASE "{database}"')
        return self.url(database)

    def drop(self, database: str) -> None:
        self.execute(f'DROP DATABASE IF EXISTS "{database}" WITH (FORCE)')

    def execute(self, sql: str, database: str = "postgres") -> str:
        """Run statements with the command line client; rows come back tab separated."""
        return self.run(
            *("psql", "-X", "-q", "-A", "-t", "-F", "\t", "-v", "ON_ERROR_STOP=1"),
            *("-h", HOST, "-p", str(self.port), "-U", self.user, "-d", database, "-c", sql),
        )

    def prepare(self) -> None:
        options: dict[str, object] = {}
        if os.geteuid() == 0:
            shutil.chown(self.directory, _ACCOUNT, _ACCOUNT)
            options = {"user": _ACCOUNT, "group": _ACCOUNT, "extra_groups": []}
        self.run(
            self._program("initdb"),
            *("-D", "data", "-A", "trust", "-N", "-E", "UTF8", "--locale=C", "-U", self.user),
            **options,
        )

    def launch(self) -> None:
        self.spawn(
            "postgresql",
            self._program("postgres"),
            *("-D", self.directory / "data", "-p", str(self.port), "-k", self.directory),
            # SIGKILL loses nothing of what the kernel has; nobody cuts the power.
            *("-c", f"listen_addresses={HOST}", "-c", "fsync=off"),
            stop_signal=signal.SIGINT,
            user=_ACCOUNT if os.geteuid() == 0 else None,
        )
        self.wait_until(self._is_ready, "connection")

    def pause(self) -> None:
        super().pause()
        self._signal_backends(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal_backends(signal.SIGCONT)
        super().resume()

    def _signal_backends(self, number: signal.Signals) -> None:
        """The server of each connection is a process in a session of its own."""
        for process in self.processes:
            children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()
            for pid in map(int, children.split()):
                os.kill(pid, number)

    def _is_ready(self) -> bool:
        try:
            self.execute("SELECT 1")
        except ServerFailed:
            return False
        return True

    def _program(self, name: str) -> Path:
        return _programs()[-1] / name


def _programs() -> list[Path]:
    """The directories with a server's programs, the newest version last."""
    debian = Path("/usr/lib/postgresql").glob("*/bin/initdb")
    found = sorted((path.parent for path in debian), key=lambda path: float(path.parts[-2]))
    elsewhere = find_program("initdb")
    return found or ([Path(elsewhere).parent] if elsewhere else [])
