"""What glance-replicator does: measure, dump, load, copy and compare the images of servers."""

import hashlib
import json
import logging
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final, Protocol

from glance_api.replication_client import (
    AlreadyPresent,
    Meta,
    Server,
    ServerError,
    flatten,
    is_image_id,
)

LOG = logging.getLogger(__name__)

_ACTIVE: Final = "active"


class _Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...


@dataclass(frozen=True)
class Replicator:
    """dont_replicate: fields that are neither copied nor compared."""

    chunk_size: int
    dont_replicate: frozenset[str]
    meta_only: bool = False

    def size(self, server: Server) -> tuple[int, int]:
        """The number of active images and of their bytes."""
        sizes = [
            int(document["size"] or 0)
            for document in server.documents()
            if document["status"] == _ACTIVE
        ]
        return len(sizes), sum(sizes)

    def dump(self, server: Server, directory: Path) -> None:
        """Write <id> (JSON) and, for an active image, <id>.img; existing ones stay as they are."""
        for document in server.documents():
            path = directory / document["id"]
            if path.exists():
                continue
            LOG.info("Storing: %s", document["id"])
            if document["status"] == _ACTIVE and not self.meta_only:
                with (
                    server.data(document["id"]) as data,
                    _whole(_data_path(path)) as file,
                ):
                    digest = hashlib.md5(usedforsecurity=False)
                    for chunk in self._chunks(data, int(document["size"])):
                        digest.update(chunk)
                        file.write(chunk)
                    if document["checksum"] not in (None, digest.hexdigest()):
                        raise ServerError(f"{server}: image {document['id']} arrives damaged")
            # Last, since an image whose metadata is there is taken to be complete.
            with _whole(path) as file:
                file.write(json.dumps(document).encode())

    def load(self, server: Server, directory: Path) -> None:
        """Make every dumped image that the server does not have; update those it has."""
        for path in sorted(directory.iterdir()):
            if is_image_id(path.name):
                self._load_one(server, path)

    def livecopy(self, source: Server, target: Server) -> None:
        """As dump and load, without a directory in between."""
        for document in source.documents():
            meta = self._kept(flatten(document))
            present = target.image(meta["id"])
            if present is not None:
                if present.get("status") == _ACTIVE:
                    self._update(target, meta, present)
            elif document["status"] == _ACTIVE and not self.meta_only:
                LOG.info("Copying: %s", meta["id"])
                with source.data(meta["id"]) as data:
                    _add(target, meta, self._chunks(data, int(document["size"])))

    def compare(self, source: Server, target: Server) -> Iterator[str]:
        """A sentence for each image that is missing on target, or differs there."""
        for document in source.documents():
            meta = self._kept(flatten(document))
            present = target.image(meta["id"])
            if present is None:
                if document["status"] == _ACTIVE:
                    yield f"Image {meta['id']} is missing from {target}"
                continue
            for name in _differences(meta, self._kept(present)):
                yield (
                    f"Image {meta['id']}: field {name} differs (source: {meta.get(name)}, "
                    f"destination: {present.get(name)})"
                )

    def _load_one(self, server: Server, path: Path) -> None:
        meta = self._kept(flatten(json.loads(path.read_bytes())))
        present = server.image(path.name)
        if present is not None:
            self._update(server, meta, present)
        elif not _data_path(path).exists():
            LOG.info("%s has no data: skipped", path.name)
        else:
            LOG.info("Loading: %s", path.name)
            with _data_path(path).open("rb") as data:
                size = os.fstat(data.fileno()).st_size
                _add(server, {**meta, "size": str(size)}, self._chunks(data, size))

    def _update(self, server: Server, meta: Meta, present: Meta) -> None:
        if _differences(meta, self._kept(present)):
            LOG.info("Updating: %s", meta["id"])
            server.update(meta)

    def _kept(self, meta: Meta) -> Meta:
        return {name: value for name, value in meta.items() if name not in self.dont_replicate}

    def _chunks(self, data: _Readable, size: int) -> Iterator[bytes]:
        while chunk := data.read(self.chunk_size):
            size -= len(chunk)
            yield chunk
        # A connection that breaks looks like the end.
        if size:
            raise ServerError(f"An image ends {size} bytes early")


def _add(server: Server, meta: Meta, chunks: Iterable[bytes]) -> None:
    try:
        server.add(meta, chunks)
    except AlreadyPresent as error:
        # By an image that we cannot see (MW-060): the others are copied all the same.
        LOG.error("%s", error)


def _differences(meta: Meta, present: Meta) -> list[str]:
    return sorted(name for name in {*meta, *present} if meta.get(name) != present.get(name))


def _data_path(path: Path) -> Path:
    return path.with_name(f"{path.name}.img")


@contextmanager
def _whole(path: Path) -> Iterator[IO[bytes]]:
    """A file that appears under its name only when it is complete."""
    part = path.with_name(f"{path.name}.part")
    try:
        with part.open("wb") as file:
            yield file
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
