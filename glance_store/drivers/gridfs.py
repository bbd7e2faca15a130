"""Images in MongoDB's GridFS.

An image is one document in `fs.files`, whose `_id` is the image's id, and its bytes in
`fs.chunks`, as the GridFS specification lays them out, so that `mongofiles` and every GridFS
library read them. The collections are used directly: the library's writer holds 32 MiB per upload
and gives up by deleting every chunk of the id, a simultaneous winner's too; its reader holds
16 MiB and a cursor that a slow client outlives.

pymongo speaks through Python's own sockets and locks, so it runs on the event loop as it is.
"""

import contextlib
import logging
import os
import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from types import ModuleType
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import parse_qsl, unquote, urlsplit

from oslo_config import cfg

from common import errors
from common.body import Body, StreamBody
from common.context import RequestContext
from common.query import is_uuid_like
from common.upload import Upload
from glance_store.driver import Capability, Store, Stored
from glance_store.errors import (
    BackendUnavailable,
    BadLocation,
    BadStoreConfiguration,
    StorageFull,
    StorageWriteDenied,
)

if TYPE_CHECKING:
    from pymongo.collection import Collection

    Documents = Collection[dict[str, Any]]

LOG = logging.getLogger(__name__)

# Measured: above 4 MiB nothing gets faster; at 255 KiB, the library's own choice, a transfer takes
# more than twice as long. A document must stay below 16 MiB.
CHUNK = 4 * 1024 * 1024

# What an operator's URI says wins. Without these, pymongo waits for ever for an answer and for a
# free connection of its pool.
TIMEOUTS = {
    "connectTimeoutMS": 10_000,
    "serverSelectionTimeoutMS": 10_000,
    "socketTimeoutMS": 60_000,
    "waitQueueTimeoutMS": 30_000,
}

# Error codes of the server.
_UNAUTHORIZED = 13
_OUT_OF_DISK_SPACE = 14031

_FILE_ID = re.compile(r"[^\s/?#@]+")


