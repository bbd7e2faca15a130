"""Log lines: whose they are, that they are one line, and that they tell no secret."""

import logging
import stat
import timeit
from collections.abc import Callable, Iterator
from pathlib import Path

import greenlet
import pytest

from common import config, log

Setup = Callable[..., Path]
LOG = logging.getLogger("tests.log")


@pytest.fixture
def set_up(tmp_path: Path) -> Iterator[Setup]:
    """Log to a file of the test's own, with further lines for the configuration file."""
    root = logging.getLogger()
    handlers, factory, levels = list(root.handlers), logging.getLogRecordFactory(), _levels()

    def start(*lines: str) -> Path:
        path = tmp_path / "test.log"
        text = ["[DEFAULT]", "use_stderr = false", f"log_file = {path}", *lines]
        (tmp_path / "test.conf").write_text("\n".join(text))
        log.setup(config.load("api", ["--config-file", str(tmp_path / "test.conf")]), "api")
        return path

    root.handlers[:] = []
    yield start
    log.unbind()
    for handler in root.handlers:
        handler.close()
    root.handlers[:] = handlers
    for name in _levels():
        logging.getLogger(name).setLevel(levels.get(name, logging.NOTSET))
    logging.setLogRecordFactory(factory)


def _levels() -> dict[str, int]:
    """Of every logger; the root's has no name."""
    named = [
        name
        for name, logger in logging.root.manager.loggerDict.items()
        if isinstance(logger, logging.Logger)
    ]
    return {name: logging.getLogger(name).level for name in ("", *named)}


def test_every_line_of_a_request_carries_its_id_and_identity(set_up: Setup) -> None:
    """REL-092."""
    path = set_up()
    log.bind_request("req-1", "alice", "blue")
    LOG.info("first")
    log.unbind()
    LOG.info("second")
    first, second = path.read_text().splitlines()
    assert "[req-1 alice blue - - -] first" in first
    assert "[-] second" in second


def test_an_identity_with_control_characters_stays_on_its_line(set_up: Setup) -> None:
    """SEC-038: a trusted front end may hand on names that others have chosen."""
    path = set_up()
    log.bind_request("req-1", "alice\nERROR forged", "blue\u2028")
    LOG.info("text")
    (line,) = path.read_text().splitlines()
    assert r"[req-1 alice\nERROR forged blue\u2028 - - -] text" in line


def test_green_threads_do_not_see_each_others_request(set_up: Setup) -> None:
    path = set_up()

    def request(request_id: str) -> None:
        log.bind_request(request_id)
        greenlet.getcurrent().parent.switch()
        LOG.info("of %s", request_id)

    threads = [greenlet.greenlet(request) for _ in range(3)]
    for number, thread in enumerate(threads):
        thread.switch(f"req-{number}")
    for thread in threads:
        thread.switch()
    LOG.info("of nobody")
    lines = path.read_text().splitlines()
    assert [f"[req-{n} - " in line for n, line in enumerate(lines[:3])] == [True] * 3
    assert "[-] of nobody" in lines[3]


def test_a_name_with_control_characters_stays_one_inert_line(set_up: Setup) -> None:
    """SEC-038."""
    path = set_up()
    LOG.warning("image %s", "a\n2026-01-01 INFO forged\r\x1b[2J\u2028\u202e\ud800 Zoë <script>")
    (line,) = path.read_text().splitlines()
    assert r"a\n2026-01-01 INFO forged\r\x1b[2J\u2028\u202e\ud800 Zoë <script>" in line


@pytest.mark.parametrize(
    "text",
    [
        "swift+https://acct:user:canary@host/c",
        "s3://key:x/canary@host/bucket",
        "http://user:p@canary@host/",
        "{'X-Auth-Token': 'canary'}",
        "X-Service-Token: canary",
        "Authorization: Basic canary",
        "password=canary&x=1",
        '"secret": "canary"',
        "PASSWD=canary",
        "AUTHORIZATION: Basic canary",
        "gAAAAABcanary_canary-canarycanary==",
        "the registry key is 0123456789canary",
        "of mysql: s3cr3t/canary",
    ],
)
def test_credentials_do_not_reach_the_log(set_up: Setup, text: str) -> None:
    """SEC-031."""
    path = set_up(
        "registry_auth_key = 0123456789canary",
        "[database]",
        "connection = mysql+pymysql://glance:s3cr3t%2Fcanary@db/glance",
    )
    LOG.warning("%s", text)
    try:
        raise ValueError(text)
    except ValueError:
        LOG.exception("failed")
    assert "canary" not in path.read_text()


def test_a_secret_that_no_option_holds_can_be_hidden(set_up: Setup) -> None:
    path = set_up()
    log.hide("from-a-swift-file")
    LOG.warning("key from-a-swift-file!")
    assert path.read_text().endswith("key ***!\n")


