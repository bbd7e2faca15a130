"""The wire protocol of MongoDB in front of the in-memory mongomock: enough for pymongo and
gridfs over TCP, unmodified. No authentication, write concern or replica set. Runs in a
virtual environment with mongomock and pymongo. Argument: port."""

import itertools
import socketserver
import struct
import sys
import threading
from collections.abc import Callable
from typing import Any

import bson
import mongomock
from pymongo.errors import DuplicateKeyError

Document = dict[str, Any]

HELLO: Document = {
    "ismaster": True,
    "isWritablePrimary": True,
    "helloOk": True,
    "maxBsonObjectSize": 16 << 20,
    "maxMessageSizeBytes": 48_000_000,
    "maxWriteBatchSize": 100_000,
    "logicalSessionTimeoutMinutes": 30,
    "minWireVersion": 0,
    "maxWireVersion": 17,
    "readOnly": False,
}

# A reply stays well below maxMessageSizeBytes with one more document of the largest size.
REPLY_BYTES = 16 << 20
DEFAULT_BATCH = 101
EVERYTHING = sys.maxsize

OP_REPLY, OP_QUERY, OP_MSG = 1, 2004, 2013
CHECKSUM_PRESENT, MORE_TO_COME = 1, 2

client = mongomock.MongoClient()
# mongomock is not thread safe.
lock = threading.RLock()
cursors: dict[int, list[Document]] = {}
cursor_numbers = itertools.count(1000)
reply_numbers = itertools.count(1)


class Failure(Exception):
    """An error the server reports by number."""

    def __init__(self, code: int, name: str, message: str) -> None:
        super().__init__(message)
        self.reply = {"ok": 0.0, "code": code, "codeName": name, "errmsg": message}


def fitting(documents: list[Document], batch: int) -> int:
    """How many of the documents go into one reply; at least one."""
    size = 0
    for number, document in enumerate(documents[:batch]):
        size += len(bson.encode(document))
        if size > REPLY_BYTES:
            return number + 1
    return min(len(documents), batch)


def cursor(command: Document, name: str, documents: list[Document], batch: int) -> Document:
    rest, number = documents[batch:], 0
    if rest:
        number = next(cursor_numbers)
        cursors[number] = rest
    namespace = f"{command.get('$db', 'test')}.{name}"
    first = documents[:batch]
    return {"cursor": {"firstBatch": first, "id": bson.Int64(number), "ns": namespace}}


def database(command: Document) -> Any:
    return client[command.get("$db", "test")]


def collection(command: Document) -> Any:
    return database(command)[next(iter(command.values()))]


def insert(command: Document) -> Document:
    inserted, errors = 0, []
    for index, document in enumerate(command["documents"]):
        try:
            collection(command).insert_one(dict(document))
            inserted += 1
        except DuplicateKeyError as error:
            message = f"E11000 duplicate key error: {error}"
            entry = {"index": index, "code": 11000, "errmsg": message}
            errors.append({**entry, "keyPattern": {}, "keyValue": {}})
            if command.get("ordered", True):
                break
    return {"n": inserted, **({"writeErrors": errors} if errors else {})}


def delete(command: Document) -> Document:
    deleted = 0
    for one in command["deletes"]:
        target = collection(command)
        remove = target.delete_one if one.get("limit") == 1 else target.delete_many
        deleted += remove(dict(one["q"])).deleted_count
    return {"n": deleted}


def update(command: Document) -> Document:
    matched = modified = 0
    upserted = []
    for index, one in enumerate(command["updates"]):
        target, query, change = collection(command), dict(one["q"]), one["u"]
        if isinstance(change, dict) and not any(key.startswith("$") for key in change):
            apply, change = target.replace_one, dict(change)
        else:
            apply = target.update_many if one.get("multi") else target.update_one
        result = apply(query, change, upsert=one.get("upsert", False))
        modified += result.modified_count or 0
        matched += result.matched_count or 0
        if result.upserted_id is not None:
            matched += 1
            upserted.append({"index": index, "_id": result.upserted_id})
    return {"n": matched, "nModified": modified, **({"upserted": upserted} if upserted else {})}


def find(command: Document) -> Document:
    rows = collection(command).find(
        dict(command.get("filter") or {}), command.get("projection") or None
    )
    if command.get("sort"):
        rows = rows.sort(list(command["sort"].items()))
    if command.get("skip"):
        rows = rows.skip(command["skip"])
    if command.get("limit"):
        rows = rows.limit(abs(command["limit"]))
    documents = list(rows)
    batch = fitting(documents, command.get("batchSize") or DEFAULT_BATCH)
    if command.get("singleBatch"):
        batch = EVERYTHING
    return cursor(command, command["find"], documents, batch)


def get_more(command: Document) -> Document:
    number = command["getMore"]
    documents = cursors.pop(number, None)
    if documents is None:
        raise Failure(43, "CursorNotFound", f"cursor id {number} not found")
    batch = fitting(documents, command.get("batchSize") or EVERYTHING)
    rest = documents[batch:]
    if rest:
        cursors[number] = rest
    return {
        "cursor": {
            "nextBatch": documents[:batch],
            "id": bson.Int64(number if rest else 0),
            "ns": f"{command['$db']}.{command['collection']}",
        }
    }


