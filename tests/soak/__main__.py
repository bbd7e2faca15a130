"""`python -m tests.soak`: faults for some minutes, then the invariants, then one line of zeros."""

import argparse
import contextlib
import hashlib
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from tests.functional.daemons import (
    ROOT,
    Client,
    Daemon,
    Service,
    free_port,
    identity,
    make_service,
)
from tests.functional.sources import Sources
from tests.servers.mariadb import MariaDB
from tests.servers.mounts import Tmpfs
from tests.soak.clients import Tenant
from tests.soak.faults import Saboteur
from tests.soak.ledger import Ledger, Word
from tests.soak.proxy import Proxy

LEASE_SECONDS = 5
# Every lease of a dead worker has run out and been cleared up by then.
SETTLE_SECONDS = 60


@dataclass
class Verdict:
    """What a run came to; a good one has zeros but for faults."""

    faults: int
    requests: int
    lost: list[str]
    stuck: list[str]
    leaked: list[str]
    bad_answers: list[str]

    @property
    def good(self) -> bool:
        return not (self.lost or self.stuck or self.leaked or self.bad_answers)

    def __str__(self) -> str:
        return (
            f"faults {self.faults}: lost {len(self.lost)}, stuck {len(self.stuck)}, "
            f"leaked {len(self.leaked)}, bad answers {len(self.bad_answers)}"
        )


def run(home: Path, *, seconds: float, faults: int | None, seed: int, database: str) -> Verdict:
    """Torment a service below home for seconds, or until so many faults, and judge it."""
    with contextlib.ExitStack() as stack:
        place = home
        if Tmpfs.available():
            # Small enough to be filled in an instant; the database stays outside.
            place = stack.enter_context(Tmpfs("512m")).path
        server = stack.enter_context(MariaDB()) if database == "mariadb" else None
        service, second, proxy = _make(home, place, server.create("soak") if server else None)
        stack.callback(proxy.close)
        stack.enter_context(_running(service, second))
        sources = stack.enter_context(Sources())
        ledger, stop = Ledger(), threading.Event()
        apis = [service.api, second]
        saboteur = Saboteur(
            seed,
            apis,
            service.registry,
            proxy,
            service.store,
            server or home / "glance.sqlite",
            ledger,
            stop,
        )
        ports = [daemon.port for daemon in apis]
        tenants = [
            Tenant(f"tenant-{number}", seed * 1000 + number, ports, ledger, sources, stop)
            for number in range(8)
        ]
        for thread in (saboteur, *tenants):
            thread.start()
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and (faults is None or ledger.faults < faults):
            time.sleep(0.2)
        stop.set()
        for thread in (*tenants, saboteur):
            thread.join(120)
        print(f"requests {ledger.requests}, sabotage {saboteur.done}", file=sys.stderr)
        return _judge(service, ledger)


def _make(home: Path, place: Path, connection: str | None) -> tuple[Service, Daemon, Proxy]:
    api = {
        "workers": 2,
        "graceful_shutdown_timeout": 10,
        "registry_client_timeout": 20,
        "debug": False,
        "leases": {"host": "one", "seconds": LEASE_SECONDS},
    }
    service = make_service(
        home,
        api=api,
        registry={"workers": 2, "graceful_shutdown_timeout": 10, "debug": False},
        connection=connection,
    )
    store = place / "bytes"
    store.mkdir()
    service.store = store
    service.api.conf["glance_store"]["filesystem_store_datadir"] = store
    proxy = Proxy(service.registry.port)
    conf = {section: dict(options) for section, options in service.api.conf.items()}
    port = free_port()
    conf["DEFAULT"] |= {
        "bind_port": port,
        "registry_port": proxy.port,
        "log_file": home / "api-2.log",
    }
    conf["leases"]["host"] = "two"
    second = replace(service.api, name="api-2", port=port, conf=conf)
    return service, second, proxy


