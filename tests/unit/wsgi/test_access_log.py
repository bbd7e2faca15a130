"""Which answers are worth a line."""

import logging

import pytest

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
    caplog.set_level(logging.DEBUG)
    access_log.answered("127.0.0.1", request_line, status, 136, 0.001)
    line = f'127.0.0.1 "{request_line}" status: {status} len: 136 time: 0.001000'
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [(level, line)]