def kill_cursors(command: Document) -> Document:
    for number in command["cursors"]:
        cursors.pop(number, None)
    return {"cursorsKilled": command["cursors"]}


def aggregate(command: Document) -> Document:
    rows = list(collection(command).aggregate(command["pipeline"]))
    return cursor(command, command["aggregate"], rows, EVERYTHING)


def create_indexes(command: Document) -> Document:
    for index in command["indexes"]:
        collection(command).create_index(
            list(index["key"].items()), unique=bool(index.get("unique")), name=index["name"]
        )
    return {}


def list_indexes(command: Document) -> Document:
    name = next(iter(command.values()))
    if name not in database(command).list_collection_names():
        raise Failure(26, "NamespaceNotFound", "ns does not exist")
    rows = [
        {
            "v": 2,
            "name": index,
            "key": dict(entry["key"]),
            **({"unique": True} if entry.get("unique") else {}),
        }
        for index, entry in collection(command).index_information().items()
    ]
    return cursor(command, name, rows, EVERYTHING)


def list_collections(command: Document) -> Document:
    names = database(command).list_collection_names()
    rows = [{"name": name, "type": "collection", "options": {}, "info": {}} for name in names]
    return cursor(command, "$cmd.listCollections", rows, EVERYTHING)


def drop(command: Document) -> Document:
    database(command).drop_collection(command["drop"])
    return {}


def drop_database(command: Document) -> Document:
    client.drop_database(command["$db"])
    return {}


def nothing(command: Document) -> Document:
    return {}


COMMANDS: dict[str, Callable[[Document], Document]] = {
    "hello": lambda command: dict(HELLO),
    "ismaster": lambda command: dict(HELLO),
    "buildinfo": lambda command: {"version": "6.0.0", "versionArray": [6, 0, 0, 0]},
    "ping": nothing,
    "endsessions": nothing,
    "startsession": nothing,
    "refreshsessions": nothing,
    "insert": insert,
    "delete": delete,
    "update": update,
    "find": find,
    "getmore": get_more,
    "killcursors": kill_cursors,
    "aggregate": aggregate,
    "count": lambda command: {"n": collection(command).count_documents(command.get("query") or {})},
    "distinct": lambda command: {
        "values": collection(command).distinct(command["key"], command.get("query"))
    },
    "createindexes": create_indexes,
    "listindexes": list_indexes,
    "listcollections": list_collections,
    "drop": drop,
    "dropdatabase": drop_database,
}


def answer(command: Document) -> Document:
    name = next(iter(command))
    run = COMMANDS.get(name.lower())
    try:
        if run is None:
            raise Failure(59, "CommandNotFound", f"no such command: {name!r}")
        with lock:
            return {**run(command), "ok": 1.0}
    except Failure as failure:
        return failure.reply
    except Exception as error:
        return {"ok": 0.0, "code": 8000, "codeName": "SimulatorError", "errmsg": repr(error)}


def parse_message(body: bytes) -> tuple[int, Document]:
    """The flags and the command of an OP_MSG, its document sequences folded in."""
    (flags,) = struct.unpack_from("<I", body)
    end = len(body) - (4 if flags & CHECKSUM_PRESENT else 0)
    command: Document = {}
    sequences: Document = {}
    position = 4
    while position < end:
        kind = body[position]
        (length,) = struct.unpack_from("<i", body, position + 1)
        section = body[position + 1 : position + 1 + length]
        position += 1 + length
        if kind == 0:
            command = bson.decode(section)
        else:
            zero = section.index(b"\0", 4)
            sequences[section[4:zero].decode()] = bson.decode_all(section[zero + 1 :])
    return flags, {**command, **sequences}


class Connection(socketserver.BaseRequestHandler):
    def read(self, size: int) -> bytes:
        data = bytearray()
        while len(data) < size:
            part = self.request.recv(min(size - len(data), 1 << 20))
            if not part:
                raise EOFError
            data += part
        return bytes(data)

    def handle(self) -> None:
        self.request.setsockopt(6, 1, 1)  # TCP_NODELAY
        try:
            while self.exchange():
                pass
        except (EOFError, ConnectionError):
            pass

    def exchange(self) -> bool:
        """Answer one message; False when it is none we know."""
        length, number, _, operation = struct.unpack("<iiii", self.read(16))
        body = self.read(length - 16)
        if operation == OP_QUERY:  # how a driver says hello before it knows us
            start = body.index(b"\0", 4) + 9
            (size,) = struct.unpack_from("<i", body, start)
            reply = bson.encode(answer(bson.decode(body[start : start + size])))
            self.reply(number, OP_REPLY, struct.pack("<iqii", 8, 0, 0, 1) + reply)
        elif operation == OP_MSG:
            flags, command = parse_message(body)
            reply = bson.encode(answer(command))
            if not flags & MORE_TO_COME:
                self.reply(number, OP_MSG, struct.pack("<I", 0) + b"\0" + reply)
        else:
            return False
        return True

    def reply(self, number: int, operation: int, payload: bytes) -> None:
        header = struct.pack("<iiii", 16 + len(payload), next(reply_numbers), number, operation)
        self.request.sendall(header + payload)


class Simulator(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True


if __name__ == "__main__":
    Simulator(("127.0.0.1", int(sys.argv[1])), Connection).serve_forever()
