"""Adds that are cut off as by a crash: in a process that is killed half way."""

import contextlib
import multiprocessing
import time

from common.upload import Upload
from glance_store.testing import StuckSource


@contextlib.contextmanager
def killed_add(make_store, options, ctx, image_id, content, stored):
    """Afterwards the store holds what a process left that died after reading content.

    make_store(**options), a module's function, makes the store there; stored() is what the
    backend holds, so that everything sent has settled before the process is killed.
    """
    spawn = multiprocessing.get_context("spawn")
    stuck = spawn.Event()
    arguments = (make_store, options, ctx, image_id, content, stuck)
    process = spawn.Process(target=_add, args=arguments)
    process.start()
    try:
        assert stuck.wait(60), "the driver has not read everything on offer"
        _wait_until_settled(stored)
    finally:
        process.kill()
        process.join()
    yield


def _add(make_store, options, ctx, image_id, content, stuck):
    source = StuckSource(content)
    source.stuck = stuck
    make_store(**options).add(ctx, image_id, Upload(source))


def _wait_until_settled(stored):
    before, now = None, stored()
    while now != before:
        time.sleep(0.3)
        before, now = now, stored()
