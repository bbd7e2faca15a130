"""Logging of every program: oslo.log's options and handlers, our lines.

Each line of a request carries the request's id (`bind_request`), is one line whatever a caller
put into a name, and holds no secret that can be recognized. oslo.log's own formatter does none of
these and reads a dozen options for each record, so it is replaced.
"""

import _thread
import logging
import os
import re
from contextvars import ContextVar
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from oslo_log import log as oslo_log

from common import config

_HIDDEN: Final = "***"

# A shorter secret is too likely to be an ordinary word of the log.
_SHORTEST_SECRET: Final = 6

# User-info of URLs. S3 secrets may hold slashes, so these schemes are taken to the last @.
_USER_INFO: Final = re.compile(
    r"(?<=://)(?:(?<=s3://)|(?<=s3\+http://)|(?<=s3\+https://))[^\s'\"]+@|(?<=://)[^\s/?#'\"]+@"
)
_NAMED: Final = re.compile(
    r"((?:password|passwd|secret|token|authorization|(?<!sort)_key)['\"]?\s*[:=]\s*['\"]?"
    r"(?:Basic |Bearer )?)[^\s'\",;&}]+",
    re.IGNORECASE,
)
_FERNET: Final = re.compile(r"gAAAA[\w=-]{20,}")
_NAMES: Final = (
    "oken",
    "OKEN",
    "assw",
    "ASSW",
    "ecret",
    "ECRET",
    "_key",
    "_KEY",
    "uthor",
    "UTHOR",
)

_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_CONTROL_BUT_NEWLINE: Final = re.compile(_CONTROL.pattern.replace(r"\x00-", r"\x00-\x09\x0b-"))


class _Request:
    """What the lines of one request say about it; worked out when the first one is written."""

    __slots__ = ("request_id", "tenant", "user", "values")

    def __init__(self, request_id: str | None, user: str | None, tenant: str | None) -> None:
        self.request_id = request_id
        self.user = user
        self.tenant = tenant
        self.values: dict[str, str | None] | None = None

    def fields(self) -> dict[str, str | None]:
        if self.values is None:
            self.values = _fields(self)
        return self.values


_NOBODY: Final = _Request(None, None, None)
_request: ContextVar[_Request] = ContextVar("request", default=_NOBODY)
_identity_format = "%(user)s %(tenant)s"
_secrets: set[str] = set()
_secret_pattern: re.Pattern[str] | None = None


def bind_request(request_id: str, user: str | None = None, tenant: str | None = None) -> None:
    """Put the request's id and identity on every line this green thread logs from now on."""
    _request.set(_Request(request_id, user, tenant))


def unbind() -> None:
    """The request is over."""
    _request.set(_NOBODY)


def hide(*secrets: str) -> None:
    """Replace these texts in every line from now on, for secrets that no option holds."""
    global _secret_pattern
    for secret in secrets:
        _secrets.update(part for part in _parts(secret) if len(part) >= _SHORTEST_SECRET)
    longest_first = sorted(_secrets, key=len, reverse=True)
    _secret_pattern = re.compile("|".join(map(re.escape, longest_first))) if _secrets else None


def scrub(text: str) -> str:
    """text without what looks like a credential, and without the configured ones."""
    if "@" in text:
        text = _USER_INFO.sub(_HIDDEN + "@", text)
    if any(name in text for name in _NAMES):
        text = _NAMED.sub(rf"\1{_HIDDEN}", text)
    if "gAAAA" in text:
        text = _FERNET.sub(_HIDDEN, text)
    if _secret_pattern is not None:
        text = _secret_pattern.sub(_HIDDEN, text)
    return text


def setup(conf: config.Configuration, program: str) -> None:
    """Log as conf says from now on; may be called again, with a newer conf.

    Raises ConfigurationError, and goes on logging as before, if that cannot be done.
    """
    global _identity_format
    hide(*config.secrets(conf))
    root = logging.getLogger()
    former = list(root.handlers)
    try:
        _make_handlers(conf, program)
    except (oslo_log.LogConfigError, OSError, TypeError) as error:
        root.handlers[:] = former
        raise config.ConfigurationError(
            f"log_file, log_config_append or syslog_log_facility cannot be used: {error}"
        ) from error
    _identity_format = conf.logging_user_identity_format
    logging.setLogRecordFactory(_Record)
    handlers = _handlers()
    for handler in former:
        if handler not in handlers:
            handler.close()
    if not conf.log_config_append:
        root.setLevel(_level(conf))
    for handler in handlers:
        _own(handler, conf)


