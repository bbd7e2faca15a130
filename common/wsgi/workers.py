"""The parent process: binds the socket, forks workers, replaces dead ones, reloads, stops.

It takes its signals one at a time from a queue (sigwait) and never serves a request itself, so
there is no handler that could interrupt anything.
"""

import contextlib
import errno
import logging
import os
import signal
import socket
import ssl
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from common.wsgi.faults import Application
from common.wsgi.sendfile import SendfileFilter
from common.wsgi.server import ServerSettings, run_worker

LOG = logging.getLogger(__name__)

_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)

_BIND_RETRY_SECONDS = 30

# A worker that dies again and again right after its start is not restarted faster than this.
_RESPAWN_SECONDS = 1.0
# After so many that crashed soon after their start, with none that lived between, no more.
_MOST_CRASHES = 8
_EARLY_SECONDS = 10.0
# From outside: what ends a worker that is otherwise well.
_KILLS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


@dataclass(frozen=True)
class Listen:
    """Where to listen. Two equal values can share one socket across a reload."""

    host: str
    port: int
    backlog: int = 4096
    tcp_keepidle: int = 600

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True)
class Site:
    """Everything a worker needs, made anew at every reload."""

    app: Application
    listen: Listen
    workers: int
    settings: ServerSettings = field(default_factory=ServerSettings)
    tls: ssl.SSLContext | None = None
    started: Callable[[], object] = lambda: None
    finish: Callable[[], object] = lambda: None


class CannotListen(Exception):
    """The address cannot be had; the message says which and why."""

    def __init__(self, listen: Listen, error: OSError) -> None:
        super().__init__(f"cannot listen on {listen}: {error.strerror}")


class TakesRestart(Exception):
    """What cannot be changed while the daemon runs; the message says what."""


def listen_on(listen: Listen) -> socket.socket:
    """A bound, listening socket. Raises CannotListen, after 30 s where somebody else has it."""
    try:
        return _bound(listen)
    except OSError as error:
        raise CannotListen(listen, error) from error


def _bound(listen: Listen) -> socket.socket:
    family, kind, protocol, _, address = socket.getaddrinfo(
        listen.host, listen.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    deadline = time.monotonic() + _BIND_RETRY_SECONDS
    retrying = False
    while True:
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, listen.tcp_keepidle)
        try:
            listener.bind(address)
            listener.listen(listen.backlog)
            return listener
        except OSError as error:
            listener.close()
            if error.errno != errno.EADDRINUSE or time.monotonic() > deadline:
                raise
            if not retrying:
                LOG.warning("%s is in use; trying for %d s", listen, _BIND_RETRY_SECONDS)
                retrying = True
            time.sleep(0.5)


