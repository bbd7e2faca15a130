"""A stored image as the source of an upload: how copy-from reads from any store."""

import time
from typing import Self

from common import errors
from common.body import Body
from glance_store.errors import SourceFailed
from glance_store.outbound import OutboundRules


class TooSlow(SourceFailed):
    default = "The source of the image is too slow."


class OpenedSource:
    """A Body read as a common.upload.Source, within the time the rules allow (SEC-045).

    `length` is what the source says it holds, or None. Only time spent waiting for the source
    counts against its rate: a store that takes the bytes slowly is not the source's fault.
    """

    def __init__(self, body: Body, rules: OutboundRules) -> None:
        self.length = body.length
        self._body = body
        self._chunks = iter(body)
        self._left = b""
        self._rules = rules
        self._started = time.monotonic()
        self._waited = 0.0
        self._received = 0
        self._aborted = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def read(self, size: int, /) -> bytes:
        """At most size bytes, b"" at the end. Raises SourceFailed where its store breaks off."""
        chunk = self._left or self._next()
        self._left = chunk[size:]
        return chunk[:size]

    def abort(self) -> None:
        # Closing is for whoever reads: under its feet it would leave half-closed objects behind.
        self._aborted = True
        self._body.interrupt()

    def close(self) -> None:
        self._body.close()

    def _next(self) -> bytes:
        before = time.monotonic()
        try:
            chunk = b"" if self._aborted else next(self._chunks, b"")
        except errors.ServiceUnavailable as error:
            if not self._aborted:
                raise SourceFailed(error.message) from None
            chunk = b""
        now = time.monotonic()
        if self._aborted:
            raise errors.ServiceUnavailable("The copy was stopped.")
        self._waited += now - before
        self._received += len(chunk)
        self._check_pace(now)
        return chunk

    def _check_pace(self, now: float) -> None:
        if now - self._started > self._rules.total_timeout:
            raise TooSlow()
        patient = self._waited <= self._rules.idle_timeout
        if not patient and self._received < self._waited * self._rules.minimum_rate:
            raise TooSlow()
