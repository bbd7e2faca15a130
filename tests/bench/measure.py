"""Alternating runs, what they cost in CPU time, and how the outcome is told.

A machine is never equally fast twice, so a case and its yardstick take turns, A B A B, and are
compared run by run: the ratio is the median of the ratios of neighbouring runs.
"""

import json
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

_TICKS = os.sysconf("SC_CLK_TCK")

Run = Callable[[], float]


def cpu_seconds(pids: Iterable[int]) -> float:
    """User and system time that these processes have used, all their threads together."""
    total = 0
    for pid in pids:
        # The program's name, in parentheses, may hold blanks.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        total += int(fields[11]) + int(fields[12])
    return total / _TICKS


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def memory_kib(pid: int) -> dict[str, int]:
    """RSS and PSS of a process, in KiB."""
    found = {}
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        name, _, rest = line.partition(":")
        if name in ("Rss", "Pss"):
            found[name.lower()] = int(rest.split()[0])
    return found


@dataclass(frozen=True)
class Aim:
    """What a good engineer should reach, by issue: a bound on the ratio or on the value."""

    text: str
    reached: Callable[["Result"], bool]


def ratio_at_least(number: float) -> Aim:
    return Aim(f"ratio >= {number}", lambda result: (result.ratio or 0) >= number)


def ratio_at_most(number: float) -> Aim:
    return Aim(f"ratio <= {number}", lambda result: (result.ratio or number + 1) <= number)


def at_most(number: float) -> Aim:
    return Aim(f"<= {number:g}", lambda result: result.median <= number)


@dataclass
class Result:
    """One line of the table. `cpu` is what one run costs each process, in seconds; `details` are
    for whoever reads the JSON line only.
    """

    case: str
    what: str
    unit: str
    values: Sequence[float]
    cpu: Mapping[str, float] = field(default_factory=dict)
    yardstick: str | None = None
    yardstick_values: Sequence[float] = ()
    ratio: float | None = None
    aim: Aim | None = None
    details: Mapping[str, Any] = field(default_factory=dict)

    @property
    def median(self) -> float:
        return median(self.values)

    def as_json(self) -> str:
        line: dict[str, Any] = {
            "case": self.case,
            "what": self.what,
            "unit": self.unit,
            "runs": len(self.values),
            "median": _rounded(self.median),
            "spread": [_rounded(min(self.values)), _rounded(max(self.values))],
            "cpu_s": {name: _rounded(seconds) for name, seconds in self.cpu.items()},
        }
        if self.yardstick is not None:
            line["yardstick"] = {
                "what": self.yardstick,
                "median": _rounded(median(self.yardstick_values)),
                "spread": [
                    _rounded(min(self.yardstick_values)),
                    _rounded(max(self.yardstick_values)),
                ],
            }
        if self.ratio is not None:
            line["ratio"] = _rounded(self.ratio)
        if self.aim is not None:
            line["aim"] = self.aim.text
            line["reached"] = self.aim.reached(self)
        if self.details:
            line["details"] = dict(self.details)
        return json.dumps(line)


def alternate(
    runs: int,
    ours: Run,
    yardstick: Run,
    processes: Mapping[str, Sequence[int]] = {},
    other_processes: Mapping[str, Sequence[int]] = {},
    between: Callable[[], AbstractContextManager[object]] = nullcontext,
) -> dict[str, Any]:
    """Run both in turn; what a Result needs to know of it. One run of each comes before, uncounted.

    processes and other_processes: whose CPU time to take during our runs and the yardstick's, by
    name. between surrounds every run.
    """
    sides = (_Side(ours, processes), _Side(yardstick, other_processes))
    for number in range(runs + 1):
        for side in sides:
            with between():
                side.run(counted=number > 0)
    a, b = (side.values for side in sides)
    return {
        "values": a,
        "yardstick_values": b,
        "ratio": median(x / y for x, y in zip(a, b, strict=True)),
        "cpu": {**sides[0].median_cpu(), **sides[1].median_cpu()},
    }


class _Side:
    def __init__(self, work: Run, processes: Mapping[str, Sequence[int]]) -> None:
        self._work = work
        self._processes = processes
        self._cpu: dict[str, list[float]] = {name: [] for name in processes}
        self.values: list[float] = []

    def run(self, *, counted: bool) -> None:
        before = {name: cpu_seconds(pids) for name, pids in self._processes.items()}
        value = self._work()
        if counted:
            self.values.append(value)
            for name, pids in self._processes.items():
                self._cpu[name].append(cpu_seconds(pids) - before[name])

    def median_cpu(self) -> dict[str, float]:
        return {name: median(seconds) for name, seconds in self._cpu.items()}


def seconds_of(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def table(results: Sequence[Result]) -> str:
    """The results for reading, in Markdown."""
    rows = [("what", "median", "spread", "yardstick", "ratio", "aim", "reached")]
    for result in results:
        spread = f"{_short(min(result.values))} to {_short(max(result.values))}"
        yardstick = ""
        if result.yardstick is not None:
            yardstick = f"{_short(median(result.yardstick_values))} ({result.yardstick})"
        ratio = "" if result.ratio is None else f"{result.ratio:.2f}"
        aim, reached = "", ""
        if result.aim is not None:
            aim, reached = result.aim.text, "yes" if result.aim.reached(result) else "no"
        value = f"{_short(result.median)} {result.unit}"
        rows.append((result.what, value, spread, yardstick, ratio, aim, reached))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"
        for row in rows
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)


def _rounded(value: float) -> float:
    return float(f"{value:.4g}")


def _short(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"