def tls_context(cert_file: str, key_file: str, ca_file: str | None) -> ssl.SSLContext:
    """TLS 1.2 or newer; with ca_file, clients must present a certificate.

    Raises OSError (ssl.SSLError among them) where the files are missing or do not match.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(cert_file, key_file)
    if ca_file is not None:
        context.load_verify_locations(ca_file)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


class Parent:
    """Runs a site until SIGTERM or SIGINT; `build` makes the site, again at every SIGHUP."""

    def __init__(
        self, build: Callable[[], Site], refusals: tuple[type[Exception], ...] = ()
    ) -> None:
        """refusals: what build raises of a configuration that cannot work, in words for people."""
        self._build = build
        self._refusals: tuple[type[Exception], ...] = (CannotListen, TakesRestart, *refusals)
        self._site = build()
        self._listener = listen_on(self._site.listen)
        self._children: dict[int, float] = {}
        self._leaving: set[int] = set()
        # Closes when this process ends, however it ends, and so tells the workers.
        self._alive_reader, self._alive_writer = os.pipe()

    def run(self) -> int:
        """Serve; the exit status once everything has stopped."""
        self._announce()
        if self._site.workers == 0:
            self._work()
            return 0
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        self._fork_missing()
        while True:
            received = signal.sigwait(_SIGNALS)
            if received == signal.SIGCHLD:
                self._reap()
                self._fork_missing()
                if not self._children and not self._leaving:
                    LOG.error("no worker is left")
                    return 1
            elif received == signal.SIGHUP:
                self._reload()
            else:
                return self._stop()

    def _announce(self) -> None:
        site = self._site
        tls = " with TLS" if site.tls else ""
        LOG.info("listening on %s%s; workers: %d", site.listen, tls, site.workers)

    def _work(self) -> None:
        site = self._site
        run_worker(
            self._listener,
            SendfileFilter(site.app, site.settings.socket_timeout, site.settings.min_transfer_rate),
            site.settings,
            tls=site.tls,
            parent=self._alive_reader if site.workers else None,
            started=site.started,
            finish=site.finish,
        )

    def _fork_missing(self) -> None:
        while len(self._children) < self._wanted:
            child = os.fork()
            if child == 0:
                self._be_child()
            self._children[child] = time.monotonic()

    @property
    def _wanted(self) -> int:
        return self._site.workers - self._given_up

    _given_up = 0
    _crashes = 0

    def _be_child(self) -> None:
        status = 1
        try:
            os.close(self._alive_writer)
            for number in _SIGNALS:
                signal.signal(number, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
            self._work()
            status = 0
        except BaseException:
            LOG.exception("a worker failed")
        finally:
            logging.shutdown()
            with contextlib.suppress(OSError, ValueError):
                sys.stdout.flush()
            os._exit(status)

    def _reap(self) -> None:
        now = time.monotonic()
        last = 0.0
        for child, status in list(_ended()):
            born = self._children.pop(child, None)
            self._leaving.discard(child)
            if born is None:
                continue
            if os.WIFSIGNALED(status):
                number = os.WTERMSIG(status)
                LOG.warning("worker %s was killed by signal %s", child, number)
                early = now < born + _EARLY_SECONDS and number not in _KILLS
                self._crashes = self._crashes + 1 if early else 0
                last = max(last, born)
            elif os.WEXITSTATUS(status):
                LOG.error("worker %s failed and is not replaced", child)
                self._given_up += 1
        if self._crashes >= _MOST_CRASHES:
            LOG.error("workers crash as soon as they have started and are not replaced")
            self._given_up = self._site.workers
        time.sleep(max(0.0, last + _RESPAWN_SECONDS - now))

    def _reload(self) -> None:
        LOG.info("reloading the configuration")
        try:
            site = self._build()
            if not site.workers:
                # This process would be left without anybody to serve.
                raise TakesRestart("workers = 0 takes a restart")
            listener = self._listener
            if site.listen != self._site.listen:
                listener = self._rebind(site.listen)
        except self._refusals as error:
            LOG.error("the new configuration cannot be used, going on with the old one: %s", error)
            return
        except (Exception, SystemExit):
            LOG.exception("the new configuration cannot be used, going on with the old one")
            return
        if listener is not self._listener:
            self._listener.close()
        self._site, self._listener, self._given_up = site, listener, 0
        old, self._children = self._children, {}
        self._leaving.update(old)
        self._announce()
        self._fork_missing()
        for child in old:
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGHUP)

    def _rebind(self, listen: Listen) -> socket.socket:
        before = self._site.listen
        if (listen.host, listen.port) == (before.host, before.port):
            # The address stays, and with it the socket and whoever waits in its queue.
            self._listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, listen.tcp_keepidle)
            self._listener.listen(listen.backlog)
            return self._listener
        return listen_on(listen)

    def _stop(self) -> int:
        LOG.info("stopping")
        self._listener.close()
        remaining = set(self._children) | self._leaving
        self._signal_all(remaining, signal.SIGTERM)
        deadline = time.monotonic() + self._site.settings.graceful_timeout + 2
        while remaining and (left := deadline - time.monotonic()) > 0:
            received = signal.sigtimedwait(_SIGNALS, left)
            if received is not None and received.si_signo in (signal.SIGTERM, signal.SIGINT):
                break
            remaining -= self._reap_stopping()
        self._signal_all(remaining, signal.SIGKILL)
        LOG.info("stopped")
        return 0

    def _reap_stopping(self) -> set[int]:
        return {child for child, _ in _ended()}

    def _signal_all(self, children: set[int], number: int) -> None:
        for child in children:
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, number)


def _ended() -> Iterator[tuple[int, int]]:
    """Children that have ended and not been waited for, each with its status."""
    with contextlib.suppress(ChildProcessError):
        while (found := os.waitpid(-1, os.WNOHANG))[0]:
            yield found
