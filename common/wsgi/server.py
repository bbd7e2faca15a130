"""One worker: accepts connections and serves a WSGI application on the event loop.

With `sendfile.py` and the daemons' `cmd` modules, the only code that knows which event loop
that is. What is said on a connection is `connection.py`'s affair.
"""

import logging
import os
import signal
import socket
import ssl
import time
from collections.abc import Callable
from typing import Any, Final

import eventlet
from eventlet import greenio, patcher
from eventlet.green import socket as green_socket
from eventlet.hubs import trampoline

from common import concurrency
from common.native import THREADS, NativeThreads
from common.wsgi.connection import Connection
from common.wsgi.connection import ServerSettings as ServerSettings
from common.wsgi.faults import Application

LOG = logging.getLogger(__name__)

# A stopping worker gives a kept-alive connection this long to bring a request that is already
# on its way.
_DRAIN_IDLE_SECONDS: Final = 1.0

_RESOLVER_THREADS: Final = 8


def native_threads(limit: int = THREADS) -> NativeThreads:
    """Blocking work in native threads, while other requests go on."""
    return NativeThreads(
        patcher.original("threading"),
        patcher.original("queue"),
        lambda descriptor: trampoline(descriptor, read=True),
        limit,
    )


def _look_names_up_in_threads() -> None:
    """The system's resolver blocks, for as long as a name server takes. Its threads are its own:
    names that callers choose must not keep disks waiting.
    """
    threads = native_threads(_RESOLVER_THREADS)
    look_up = patcher.original("socket").getaddrinfo

    def getaddrinfo(*args: Any, **kwargs: Any) -> Any:
        return threads.offload(look_up, *args, **kwargs)

    for module in (socket, green_socket):
        vars(module)["getaddrinfo"] = getaddrinfo


class Worker:
    """Serves one listening socket until told to stop."""

    def __init__(
        self,
        listener: socket.socket,
        site: Application,
        settings: ServerSettings,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._listener = greenio.GreenSocket(listener)
        self._settings = settings
        self._site = site
        self._tls = tls
        self._pool = eventlet.GreenPool(settings.max_connections)
        self._connections: set[Connection] = set()
        self._is_stopping = False

    def run(self, stop_requested: Callable[[], object], finish: Callable[[], object]) -> None:
        """Serve until stop_requested returns, then let what is running end.

        finish is called once no request is running, for background work to end too; both have
        graceful_timeout seconds together.
        """
        accepting = eventlet.spawn(self._accept)
        stop_requested()
        accepting.kill()
        self._listener.close()
        with eventlet.Timeout(self._settings.graceful_timeout, False):
            self._drain()
            finish()

    def _accept(self) -> None:
        while True:
            try:
                client, address = self._listener.accept()
                if self._is_at_limit(address):
                    client.close()
                    continue
            except OSError as error:
                LOG.warning("accepting a connection failed: %s", error.strerror)
                eventlet.sleep(0.1)
                continue
            self._pool.spawn_n(self._serve, client, address)

    def _is_at_limit(self, address: Any) -> bool:
        limit = self._settings.max_connections_per_peer
        peers = (connection.peer for connection in self._connections)
        return bool(limit) and sum(peer[0] == address[0] for peer in peers) >= limit

    def _serve(self, client: Any, address: Any) -> None:
        try:
            client.settimeout(self._settings.socket_timeout)
            if self._tls is not None:
                with eventlet.Timeout(self._settings.header_timeout):
                    client = self._tls.wrap_socket(
                        client, server_side=True, do_handshake_on_connect=False
                    )
                    client.do_handshake()
            self._converse(client, address)
        except (OSError, eventlet.Timeout):
            LOG.debug("a connection from %s ended early", address[0] if address else "?")
        except Exception:
            LOG.exception("a connection failed")
        finally:
            greenio.shutdown_safe(client)
            client.close()

    def _converse(self, client: Any, address: Any) -> None:
        connection = Connection(
            client,
            address,
            self._site,
            self._settings,
            tls=self._tls is not None,
        )
        connection.is_stopping = self._is_stopping
        self._connections.add(connection)
        try:
            connection.serve()
        finally:
            self._connections.discard(connection)

    def _drain(self) -> None:
        self._is_stopping = True
        for connection in self._connections:
            connection.is_stopping = True
        deadline = time.monotonic() + _DRAIN_IDLE_SECONDS
        while self._connections:
            if time.monotonic() > deadline:
                for connection in list(self._connections):
                    if connection.idle:
                        greenio.shutdown_safe(connection.sock)
            eventlet.sleep(0.02)


def run_worker(
    listener: socket.socket,
    site: Application,
    settings: ServerSettings,
    *,
    tls: ssl.SSLContext | None = None,
    parent: int | None = None,
    started: Callable[[], object] = lambda: None,
    finish: Callable[[], object] = lambda: None,
) -> None:
    """Be a worker process: returns after SIGTERM or SIGHUP, or when the parent is gone.

    parent: the reading end of a pipe that the parent process keeps open. started is called on
    the event loop before the first request; finish when the last one has ended.
    """
    eventlet.hubs.use_hub()
    concurrency.install(native_threads())
    _look_names_up_in_threads()
    reading, writing = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: None)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    stop = eventlet.event.Event()

    def watch(descriptor: int) -> None:
        trampoline(descriptor, read=True)
        if not stop.ready():
            stop.send(None)

    eventlet.spawn_n(watch, reading)
    if parent is not None:
        eventlet.spawn_n(watch, parent)
    started()
    Worker(listener, site, settings, tls).run(stop.wait, finish)
