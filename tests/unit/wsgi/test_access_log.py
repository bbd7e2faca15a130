"""Which answers are worth a line, and what is said of those that were cut."""

import logging

import pytest

from common import errors
from common.wsgi import access_log


@pytest.mark.parametrize(
    ("request_line", "status", "level"),
    [
        ("GET /leases?limit=1000 HTTP/1.1", "200", "DEBUG"),
        ("GET /leases?limit=1000 HTTP/1.1", "503", "INFO"),
        ('GET /images?x="GET /leases?" HTTP/1.1', "200", "INFO"),
        ("PUT /leases HTTP/1.1", "200", "INFO"),
    ],
)
def test_the_janitors_polls_are_told_to_debuggers_only(
    request_line: str, status: str, level: str, caplog: pytest.LogCaptureFixture
) -> None:
    # The logger has a level of its own, once a program's log has been set up.
    caplog.set_level(logging.DEBUG, access_log.ACCESS_LOG.name)
    access_log.answered("127.0.0.1", request_line, status, 136, 0.001)
    line = f'127.0.0.1 "{request_line}" status: {status} len: 136 time: 0.001000'
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [(level, line)]


@pytest.mark.parametrize(
    ("error", "level", "traceback"),
    [
        (ConnectionResetError(), "INFO", False),
        (TimeoutError(), "INFO", False),
        (errors.ClientDisconnected(), "INFO", False),
        (errors.ServiceUnavailable("The stored bytes ended."), "ERROR", False),
        (ValueError(), "ERROR", True),
    ],
)
def test_only_a_fault_of_ours_is_told_with_its_traceback(
    error: Exception, level: str, traceback: bool, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    try:
        raise error
    except Exception:
        access_log.cut(error)
    assert [(each.levelname, bool(each.exc_info)) for each in caplog.records] == [
        (level, traceback)
    ]
