"""docs/security.md names tests that exist."""

import re
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
PAGE = TESTS.parent / "docs" / "security.md"

_TEST = re.compile(r"`((?:unit|functional|conformance|integration)/[\w/]+\.py)(?:::(\w+))?`")


def test_every_test_that_is_named_is_there() -> None:
    named = _TEST.findall(PAGE.read_text())
    assert len(named) > 60
    for file, name in named:
        assert (TESTS / file).is_file(), file
        if name:
            assert f"def {name}(" in (TESTS / file).read_text(), f"{file}::{name}"
