"""From options to a running daemon: what glance-api and glance-registry start up alike."""

import ipaddress
import logging
import os
import ssl
import sys
from collections.abc import Callable

from common import config, log
from common.config import Configuration, ConfigurationError
from common.wsgi.connection import ServerSettings
from common.wsgi.faults import Application
from common.wsgi.workers import CannotListen, Listen, Parent, Site, tls_context

LOG = logging.getLogger(__name__)

EXIT_CONFIGURATION = 1


def site_from(
    conf: Configuration,
    app: Application,
    started: Callable[[], object] = lambda: None,
    finish: Callable[[], object] = lambda: None,
) -> Site:
    """Raises ConfigurationError where the TLS options do not fit together."""
    limits = conf.limits
    return Site(
        app=app,
        listen=Listen(conf.bind_host, conf.bind_port, conf.backlog, conf.tcp_keepidle),
        workers=conf.workers,
        settings=ServerSettings(
            max_header_line=conf.max_header_line,
            keepalive=conf.http_keepalive,
            socket_timeout=conf.client_socket_timeout or None,
            header_timeout=limits.header_timeout or 1e9,
            max_connections=limits.max_connections,
            max_connections_per_peer=limits.max_connections_per_peer,
            min_transfer_rate=limits.min_transfer_rate,
            graceful_timeout=conf.graceful_shutdown_timeout,
        ),
        tls=_tls(conf),
        started=started,
        finish=finish,
    )


def _tls(conf: Configuration) -> ssl.SSLContext | None:
    if bool(conf.cert_file) != bool(conf.key_file):
        raise ConfigurationError("cert_file and key_file must be given together")
    if not conf.cert_file:
        return None
    try:
        return tls_context(conf.cert_file, conf.key_file, conf.ca_file or None)
    except OSError as error:
        raise ConfigurationError(
            f"cert_file, key_file or ca_file cannot be used: {error.strerror or error}"
        ) from error


def serve(
    program: str,
    load: Callable[[], Configuration],
    build: Callable[[Configuration], Site],
    exit_codes: dict[type[Exception], int] | None = None,
) -> int:
    """Run a daemon until it is told to stop; its exit status."""

    def site() -> Site:
        conf = load()
        log.setup(conf, program)
        _warn_if_open(conf, program)
        try:
            return build(conf)
        finally:
            config.report(conf)

    os.umask(0o027)
    codes: dict[type[Exception], int] = {
        ConfigurationError: EXIT_CONFIGURATION,
        CannotListen: EXIT_CONFIGURATION,
        OSError: EXIT_CONFIGURATION,
    }
    codes.update(exit_codes or {})
    try:
        parent = Parent(site, tuple(codes))
    except tuple(codes) as error:
        status = next(codes[cls] for cls in type(error).__mro__ if cls in codes)
        print(f"glance-{program}: {error}", file=sys.stderr)
        # Before there is a log, Python's last resort would say it on stderr once more.
        if LOG.hasHandlers():
            LOG.error("%s", error)
        return status
    return parent.run()


def _warn_if_open(conf: Configuration, program: str) -> None:
    """Say once what an operator should know about who can reach this daemon."""
    if is_loopback(conf.bind_host) or (program == "registry" and conf.registry_auth_key):
        return
    flavor = conf.paste_deploy.flavor or ""
    if flavor.startswith("trusted-auth"):
        LOG.warning("flavor trusted-auth: whoever reaches %s is believed", conf.bind_host)
    elif not flavor.startswith("keystone"):
        LOG.warning("no authentication: whoever reaches %s is an admin", conf.bind_host)
    if program == "registry":
        LOG.warning(
            "registry_auth_key is not set: whoever reaches %s can speak to the registry "
            "as glance-api does",
            conf.bind_host,
        )


def is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
