"""The processes of a daemon: workers, signals, reloads, the end, and what they leave on disk."""

import contextlib
import http.client
import itertools
import os
import signal
import socket
import ssl
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import pytest

from tests.certificates import certificate
from tests.functional.audit import audit
from tests.functional.daemons import (
    RAW,
    ROOT,
    T1,
    Client,
    Daemon,
    Service,
    make_service,
    running,
    running_service,
)
from tests.functional.steps import (
    HalfUpload,
    active_image,
    meta,
    path,
    queued_image,
    wait_for_status,
    wait_until,
)

WORKERS = 2
# Two interpreters importing the daemons' libraries, on a machine that does nothing else.
START_SECONDS = 2.0


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with running_service(
        tmp_path_factory.mktemp("processes"),
        api={"workers": WORKERS, "image_property_quota": 128},
        registry={"workers": WORKERS},
    ) as running:
        yield running
        audit(running)


def is_alive(pid: int) -> bool:
    """Runs; a zombie does not."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def pid_of(daemon: Daemon) -> int:
    assert daemon.process is not None
    return daemon.process.pid


def is_listening(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def reload(daemon: Daemon) -> None:
    """SIGHUP; returns when there are new workers and the old ones are on their way out."""
    before = set(daemon.workers())
    daemon.signal(signal.SIGHUP)
    wanted = daemon.conf["DEFAULT"]["workers"]
    wait_until(lambda: len(set(daemon.workers()) - before) == wanted)
    wait_until(daemon.answers)


def move_log(daemon: Daemon) -> Path:
    """As logrotate does it; returns the old file."""
    moved = daemon.home / f"{daemon.name}.log.1"
    (daemon.home / f"{daemon.name}.log").rename(moved)
    reload(daemon)
    return moved


class TestStarting:
    def test_both_daemons_start_within_two_seconds(self, tmp_path: Path) -> None:
        """Measured in processor time, so that what else runs here does not count."""
        service = make_service(tmp_path)
        with running(service):
            spent = sum(
                processor_seconds(pid)
                for daemon in (service.api, service.registry)
                for pid in (pid_of(daemon), *daemon.workers())
            )
        assert spent < START_SECONDS

    def test_without_workers_the_parent_serves(self, tmp_path: Path) -> None:
        """MW-039."""
        with running_service(tmp_path, api={"workers": 0}, registry={"workers": 0}) as service:
            assert service.api.workers() == []
            image_id = active_image(service.t1, b"by the parent")
            assert service.t1.get(path(image_id)).content == b"by the parent"
            with HalfUpload.to(service.t1, queued_image(service.t1), 4, b"da") as started:
                service.api.signal(signal.SIGTERM)
                wait_until(lambda: not is_listening(service.api.port))
                started.send(b"ta")
                assert started.answer().status == 200
            assert service.api.process is not None
            assert service.api.process.wait(20) == 0
            service.api.start()

    def test_ipv6_is_served(self, tmp_path: Path) -> None:
        """REL-089."""
        service = make_service(tmp_path, api={"bind_host": "::1"})
        service.api.start(wait=False)
        try:
            wait_until(lambda: _status_over_ipv6(service.api.port) == 200)
        finally:
            service.api.stop()

    def test_the_kernel_looks_after_idle_connections(self, service: Service) -> None:
        """REL-089: `tcp_keepidle` is set on the listening socket, and so on every connection."""
        with socket.create_connection(("127.0.0.1", service.api.port)):
            wait_until(lambda: _keepalive_timers(service.api.port) == [600])


def _keepalive_timers(port: int) -> list[int]:
    """Seconds until the kernel asks the other side of each connection to port."""
    timers = []
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        established = fields[3] == "01"
        kind, left = fields[5].split(":")
        if established and fields[1].endswith(f":{port:04X}") and kind == "02":
            timers.append(round(int(left, 16) / os.sysconf("SC_CLK_TCK")))
    return timers


def _status_over_ipv6(port: int) -> int | None:
    connection = http.client.HTTPConnection("::1", port, timeout=5)
    with contextlib.suppress(OSError), contextlib.closing(connection):
        connection.request("GET", "/healthcheck")
        return connection.getresponse().status
    return None


def processor_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:13])) / os.sysconf("SC_CLK_TCK")


class TestWorkers:
    def test_a_killed_worker_is_replaced(self, service: Service) -> None:
        """MW-042."""
        for daemon in (service.api, service.registry):
            _require_replacement(daemon)
        assert service.t1.get("/v1/images").status == 200

    def test_a_worker_that_is_told_to_reload_finishes_its_work_and_is_replaced(
        self, service: Service
    ) -> None:
        """Section 8, SIGHUP to a child."""
        image_id = queued_image(service.t1)
        with HalfUpload.to(service.t1, image_id, 8, b"half") as started:
            before = service.api.workers()
            for worker in before:
                os.kill(worker, signal.SIGHUP)
            time.sleep(0.3)
            started.send(b"half")
            assert started.answer().status == 200
        wait_until(lambda: not set(before) & set(service.api.workers()))
        wait_until(lambda: len(service.api.workers()) == WORKERS)
        assert service.t1.get(path(image_id)).content == b"halfhalf"

    def test_workers_end_with_their_parent_even_if_it_is_killed(self, tmp_path: Path) -> None:
        """Nobody is left on the port; what is running is finished first."""
        with running_service(tmp_path, api={"workers": 2}) as service:
            workers = service.api.workers()
            image_id = queued_image(service.t1)
            with HalfUpload.to(service.t1, image_id, 8, b"half") as started:
                service.api.signal(signal.SIGKILL)
                wait_until(lambda: sum(map(is_alive, workers)) == 1)
                started.send(b"half")
                assert started.answer().status == 200
            wait_until(lambda: not any(map(is_alive, workers)))
            service.api.start()
            assert service.t1.get(path(image_id)).content == b"halfhalf"

    def test_workers_that_fail_at_once_are_not_replaced_and_end_the_daemon(self) -> None:
        """REL-081: a child that cannot start."""
        ended = _run_parent("raise RuntimeError('cannot start')")
        assert ended.returncode == 1
        assert "no worker is left" in ended.stderr

    def test_workers_that_crash_at_once_are_replaced_slowly_and_not_for_ever(self) -> None:
        """REL-081: bounded back-off, then a non-zero exit."""
        started = time.monotonic()
        ended = _run_parent("os.kill(os.getpid(), signal.SIGSEGV)")
        assert ended.returncode == 1
        crashes = ended.stderr.count("was killed by signal 11")
        assert 3 <= crashes <= 30
        # Two workers, which crash together and are replaced together.
        assert time.monotonic() - started > (crashes / 2 - 1) * RESPAWN_SECONDS
        assert "no worker is left" in ended.stderr


def _require_replacement(daemon: Daemon) -> None:
    before = daemon.workers()
    assert len(before) == WORKERS
    os.kill(before[0], signal.SIGKILL)
    wait_until(lambda: len(set(daemon.workers()) - set(before)) == 1)
    assert before[1] in daemon.workers()


RESPAWN_SECONDS = 0.2  # a fifth of what it is outside of tests

# A site whose workers do something fatal as they start.
_PARENT = """
import logging, os, signal, sys
logging.basicConfig()
from common.wsgi import workers
from common.wsgi.workers import Listen, Parent, Site
workers._RESPAWN_SECONDS = {pause}
def started():
    {statement}
