"""Which numbered cases of the specification the tests cite; a pytest plugin prints it.

`cases.txt` holds the numbers of every family as ranges. A test cites a case by naming it, as in
V1-IMG-118, in its docstring, its id or a comment. `not_applicable.md` excuses cases, one a line.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

TESTS = Path(__file__).parent
_CASE = re.compile(r"\b(V1-IMG|REG|DB|MW|SEC|REL)-(\d{3})\b")
_EXCUSE = re.compile(r"^\* ((?:V1-IMG|REG|DB|MW|SEC|REL)-\d{3}): \S", re.MULTILINE)


@dataclass(frozen=True)
class Family:
    name: str
    cases: frozenset[str]
    cited: frozenset[str]
    excused: frozenset[str]

    @property
    def uncited(self) -> list[str]:
        return sorted(self.cases - self.cited - self.excused)


def families() -> list[Family]:
    cited, excused = frozenset(cited_cases()), excused_cases()
    return [Family(name, cases, cases & cited, cases & excused) for name, cases in _known_cases()]


def cited_cases() -> set[str]:
    """Every case named anywhere in the tests."""
    found: set[str] = set()
    for file in TESTS.rglob("test_*.py"):
        found.update("-".join(match) for match in _CASE.findall(file.read_text()))
    return found


def excused_cases() -> frozenset[str]:
    return frozenset(_EXCUSE.findall((TESTS / "not_applicable.md").read_text()))


def known_cases() -> frozenset[str]:
    return frozenset().union(*(cases for _, cases in _known_cases()))


def _known_cases() -> Iterator[tuple[str, frozenset[str]]]:
    for line in (TESTS / "cases.txt").read_text().splitlines():
        name, _, ranges = line.partition(": ")
        numbers: set[str] = set()
        for each in ranges.split():
            first, _, last = each.partition("-")
            numbers.update(f"{name}-{n:03}" for n in range(int(first), int(last or first) + 1))
        yield name, frozenset(numbers)


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """After a run of everything, not of a selection."""
    whole = config.args_source is pytest.Config.ArgsSource.TESTPATHS
    if not whole or config.option.keyword or config.option.markexpr:
        return
    terminalreporter.section("cases of the specification")
    for family in families():
        done = f"{len(family.cited)} of {len(family.cases)} cited"
        excused = f", {len(family.excused)} not applicable" if family.excused else ""
        terminalreporter.line(f"{family.name}: {done}{excused}")
        if family.uncited:
            terminalreporter.line(f"  not cited: {' '.join(family.uncited)}")
