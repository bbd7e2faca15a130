"""A minute's slice of `make soak`; the long run is a program of its own."""

import os
from pathlib import Path

from tests.soak.__main__ import run

SECONDS = float(os.environ.get("GLANCE_TEST_SOAK_SECONDS", "20"))


def test_faults_lose_leak_and_leave_nothing_stuck(tmp_path: Path) -> None:
    """I-1, I-2; REL-001, REL-002, REL-006, REL-007, REL-009, REL-052, REL-054, REL-080, SEC-073."""
    verdict = run(tmp_path, seconds=SECONDS, faults=None, seed=20261121, database="sqlite")
    found = verdict.lost + verdict.stuck + verdict.leaked + verdict.bad_answers
    assert verdict.good, f"{verdict}\n" + "\n".join(found[:20])
    assert verdict.faults > SECONDS
