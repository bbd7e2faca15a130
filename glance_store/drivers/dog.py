"""Sheepdog's own program `dog`, run to completion or ended for certain.

It is run by argument vector, never through a shell (CVE-2014-0162); callers match what they
pass on against strict patterns first.
"""

import contextlib
import logging
import os
import re
import selectors
import signal
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from types import TracebackType
from typing import IO, Final, Self

from common import errors
from glance_store.errors import BackendUnavailable, StorageFull

LOG = logging.getLogger(__name__)

PIECE: Final = 1024 * 1024

_MEANING: Final[Sequence[tuple[str, type[errors.GlanceError]]]] = (
    ("VDI exists already", errors.Duplicate),
    ("No VDI found", errors.NotFound),
    ("no space", StorageFull),
)


class _Command:
    """One run of the program, over when its block is left, by force if need be.

    The pipes are waited for by `selectors`, which is cooperative on the event loop. Raises
    BackendUnavailable if nothing moves for `timeout` seconds.
    """

    def __init__(self, argv: Sequence[str], path: str, timeout: float) -> None:
        self._timeout = timeout
        self._process: subprocess.Popen[bytes] = subprocess.Popen(
            argv,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={"PATH": path, "LC_ALL": "C"},
            start_new_session=True,
            pipesize=PIECE,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._process.poll() is None:
            # The program leads a session of its own: what it started goes with it.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()

    def write(self, piece: bytes) -> None:
        left = memoryview(piece)
        while left:
            number = self._ready(self._process.stdin, selectors.EVENT_WRITE)
            try:
                # The event loop's os.write takes a pipe that nobody reads for one that is full.
                left = left[os.writev(number, [left]) :]
            except BrokenPipeError:
                # It has ended early, and its last words say why.
                self.finish()
                raise BackendUnavailable() from None

    def read(self, size: int) -> bytes:
        return os.read(self._ready(self._process.stdout, selectors.EVENT_READ), size)

    def read_all(self) -> str:
        return b"".join(iter(lambda: self.read(PIECE), b"")).decode(errors="replace")

    def finish(self) -> None:
        """Wait for the end. Raises what a failure means."""
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        try:
            status = self._process.wait(self._timeout)
        except subprocess.TimeoutExpired:
            raise self._stuck() from None
        if status:
            raise self._failure(status)

    def _ready(self, pipe: IO[bytes] | None, event: int) -> int:
        assert pipe is not None
        number = pipe.fileno()
        os.set_blocking(number, False)
        with selectors.DefaultSelector() as selector:
            selector.register(number, event)
            if not selector.select(self._timeout):
                raise self._stuck()
        return number

    def _stuck(self) -> BackendUnavailable:
        LOG.error("Sheepdog's program did nothing for %s seconds and was ended", self._timeout)
        return BackendUnavailable()

    def _failure(self, status: int) -> errors.GlanceError:
        said = os.read(self._ready(self._process.stderr, selectors.EVENT_READ), 4096).decode(
            errors="replace"
        )
        for words, meaning in _MEANING:
            if words in said:
                return meaning()
        # The message names VDIs and addresses, but neither has a password.
        LOG.error("Sheepdog's program failed with status %s: %s", status, said.strip())
        return BackendUnavailable()


@dataclass(frozen=True, slots=True)
class Vdi:
    """A line of `vdi list -r`."""

    name: str
    size: int
    made: datetime | None


@dataclass(frozen=True, slots=True)
class Cluster:
    """The program, aimed at one cluster."""

    program: str
    path: str
    timeout: float
    address: str
    port: int

    def start(self, command: str, *words: str) -> _Command:
        where = ("-a", self.address, "-p", str(self.port))
        return _Command([self.program, "vdi", command, *where, *words], self.path, self.timeout)

    def run(self, command: str, *words: str) -> str:
        with self.start(command, *words) as running:
            output = running.read_all()
            running.finish()
            return output

    def vdis(self, *name: str) -> Iterator[Vdi]:
        """Every VDI, or that of this name, without their snapshots."""
        for line in self.run("list", "-r", *name).splitlines():
            # A blank within a name has a backslash before it.
            kind, found, _, size, _, _, made, *_ = re.split(r"(?<!\\) ", line)
            if kind != "s":
                time = datetime.fromtimestamp(int(made), UTC) if made.isdecimal() else None
                yield Vdi(found, int(size), time.replace(tzinfo=None) if time else None)

    def size(self, name: str) -> int | None:
        """A VDI's size, None if there is no VDI of that name."""
        return next((vdi.size for vdi in self.vdis(name)), None)

    def write(self, name: str, offset: int, pieces: Iterable[bytes]) -> int:
        """Write pieces one after the other; the number of bytes."""
        written = 0
        with self.start("write", name, str(offset)) as running:
            for piece in pieces:
                running.write(piece)
                written += len(piece)
            running.finish()
        return written