def _make_handlers(conf: config.Configuration, program: str) -> None:
    # It would notify through oslo.messaging's global configuration, which nobody fills.
    conf.set_override("publish_errors", False)
    umask = os.umask(0o027)
    try:
        # Its remedy for locks under green threads writes to a pipe for every record; see _own.
        oslo_log.setup(conf, f"{config.PROJECT}-{program}", fix_eventlet=False)
    finally:
        os.umask(umask)


class _Record(logging.LogRecord):
    def getMessage(self) -> str:
        return _escape(super().getMessage(), _CONTROL)


class _LineFormatter(logging.Formatter):
    """The formats of the options, chosen for each record."""

    def __init__(self, conf: config.Configuration) -> None:
        super().__init__(datefmt=conf.log_date_format)
        self._with_request = conf.logging_context_format_string
        self._without = conf.logging_default_format_string
        suffix = conf.logging_debug_format_suffix
        self._debug_suffix = f" {suffix}" if suffix else ""
        self._exception_prefix = conf.logging_exception_prefix

    def format(self, record: logging.LogRecord) -> str:
        values = {**_request.get().fields(), **record.__dict__}
        values["message"] = record.getMessage()
        values["asctime"] = self.formatTime(record, self.datefmt)
        line_format = self._with_request if values["request_id"] else self._without
        if record.levelno == logging.DEBUG:
            line_format += self._debug_suffix
        line = _filled(line_format, values)
        if record.exc_info and record.exc_info[0] is not None:
            text = _escape(self.formatException(record.exc_info), _CONTROL_BUT_NEWLINE)
            prefix = _filled(self._exception_prefix, values)
            line = "\n".join((line, *(prefix + part for part in text.split("\n"))))
        return scrub(line)


class _Scrubbed(logging.Formatter):
    """A formatter of a log_config_append file, with secrets taken out."""

    def __init__(self, inner: logging.Formatter) -> None:
        super().__init__()
        self._inner = inner

    def format(self, record: logging.LogRecord) -> str:
        for name, value in _request.get().fields().items():
            record.__dict__.setdefault(name, value)
        return scrub(self._inner.format(record))


class _Values(dict[str, Any]):
    def __missing__(self, name: str) -> str:
        return "-"


def _handlers() -> set[logging.Handler]:
    """Those of every logger: a log_config_append file may give any logger some."""
    loggers = [logging.getLogger(), *logging.root.manager.loggerDict.values()]
    return {
        handler
        for logger in loggers
        if isinstance(logger, logging.Logger)
        for handler in logger.handlers
    }


def _own(handler: logging.Handler, conf: config.Configuration) -> None:
    if conf.log_config_append or conf.use_json:
        # A file that has not changed is not read again.
        if not isinstance(handler.formatter, _Scrubbed):
            handler.setFormatter(_Scrubbed(handler.formatter or logging.Formatter()))
    else:
        handler.setFormatter(_LineFormatter(conf))
    # Writing a line never lets another green thread run, so a native lock is right among them,
    # and, unlike theirs, also right for the native threads that hash and write.
    handler.lock = _thread.RLock()


def _level(conf: config.Configuration) -> int:
    if conf.debug:
        return logging.DEBUG
    return logging.INFO if conf.verbose else logging.WARNING


def _fields(request: _Request) -> dict[str, str | None]:
    """Everything that format strings may name, oslo.context's names included."""
    user = _escape(request.user or "-", _CONTROL)
    names: dict[str, str | None] = _Values(
        user=user, user_name=user, tenant=_escape(request.tenant or "-", _CONTROL)
    )
    names.update(project=names["tenant"], project_name=names["tenant"])
    return {
        **names,
        "request_id": request.request_id,
        "global_request_id": "",
        "user_identity": _identity_format % names,
        "instance": "",
        "resource": "",
        "color": "",
    }


def _filled(line_format: str, values: dict[str, Any]) -> str:
    try:
        return line_format % values
    except KeyError:
        return line_format % _Values(values)


def _escape(text: str, control: re.Pattern[str]) -> str:
    if text.isprintable():
        return text
    return control.sub(lambda match: repr(match[0])[1:-1], text)


def _parts(secret: str) -> set[str]:
    """The secret itself, or what is secret in a URL."""
    if "://" not in secret:
        return {secret}
    password = urlsplit(secret).password or ""
    return {password, unquote(password)}
