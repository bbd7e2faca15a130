"""What a daemon says, when it starts, about who can reach it (decisions 5 and 6)."""

import logging
import os
from pathlib import Path

import pytest

from common import config, program

BELIEVED = "flavor trusted-auth: whoever reaches 0.0.0.0 is believed"
OPEN = "no authentication: whoever reaches 0.0.0.0 is an admin"
KEYLESS = "registry_auth_key is not set"


@pytest.mark.parametrize(
    ("daemon", "flavor", "key", "said"),
    [
        ("api", "", "", [OPEN]),
        ("api", "trusted-auth", "", [BELIEVED]),
        ("api", "keystone", "", []),
        ("api", "", "text", [OPEN]),
        ("registry", "", "", [OPEN, KEYLESS]),
        ("registry", "trusted-auth", "", [BELIEVED, KEYLESS]),
        ("registry", "keystone", "", [KEYLESS]),
        ("registry", "", "text", []),
        ("registry", "trusted-auth", "text", []),
    ],
)
def test_who_is_let_in_without_proof_is_told_once(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    daemon: str,
    flavor: str,
    key: str,
    said: list[str],
) -> None:
    """SEC-017, SEC-018."""
    file = tmp_path / "glance.conf"
    key_line = f"registry_auth_key = {key}\n" if key else ""
    file.write_text(f"[DEFAULT]\n{key_line}[paste_deploy]\nflavor = {flavor}\n")
    caplog.set_level(logging.WARNING)
    program._warn_if_open(config.load(daemon, ["--config-file", str(file)]), daemon)
    heard = [record.getMessage() for record in caplog.records]
    assert len(heard) == len(said)
    assert all(map(str.startswith, heard, said))


def test_a_mistake_found_before_there_is_a_log_is_told_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def load() -> config.Configuration:
        raise config.ConfigurationError("Option bind_port is wrong")

    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    umask = os.umask(0o027)
    try:
        assert program.serve("api", load, lambda conf: pytest.fail("built")) == 1
    finally:
        os.umask(umask)
    assert capsys.readouterr().err == "glance-api: Option bind_port is wrong\n"