def test_a_traceback_keeps_its_lines_and_its_prefix(set_up: Setup) -> None:
    path = set_up()
    try:
        raise ValueError("a\nb\x1b")
    except ValueError:
        LOG.exception("failed")
    lines = path.read_text().splitlines()
    assert lines[-2].endswith("ERROR tests.log ValueError: a")
    assert lines[-1].endswith(r"ERROR tests.log b\x1b")


@pytest.mark.parametrize(
    ("options", "shown"),
    [
        ([], ["INFO", "WARNING"]),
        (["debug = true"], ["DEBUG", "INFO", "WARNING"]),
        (["verbose = false"], ["WARNING"]),
        (["default_log_levels = tests.log=WARN"], ["WARNING"]),
    ],
)
def test_levels_follow_the_options(set_up: Setup, options: list[str], shown: list[str]) -> None:
    path = set_up(*options)
    try:
        for level in (logging.DEBUG, logging.INFO, logging.WARNING):
            LOG.log(level, "line")
    finally:
        LOG.setLevel(logging.NOTSET)
    assert [line.split()[3] for line in path.read_text().splitlines()] == shown


def test_formats_of_a_mitaka_file_work(set_up: Setup) -> None:
    path = set_up(
        "logging_context_format_string = %(request_id)s %(user)s %(tenant)s %(surprise)s"
        " %(instance)s%(message)s",
        "logging_user_identity_format = %(user)s",
    )
    log.bind_request("req-1", "alice", "blue")
    LOG.info("done")
    assert path.read_text() == "req-1 alice blue - done\n"


def test_the_log_file_is_not_world_readable(set_up: Setup) -> None:
    """SEC-034."""
    path = set_up()
    assert stat.S_IMODE(path.stat().st_mode) & 0o007 == 0


def test_a_moved_log_file_is_opened_anew(set_up: Setup) -> None:
    """REL-080: log rotation is followed."""
    path = set_up("watch_log_file = true")
    LOG.info("before")
    path.rename(path.with_suffix(".1"))
    LOG.info("after")
    assert path.read_text().endswith("after\n")


def test_setting_up_again_closes_the_former_file(set_up: Setup) -> None:
    set_up()
    (former,) = logging.getLogger().handlers
    set_up()
    assert len(logging.getLogger().handlers) == 1
    assert isinstance(former, logging.FileHandler)
    assert former.stream is None


def test_a_log_config_append_file_keeps_its_formats_but_no_secret(
    set_up: Setup, tmp_path: Path
) -> None:
    own = tmp_path / "own.log"
    (tmp_path / "logging.ini").write_text(
        "[loggers]\nkeys=root\n[handlers]\nkeys=file\n[formatters]\nkeys=short\n"
        "[logger_root]\nlevel=INFO\nhandlers=file\n"
        f"[handler_file]\nclass=FileHandler\nargs=('{own}',)\nformatter=short\n"
        "[formatter_short]\nformat=%(request_id)s|%(message)s\n"
    )
    set_up(f"log_config_append = {tmp_path / 'logging.ini'}")
    log.bind_request("req-7")
    LOG.info("a\nb http://u:canary@h/")
    assert own.read_text() == "req-7|a\\nb http://***@h/\n"


@pytest.mark.parametrize(
    "options",
    [
        ["log_file = /nonexistent/directory/x.log"],
        ["log_config_append = /nonexistent/logging.ini"],
        ["use_syslog = true", "syslog_log_facility = LOG_NOTHING"],
    ],
)
def test_a_log_that_cannot_be_set_up_stops_the_start_and_a_reload_changes_nothing(
    set_up: Setup, options: list[str]
) -> None:
    """SEC-082."""
    path = set_up()
    with pytest.raises(config.ConfigurationError, match=options[-1].split()[0]):
        set_up(*options)
    LOG.info("still here")
    assert path.read_text().endswith("still here\n")


def test_errors_are_not_published_whatever_a_file_says(set_up: Setup) -> None:
    path = set_up("publish_errors = true")
    LOG.error("not published")
    assert "not published" in path.read_text()
    assert len(logging.getLogger().handlers) == 1


def test_an_access_line_costs_little(set_up: Setup) -> None:
    set_up()
    arguments = ("127.0.0.1", "GET", "/v1/images/3fa85f64-5717-4562-b3fc-2c963f66afa6", 200, 0.0123)
    log.bind_request("req-3fa85f64-5717-4562-b3fc-2c963f66afa6", "alice", "blue")
    timer = timeit.Timer(lambda: LOG.info('%s "%s %s" %s %.7f', *arguments))
    # About 14 microseconds; the bound only catches a change of kind, on a busy machine too.
    assert min(timer.repeat(5, 1000)) / 1000 < 100e-6
