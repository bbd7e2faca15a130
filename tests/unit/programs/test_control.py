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
