"""One image uploaded in parts, several at a time, within a fixed amount of memory."""

import logging
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final

from common import errors
from glance_store.drivers.s3_bucket import Bucket

LOG = logging.getLogger(__name__)

MIB: Final = 1024 * 1024
MOST_PARTS: Final = 10_000
_LARGEST_PART: Final = 5 * 1024 * MIB
# A part of an image of unknown size is twice as large after so many: 10 MiB parts reach 9.7 TiB.
_STEP: Final = 1000


def part_size(number: int, smallest: int, size: int | None) -> int:
    """How large part `number`, from 1, is, so that MOST_PARTS are enough (REL-014)."""
    if size is None:
        wanted = smallest << (number - 1) // _STEP
    else:
        wanted = max(smallest, -(-size // MOST_PARTS))
        wanted = -(-wanted // MIB) * MIB
    return min(wanted, _LARGEST_PART)


class _Budget:
    """Bytes that may be in memory at once; one part may always, however large."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._used = 0
        self._changed = threading.Condition()

    def take(self, count: int) -> None:
        with self._changed:
            self._changed.wait_for(lambda: not self._used or self._used + count <= self._total)
            self._used += count

    def give(self, count: int) -> None:
        with self._changed:
            self._used -= count
            self._changed.notify_all()


class MultipartUpload:
    """Parts of `smallest` bytes or more, at most `parallel` of that size under way."""

    def __init__(self, bucket: Bucket, key: str, smallest: int, parallel: int) -> None:
        self._bucket = bucket
        self._key = key
        self._smallest = smallest
        self._parallel = parallel
        self._budget = _Budget(smallest * parallel)
        self._failed = threading.Event()

    def run(self, first: bytes, read_full: Callable[[int], bytes], size: int | None) -> None:
        """Store `first`, if any, and what read_full returns; nothing is left if this raises."""
        upload_id = self._bucket.start_upload(self._key)
        try:
            with ThreadPoolExecutor(self._parallel) as pool:
                stored = self._store(pool, upload_id, first, read_full, size)
            etags = {number: future.result() for number, future in stored.items()}
            self._bucket.complete_upload(self._key, upload_id, etags)
        except BaseException:
            # No part is under way any more, so none can arrive after this.
            self._abort_quietly(upload_id)
            raise

    def _store(
        self,
        pool: ThreadPoolExecutor,
        upload_id: str,
        first: bytes,
        read_full: Callable[[int], bytes],
        size: int | None,
    ) -> dict[int, "Future[str]"]:
        stored: dict[int, Future[str]] = {}
        content = first or read_full(part_size(1, self._smallest, size))
        while content and not self._failed.is_set():
            number = len(stored) + 1
            self._budget.take(len(content))
            stored[number] = pool.submit(self._put_part, upload_id, number, content)
            content = read_full(part_size(number + 1, self._smallest, size))
        return stored

    def _put_part(self, upload_id: str, number: int, content: bytes) -> str:
        try:
            return self._bucket.put_part(self._key, upload_id, number, content)
        except BaseException:
            self._failed.set()
            raise
        finally:
            self._budget.give(len(content))

    def _abort_quietly(self, upload_id: str) -> None:
        try:
            self._bucket.abort_upload(self._key, upload_id)
        except errors.GlanceError as error:
            LOG.warning("A failed upload has left parts in S3: %s", error)
