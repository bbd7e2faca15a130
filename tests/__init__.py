"""The tests; see tests/unit, conformance, functional, integration and bench."""

import pytest

# The suite that drivers are bound to asserts inside our own package.
pytest.register_assert_rewrite("glance_store.testing")
