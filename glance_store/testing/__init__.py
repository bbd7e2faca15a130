"""The suite that every store driver passes, ours or not. Needs pytest.

Bind a driver in ten lines: subclass StoreConformance (ReadConformance for a read-only driver,
with `put` and `missing_url`), provide the `store` fixture, and override the hooks at the top of
the classes where the defaults do not fit:

    class TestMemory(StoreConformance):
        @pytest.fixture
        def store(self):
            return MemoryStore({})

`pytest.register_assert_rewrite("glance_store.testing")`, before the import, makes failures show
the values that were compared.
"""

from glance_store.testing.reading import ReadConformance, outcomes
from glance_store.testing.sources import (
    FailingSource,
    PiecesSource,
    StuckSource,
    WatchedSource,
    content_of,
    upload_of,
)
from glance_store.testing.storing import StoreConformance

__all__ = [
    "FailingSource",
    "PiecesSource",
    "ReadConformance",
    "StoreConformance",
    "StuckSource",
    "WatchedSource",
    "content_of",
    "outcomes",
    "upload_of",
]
