"""What holds for every driver, read-only ones included."""

import contextlib
import os
import time
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ClassVar

import pytest

from common import errors
from glance_store import (
    AddDisabled,
    BackendUnavailable,
    BadLocation,
    Capability,
    DeleteUnsupported,
    ReadUnsupported,
    RequestContext,
    Store,
)
from glance_store.testing.sources import content_of, upload_of


def outcomes(works: list[Callable[[], object]]) -> list[object]:
    """What each of the works returned or raised, all having been run at the same time."""

    def outcome(work: Callable[[], object]) -> object:
        try:
            return work()
        except Exception as error:
            return error

    with ThreadPoolExecutor(len(works)) as pool:
        return list(pool.map(outcome, works))


def open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


class ReadConformance:
    """The promises of get, size and validate, and that undeclared abilities refuse."""

    # About the piece in which the driver moves bytes; lengths around it are tried.
    chunk: ClassVar[int] = 512 * 1024
    # Whether size() and Body.length always tell.
    knows_sizes: ClassVar[bool] = True
    # URLs of this driver's schemes that are not well formed.
    malformed: ClassVar[tuple[str, ...]] = ()
    # The seconds within which any call on an unreachable backend must end.
    patience: ClassVar[float] = 60.0

    @pytest.fixture
    def store(self) -> Store:
        raise NotImplementedError("a binding provides the store fixture")

    @pytest.fixture
    def ctx(self) -> RequestContext:
        return RequestContext(user="user", tenant="tenant")

    def put(self, store: Store, ctx: RequestContext, content: bytes) -> str:
        """Make content readable; return its URL."""
        raise NotImplementedError("a binding of a read-only driver provides put")

    def missing_url(self, store: Store, ctx: RequestContext) -> str:
        """A well-formed URL with nothing behind it."""
        raise NotImplementedError("a binding of a read-only driver provides missing_url")

    def broken(self, store: Store) -> contextlib.AbstractContextManager[object]:
        """A block inside which the backend cannot be reached."""
        pytest.skip("this binding has no way to break its backend")

    def read(
        self,
        store: Store,
        ctx: RequestContext,
        url: str,
        offset: int = 0,
        length: int | None = None,
    ) -> bytes:
        """Everything that get yields, its promised length checked."""
        body = store.get(ctx, url, offset, length)
        try:
            content = b"".join(bytes(chunk) for chunk in body)
        finally:
            body.close()
        if self.knows_sizes:
            assert body.length == len(content)
        return content

    def lengths(self) -> tuple[int, ...]:
        chunk = self.chunk
        return (0, 1, chunk - 1, chunk, chunk + 1, max(5 * 1024 * 1024, 2 * chunk) + 11)

    def test_whole_images_read_back(self, store: Store, ctx: RequestContext) -> None:
        for length in self.lengths():
            content = content_of(length)
            url = self.put(store, ctx, content)
            assert self.read(store, ctx, url) == content, length
            assert store.size(ctx, url) == (length if self.knows_sizes else None)

    def test_offset_and_length_select_a_range(self, store: Store, ctx: RequestContext) -> None:
        content = content_of(2 * self.chunk + 77)
        url = self.put(store, ctx, content)
        end = len(content)
        for offset in (0, 1, self.chunk - 1, self.chunk, self.chunk + 1, end - 1, end):
            for length in (None, 1, 2, self.chunk, end, end + 1):
                expected = content[offset:][:length]
                found = self.read(store, ctx, url, offset, length)
                assert found == expected, (offset, length)

    def test_url_has_a_scheme_of_the_store_and_validates(
        self, store: Store, ctx: RequestContext
    ) -> None:
        url = self.put(store, ctx, b"content")
        assert url.partition(":")[0] in store.schemes
        store.validate(url)

    def test_missing_bytes_are_not_found_on_get_and_size(
        self, store: Store, ctx: RequestContext
    ) -> None:
        url = self.missing_url(store, ctx)
        for call in (store.get, store.size):
            with pytest.raises(errors.NotFound) as caught:
                call(ctx, url)
            self.assert_says_nothing_of(url, caught.value)

    def test_malformed_urls_are_bad_locations(self, store: Store, ctx: RequestContext) -> None:
        for url in self.malformed:
            for call in (store.validate, lambda bad: store.get(ctx, bad)):
                with pytest.raises(BadLocation) as caught:
                    call(url)
                self.assert_says_nothing_of(url, caught.value)

    def assert_says_nothing_of(self, url: str, error: errors.GlanceError) -> None:
        """SEC-030: no URL and no host or path out of one."""
        rest = url.partition(":")[2].strip("/")
        assert url not in error.message
        assert not rest or rest not in error.message
        assert not any(part in error.message for part in rest.split("/") if len(part) > 8)

    def test_concurrent_readers_each_get_all(self, store: Store, ctx: RequestContext) -> None:
        content = content_of(2 * self.chunk + 5)
        url = self.put(store, ctx, content)
        found = outcomes([lambda: self.read(store, ctx, url)] * 6)
        assert [answer == content for answer in found] == [True] * 6

    def test_closing_half_way_releases_what_the_body_holds(
        self, store: Store, ctx: RequestContext
    ) -> None:
        """REL-031."""
        url = self.put(store, ctx, content_of(3 * self.chunk))

        def read_a_little() -> None:
            body = store.get(ctx, url)
            next(iter(body))
            body.close()
            body.close()

        for _ in range(3):
            read_a_little()
        before = open_descriptors()
        for _ in range(12):
            read_a_little()
        assert open_descriptors() <= before + 3

    def test_closing_unread_is_allowed(self, store: Store, ctx: RequestContext) -> None:
        url = self.put(store, ctx, b"content")
        store.get(ctx, url).close()
        assert self.read(store, ctx, url) == b"content"

    def test_undeclared_abilities_refuse(self, store: Store, ctx: RequestContext) -> None:
        url = self.missing_url(store, ctx)
        if Capability.WRITE not in store.capabilities:
            with pytest.raises(AddDisabled):
                store.add(ctx, str(uuid.uuid4()), upload_of(b"content"))
        if Capability.DELETE not in store.capabilities:
            with pytest.raises(DeleteUnsupported):
                store.delete(ctx, url)
        if Capability.READ not in store.capabilities:
            with pytest.raises(ReadUnsupported):
                store.get(ctx, url)
        if Capability.LIST not in store.capabilities:
            assert list(store.contents()) == []

    def calls(self, store: Store, ctx: RequestContext, url: str) -> list[Callable[[], object]]:
        """Calls that need the backend."""
        return [lambda: self.read(store, ctx, url), lambda: store.size(ctx, url)]

    def test_unreachable_backend_is_reported_in_bounded_time(
        self, store: Store, ctx: RequestContext
    ) -> None:
        """REL-032, REL-085."""
        url = self.put(store, ctx, b"content")
        with self.broken(store):
            for call in self.calls(store, ctx, url):
                started = time.monotonic()
                with pytest.raises(BackendUnavailable) as caught:
                    call()
                assert time.monotonic() - started < self.patience
                self.assert_says_nothing_of(url, caught.value)
