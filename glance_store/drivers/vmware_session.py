"""Calls on one vCenter or ESX: a session that renews itself, with every wait bounded.

oslo.vmware does the SOAP. Its own session class is not used: that one logs in for ever while the
server is away. Nor is the WSDL that the server offers: its megabytes would be fetched without a
time limit and parsed for seconds on the event loop. vim25.wsdl beside this file describes the
part of the API that the driver needs.
"""

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeVar

from glance_store.errors import BackendUnavailable, BadStoreConfiguration

LOG = logging.getLogger(__name__)

T = TypeVar("T")

CALL_TIMEOUT = 30.0
TASK_TIMEOUT = 120.0

# Retries end after vmware_api_retry_count of them or this many seconds, whichever is first.
RETRY_FOR = 20.0
FIRST_PAUSE = 0.25
LONGEST_PAUSE = 5.0

_WSDL = Path(__file__).with_name("vim25.wsdl")
_NOT_AUTHENTICATED = "NotAuthenticated"


class Transient(BackendUnavailable):
    """Away or overloaded: the same call may work a moment later."""


class VSphereFault(Exception):
    """The server refused a call, or a task failed; `name` is the fault's type."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name


@dataclass(frozen=True, slots=True)
class Server:
    """Where a vCenter or ESX is, and who we are there."""

    host: str
    port: int
    username: str
    password: str = field(repr=False)
    ca_file: str | None = None
    insecure: bool = False


class VSphereSession:
    """The session of this process on one server.

    Nothing is connected before the first call. Calls may be made concurrently; the one that
    notices that the session has expired renews it. They raise BackendUnavailable, or
    VSphereFault for what the server refuses.
    """

    def __init__(self, server: Server, *, retries: int, poll_interval: float) -> None:
        self._server = server
        self._retries = retries
        self._poll_interval = poll_interval
        self._oslo = _import_oslo_vmware()
        self._lock = threading.Lock()
        self._vim: Any = None
        self._cookie = ""
        self._pid = 0

    def call(self, method: str, target: Any, **arguments: Any) -> Any:
        """Call a method of a managed object, or of the service's own manager of that name."""

        def attempt(vim: Any) -> Any:
            managed = getattr(vim.service_content, target) if isinstance(target, str) else target
            return getattr(vim, method)(managed, **arguments)

        return self._call(attempt)

    def properties(self, references: Sequence[Any], *names: str) -> list[dict[str, Any]]:
        """The named properties of each of these objects of one type, without what is unset."""
        if not references:
            return []
        vim_util = self._oslo.vim_util

        def attempt(vim: Any) -> list[dict[str, Any]]:
            found = vim_util.get_properties_for_a_collection_of_objects(
                vim, vim_util.get_moref_type(references[0]), list(references), list(names)
            )
            with vim_util.WithRetrieval(vim, found) as objects:
                return [vim_util.propset_dict(getattr(item, "propSet", None)) for item in objects]

        return self._call(attempt)

    def run(self, method: str, target: Any, **arguments: Any) -> Any:
        """Start a task and wait for its end; its result."""
        task = self.call(method, target, **arguments)
        deadline = time.monotonic() + TASK_TIMEOUT
        pause = min(0.05, self._poll_interval)
        while time.monotonic() < deadline:
            [info] = self.properties([task], "info.state", "info.error", "info.result")
            if info["info.state"] == "success":
                return info.get("info.result")
            if info["info.state"] == "error":
                raise VSphereFault(type(info["info.error"].fault).__name__)
            # Most tasks end at once, so the configured interval is approached from below.
            time.sleep(pause)
            pause = min(2 * pause, self._poll_interval)
        raise BackendUnavailable()

    def make(self, kind: str, **values: Any) -> Any:
        """A value of one of the API's types, to be an argument of a call."""
        vim, _ = self._current()
        made = vim.client.factory.create(f"ns0:{kind}")
        for name, value in values.items():
            setattr(made, name, value)
        return made

    def cookie(self) -> str:
        """The header that shows this session to the datastores' web server."""
        _, cookie = self._current()
        return cookie

    def renew(self, cookie: str) -> None:
        """Log in again, unless somebody has since `cookie` was found invalid."""
        with self._lock:
            if self._cookie == cookie:
                LOG.info("The session with vSphere has expired; logging in again")
                self._log_in()

    def retry(self, work: Callable[[], T]) -> T:
        """Do work until its failure is not Transient, with growing pauses, a bounded time."""
        for pause in self._pauses():
            try:
                return work()
            except Transient:
                time.sleep(pause)
        return work()

    def _pauses(self) -> Iterator[float]:
        deadline = time.monotonic() + RETRY_FOR
        pause = FIRST_PAUSE
        for _ in range(self._retries):
            if time.monotonic() + pause > deadline:
                return
            yield pause
            pause = min(2 * pause, LONGEST_PAUSE)

    def _call(self, attempt: Callable[[Any], T]) -> T:
        return self.retry(lambda: self._renewing(attempt))

    def _renewing(self, attempt: Callable[[Any], T]) -> T:
        vim, cookie = self._current()
        try:
            return self._translated(attempt, vim)
        except VSphereFault as fault:
            if fault.name != _NOT_AUTHENTICATED:
                raise
        self.renew(cookie)
        return self._translated(attempt, vim)

    def _current(self) -> tuple[Any, str]:
        with self._lock:
            if self._pid != os.getpid():
                # Connections and session must not be shared with the process we came from.
                self._pid, self._vim, self._cookie = os.getpid(), None, ""
            if not self._cookie:
                self._log_in()
            return self._vim, self._cookie

    def _log_in(self) -> None:
        self._cookie = ""
        try:
            self._vim = self._vim or self._connect()
            self._cookie = self._translated(self._login, self._vim)
        except VSphereFault as fault:
            LOG.error("vSphere refuses the login of vmware_server_username: %s", fault.name)
            raise BackendUnavailable() from fault

    def _connect(self) -> Any:
        server = self._server
        vim = self._oslo.vim.Vim(
            host=server.host,
            port=server.port,
            wsdl_url=f"file://{_WSDL}",
            cacert=server.ca_file,
            insecure=server.insecure,
            connection_timeout=CALL_TIMEOUT,
        )
        vim.client.options.transport.session.hooks["response"].append(_refuse_failures)
        return vim

    def _login(self, vim: Any) -> str:
        manager = vim.service_content.sessionManager
        # A server that still knows the old session, though its datastores do not, refuses the
        # login of somebody who is logged in.
        vim.client.cookiejar.clear()
        vim.Login(manager, userName=self._server.username, password=self._server.password)
        cookies = [f"{cookie.name}={cookie.value}" for cookie in vim.client.cookiejar]
        if not cookies:
            raise BackendUnavailable()
        return "; ".join(cookies)

    def _translated(self, attempt: Callable[[Any], T], vim: Any) -> T:
        exceptions = self._oslo.exceptions
        try:
            return attempt(vim)
        except exceptions.VimFaultException as error:
            raise VSphereFault(str(error.fault_list[0] if error.fault_list else "")) from error
        except exceptions.VMwareDriverException as error:
            if "CERTIFICATE_VERIFY_FAILED" in str(getattr(error, "cause", "")):
                LOG.error(
                    "The certificate of vmware_server_host is not trusted; see vmware_ca_file"
                )
                raise BackendUnavailable() from error
            raise Transient() from error


def _refuse_failures(response: Any, **_: Any) -> None:
    """suds takes the body of any answer for SOAP, and an empty one for an empty result."""
    # A SOAP fault comes with status 500.
    if response.status_code != 500:
        response.raise_for_status()


def _import_oslo_vmware() -> SimpleNamespace:
    try:
        from oslo_vmware import exceptions, vim, vim_util
    except ImportError:
        raise BadStoreConfiguration(
            "The vmware store needs oslo.vmware: install the extra `vmware`."
        ) from None
    # At DEBUG, suds logs every argument of every call, and so the password.
    logging.getLogger("suds").setLevel(logging.INFO)
    return SimpleNamespace(exceptions=exceptions, vim=vim, vim_util=vim_util)
