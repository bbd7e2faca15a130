"""Large objects: written as parallel segments under a manifest, deleted segments first.

A segment is `<object>-00001` and so on; the manifest is a dynamic one, as Glance has always
written. Bytes arrive in one stream, so a segment can start only when the one before has been
read; what goes on in parallel is sending what has been read and waiting for the servers.
"""

import hashlib
import json
import logging
import re
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final
from urllib.parse import quote, unquote

from common import errors
from common.concurrency import Behind
from common.query import is_uuid_like
from common.upload import CHUNK
from glance_store.drivers.swift_account import Account, Unreachable
from glance_store.errors import BackendUnavailable, StorageFull
from glance_store.feed import FeedFailed

LOG = logging.getLogger(__name__)

# Chunks that wait for a segment's request; with the default concurrency 16 MiB per upload.
_DEPTH: Final = 8
# Before each round of deletes.
_DELETE_PAUSES: Final = (0.0, 0.5, 1.0)
_DELETES_AT_ONCE: Final = 8
_MANIFEST_LOOKS: Final = 5

# One more, and the names would no longer sort as the segments do.
MOST_SEGMENTS: Final = 99_999

_SEGMENT: Final = re.compile(r"(.+)-(\d{5,})")


def segment_name(name: str, number: int) -> str:
    return f"{name}-{number:05d}"


def image_of(name: str) -> tuple[str | None, bool]:
    """The image an object belongs to, None if to none, and whether it is one of its segments."""
    if is_uuid_like(name):
        return name, False
    match = _SEGMENT.fullmatch(name)
    if match and is_uuid_like(match[1]):
        return match[1], True
    return None, False


class Pipe:
    """Chunks on their way from the reader of an upload to the request of one segment.

    The writer waits while it is full.
    """

    def __init__(self) -> None:
        self._chunks: deque[bytes] = deque()
        self._changed = threading.Condition()
        self._ended = False
        self._aborted = False
        self._abandoned = False

    def write(self, chunk: bytes) -> bool:
        """Add a chunk; False if nobody will read it."""
        with self._changed:
            self._changed.wait_for(lambda: len(self._chunks) < _DEPTH or self._abandoned)
            self._chunks.append(chunk)
            self._changed.notify_all()
            return not self._abandoned

    def end(self, *, aborted: bool = False) -> None:
        """Say that no chunk follows; if aborted, the reader is told to give up at once."""
        with self._changed:
            self._ended, self._aborted = True, self._aborted or aborted
            self._changed.notify_all()

    def abandon(self) -> None:
        """The reader's word that it will not read on."""
        with self._changed:
            self._abandoned = True
            self._changed.notify_all()

    def __iter__(self) -> Iterator[bytes]:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._chunks or self._ended)
                if self._aborted:
                    raise FeedFailed()
                if not self._chunks:
                    return
                chunk = self._chunks.popleft()
                self._changed.notify_all()
            yield chunk


class _Segment:
    """The body of one segment's request, hashed as it passes."""

    def __init__(self, pipe: Pipe) -> None:
        self._pipe = pipe
        self._md5 = hashlib.md5(usedforsecurity=False)
        self._hashing = Behind()

    def __iter__(self) -> Iterator[bytes]:
        try:
            for chunk in self._pipe:
                self._hashing.start(self._md5.update, chunk)
                yield chunk
        finally:
            self._hashing.wait()

    @property
    def checksum(self) -> str:
        return self._md5.hexdigest()


class _SizedSegment(_Segment):
    """One whose length is known, so that it can be declared."""

    def __init__(self, pipe: Pipe, length: int) -> None:
        super().__init__(pipe)
        self._length = length

    def __len__(self) -> int:
        return self._length


