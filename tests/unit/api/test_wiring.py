"""What glance-api says about its configuration while it is put together."""

import logging
from pathlib import Path

import pytest

from common import config
from glance_api.app import Api
from glance_store.loader import option_groups


@pytest.mark.parametrize("there", [True, False])
def test_rules_that_let_everybody_publish_are_not_in_force_unnoticed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, there: bool
) -> None:
    """SEC-012, SEC-082, MW-022."""
    policy, file = tmp_path / "rules.json", tmp_path / "glance-api.conf"
    if there:
        policy.write_text('{"default": "role:admin"}')
    store = f"[glance_store]\nfilesystem_store_datadir = {tmp_path}\n"
    file.write_text(f"{store}[oslo_policy]\npolicy_file = {policy}\n")
    caplog.set_level(logging.WARNING)
    Api(config.load("api", ["--config-file", str(file)], extra_groups=option_groups()))
    said = [record.getMessage() for record in caplog.records]
    assert [f"there is no policy file {policy}" in text for text in said] == (
        [] if there else [True]
    )
