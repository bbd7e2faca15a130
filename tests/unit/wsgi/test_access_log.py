"""Which answers are worth a line."""

import logging

import pytest

from common.wsgi.access_log import ServerLog


@pytest.mark.parametrize(
    ("line", "level"),
    [
        ('127.0.0.1 "GET /leases?limit=1000 HTTP/1.1" status: 200 len: 136 time: 0.001', "DEBUG"),
        ('127.0.0.1 "GET /leases?limit=1000 HTTP/1.1" status: 503 len: 136 time: 0.001', "INFO"),
        ('127.0.0.1 "GET /images?x="GET /leases?" HTTP/1.1" status: 200 len: 1 time: 0.1', "INFO"),
        ('127.0.0.1 "PUT /leases HTTP/1.1" status: 200 len: 136 time: 0.001', "INFO"),
    ],
)
def test_the_janitors_polls_are_told_to_debuggers_only(
    line: str, level: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    ServerLog(TimeoutError).info(line)
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [(level, line)]
