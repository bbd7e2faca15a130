"""What a list request may ask for, and how it reaches the registry."""

from urllib.parse import parse_qsl

import pytest

from common import errors
from common.query import parse_public, parse_registry


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("a", ("a",)),
        ("eq:in:a", ("in:a",)),
        ("foo:bar", ("foo:bar",)),
        ("in:a,b", ("a", "b")),
        ('in:"a,b","c""d"', ("a,b", 'c"d')),
        ('in:"a\nb",c', ("a\nb", "c")),
        ("in:", ()),
    ],
)
def test_a_filter_means_the_same_to_the_registry(text: str, values: tuple[str, ...]) -> None:
    """V1-IMG-522, V1-IMG-523."""
    query = parse_public({"name": text}, is_admin=False)
    assert query.matches == {"name": values}
    params = dict(parse_qsl(query.encode(), keep_blank_values=True))
    assert parse_registry(params, is_admin=False) == query


@pytest.mark.parametrize("text", ["in:a\nb", "in:a\rb"])
def test_a_list_of_values_that_cannot_be_read_is_refused(text: str) -> None:
    """REL-060: never a 500."""
    with pytest.raises(errors.Invalid):
        parse_public({"name": text}, is_admin=False)


def test_what_is_public_may_be_is_told_in_full() -> None:
    with pytest.raises(errors.Invalid, match="true, false or none"):
        parse_public({"is_public": "perhaps"}, is_admin=False)