site = Site(lambda environ, start: [], Listen("127.0.0.1", 0), 2, started=started)
sys.exit(Parent(lambda: site).run())
"""


def _run_parent(statement: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-c", _PARENT.format(statement=statement, pause=RESPAWN_SECONDS)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=60,
    )


class Load:
    """Callers who never pause: with a new connection each time, and with kept-alive ones.

    Leaving the block ends them; `failures` is what was not answered, or with anything but 200.
    """

    def __init__(self, service: Service, callers: int = 6) -> None:
        self.failures: list[str] = []
        self.answers = 0
        self._stop = threading.Event()
        self._service = service
        kept, new = self._call_on_one_connection, self._call_on_new_connections
        self._threads = [
            threading.Thread(target=kept if number % 2 else new) for number in range(callers)
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _note(self, status: int) -> None:
        self.answers += 1
        if status != 200:
            self.failures.append(f"status {status}")

    def _call_on_new_connections(self) -> None:
        while not self._stop.is_set():
            try:
                self._note(self._service.t1.get("/v1/images").status)
            except (OSError, http.client.HTTPException) as error:
                self.failures.append(f"new connection: {error!r}")

    def _call_on_one_connection(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._service.api.port, timeout=30)
        while not self._stop.is_set():
            try:
                connection.request("GET", "/v1/images", headers=T1)
                answer = connection.getresponse()
                answer.read()
                self._note(answer.status)
            except (OSError, http.client.HTTPException) as error:
                self.failures.append(f"kept connection: {error!r}")
                connection.close()
        connection.close()


class TestReloading:
    def test_new_values_hold_for_new_requests_while_an_upload_goes_on(
        self, service: Service
    ) -> None:
        """MW-040."""
        two = meta(**{"property-a": "1", "property-b": "2"})
        assert service.t1.post("/v1/images", {**RAW, **two}).status == 201
        image_id = queued_image(service.t1)
        with HalfUpload.to(service.t1, image_id, 8, b"half") as started:
            service.api.conf["DEFAULT"]["image_property_quota"] = 1
            service.api.write_conf()
            try:
                reload(service.api)
                wait_until(lambda: service.t1.post("/v1/images", {**RAW, **two}).status == 413)
            finally:
                service.api.conf["DEFAULT"]["image_property_quota"] = 128
                service.api.write_conf()
            started.send(b"half")
            assert started.answer().image["status"] == "active"
        reload(service.api)
        wait_until(lambda: service.t1.post("/v1/images", {**RAW, **two}).status == 201)

    def test_reloads_under_load_fail_no_request(self, service: Service) -> None:
        """REL-080: SIGHUP to both daemons, again and again."""
        image_id = queued_image(service.t1)
        with HalfUpload.to(service.t1, image_id, 8, b"half") as started, Load(service) as load:
            for _ in range(5):
                service.api.signal(signal.SIGHUP)
                time.sleep(0.5)
                service.registry.signal(signal.SIGHUP)
                time.sleep(0.5)
            started.send(b"half")
            assert started.answer().status == 200
        assert load.failures == []
        assert load.answers > 50
        assert service.t1.get(path(image_id)).content == b"halfhalf"
        wait_until(lambda: len(service.api.workers()) == WORKERS)
        wait_until(lambda: len(service.registry.workers()) == WORKERS)

    def test_a_log_file_that_was_moved_away_is_begun_anew(self, service: Service) -> None:
        """REL-080: log rotation."""
        moved = [move_log(daemon) for daemon in (service.api, service.registry)]
        service.t1.get("/v1/images", {"X-Openstack-Request-ID": "req-after-rotation"})
        wait_until(lambda: "req-after-rotation" in service.api.log)
        wait_until(lambda: "req-after-rotation" in service.registry.log)
        assert not any("req-after-rotation" in file.read_text() for file in moved)

    @pytest.mark.parametrize(
        ("option", "value", "complaint"),
        [
            ("image_size_cap", "much", "Option image_size_cap"),
            ("workers", "0", "workers = 0 takes a restart"),
        ],
    )
    def test_a_configuration_that_cannot_work_changes_nothing(
        self, service: Service, option: str, value: str, complaint: str
    ) -> None:
        before = service.api.workers()
        options = service.api.conf["DEFAULT"]
        former = dict(options)
        options[option] = value
        service.api.write_conf()
        try:
            service.api.signal(signal.SIGHUP)
            wait_until(lambda: f"going on with the old one: {complaint}" in service.api.log)
            assert service.api.workers() == before
            assert service.t1.get("/v1/images").status == 200
        finally:
            service.api.conf["DEFAULT"] = former
            service.api.write_conf()

    def test_workers_ports_and_certificates_are_exchanged(self, tmp_path: Path) -> None:
        """Section 8: the number of workers, TLS on and another certificate, another port."""
        with running_service(tmp_path) as service:
            api, options = service.api, service.api.conf["DEFAULT"]
            options["workers"] = 3
            api.write_conf()
            api.signal(signal.SIGHUP)
            wait_until(lambda: len(api.workers()) == 3)

            for name in ("first.test", "second.test"):
                own = certificate(tmp_path, name)
                options |= {"cert_file": own, "key_file": own}
                api.write_conf()
                api.signal(signal.SIGHUP)
                _wait_for_certificate(api, own)

            moved = make_service(tmp_path / "elsewhere").api.port
            del options["cert_file"], options["key_file"]
            options["bind_port"] = moved
            api.write_conf()
            api.signal(signal.SIGHUP)
            wait_until(
                lambda: (
                    Client(moved).get("/healthcheck").status == 200
                    if is_listening(moved)
                    else False
                )
            )
            wait_until(lambda: not is_listening(api.port))
            api.port = moved


def _wait_for_certificate(daemon: Daemon, file: Path) -> None:
    wait_until(lambda: _certificate_of(daemon.port) == _der(file))


def _certificate_of(port: int) -> bytes | None:
    with contextlib.suppress(OSError):
        return ssl.PEM_cert_to_DER_cert(ssl.get_server_certificate(("127.0.0.1", port), timeout=5))
    return None


def _der(file: Path) -> bytes:
    text = file.read_text()
    end = "-----END CERTIFICATE-----"
    start = text.index("-----BEGIN CERTIFICATE-----")
    return ssl.PEM_cert_to_DER_cert(text[start : text.index(end, start) + len(end)])


class SlowSource:
    """A web server with one page, whose second half waits until it is let go."""

    HALF = b"x" * 50_000

    def __init__(self) -> None:
        self.go = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}/"
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        for _ in itertools.count():
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, connection: socket.socket) -> None:
        with connection, connection.makefile("rb") as request:
            method = request.readline().split()[0]
            while request.readline() != b"\r\n":
                pass
            size = 2 * len(self.HALF)
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
            if method == b"GET":
                connection.sendall(self.HALF)
                self.go.wait(30)
                connection.sendall(self.HALF)

    def close(self) -> None:
        self.go.set()
        self._listener.close()


@pytest.fixture
def source() -> Iterator[SlowSource]:
    source = SlowSource()
    yield source
    source.close()


class TestStopping:
    """REL-081, decision 17."""

    def test_everything_is_gone_and_the_port_is_free(self, tmp_path: Path) -> None:
        """MW-041."""
        with running_service(tmp_path, api={"workers": 3}, registry={"workers": 3}) as service:
            for daemon, number in (
                (service.api, signal.SIGTERM),
                (service.registry, signal.SIGINT),
            ):
                processes = [pid_of(daemon), *daemon.workers()]
                assert len(processes) == 4
                daemon.signal(number)
                assert daemon.process is not None
                assert daemon.process.wait(10) == 0
                assert not any(map(is_alive, processes))
                socket.create_server(("127.0.0.1", daemon.port)).close()
            service.start()

    def test_an_upload_a_download_and_a_copy_are_finished_first(
        self, tmp_path: Path, source: SlowSource
    ) -> None:
        with running_service(tmp_path) as service:
            api, t1 = service.api, service.t1
            large = os.urandom(16 * 1024 * 1024)
            download_id, upload_id = active_image(t1, large), queued_image(t1)
            copy = t1.post("/v1/images", {**RAW, "x-glance-api-copy-from": source.url}).image["id"]
            wait_for_status(t1, copy, "saving")
            with (
                HalfUpload.to(t1, upload_id, 8, b"half") as uploading,
                HalfUpload(t1, "GET", path(download_id), {}, 0) as downloading,
            ):
                time.sleep(0.2)
                api.signal(signal.SIGTERM)
                wait_until(lambda: not is_listening(api.port))
                uploading.send(b"half")
                assert uploading.answer().status == 200
                answer = downloading.answer()
                assert (answer.status, answer.content) == (200, large)
            time.sleep(0.5)
            assert api.process is not None
            assert api.process.poll() is None  # the copy is still running
            source.go.set()
            assert api.process.wait(20) == 0
            api.start()
            assert t1.get(path(upload_id)).content == b"halfhalf"
            assert t1.get(path(copy)).content == 2 * SlowSource.HALF
            audit(service)

    def test_what_does_not_end_in_time_is_cut_and_cleared_up_later(self, tmp_path: Path) -> None:
        with running_service(tmp_path, api={"graceful_shutdown_timeout": 1}) as service:
            image_id = queued_image(service.t1)
            with HalfUpload.to(service.t1, image_id, 8, b"half"):
                started = time.monotonic()
                service.api.signal(signal.SIGTERM)
                assert service.api.process is not None
                assert service.api.process.wait(20) == 0
                assert 0.9 < time.monotonic() - started < 6
            service.api.start()
            assert wait_for_status(service.t1, image_id, "killed") == "killed"
            audit(service)

    def test_a_second_signal_ends_it_at_once(self, tmp_path: Path) -> None:
        with running_service(tmp_path) as service:
            image_id = queued_image(service.t1)
            with HalfUpload.to(service.t1, image_id, 8, b"half"):
                workers = service.api.workers()
                service.api.signal(signal.SIGINT)
                wait_until(lambda: not is_listening(service.api.port))
                started = time.monotonic()
                service.api.signal(signal.SIGINT)
                assert service.api.process is not None
                service.api.process.wait(10)
                assert time.monotonic() - started < 3
                wait_until(lambda: not any(map(is_alive, workers)))
            service.api.start()
            wait_for_status(service.t1, image_id, "killed")


def test_files_are_closed_to_others_whatever_the_umask(tmp_path: Path) -> None:
    """SEC-034: glance-manage and the daemons, started by somebody who forgot about it."""
    before = os.umask(0)
    service = make_service(tmp_path / "home", api={"delayed_delete": True})
    try:
        db_sync(service)
        service.start()
        image_id = active_image(service.t1, b"some data")
        assert service.t1.delete(path(image_id)).status == 200
        with HalfUpload.to(service.t1, queued_image(service.t1), 8, b"half") as uploading:
            _require_closed(service)
            uploading.send(b"half")
            assert uploading.answer().status == 200
        _require_closed(service)
    finally:
        service.stop()
        os.umask(before)


def db_sync(service: Service) -> None:
    service.registry.write_conf()
    manage = [sys.executable, "-m", "glance_api.cmd.manage", "--config-file"]
    words = [*manage, str(service.registry.conf_file), "db_sync"]
    subprocess.run(words, check=True, cwd=ROOT, capture_output=True)


def _require_closed(service: Service) -> None:
    ours = {".conf", ".out", ".json"}  # written by the test
    files = [file for file in service.home.rglob("*") if file.is_file() and file.suffix not in ours]
    assert {"glance.sqlite", "api.log", "registry.log"} <= {file.name for file in files}
    assert service.stored_files()
    for file in files:
        assert stat.S_IMODE(file.stat().st_mode) & 0o007 == 0, file


def test_the_mode_of_image_files_is_the_configured_one(tmp_path: Path) -> None:
    """SEC-034, LP 1031796."""
    options = {"glance_store": {"filesystem_store_file_perm": 640}}
    with running_service(tmp_path, api=options) as service:
        active_image(service.t1)
        (file,) = service.store.iterdir()
        assert stat.S_IMODE(file.stat().st_mode) == 0o640
