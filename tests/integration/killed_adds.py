"""Adds whose process is really killed, for backends that have to find out by themselves."""

import contextlib
import multiprocessing
from collections.abc import Iterator

from common.context import RequestContext
from common.upload import Upload
from glance_store import Store
from glance_store.testing import StuckSource


def _add_and_hang(driver, conf, ctx, image_id, content, stuck):
    source = StuckSource(content)
    source.stuck = stuck
    driver(conf).add(ctx, image_id, Upload(source))


@contextlib.contextmanager
def killed_add(store: Store, ctx: RequestContext, image_id: str, content: bytes) -> Iterator[None]:
    """A block before which a process with such a store was killed while it added content."""
    spawn = multiprocessing.get_context("spawn")
    stuck = spawn.Event()
    process = spawn.Process(
        target=_add_and_hang, args=(type(store), store.conf, ctx, image_id, content, stuck)
    )
    process.start()
    try:
        assert stuck.wait(60), "the driver has not read everything on offer"
    finally:
        process.kill()
        process.join()
    yield