class SegmentedUpload:
    """One image on its way into segments. `number` counts the segments begun so far."""

    def __init__(
        self, account: Account, container: str, name: str, segment_size: int, concurrency: int
    ) -> None:
        self.number = 0
        self._account = account
        self._container = container
        self._name = name
        self._segment_size = segment_size
        self._concurrency = concurrency
        # A segment that waits for a thread would hold its chunks meanwhile.
        self._free = threading.Semaphore(concurrency)
        self._failed = threading.Event()

    def run(self, read: Callable[[int], bytes], size: int | None) -> None:
        """Store what read returns, then the manifest.

        If it raises, segments may remain: `remove` knows them. Raises StorageFull if
        MOST_SEGMENTS do not suffice.
        """
        if size is not None:
            # Unless the image is enormous and segments are tiny, this is what was configured.
            self._segment_size = max(self._segment_size, -(-size // MOST_SEGMENTS))
        with ThreadPoolExecutor(self._concurrency) as pool:
            stored = self._store(pool, read, size)
        for future in stored:
            future.result()
        self._write_manifest()

    def remove(self, account: Account) -> None:
        """Delete every segment that was begun, by way of an account that may."""
        names = [segment_name(self._name, number + 1) for number in range(self.number)]
        delete_all(account, [(self._container, name) for name in names])

    def _store(
        self, pool: ThreadPoolExecutor, read: Callable[[int], bytes], size: int | None
    ) -> list["Future[None]"]:
        stored = []
        start = 0
        while not self._failed.is_set() and (chunk := read(min(CHUNK, self._segment_size))):
            if self.number == MOST_SEGMENTS:
                raise StorageFull("The image needs more segments than the store can have.")
            length = None if size is None else min(self._segment_size, size - start)
            start += self._segment_size
            self._free.acquire()
            self.number += 1
            pipe = Pipe()
            stored.append(pool.submit(self._put_segment, self.number, pipe, length))
            self._fill(pipe, chunk, read)
        return stored

    def _fill(self, pipe: Pipe, chunk: bytes, read: Callable[[int], bytes]) -> None:
        try:
            left = self._segment_size - len(chunk)
            while pipe.write(chunk) and left and not self._failed.is_set():
                chunk = read(min(CHUNK, left))
                if not chunk:
                    break
                left -= len(chunk)
        except BaseException:
            pipe.end(aborted=True)
            raise
        pipe.end(aborted=self._failed.is_set())

    def _put_segment(self, number: int, pipe: Pipe, length: int | None) -> None:
        body = _Segment(pipe) if length is None else _SizedSegment(pipe, length)
        name = segment_name(self._name, number)
        try:
            etag = self._account.put_stream(self._container, name, body, replace=True)
            if etag != body.checksum:
                raise BackendUnavailable("The store did not keep the bytes as they were sent.")
        except BaseException:
            self._failed.set()
            raise
        finally:
            pipe.abandon()
            self._free.release()

    def _write_manifest(self) -> None:
        prefix = quote(f"{self._container}/{self._name}-")
        self._account.put(self._container, self._name, b"", {"X-Object-Manifest": prefix})


def await_size(account: Account, container: str, name: str, size: int) -> None:
    """Wait until a manifest shows all its segments: container listings may lag behind."""
    pause = 0.2
    for looks_left in reversed(range(_MANIFEST_LOOKS)):
        if int(account.head(container, name).get("content-length", -1)) == size:
            return
        if looks_left:
            time.sleep(pause)
            pause *= 2
    raise BackendUnavailable("The store does not show all segments of the image.")


def segments_of(
    account: Account, container: str, name: str, headers: dict[str, str]
) -> list[tuple[str, str]]:
    """The segments, as (container, object), of the object with these headers."""
    if headers.get("x-static-large-object", "").lower() == "true":
        return _static_segments(account, container, name)
    where, _, prefix = unquote(headers.get("x-object-manifest", "")).lstrip("/").partition("/")
    # Without a prefix the manifest would name everything in the container.
    if not prefix:
        return []
    return [
        (where, entry["name"])
        for entry in account.list(where, prefix)
        if (where, entry["name"]) != (container, name)
    ]


def leftovers(account: Account, container: str, name: str, ahead: int) -> list[tuple[str, str]]:
    """Every segment that a dead upload may have left, `ahead` of them being under way at once.

    A listing does not show what was stored while its database could not be told, so the
    segments between and after those listed are named as well.
    """
    listed = [
        entry["name"]
        for entry in account.list(container, f"{name}-")
        if image_of(entry["name"]) == (name, True)
    ]
    last = max((int(segment.rpartition("-")[2]) for segment in listed), default=0)
    return [(container, segment_name(name, number + 1)) for number in range(last + ahead)]


def _static_segments(account: Account, container: str, name: str) -> list[tuple[str, str]]:
    _, stream = account.get(container, name, query="multipart-manifest=get")
    text = b"".join(iter(lambda: stream.read(CHUNK), b""))
    found = []
    for entry in json.loads(text):
        if "name" not in entry:
            continue
        where, _, segment = entry["name"].lstrip("/").partition("/")
        if entry.get("sub_slo"):
            found += _static_segments(account, where, segment)
        found.append((where, segment))
    return found


def delete_all(account: Account, objects: Iterable[tuple[str, str]]) -> None:
    """Delete the objects, going on after a failure and coming back to it.

    Raises the first error that was left after the last round; what is missing counts as done.
    """
    left = list(objects)
    for pause in _DELETE_PAUSES:
        time.sleep(pause)
        failed = _Deletes(account).run(left)
        if not failed:
            return
        left = list(failed)
        # A refusal stays one, and a server that is away has been waited for.
        if not all(type(error) is BackendUnavailable for error in failed.values()):
            break
    LOG.warning("%d objects in Swift could not be deleted.", len(left))
    raise next(iter(failed.values()))


class _Deletes:
    """One round of deletes, several at a time."""

    def __init__(self, account: Account) -> None:
        self._account = account
        self._away: errors.GlanceError | None = None

    def run(self, objects: list[tuple[str, str]]) -> dict[tuple[str, str], errors.GlanceError]:
        """What could not be deleted, and why."""
        with ThreadPoolExecutor(_DELETES_AT_ONCE) as pool:
            ended = pool.map(self._delete, objects)
            return {
                item: error for item, error in zip(objects, ended, strict=True) if error is not None
            }

    def _delete(self, item: tuple[str, str]) -> errors.GlanceError | None:
        if self._away is not None:
            return self._away
        try:
            self._account.delete(*item)
        except errors.NotFound:
            return None
        except Unreachable as error:
            self._away = error
            return error
        except errors.GlanceError as error:
            return error
        return None
