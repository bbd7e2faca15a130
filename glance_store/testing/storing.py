"""The whole contract, for drivers that store."""

import contextlib
import functools
import hashlib
import threading
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import ClassVar

import pytest

from common import errors
from common.upload import BytesSource, ChecksumMismatch, SizeMismatch, Source, Upload
from glance_store import Capability, RequestContext, Store
from glance_store.testing.reading import ReadConformance, outcomes
from glance_store.testing.sources import (
    FailingSource,
    PiecesSource,
    StuckSource,
    WatchedSource,
    content_of,
    upload_of,
)


class StoreConformance(ReadConformance):
    """Adds what concerns add, delete, discard and contents.

    Every test must leave the backend as it was; what the tests themselves added is removed
    before that is checked.
    """

    # False where the backend has no conditional write, so that of two simultaneous adds both
    # may succeed; what remains must still be one of them, whole.
    one_winner: ClassVar[bool] = True

    def backend(self, store: Store) -> frozenset[str]:
        """The names of everything really there, temporary and auxiliary objects included."""
        return frozenset(stored.url for stored in store.contents())

    @contextlib.contextmanager
    def unfinished_add(self, store: Store, ctx: RequestContext, image_id: str) -> Iterator[None]:
        """A block inside which an add of image_id is stuck half way, as if its process died."""
        source = StuckSource(content_of(2 * self.chunk + 3))
        with ThreadPoolExecutor(1) as pool:
            adding = pool.submit(store.add, ctx, image_id, Upload(source))
            try:
                assert source.stuck.wait(30), "the driver has not read everything on offer"
                yield
            finally:
                source.abort()
                adding.exception()

    @pytest.fixture(autouse=True)
    def leaves_nothing_behind(self, store: Store, ctx: RequestContext) -> Iterator[None]:
        before = self.backend(store)
        self.added: list[str] = []
        yield
        for url in self.added:
            with contextlib.suppress(errors.NotFound):
                store.delete(ctx, url)
        assert self.backend(store) == before

    def add(self, store: Store, ctx: RequestContext, image_id: str, upload: Upload) -> str:
        url, _metadata = store.add(ctx, image_id, upload)
        self.added.append(url)
        return url

    def put(self, store: Store, ctx: RequestContext, content: bytes) -> str:
        return self.add(store, ctx, str(uuid.uuid4()), upload_of(content, len(content)))

    def missing_url(self, store: Store, ctx: RequestContext) -> str:
        url = self.put(store, ctx, b"soon gone")
        store.delete(ctx, url)
        return url

    def calls(self, store: Store, ctx: RequestContext, url: str) -> list[Callable[[], object]]:
        return [
            *super().calls(store, ctx, url),
            lambda: store.delete(ctx, url),
            lambda: store.add(ctx, str(uuid.uuid4()), upload_of(content_of(2 * self.chunk))),
        ]

    @pytest.mark.parametrize("known", [True, False], ids=["size known", "size unknown"])
    def test_what_is_added_reads_back(self, store: Store, ctx: RequestContext, known: bool) -> None:
        """REL-014."""
        for length in self.lengths():
            content = content_of(length)
            upload = upload_of(content, length if known else None)
            url = self.add(store, ctx, str(uuid.uuid4()), upload)
            assert upload.bytes_read == length
            assert upload.checksum == hashlib.md5(content).hexdigest()
            assert self.read(store, ctx, url) == content, length
            assert store.size(ctx, url) == length

    @pytest.mark.parametrize("sizes", [(1, 2, 3), (7919,), (65_537, 1, 4093)], ids=str)
    def test_pieces_of_any_size_are_stored_in_order(
        self, store: Store, ctx: RequestContext, sizes: tuple[int, ...]
    ) -> None:
        """REL-015."""
        content = content_of(10_007 if sizes[0] == 1 else self.chunk + 100_003)
        for size in (len(content), None):
            upload = Upload(PiecesSource(content, sizes), size=size)
            url = self.add(store, ctx, str(uuid.uuid4()), upload)
            assert self.read(store, ctx, url) == content

    def test_every_form_of_image_id_is_a_name_of_its_own(
        self, store: Store, ctx: RequestContext
    ) -> None:
        """images-v1.md 8.2: identifiers are stored exactly as sent."""
        plain = f"a{uuid.uuid4().hex[1:]}"
        forms = (plain, plain.upper(), f"{{{plain}}}", f"urn:{plain}", f"----{plain}")
        urls = {form: self.add(store, ctx, form, upload_of(form.encode())) for form in forms}
        assert len(set(urls.values())) == len(forms)
        for form, url in urls.items():
            assert self.read(store, ctx, url) == form.encode()

    def test_duplicate_is_refused_and_the_first_copy_intact(
        self, store: Store, ctx: RequestContext
    ) -> None:
        image_id = str(uuid.uuid4())
        url = self.add(store, ctx, image_id, upload_of(b"first"))
        before = self.backend(store)
        for size in (None, 6):
            with pytest.raises(errors.Duplicate) as caught:
                store.add(ctx, image_id, upload_of(b"second", size))
            self.assert_says_nothing_of(url, caught.value)
        assert self.read(store, ctx, url) == b"first"
        assert self.backend(store) == before

    def bad_uploads(self) -> list[tuple[str, Upload, type[Exception]]]:
        content = content_of(2 * self.chunk + 9)
        length = len(content)
        wrong = hashlib.md5(b"something else").hexdigest()

        def of(source: Source, **declared: int | None) -> Upload:
            return Upload(source, size=declared.get("size"), limit=declared.get("limit"))

        return [
            ("short", of(BytesSource(content), size=length + 1), SizeMismatch),
            ("empty though declared", of(BytesSource(b""), size=5), SizeMismatch),
            ("long", of(BytesSource(content), size=length - 1), SizeMismatch),
            (
                "over the limit",
                of(BytesSource(content), limit=length - 1),
                errors.ImageSizeLimitExceeded,
            ),
            ("failing", of(FailingSource(content)), errors.ClientDisconnected),
            ("failing at once", of(FailingSource(b""), size=9), errors.ClientDisconnected),
            ("cut off", of(FailingSource(content), size=length + 9), errors.ClientDisconnected),
            ("wrong", Upload(BytesSource(content), checksum=wrong), ChecksumMismatch),
            (
                "wrong, size known",
                Upload(BytesSource(content), size=length, checksum=wrong),
                ChecksumMismatch,
            ),
        ]

    def test_bad_upload_leaves_nothing(self, store: Store, ctx: RequestContext) -> None:
        """REL-001, SEC-070: whatever upload.read raises passes through and nothing remains."""
        before = self.backend(store)
        for name, upload, error in self.bad_uploads():
            image_id = str(uuid.uuid4())
            with pytest.raises(error):
                store.add(ctx, image_id, upload)
            assert self.backend(store) == before, name
            # The id is free again: nothing half-made stands in the way.
            url = self.add(store, ctx, image_id, upload_of(b"retried"))
            assert self.read(store, ctx, url) == b"retried", name
            store.delete(ctx, url)

    def test_aborted_upload_ends_soon_and_leaves_nothing(
        self, store: Store, ctx: RequestContext
    ) -> None:
        """REL-007, SEC-072."""
        before = self.backend(store)
        source = StuckSource(content_of(2 * self.chunk + 1))
        upload = Upload(source)
        with ThreadPoolExecutor(1) as pool:
            adding = pool.submit(store.add, ctx, str(uuid.uuid4()), upload)
            assert source.stuck.wait(30), "the driver has not read everything on offer"
            upload.abort(errors.ImageDeleted())
            assert isinstance(adding.exception(timeout=30), errors.ImageDeleted)
        assert self.backend(store) == before

    def test_nothing_is_readable_before_add_returns(
        self, store: Store, ctx: RequestContext
    ) -> None:
        image_id = str(uuid.uuid4())
        url = self.add(store, ctx, image_id, upload_of(b"to learn the url"))
        store.delete(ctx, url)
        looks = []

        def look() -> None:
            with pytest.raises(errors.NotFound):
                store.get(ctx, url)
            looks.append(url)
            listed = [stored for stored in store.contents() if stored.image_id == image_id]
            assert not any(stored.complete for stored in listed)

        content = content_of(2 * self.chunk)
        source = WatchedSource(content, look)
        again = self.add(store, ctx, image_id, Upload(source, size=len(content)))
        assert looks
        assert self.read(store, ctx, again) == content

    def test_of_concurrent_adds_of_one_id_one_wins(self, store: Store, ctx: RequestContext) -> None:
        """REL-006."""
        image_id = str(uuid.uuid4())
        contents = [content_of(self.chunk + 100, seed) for seed in range(4)]
        together = threading.Barrier(len(contents))

        def add(content: bytes) -> tuple[str, bytes]:
            together.wait(30)
            return self.add(store, ctx, image_id, upload_of(content, len(content))), content

        ended = outcomes([functools.partial(add, content) for content in contents])
        lost = [answer for answer in ended if isinstance(answer, Exception)]
        won = [answer for answer in ended if isinstance(answer, tuple)]
        assert all(isinstance(error, errors.Duplicate) for error in lost), lost
        assert won
        assert len(won) == 1 or not self.one_winner
        assert self.read(store, ctx, won[0][0]) in [content for _, content in won]

    def test_deleted_bytes_are_gone(self, store: Store, ctx: RequestContext) -> None:
        """REL-071: all parts."""
        before = self.backend(store)
        url = self.put(store, ctx, content_of(2 * self.chunk + 1))
        store.delete(ctx, url)
        assert self.backend(store) == before
        for call in (store.get, store.size, store.delete):
            with pytest.raises(errors.NotFound) as caught:
                call(ctx, url)
            self.assert_says_nothing_of(url, caught.value)

    def test_discard_removes_a_whole_leftover_and_is_idempotent(
        self, store: Store, ctx: RequestContext
    ) -> None:
        before = self.backend(store)
        image_id, other_id = str(uuid.uuid4()), str(uuid.uuid4())
        other = self.add(store, ctx, other_id, upload_of(b"not mine"))
        url = self.add(store, ctx, image_id, upload_of(content_of(2 * self.chunk)))
        store.discard(ctx, image_id)
        store.discard(ctx, image_id)
        with pytest.raises(errors.NotFound):
            store.get(ctx, url)
        assert self.read(store, ctx, other) == b"not mine"
        store.delete(ctx, other)
        assert self.backend(store) == before

    def test_discard_removes_what_an_unfinished_add_left(
        self, store: Store, ctx: RequestContext
    ) -> None:
        """REL-009."""
        before = self.backend(store)
        image_id = str(uuid.uuid4())
        with self.unfinished_add(store, ctx, image_id):
            store.discard(ctx, image_id)
            assert self.backend(store) == before
            store.discard(ctx, image_id)
        assert self.backend(store) == before

    def test_discard_of_nothing_is_quiet(self, store: Store, ctx: RequestContext) -> None:
        store.discard(ctx, str(uuid.uuid4()))

    def test_contents_lists_what_was_added(self, store: Store, ctx: RequestContext) -> None:
        if Capability.LIST not in store.capabilities:
            pytest.skip("the driver does not declare LIST")
        image_id = str(uuid.uuid4())
        url = self.add(store, ctx, image_id, upload_of(b"content"))
        [found] = [stored for stored in store.contents() if stored.image_id == image_id]
        assert (found.url, found.size, found.complete) == (url, 7, True)

    def test_acls_can_be_set_and_withdrawn(self, store: Store, ctx: RequestContext) -> None:
        """Without Capability.ACL this has no effect; it never fails and never harms."""
        url = self.put(store, ctx, b"content")
        store.set_acls(ctx, url, public=False, read=["other-tenant"], write=["other-tenant"])
        store.set_acls(ctx, url, public=True)
        store.set_acls(ctx, url, public=False)
        assert self.read(store, ctx, url) == b"content"
