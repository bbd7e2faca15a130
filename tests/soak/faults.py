"""What is done to the processes, the network, the disk and the database."""

import contextlib
import os
import random
import signal
import sqlite3
import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from tests.functional.daemons import Daemon
from tests.servers.mariadb import MariaDB
from tests.soak.ledger import Ledger
from tests.soak.proxy import Proxy


class Saboteur(threading.Thread):
    """Breaks one thing after the other and puts each right again."""

    def __init__(
        self,
        seed: int,
        apis: list[Daemon],
        registry: Daemon,
        proxy: Proxy,
        store: Path,
        database: Path | MariaDB,
        ledger: Ledger,
        stop: threading.Event,
    ) -> None:
        super().__init__(name="saboteur", daemon=True)
        self.chance = random.Random(seed)
        self.apis = apis
        self.registry = registry
        self.proxy = proxy
        self.store = store
        self.database = database
        self.ledger = ledger
        self.stop = stop
        self.done: dict[str, int] = {}
        self.acts: list[Callable[[], None]] = [
            self.kill_api_worker,
            self.kill_api,
            self.kill_registry_worker,
            self.kill_registry,
            self.freeze_worker,
            self.cut_network,
            self.fill_disk,
            self.trouble_database,
            self.reload,
            self.stop_gracefully,
        ]

    def run(self) -> None:
        while not self.stop.is_set():
            act = self.chance.choice(self.acts)
            try:
                act()
            except Exception as error:
                self.ledger.complain(f"{act.__name__}: {error!r}")
                self._bring_up()
            self.done[act.__name__] = self.done.get(act.__name__, 0) + 1
            self.ledger.fault()
            self.stop.wait(self.chance.uniform(0.1, 1.0))
        self._bring_up()

    def kill_api_worker(self) -> None:
        self._kill_worker(self._api())

    def kill_registry_worker(self) -> None:
        self._kill_worker(self.registry)

    def kill_api(self) -> None:
        daemon = self._api()
        daemon.kill()
        daemon.start()

    def kill_registry(self) -> None:
        self.registry.kill()
        self.stop.wait(self.chance.uniform(0, 0.5))
        self.registry.start()

    def freeze_worker(self) -> None:
        workers = self.chance.choice([*self.apis, self.registry]).workers()
        if workers:
            worker = self.chance.choice(workers)
            with contextlib.suppress(ProcessLookupError):
                os.kill(worker, signal.SIGSTOP)
                time.sleep(self.chance.uniform(0.1, 1.5))
                os.kill(worker, signal.SIGCONT)

    def cut_network(self) -> None:
        self.proxy.cut()
        time.sleep(self.chance.uniform(0.1, 2.0))
        self.proxy.heal()

    def fill_disk(self) -> None:
        ballast = self.store.parent / "ballast"
        with contextlib.suppress(OSError), open(ballast, "wb") as file:
            os.posix_fallocate(file.fileno(), 0, _free_bytes(self.store) - 4096)
        time.sleep(self.chance.uniform(0.1, 0.7))
        ballast.unlink(missing_ok=True)

    def trouble_database(self) -> None:
        if isinstance(self.database, MariaDB):
            self.database.restart()
            return
        with closing(sqlite3.connect(self.database, timeout=5)) as connection:
            connection.execute("BEGIN EXCLUSIVE")
            time.sleep(self.chance.uniform(0.1, 1.5))

    def reload(self) -> None:
        self.chance.choice([*self.apis, self.registry]).signal(signal.SIGHUP)

    def stop_gracefully(self) -> None:
        daemon = self._api()
        daemon.stop()
        daemon.start()

    def _api(self) -> Daemon:
        return self.chance.choice(self.apis)

    def _kill_worker(self, daemon: Daemon) -> None:
        if workers := daemon.workers():
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.chance.choice(workers), signal.SIGKILL)

    def _bring_up(self) -> None:
        self.proxy.heal()
        for daemon in (self.registry, *self.apis):
            if daemon.process is None or daemon.process.poll() is not None:
                daemon.start()


def _free_bytes(path: Path) -> int:
    found = os.statvfs(path)
    return found.f_bavail * found.f_frsize
