"""The drivers that need no server, bound to the contract's suite."""

import pytest

from glance_store.drivers.memory import MemoryStore
from glance_store.testing import StoreConformance


class TestMemory(StoreConformance):
    malformed = ("memory://", "memory:x", "memory://a/b")

    @pytest.fixture
    def store(self):
        return MemoryStore({})
