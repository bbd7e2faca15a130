"""glance-control with the real daemons (REL-098)."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.functional.daemons import ROOT, Service, make_service

Control = Callable[..., "subprocess.CompletedProcess[str]"]

BIN = Path(sys.executable).parent


@pytest.fixture
def service(tmp_path: Path) -> Service:
    """Configured, with a database, not started."""
    made = make_service(tmp_path)
    made.registry.write_conf()
    made.api.write_conf()
    manage = [sys.executable, "-m", "glance_api.cmd.manage"]
    conf = ["--config-file", str(made.registry.conf_file), "db_sync"]
    subprocess.run([*manage, *conf], check=True, cwd=ROOT, capture_output=True)
    return made


@pytest.fixture
def pid_file(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "registry.pid"
    yield path
    pid = pid_in(path)
    if pid is not None:
        os.kill(pid, signal.SIGTERM)


@pytest.fixture
def control(pid_file: Path) -> Control:
    def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [str(BIN / "glance-control"), "--pid-file", str(pid_file), *arguments],
            capture_output=True,
            text=True,
            timeout=60,
            cwd=ROOT,
        )

    return run


def pid_in(path: Path) -> int | None:
    return int(path.read_text()) if path.exists() else None


def wait_for(condition: Callable[[], object], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_daemon_is_started_reloaded_shown_and_stopped(
    service: Service, control: Control, pid_file: Path
) -> None:
    """MW-057."""
    conf = str(service.registry.conf_file)
    assert control("registry", "start", conf).returncode == 0
    wait_for(service.registry.answers)
    pid = pid_in(pid_file)

    again = control("registry", "start", conf)
    assert again.returncode == 1
    assert f"already running: pid {pid}" in again.stderr
    assert (
        control("glance-registry", "status").stdout == f"glance-registry (pid {pid}) is running\n"
    )

    assert control("registry", "reload").returncode == 0
    wait_for(lambda: "reload" in service.registry.log)
    assert service.registry.answers()
    assert pid_in(pid_file) == pid

    assert control("registry", "stop").returncode == 0
    assert not service.registry.answers()
    assert not pid_file.exists()
    assert control("registry", "status").stdout == "glance-registry is stopped\n"


def test_a_restart_gives_a_new_process(service: Service, control: Control, pid_file: Path) -> None:
    conf = str(service.registry.conf_file)
    control("registry", "start", conf)
    wait_for(service.registry.answers)
    before = pid_in(pid_file)
    assert control("registry", "restart", conf).returncode == 0
    wait_for(service.registry.answers)
    assert pid_in(pid_file) != before
    assert control("registry", "shutdown").returncode == 0


def test_a_stale_pid_file_does_not_stop_a_start(
    service: Service, control: Control, pid_file: Path
) -> None:
    # Alive, but another program: as after a restart of the host.
    pid_file.write_text(f"{os.getpid()}\n")
    assert control("registry", "start", str(service.registry.conf_file)).returncode == 0
    wait_for(service.registry.answers)
    assert control("registry", "stop").returncode == 0


def test_the_status_of_a_child_that_ends_is_reported(
    service: Service, control: Control, pid_file: Path, tmp_path: Path
) -> None:
    bad = tmp_path / "bad.conf"
    bad.write_text("[DEFAULT]\nbacklog = none\n")
    started = control("--await-child", "20", "registry", "start", str(bad))
    assert started.returncode == 1
    pid_file.unlink()


def test_a_daemon_that_dies_is_started_again_until_it_is_stopped(
    service: Service, control: Control, pid_file: Path
) -> None:
    watching = subprocess.Popen(
        [
            *(str(BIN / "glance-control"), "--pid-file", str(pid_file), "--respawn"),
            *("registry", "start", str(service.registry.conf_file)),
        ],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    try:
        wait_for(service.registry.answers)
        first = pid_in(pid_file)
        assert first is not None
        time.sleep(1)  # what dies sooner is not started again
        os.killpg(first, signal.SIGKILL)
        wait_for(lambda: pid_in(pid_file) != first)
        wait_for(service.registry.answers)
        assert control("registry", "stop").returncode == 0
        output, _ = watching.communicate(timeout=10)
    finally:
        watching.kill()
    assert watching.returncode == 0
    assert "has died and is started again" in output
    assert "was stopped on purpose" in output


def test_output_of_a_daemon_goes_to_syslog_on_request(
    service: Service, control: Control, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    logger = tmp_path / "bin" / "logger"
    logger.parent.mkdir()
    logger.write_text(f"#!/bin/sh\necho $* > {tmp_path}/captured\ncat >> {tmp_path}/captured\n")
    logger.chmod(0o755)
    monkeypatch.setenv("PATH", f"{logger.parent}:{os.environ['PATH']}")
    bad = tmp_path / "bad.conf"
    bad.write_text("[DEFAULT]\nbacklog = none\n")
    control("--capture-output", "--await-child", "20", "registry", "start", str(bad))
    captured = tmp_path / "captured"
    wait_for(lambda: captured.exists() and "backlog" in captured.read_text())
    assert captured.read_text().startswith("-t glance-registry\n")
    (tmp_path / "registry.pid").unlink()


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["scrubber", "reload"], 1, "cannot be reloaded"),
        (["registry", "reload"], 1, "is not running"),
        (["all", "start"], 1, "--pid-file"),
        (["--respawn", "--await-child", "1", "api", "start"], 1, "exclude each other"),
        (["nothing", "start"], 1, "server"),
        (["api", "nothing"], 1, "command"),
        ([], 2, "required"),
    ],
)
def test_what_cannot_be_done_is_refused(
    control: Control, arguments: list[str], status: int, message: str
) -> None:
    """MW-058."""
    refused = control(*arguments)
    assert refused.returncode == status
    assert message in refused.stderr


def test_stopping_what_does_not_run_is_no_error(control: Control) -> None:
    stopped = control("registry", "stop")
    assert stopped.returncode == 0
    assert stopped.stdout == "glance-registry is not running\n"
