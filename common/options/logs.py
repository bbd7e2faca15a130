"""Logging. oslo.log declares most of these; the defaults here are the ones in force."""

from typing import Final

from oslo_config import cfg

from common.options.area import Area

LEVELS: Final = [
    "amqp=WARN",
    "amqplib=WARN",
    "boto=WARN",
    "boto3=WARN",
    "botocore=WARN",
    "eventlet=WARN",
    "eventlet.wsgi.server=INFO",
    "iso8601=WARN",
    "keystoneauth=WARN",
    "keystonemiddleware=WARN",
    "oslo.cache=INFO",
    "oslo.messaging=INFO",
    "oslo_messaging=INFO",
    "oslo_policy=INFO",
    # It tries every format on every upload, and calls it an error when one does not fit.
    "oslo_utils.imageutils=CRITICAL",
    "qpid=WARN",
    "requests.packages.urllib3=WARN",
    "routes.middleware=WARN",
    "sqlalchemy=WARN",
    "stevedore=WARN",
    "suds=INFO",
    "swiftclient=WARN",
    "taskflow=WARN",
    "urllib3=WARN",
    "websocket=WARN",
]

_PREFIX: Final = "%(asctime)s.%(msecs)03d %(process)d %(levelname)s %(name)s"

LIBRARY: Final = (
    cfg.BoolOpt("debug", default=False, help="Log everything (also --debug or -d)."),
    cfg.StrOpt(
        "log_config_append",
        deprecated_name="log_config",
        help="Logging configuration file of Python; all other logging options are then ignored.",
    ),
    cfg.StrOpt("log_date_format", default="%Y-%m-%d %H:%M:%S", help="Format of the time."),
    cfg.StrOpt(
        "log_file",
        deprecated_name="logfile",
        help="File to log to; unset means standard error.",
    ),
    cfg.StrOpt(
        "log_dir", deprecated_name="logdir", help="Directory that a relative log_file is in."
    ),
    cfg.BoolOpt("use_syslog", default=False, help="Log to syslog."),
    cfg.StrOpt("syslog_log_facility", default="LOG_USER", help="Facility of syslog."),
    cfg.BoolOpt("use_stderr", default=True, help="Log to standard error as well."),
    cfg.StrOpt(
        "logging_context_format_string",
        default=f"{_PREFIX} [%(request_id)s %(user_identity)s] %(instance)s%(message)s",
        help="Format of a line that belongs to a request.",
    ),
    cfg.StrOpt(
        "logging_default_format_string",
        default=f"{_PREFIX} [-] %(instance)s%(message)s",
        help="Format of any other line.",
    ),
    cfg.StrOpt(
        "logging_debug_format_suffix",
        default="%(funcName)s %(pathname)s:%(lineno)d",
        help="Added to lines of level DEBUG.",
    ),
    cfg.StrOpt(
        "logging_exception_prefix",
        default="%(asctime)s.%(msecs)03d %(process)d ERROR %(name)s %(instance)s",
        help="Put before each line of a traceback.",
    ),
    cfg.StrOpt(
        "logging_user_identity_format",
        default="%(user)s %(tenant)s %(domain)s %(user_domain)s %(project_domain)s",
        help="What user_identity stands for in these formats.",
    ),
    cfg.ListOpt("default_log_levels", default=LEVELS, help="Levels of single loggers."),
    cfg.BoolOpt("publish_errors", default=False, help="Accepted and ignored."),
    cfg.StrOpt("instance_format", default="[instance: %(uuid)s] ", help="Accepted and ignored."),
    cfg.StrOpt(
        "instance_uuid_format", default="[instance: %(uuid)s] ", help="Accepted and ignored."
    ),
)

# Options of Mitaka's oslo.log that its successors have dropped.
DROPPED: Final = (
    cfg.BoolOpt(
        "verbose",
        short="v",
        default=True,
        deprecated_for_removal=True,
        help="Log from level INFO; false: from WARNING.",
    ),
    cfg.BoolOpt(
        "watch-log-file",
        default=False,
        help="Accepted and ignored: a log file that has been moved away is always opened anew.",
    ),
)

DEPRECATIONS: Final = (
    cfg.BoolOpt("fatal_deprecations", default=False, help="Accepted and ignored."),
)

AREAS: Final = (
    Area("DEFAULT", "ARCSM", LIBRARY, library=True),
    Area("DEFAULT", "ARCSM", DROPPED),
    Area("DEFAULT", "ARCSM", DEPRECATIONS),
)
