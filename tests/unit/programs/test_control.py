"""glance-control's choice of servers."""

import sys
from pathlib import Path

import pytest

from glance_api import control
from glance_api.cmd.control import main


def test_reloading_all_leaves_out_what_cannot_be_reloaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reloaded = []

    def reload(service: control.Service) -> int:
        reloaded.append(service.program)
        return 1

    monkeypatch.setattr(control, "RUN_DIRECTORY", tmp_path)
    monkeypatch.setattr(control, "reload", reload)
    monkeypatch.setattr(sys, "argv", ["glance-control", "all", "reload"])
    assert main() == 0
    assert reloaded == ["glance-api", "glance-registry"]


def test_what_the_system_does_not_allow_is_told_in_a_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def reload(service: control.Service) -> int:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(control, "reload", reload)
    monkeypatch.setattr(sys, "argv", ["glance-control", "api", "reload"])
    assert main() == 1
    assert capsys.readouterr().err == "glance-control: [Errno 1] Operation not permitted\n"
