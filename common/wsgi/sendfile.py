"""The outermost filter: bodies leave here, whole or visibly broken.

A FileBody on a plain socket goes out by sendfile(2), which moves bytes inside the kernel; any
other Body is iterated by the server. Either way exactly the promised number of bytes leaves,
or the connection is cut, so that no client takes a short download for a whole one (REL-030).
"""

import os
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

from eventlet import sleep
from eventlet.hubs import trampoline

from common import errors
from common.body import Body, FileBody
from common.concurrency import offload
from common.wsgi.bodies import RateWatch, SlowClient
from common.wsgi.connection import PLAIN_SOCKET
from common.wsgi.faults import Application, StartResponse

# One sendfile call moves this much at most, and then another request gets its turn.
WINDOW: Final = 1024 * 1024


class BodyBroken(errors.ServiceUnavailable):
    default = "The stored bytes ended before the recorded size."


class SendfileFilter:
    """Must be the filter closest to the server."""

    def __init__(self, app: Application, timeout: float | None, min_rate: int = 0) -> None:
        """timeout: seconds a client may accept nothing before the connection is cut; min_rate:
        bytes a second it must average over a minute."""
        self.app = app
        self.timeout = timeout
        self.min_rate = min_rate

    def __call__(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        write: Callable[[bytes], object] | None = None

        def start(*args: Any, **kwargs: Any) -> Any:
            nonlocal write
            write = start_response(*args, **kwargs)
            return write

        body = self.app(environ, start)
        if not isinstance(body, Body):
            return body
        socket = environ.get(PLAIN_SOCKET)
        if socket is None or not isinstance(body, FileBody) or write is None:
            return _ExactBody(body, self.min_rate)
        try:
            # An empty write flushes the headers through WSGI's documented door.
            write(b"")
            self._send(body, socket.fileno())
        finally:
            body.close()
        return ()

    def _send(self, body: FileBody, out: int) -> None:
        source = body.file.fileno()
        position, end = body.offset, body.offset + body.length
        ready_until = position
        rate = RateWatch(self.min_rate)
        while position < end:
            if position >= ready_until:
                ready_until = min(position + WINDOW, end)
                if not _is_cached(source, position, ready_until):
                    # A cold file would stall every other request of this worker.
                    offload(_read_ahead, source, position, ready_until)
            try:
                sent = os.sendfile(out, source, position, ready_until - position)
            except BlockingIOError:
                trampoline(out, write=True, timeout=self.timeout, timeout_exc=TimeoutError)
                continue
            if not sent:
                raise BodyBroken()
            position += sent
            body.bytes_sent += sent
            if rate.is_too_slow(sent):
                raise SlowClient()
            if position >= ready_until:
                sleep(0)


def _is_cached(file: int, start: int, end: int) -> bool:
    """Whether a window of file seems to be in memory, judged by its first and last byte."""
    one = bytearray(1)
    try:
        for position in (start, end - 1):
            os.preadv(file, [one], position, os.RWF_NOWAIT)
    except BlockingIOError:
        return False
    except OSError:
        # The filesystem cannot tell (FUSE among others): treat it as slow.
        return False
    return True


def _read_ahead(file: int, start: int, end: int) -> None:
    """Bring a window of file into memory; blocks, so it runs in a native thread."""
    os.posix_fadvise(file, start, 4 * (end - start), os.POSIX_FADV_WILLNEED)
    buffer = bytearray(64 * 1024)
    while start < end:
        count = os.preadv(file, [buffer], start)
        if not count:
            return
        start += count


class _ExactBody:
    """Iterates a body and raises where it yields fewer bytes than its length promised."""

    def __init__(self, body: Body, min_rate: int) -> None:
        self._body = body
        self._rate = RateWatch(min_rate)

    def __iter__(self) -> Iterator[bytes]:
        left = self._body.length
        for chunk in self._body:
            if left is not None:
                if len(chunk) > left:
                    raise BodyBroken("The stored bytes go on beyond the recorded size.")
                left -= len(chunk)
            yield chunk
            if self._rate.is_too_slow(len(chunk)):
                raise SlowClient()
        if left:
            raise BodyBroken()

    def close(self) -> None:
        self._body.close()
