"""Section [database] as an operator wrote it."""

import re
from pathlib import Path

import pytest

from common import config
from glance_registry.db.settings import database_settings


def connection(tmp_path: Path, url: str) -> str:
    (tmp_path / "registry.conf").write_text(f"[database]\nconnection = {url}\n")
    conf = config.load("registry", ["--config-file", str(tmp_path / "registry.conf")])
    return database_settings(conf).connection


@pytest.mark.parametrize(
    ("scheme", "driver"),
    [
        ("mysql", "mysql+pymysql"),
        ("mysql+mysqldb", "mysql+pymysql"),
        ("postgresql", "postgresql+pg8000"),
        ("postgresql+psycopg2", "postgresql+pg8000"),
    ],
)
def test_a_url_of_mitakas_days_gets_a_cooperative_driver(
    tmp_path: Path, scheme: str, driver: str
) -> None:
    given = f"{scheme}://glance:p%40ss@db:3307/glance?charset=utf8"
    assert connection(tmp_path, given) == f"{driver}://glance:p%40ss@db:3307/glance?charset=utf8"


@pytest.mark.parametrize(
    "url",
    ["mysql+pymysql://g:p@db/glance", "sqlite:////var/x.sqlite"],
)
def test_other_urls_stay_as_they_are(tmp_path: Path, url: str) -> None:
    assert connection(tmp_path, url) == url


def test_a_text_that_is_no_url_stops_the_start_without_being_shown(tmp_path: Path) -> None:
    with pytest.raises(config.ConfigurationError, match="connection") as stopped:
        connection(tmp_path, "glance:canary@db")
    assert "canary" not in str(stopped.value)
    assert stopped.value.__cause__ is None


def test_without_a_url_the_log_says_which_file_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Otherwise `glance-manage db sync` fills a file wherever it happens to be started."""
    monkeypatch.chdir(tmp_path)
    assert connection(tmp_path, "") == "sqlite:///oslo.sqlite"
    (warning,) = caplog.messages
    assert warning.endswith(f"is not set: the database is {tmp_path / 'oslo.sqlite'}")


@pytest.mark.parametrize("scheme", ["mysql+nonesuch", "nonesuch"])
def test_a_driver_that_is_not_installed_stops_the_start(tmp_path: Path, scheme: str) -> None:
    """SEC-082: rather than every request."""
    with pytest.raises(config.ConfigurationError, match=f"connection.*{re.escape(scheme)}"):
        connection(tmp_path, f"{scheme}://glance:canary@db/glance")
