"""What stops a daemon at its start, with which status, and what does not."""

import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.functional.daemons import ROOT, Daemon, make_service, running_service
from tests.functional.steps import wait_until


def refusal(daemon: Daemon) -> tuple[int, str]:
    """Start a daemon that must not start; its exit status and what it printed."""
    daemon.start(wait=False)
    assert daemon.process is not None
    try:
        return daemon.process.wait(30), daemon.output
    finally:
        daemon.stop()


@pytest.mark.parametrize(
    ("options", "status", "message"),
    [
        ({"user_storage_quota": "1 MB"}, 1, "user_storage_quota"),
        ({"image_size_cap": "-1"}, 1, "image_size_cap"),
        ({"paste_deploy": {"flavor": "nonsense"}}, 1, "flavor"),
        ({"paste_deploy": {"flavor": "keystone+caching"}}, 1, "image cache"),
        ({"paste_deploy": {"config_file": "/nonexistent.ini"}}, 1, "config_file"),
        ({"cert_file": "/some/cert.pem"}, 1, "key_file"),
        ({"property_protection_file": "/nonexistent"}, 1, "property_protection_file"),
        ({"log_file": "/nonexistent/directory/x.log"}, 1, "log_file"),
        ({"metadata_encryption_key": "short"}, 1, "metadata_encryption_key"),
        ({"glance_store": {"default_store": "swift"}}, 3, "default_store"),
        ({"glance_store": {"stores": "file,nothing"}}, 3, "stores"),
    ],
)
def test_a_configuration_that_cannot_work_stops_the_api(
    tmp_path: Path, options: dict[str, Any], status: int, message: str
) -> None:
    """V1-IMG-227, MW-043, MW-046, MW-047, SEC-082."""
    ended, output = refusal(make_service(tmp_path, api=options).api)
    assert ended == status
    assert message in output
    assert "Traceback" not in output


def test_a_configuration_that_cannot_work_stops_the_registry(tmp_path: Path) -> None:
    service = make_service(tmp_path, registry={"limit_param_default": "none"})
    ended, output = refusal(service.registry)
    assert ended == 1
    assert "limit_param_default" in output


def test_unknown_options_are_named_once_and_stop_nothing(tmp_path: Path) -> None:
    """Decision 17."""
    unknown = {"bind_hots": "x", "glance_store": {"filesystem_store_datdir": "/x"}}
    with running_service(tmp_path, api={**unknown, "workers": 2}) as service:
        lines = [line for line in service.api.log.splitlines() if "unknown options" in line]
        assert len(lines) == 1
        assert lines[0].endswith(": [DEFAULT] bind_hots, [glance_store] filesystem_store_datdir")


@pytest.mark.parametrize("module", ["glance_api.cmd.api", "glance_registry.cmd.registry"])
@pytest.mark.parametrize(("argument", "status"), [("--version", 0), ("--help", 0), ("--what", 2)])
def test_the_command_line_answers(module: str, argument: str, status: int) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", module, argument], cwd=ROOT, capture_output=True, timeout=30
    )
    assert ended.returncode == status


def test_the_samples_start_a_daemon(tmp_path: Path) -> None:
    """Both paste files of etc/, beside the configuration files."""
    service = make_service(tmp_path, flavor="")
    for name in ("api", "registry"):
        shutil.copy(ROOT / "etc" / f"glance-{name}-paste.ini", tmp_path / f"{name}-paste.ini")
    try:
        service.api.start()
        assert service.client().get("/").status == 300
    finally:
        service.stop()


def test_a_port_that_is_taken_is_named_while_it_is_tried(tmp_path: Path) -> None:
    """REL-089; and the daemon starts once the port is free."""
    service = make_service(tmp_path)
    port = service.registry.port
    with socket.create_server(("127.0.0.1", port)):
        service.registry.start(wait=False)
        wait_until(lambda: f"127.0.0.1:{port} is in use" in service.registry.log)
    try:
        service.registry.wait_until_ready()
        assert f"listening on 127.0.0.1:{port}; workers: 1" in service.registry.log
    finally:
        service.stop()
    assert service.registry.log.endswith("stopped\n")


def test_an_address_of_another_host_is_named(tmp_path: Path) -> None:
    status, output = refusal(make_service(tmp_path, api={"bind_host": "192.0.2.1"}).api)
    assert status == 1
    assert "cannot listen on 192.0.2.1:" in output
    assert "Cannot assign requested address" in output
