"""Every numbered case of the API and the registry has a test, and no test cites a wrong number."""

import pytest

from tests import case_coverage

FAMILIES = {family.name: family for family in case_coverage.families()}


@pytest.mark.parametrize("name", ["V1-IMG", "REG"])
def test_every_case_is_cited_or_excused(name: str) -> None:
    assert FAMILIES[name].uncited == []


def test_every_cited_case_exists() -> None:
    assert case_coverage.cited_cases() <= case_coverage.known_cases()


def test_an_excuse_is_for_a_case_without_a_test() -> None:
    excused = case_coverage.excused_cases()
    assert excused <= case_coverage.known_cases()
    assert not excused & case_coverage.cited_cases()