class GridFSStore(Store):
    """Stores images under `gridfs://<image id>`; where MongoDB is stays out of the URL."""

    schemes: ClassVar[tuple[str, ...]] = ("gridfs",)
    capabilities: ClassVar[Capability] = (
        Capability.READ | Capability.WRITE | Capability.DELETE | Capability.LIST
    )
    # A URL is read with our credentials: with one a caller could read, or delete, anybody's image.
    accepts_external: ClassVar[bool] = False
    options: ClassVar[Sequence[cfg.Opt]] = (
        cfg.StrOpt(
            "mongodb_store_uri",
            secret=True,
            help="Where MongoDB is: a mongodb:// or mongodb+srv:// URI, or a comma-separated "
            "list of host or host:port.",
        ),
        cfg.StrOpt(
            "mongodb_store_db",
            help="The database that holds the images; unset, the one mongodb_store_uri names.",
        ),
    )

    def __init__(self, conf: Mapping[str, Any]) -> None:
        super().__init__(conf)
        self._pymongo = _import_pymongo()
        self._uri = _checked_uri(conf.get("mongodb_store_uri") or "", self._pymongo)
        path = unquote(urlsplit(self._uri).path.lstrip("/"))
        self._database: str = conf.get("mongodb_store_db") or path.partition(".")[0]
        if not self._database:
            raise BadStoreConfiguration(
                "mongodb_store_db must be set, or mongodb_store_uri must name a database."
            )
        self._lock = threading.Lock()
        self._connection: _Connection | None = None

    def add(self, ctx: RequestContext, image_id: str, upload: Upload) -> tuple[str, dict[str, Any]]:
        with self._translated():
            connection = self._connect()
            connection.ensure_indexes()
            if connection.has_file(image_id):
                raise errors.Duplicate()
            writer = _Writer(connection, image_id)
            try:
                writer.write(upload)
            except BaseException as error:
                self._undo(writer)
                if isinstance(error, self._pymongo.errors.DuplicateKeyError):
                    raise errors.Duplicate() from None
                raise
        return f"gridfs://{image_id}", {}

    def get(
        self, ctx: RequestContext, url: str, offset: int = 0, length: int | None = None
    ) -> Body:
        file_id = _file_id(url)
        with self._translated():
            connection = self._connect()
            file = connection.find_file(file_id)
        end = file.length if length is None else min(file.length, offset + length)
        return StreamBody(self._read(connection, file, offset, end), max(0, end - offset))

    def size(self, ctx: RequestContext, url: str) -> int:
        file_id = _file_id(url)
        with self._translated():
            return self._connect().find_file(file_id).length

    def delete(self, ctx: RequestContext, url: str) -> None:
        file_id = _file_id(url)
        with self._translated():
            if not self._connect().delete(file_id):
                raise errors.NotFound()

    def discard(self, ctx: RequestContext, image_id: str) -> None:
        with self._translated():
            connection = self._connect()
            connection.delete(image_id)
            connection.delete_chunks(image_id)

    def validate(self, url: str) -> None:
        _file_id(url)

    def contents(self) -> Iterator[Stored]:
        with self._translated():
            connection = self._connect()
            with connection.files.find({}, {"length": 1, "uploadDate": 1}) as files:
                for file in files:
                    yield _stored(file["_id"], int(file["length"]), file.get("uploadDate"))
            with connection.newest_chunks() as chunks:
                for chunk in chunks:
                    if not connection.has_file(chunk["_id"]):
                        yield _stored(chunk["_id"], None, _time_of(chunk["newest"]))

    def _read(
        self, connection: "_Connection", file: "_File", offset: int, end: int
    ) -> Iterator[bytes]:
        """The bytes from offset to end, fetched about CHUNK at a time.

        Each fetch is a request of its own: nothing on the server waits for a slow client.
        """
        window = max(1, CHUNK // file.chunk_size)
        for first in range(offset // file.chunk_size, file.chunks_in(end), window):
            with self._translated():
                chunks = connection.fetch(file, first, window)
            for start, chunk in enumerate(chunks, first):
                position = start * file.chunk_size
                if piece := chunk[max(0, offset - position) : max(0, end - position)]:
                    yield piece

    def _undo(self, writer: "_Writer") -> None:
        try:
            writer.undo()
        except self._pymongo.errors.PyMongoError as error:
            # The error that led here is the one to tell; discard gets another chance.
            reason = type(error).__name__
            LOG.warning("Chunks of image %s are left behind: %s", writer.image_id, reason)

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        """Raise what pymongo raises inside the block as an error of the contract."""
        try:
            yield
        except self._pymongo.errors.OperationFailure as error:
            if error.code == _OUT_OF_DISK_SPACE:
                raise StorageFull() from error
            if error.code == _UNAUTHORIZED:
                raise StorageWriteDenied() from error
            raise BackendUnavailable() from error
        except self._pymongo.errors.PyMongoError as error:
            raise BackendUnavailable() from error

    def _connect(self) -> "_Connection":
        """This process's connection; a client must not be carried through a fork."""
        with self._lock:
            if self._connection is None or self._connection.pid != os.getpid():
                given = {name.lower() for name, _ in parse_qsl(urlsplit(self._uri).query)}
                timeouts = {name: ms for name, ms in TIMEOUTS.items() if name.lower() not in given}
                client = self._pymongo.MongoClient(self._uri, connect=False, **timeouts)
                database = client[self._database]
                self._connection = _Connection(database["fs.files"], database["fs.chunks"])
            return self._connection


@dataclass(frozen=True, slots=True)
class _File:
    id: str
    length: int
    chunk_size: int

    def chunks_in(self, length: int) -> int:
        return -(-length // self.chunk_size)


class _Connection:
    """One process's view of the two collections of GridFS."""

    def __init__(self, files: "Documents", chunks: "Documents") -> None:
        self.pid = os.getpid()
        self.files = files
        self.chunks = chunks
        self._indexed = False

    def ensure_indexes(self) -> None:
        """Those of the specification; the one over the chunks is what refuses a duplicate."""
        if not self._indexed:
            self.files.create_index([("filename", 1), ("uploadDate", 1)])
            self.chunks.create_index([("files_id", 1), ("n", 1)], unique=True)
            self._indexed = True

    def has_file(self, file_id: str) -> bool:
        return self.files.find_one({"_id": file_id}, {"_id": 1}) is not None

    def find_file(self, file_id: str) -> _File:
        found = self.files.find_one({"_id": file_id}, {"length": 1, "chunkSize": 1})
        if found is None:
            raise errors.NotFound()
        # Some writers of GridFS store these two as floating-point numbers.
        return _File(file_id, int(found["length"]), int(found["chunkSize"]))

    def fetch(self, file: _File, first: int, count: int) -> list[bytes]:
        """The chunks from the first on, at most count, together as long as they must be."""
        count = min(count, file.chunks_in(file.length) - first)
        span = {"$gte": first, "$lt": first + count}
        found = self.chunks.find({"files_id": file.id, "n": span}, {"data": 1}).sort("n", 1)
        chunks = [bytes(chunk["data"]) for chunk in found]
        expected = min(count * file.chunk_size, file.length - first * file.chunk_size)
        if len(chunks) != count or sum(map(len, chunks)) != expected:
            raise BackendUnavailable("The stored image is incomplete.")
        return chunks

    def delete(self, file_id: str) -> bool:
        """Delete a file and its chunks; False if there is no such file."""
        # The file's document first: from then on nobody begins to read.
        if not self.files.delete_one({"_id": file_id}).deleted_count:
            return False
        self.delete_chunks(file_id)
        return True

    def delete_chunks(self, file_id: str) -> None:
        """Chunk 0 last: while it is there, nobody begins to write (see _Writer)."""
        self.chunks.delete_many({"files_id": file_id, "n": {"$gt": 0}})
        self.chunks.delete_many({"files_id": file_id})

    def newest_chunks(self) -> Any:
        """A cursor: the id of every file that has chunks, and of its last chunk."""
        # Sorted by the index and grouped by its first field, this reads one entry per file.
        newest = {"_id": "$files_id", "newest": {"$last": "$_id"}}
        return self.chunks.aggregate([{"$sort": {"files_id": 1, "n": 1}}, {"$group": newest}])


class _Writer:
    """Writes one file, and takes back what it has written.

    Whoever has inserted chunk 0 holds the id, because the unique index refuses a second one.
    `claim` marks chunk 0 and the file as this writer's, so that after an insert whose answer was
    lost, or was a refusal, nobody else's is taken back.
    """

    def __init__(self, connection: _Connection, image_id: str) -> None:
        from bson import ObjectId

        self.image_id = image_id
        self._connection = connection
        self._claim = ObjectId()

    def write(self, upload: Upload) -> None:
        number = 0
        while data := upload.read_full(CHUNK):
            chunk = {"files_id": self.image_id, "n": number, "data": data}
            if number == 0:
                chunk["_id"] = self._claim
            self._connection.chunks.insert_one(chunk)
            number += 1
        if number and not self._holds_the_id():
            raise errors.Conflict("The image was discarded during the upload.")
        self._finish(upload.bytes_read)

    def _finish(self, length: int) -> None:
        from bson import Int64

        file = {
            "_id": self.image_id,
            "length": Int64(length),
            "chunkSize": CHUNK,
            "uploadDate": datetime.now(UTC),
            "filename": self.image_id,
            "metadata": {"claim": self._claim},
        }
        self._connection.files.insert_one(file)

    def _holds_the_id(self) -> bool:
        return self._connection.chunks.find_one({"_id": self._claim}, {"_id": 1}) is not None

    def undo(self) -> None:
        mine = {"_id": self.image_id, "metadata.claim": self._claim}
        self._connection.files.delete_one(mine)
        if self._holds_the_id():
            self._connection.delete_chunks(self.image_id)


def _import_pymongo() -> ModuleType:
    try:
        import pymongo
        import pymongo.errors
        import pymongo.uri_parser
    except ImportError:
        raise BadStoreConfiguration(
            "The gridfs store needs pymongo: install the extra `gridfs`."
        ) from None
    return pymongo


def _checked_uri(uri: str, pymongo: ModuleType) -> str:
    """The configured address as a URI that pymongo accepts."""
    if not uri:
        raise BadStoreConfiguration("mongodb_store_uri must be set for the gridfs store.")
    if "://" not in uri:
        uri = f"mongodb://{uri}"
    if uri.startswith("mongodb+srv://"):
        # Parsing one asks the DNS, which has to wait for the first use.
        return uri
    try:
        parsed = pymongo.uri_parser.parse_uri(uri)
    except (pymongo.errors.PyMongoError, ValueError):
        # What pymongo says about it may quote a part of the password.
        raise BadStoreConfiguration("mongodb_store_uri is not a MongoDB URI.") from None
    if parsed["options"].get("w") == 0:
        raise BadStoreConfiguration("mongodb_store_uri must not switch acknowledgement off (w=0).")
    return uri


def _file_id(url: str) -> str:
    scheme, separator, file_id = url.partition("://")
    if scheme != "gridfs" or not separator or not _FILE_ID.fullmatch(file_id):
        raise BadLocation()
    return file_id


def _stored(file_id: Any, size: int | None, modified: datetime | None) -> Stored:
    """An object in the store; one without a size is what an unfinished add has left."""
    name = str(file_id)
    image_id = name if is_uuid_like(name) else None
    return Stored(f"gridfs://{name}", image_id, size, modified, complete=size is not None)


def _time_of(object_id: Any) -> datetime | None:
    made: datetime | None = getattr(object_id, "generation_time", None)
    return made.replace(tzinfo=None) if made is not None else None
