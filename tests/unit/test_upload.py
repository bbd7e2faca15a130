"""Incoming bytes: read as they are asked for, bounded, and verified before they count."""

import hashlib
from collections.abc import Iterator

import pytest

from common import errors
from common.upload import BytesSource, ChecksumMismatch, SizeMismatch, Upload

CONTENT = hashlib.shake_128(b"upload").digest(300_000)
MD5 = hashlib.md5(CONTENT).hexdigest()


class Dribble:
    """A source that returns pieces of one size, whatever is asked for up to that."""

    def __init__(self, content: bytes, step: int) -> None:
        self._pieces = (content[start : start + step] for start in range(0, len(content), step))
        self._left = b""

    def read(self, size: int, /) -> bytes:
        piece = self._left or next(self._pieces, b"")
        self._left = piece[size:]
        return piece[:size]

    def abort(self) -> None:
        self._pieces = iter(())


def pieces(upload: Upload, size: int) -> Iterator[bytes]:
    while piece := upload.read(size):
        yield piece


@pytest.mark.parametrize("step", [1, 7, 4096, 65_537, 1_000_000])
@pytest.mark.parametrize("size", [3, 4096, 70_001, 1_000_000])
def test_a_reader_gets_at_most_what_it_asks_for_and_all_there_is(step: int, size: int) -> None:
    """REL-015: short reads are legal, and an empty one is the end, for ever."""
    content = CONTENT[: 20_000 if 1 in (step, size // 3) else 300_000]
    upload = Upload(Dribble(content, step), size=len(content), hashing_algorithm="sha256")
    found = list(pieces(upload, size))
    assert all(0 < len(piece) <= size for piece in found)
    assert b"".join(found) == content
    assert upload.checksum == hashlib.md5(content).hexdigest()
    assert upload.second_hash == hashlib.sha256(content).hexdigest()
    assert upload.bytes_read == len(content)
    assert [upload.read(size) for _ in range(2)] == [b"", b""]


def test_a_full_read_is_full_until_the_end() -> None:
    """REL-015."""
    upload = Upload(Dribble(CONTENT, 1013))
    lengths = []
    while piece := upload.read_full(70_000):
        lengths.append(len(piece))
    assert lengths == [70_000] * 4 + [20_000]


@pytest.mark.parametrize("declared", [len(CONTENT) - 1, len(CONTENT) + 1])
def test_another_number_of_bytes_is_refused_before_the_end(declared: int) -> None:
    """REL-005, REL-016."""
    with pytest.raises(SizeMismatch):
        list(pieces(Upload(BytesSource(CONTENT), size=declared), 65_536))


@pytest.mark.parametrize("declared", [MD5.upper(), "0" * 32, ""])
def test_another_checksum_is_refused(declared: str) -> None:
    """REL-005: compared as text."""
    with pytest.raises(ChecksumMismatch):
        list(pieces(Upload(BytesSource(CONTENT), checksum=declared), 65_536))


def test_nothing_past_a_bound_is_handed_on() -> None:
    """SEC-070, CVE-2014-5356: nor read, beyond the byte that tells."""
    source = BytesSource(CONTENT)
    upload = Upload(source, limit=100_000)
    found: list[bytes] = []
    with pytest.raises(errors.ImageSizeLimitExceeded):
        found.extend(pieces(upload, 65_536))
    assert len(b"".join(found)) <= 100_000
    assert len(source.read(1_000_000)) == len(CONTENT) - 100_001


def test_progress_may_refuse_before_bytes_are_handed_on() -> None:
    """SEC-071."""

    def refuse(total: int) -> None:
        if total > 100_000:
            raise errors.StorageQuotaFull()

    upload = Upload(BytesSource(CONTENT), progress=refuse)
    with pytest.raises(errors.StorageQuotaFull):
        list(pieces(upload, 65_536))


def test_an_aborted_upload_says_why_and_never_ends_well() -> None:
    """SEC-072."""
    upload = Upload(BytesSource(CONTENT))
    assert upload.read(1000)
    upload.abort(errors.ImageDeleted())
    with pytest.raises(errors.ImageDeleted):
        upload.read(1000)
