"""Native threads beside an event loop, here without one."""

import os
import queue
import select
import threading

import pytest

from common import concurrency
from common.native import NativeThreads


def wait_readable(descriptor):
    select.select([descriptor], [], [], 30)


@pytest.fixture
def threads():
    return NativeThreads(threading, queue, wait_readable, limit=3)


@pytest.fixture(params=["native", "inline"])
def lane(request, threads):
    loop = threads if request.param == "native" else concurrency._NoLoop()
    return loop.lane(2)


def fail(error):
    raise error


def test_offload_returns_what_the_function_returns(threads):
    assert threads.offload(divmod, 17, 5) == (3, 2)
    assert threads.offload(int, "11", base=2) == 3
    assert threads.offload(threading.get_ident) != threading.get_ident()


def test_offload_raises_what_the_function_raises(threads):
    with pytest.raises(ZeroDivisionError):
        threads.offload(divmod, 1, 0)


def test_submitted_work_runs_before_anyone_waits_for_it(threads):
    ran = threading.Event()
    pending = threads.submit(ran.set)
    assert ran.wait(30)
    assert pending.wait() is None
    assert pending.wait() is None


def test_error_of_submitted_work_is_raised_by_each_wait(threads):
    pending = threads.submit(fail, KeyError("x"))
    for _ in range(2):
        with pytest.raises(KeyError):
            pending.wait()


def test_threads_start_when_needed_and_no_more_than_allowed(threads):
    before = threading.active_count()
    threads.offload(int)
    assert threading.active_count() == before + 1
    release = threading.Event()
    waiting = [threads.submit(release.wait, 30) for _ in range(9)]
    assert threading.active_count() == before + 3
    release.set()
    assert all(pending.wait() for pending in waiting)


def test_lane_keeps_the_order(lane):
    done = []
    for number in range(200):
        lane.put(done.append, number)
    lane.flush()
    assert done == list(range(200))


def test_lane_does_one_thing_at_a_time(threads):
    lane, at_once, most = threads.lane(5), [], []

    def work():
        at_once.append(1)
        most.append(len(at_once))
        at_once.pop()

    for _ in range(100):
        lane.put(work)
    lane.flush()
    assert set(most) == {1}


def test_put_waits_when_the_lane_is_full(threads):
    lane, release, third = threads.lane(2), threading.Event(), threading.Event()
    lane.put(release.wait, 30)
    lane.put(int)

    def put_a_third():
        lane.put(int)
        third.set()

    putting = threading.Thread(target=put_a_third)
    putting.start()
    assert not third.wait(0.05)
    release.set()
    assert third.wait(30)
    putting.join()
    lane.flush()


def test_error_is_raised_once_and_what_follows_it_is_dropped(lane):
    done = []
    lane.put(fail, KeyError("x"))
    with pytest.raises(KeyError):
        lane.flush()
    lane.put(done.append, 1)
    lane.flush()
    assert done == [1]


def test_work_behind_a_failure_is_dropped(threads):
    lane, release, done = threads.lane(3), threading.Event(), []

    def fail_later():
        release.wait(30)
        raise KeyError

    lane.put(fail_later)
    lane.put(done.append, 1)
    release.set()
    with pytest.raises(KeyError):
        lane.flush()
    assert done == []


def test_waiting_leaves_no_descriptor_open(threads):
    threads.offload(int)
    before = len(os.listdir("/proc/self/fd"))
    lane = threads.lane(1)
    for _ in range(50):
        lane.put(os.getpid)
        threads.offload(os.getpid)
    lane.flush()
    assert len(os.listdir("/proc/self/fd")) == before


def test_interrupted_wait_can_be_repeated(threads):
    interrupts = [KeyboardInterrupt()]

    def wait_or_interrupt(descriptor):
        if interrupts:
            raise interrupts.pop()
        wait_readable(descriptor)

    release, done = threading.Event(), []
    threads.wait_readable = wait_or_interrupt
    lane = threads.lane(1)
    lane.put(lambda: release.wait(30) and done.append(1))
    with pytest.raises(KeyboardInterrupt):
        lane.flush()
    release.set()
    lane.flush()
    assert done == [1]