@contextlib.contextmanager
def _running(service: Service, second: Daemon) -> Iterator[None]:
    service.registry.write_conf()
    service.api.write_conf()
    _manage(service, "db_sync")
    try:
        service.start()
        second.start()
        yield
    finally:
        second.stop()
        service.stop()


def _manage(service: Service, *arguments: str) -> "subprocess.CompletedProcess[str]":
    files = [str(service.registry.conf_file), str(service.api.conf_file)]
    command = [sys.executable, "-m", "glance_api.cmd.manage"]
    for file in files:
        command += ["--config-file", file]
    return subprocess.run(
        [*command, *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )


def _judge(service: Service, ledger: Ledger) -> Verdict:
    stuck, leaked, other = _settle(service)
    verdict = Verdict(
        ledger.faults, ledger.requests, list(ledger.lost), stuck, leaked, ledger.bad_answers + other
    )
    for image_id, known in ledger.images.items():
        client = Client(service.api.port, identity(known.tenant))
        answer = client.get(f"/v1/images/{image_id}")
        checksum = hashlib.md5(answer.content).hexdigest()
        if known.word is Word.ACTIVE and (answer.status, checksum) not in {
            (200, each) for each in known.checksums
        }:
            verdict.lost.append(f"{image_id}: acknowledged, now {answer.status}")
        elif known.word is Word.DELETED and answer.status != 404:
            verdict.bad_answers.append(f"{image_id}: deleted, now {answer.status}")
        elif answer.status == 200 and checksum not in known.checksums:
            verdict.bad_answers.append(f"{image_id}: active with bytes that nobody sent")
    return verdict


def _settle(service: Service) -> tuple[list[str], list[str], list[str]]:
    """Wait for what clears itself up; what is left as (stuck, leaked, anything else)."""
    deadline = time.monotonic() + SETTLE_SECONDS
    while True:
        found = _manage(service, "check")
        lines = [line for line in found.stdout.splitlines() if ": " in line]
        lines += _waiting_copies(service)
        if (found.returncode == 0 and not lines) or time.monotonic() > deadline:
            break
        time.sleep(1)
    stuck = [line for line in lines if line.startswith("stuck")]
    leaked = [line for line in lines if line.startswith("extra")]
    other = [line for line in lines if line not in stuck and line not in leaked]
    if found.returncode == 1:
        other.append(found.stderr)
    return stuck, leaked, other


def _waiting_copies(service: Service) -> list[str]:
    """Images in `saving`, and work that a lease says is still going on."""
    admin = Client(service.api.port, identity("adm", "admin"))
    saving = admin.get("/v1/images?is_public=none&status=saving&limit=100").json["images"]
    leases = service.registry_client().get("/leases").json["leases"]
    return [f"stuck {image['id']}: saving" for image in saving] + [
        f"stuck {lease['image_id']}: {lease['kind']} under way" for lease in leases
    ]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10, help="10 unless told")
    parser.add_argument("--faults", type=int, help="stop after so many, if that is earlier")
    parser.add_argument("--seed", type=int, default=int(time.time()), help="of an earlier run")
    parser.add_argument(
        "--database", choices=["sqlite", "mariadb"], default="sqlite", help="sqlite unless told"
    )
    parser.add_argument("--keep", type=Path, help="keep logs and database in this directory")
    args = parser.parse_args()
    print(f"seed {args.seed}, {args.database}", file=sys.stderr)
    with contextlib.ExitStack() as stack:
        home = args.keep or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        home.mkdir(parents=True, exist_ok=True)
        verdict = run(
            home,
            seconds=args.minutes * 60,
            faults=args.faults,
            seed=args.seed,
            database=args.database,
        )
    for kind in ("lost", "stuck", "leaked", "bad_answers"):
        for line in getattr(verdict, kind)[:20]:
            print(f"{kind}: {line}", file=sys.stderr)
    print(verdict)
    return 0 if verdict.good else 1


if __name__ == "__main__":
    sys.exit(main())
