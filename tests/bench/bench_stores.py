"""How fast each store moves bytes, beside its bare client library and the same server.

The driver's uploads are hashed as in the service, the library's are not; both sides read from
memory and throw away what they download. A section is a context manager that starts the server
and yields a Contender; add one with @section.
"""

import contextlib
import os
import queue
import select
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import IO

from common import concurrency
from common.context import RequestContext
from common.native import NativeThreads
from common.upload import Upload
from glance_store import Store
from tests.bench.measure import Result, alternate, ratio_at_least, seconds_of
from tests.bench.subjects import MIB
from tests.servers.ceph import Ceph
from tests.servers.cinder import Cinder
from tests.servers.process import Server
from tests.servers.radosgw import Radosgw
from tests.servers.sheepdog import Sheepdog
from tests.servers.swift import Swift

_BLOCK = os.urandom(8 * MIB)


class Memory:
    """So many bytes that cost nothing to make: a source for the driver, a file for a library."""

    def __init__(self, length: int) -> None:
        self.length = length
        self._position = 0

    def read(self, size: int = -1) -> bytes:
        start = self._position % len(_BLOCK)
        left = self.length - self._position
        chunk = _BLOCK[start : start + min(size if size >= 0 else left, left)]
        self._position += len(chunk)
        return chunk

    def abort(self) -> None:
        self._position = self.length


@dataclass
class Contender:
    """A store, and the same work done with nothing but the client library.

    put(name, file) stores all of the file; get(name) reads it all and returns its length.
    """

    store: Store
    put: Callable[[str, Memory], object]
    get: Callable[[str], int]
    delete: Callable[[str], object]
    context: RequestContext = field(default_factory=RequestContext)


@dataclass
class Section:
    """How to start one store, and what that takes."""

    server: type[Server]
    start: Callable[[], contextlib.AbstractContextManager[Contender]]


SECTIONS: dict[str, Section] = {}

Maker = Callable[[], Iterator[Contender]]


def section(name: str, server: type[Server]) -> Callable[[Maker], Maker]:
    def add(make: Maker) -> Maker:
        SECTIONS[name] = Section(server, contextlib.contextmanager(make))
        return make

    return add


def options_of(store: type[Store], **options: object) -> dict[str, object]:
    return {option.dest: option.default for option in store.options} | options


@section("swift", Swift)
def swift() -> Iterator[Contender]:
    yield from _swift()


@section("swift in segments", Swift)
def swift_in_segments() -> Iterator[Contender]:
    # Swift serves no more than ten small segments quickly, then one a second.
    yield from _swift(
        swift_store_large_object_size=16,
        swift_store_large_object_chunk_size=64,
    )


def _swift(**options: object) -> Iterator[Contender]:
    from swiftclient.client import Connection

    from glance_store.drivers.swift import SwiftStore

    with Swift() as server:
        bare = Connection(server.auth_url, server.user, server.key)
        bare.put_container("bare")

        def get(name: str) -> int:
            _, chunks = bare.get_object("bare", name, resp_chunk_size=64 * 1024)
            return sum(map(len, chunks))

        yield Contender(
            SwiftStore(
                options_of(
                    SwiftStore,
                    swift_store_auth_address=server.auth_url,
                    swift_store_auth_version="1",
                    swift_store_user=server.user,
                    swift_store_key=server.key,
                    swift_store_create_container_on_put=True,
                    **options,
                )
            ),
            lambda name, file: bare.put_object("bare", name, file, content_length=file.length),
            get,
            lambda name: bare.delete_object("bare", name),
        )


@section("s3 on swift", Swift)
def s3_on_swift() -> Iterator[Contender]:

    with Swift() as server:
        yield _s3(server.s3_url, server.user, server.key)


@section("s3 on ceph", Radosgw)
def s3_on_ceph() -> Iterator[Contender]:

    with Radosgw() as server:
        yield _s3(server.url, server.access_key, server.secret_key)


def _s3(url: str, access_key: str, secret_key: str) -> Contender:
    import boto3

    from glance_store.drivers.s3 import S3Store

    bare = boto3.client(
        "s3",
        endpoint_url=url,
        aws_access_key_id=access_key,
        aws_secret_access_key=secret_key,
        region_name="us-east-1",
    )
    bare.create_bucket(Bucket="bare")

    class Sink:
        length = 0

        def write(self, chunk: bytes) -> None:
            self.length += len(chunk)

    def get(name: str) -> int:
        sink = Sink()
        bare.download_fileobj("bare", name, sink)
        return sink.length

    return Contender(
        S3Store(
            options_of(
                S3Store,
                s3_store_host=url,
                s3_store_access_key=access_key,
                s3_store_secret_key=secret_key,
                s3_store_bucket="glance",
                s3_store_bucket_url_format="path",
                s3_store_create_bucket_on_put=True,
            )
        ),
        lambda name, file: bare.upload_fileobj(file, "bare", name),
        get,
        lambda name: bare.delete_object(Bucket="bare", Key=name),
    )


@section("rbd", Ceph)
def rbd() -> Iterator[Contender]:
    import rados
    import rbd

    from glance_store.drivers.rbd import RBDStore

    piece = 8 * MIB
    with (
        Ceph() as server,
        rados.Rados(conffile=str(server.conf)) as cluster,
        cluster.open_ioctx("images") as pool,
    ):

        def put(name: str, file: Memory) -> None:
            with contextlib.suppress(rbd.ImageNotFound):
                rbd.RBD().remove(pool, name)
            rbd.RBD().create(pool, name, file.length, 23, old_format=False, features=1)
            with rbd.Image(pool, name) as image:
                for offset in range(0, file.length, piece):
                    image.write(file.read(piece), offset)
                image.flush()

        def get(name: str) -> int:
            with rbd.Image(pool, name, read_only=True) as image:
                size = image.size()
                return sum(
                    len(image.read(at, min(piece, size - at))) for at in range(0, size, piece)
                )

        store = RBDStore(options_of(RBDStore, rbd_store_ceph_conf=str(server.conf)))
        yield Contender(store, put, get, lambda name: rbd.RBD().remove(pool, name))


@section("cinder", Cinder)
def cinder() -> Iterator[Contender]:
    from glance_store.drivers.cinder import CinderStore

    with Cinder() as server:
        bare = _BareCinder(server.url, server.token)
        yield Contender(
            CinderStore(options_of(CinderStore, cinder_endpoint_template=server.endpoint_template)),
            bare.put,
            bare.get,
            bare.delete,
            RequestContext(user="glance", tenant=server.project, token=server.token),
        )


class _BareCinder:
    """The same steps with python-cinderclient and os-brick alone."""

    def __init__(self, url: str, token: str) -> None:
        from cinderclient import client
        from keystoneauth1 import session, token_endpoint

        self._session = session.Session(auth=token_endpoint.Token(url, token))
        self._cinder = client.Client("3.54", session=self._session, os_endpoint=url)
        self._volume: str | None = None

    def put(self, name: str, file: Memory) -> None:
        if self._volume is not None:
            self.delete(name)
        gibibytes = max(-(-file.length // 1024**3), 1)
        self._volume = self._cinder.volumes.create(gibibytes, name=name).id
        while self._cinder.volumes.get(self._volume).status != "available":
            time.sleep(0.1)
        with self._attached("rw") as handle:
            while chunk := file.read(8 * MIB):
                handle.write(chunk)
        self._length = file.length

    def get(self, name: str) -> int:
        received = 0
        with self._attached("ro") as handle:
            while received < self._length:
                received += len(handle.read(min(8 * MIB, self._length - received)))
        return received

    def delete(self, name: str) -> None:
        from cinderclient.exceptions import NotFound

        volume, self._volume = self._volume, None
        self._cinder.volumes.delete(volume)
        with contextlib.suppress(NotFound):
            while self._cinder.volumes.get(volume):
                time.sleep(0.1)

    @contextlib.contextmanager
    def _attached(self, mode: str) -> Iterator[IO[bytes]]:
        from os_brick.initiator import connector

        attachment = self._cinder.attachments.create(self._volume, None, mode=mode)["id"]
        host = {"host": "bench", "mode": mode}
        info = self._cinder.attachments.update(attachment, host).connection_info
        brick = connector.InitiatorConnector.factory(info["driver_volume_type"], "", conn=info)
        device = brick.connect_volume(info)
        self._cinder.attachments.complete(attachment)
        try:
            yield device["path"]
        finally:
            brick.disconnect_volume(info, device)
            self._cinder.attachments.delete(attachment)


@section("sheepdog", Sheepdog)
def sheepdog() -> Iterator[Contender]:
    """The program is the stand-in where Sheepdog is not installed; the rest is the same."""
    from glance_store.drivers.sheepdog import SheepdogStore

    with Sheepdog() as server:

        def argv(command: str, *words: str) -> list[str]:
            where = ("-a", server.address, "-p", str(server.port))
            return [str(server.dog), "vdi", command, *words, *where]

        def put(name: str, file: Memory) -> None:
            subprocess.run(argv("delete", name), stderr=subprocess.DEVNULL, check=True)
            subprocess.run(argv("create", name, str(file.length)), check=True)
            with subprocess.Popen(argv("write", name), stdin=subprocess.PIPE) as running:
                assert running.stdin is not None
                while chunk := file.read(MIB):
                    running.stdin.write(chunk)

        def get(name: str) -> int:
            with subprocess.Popen(argv("read", name), stdout=subprocess.PIPE) as running:
                assert running.stdout is not None
                return sum(iter(lambda: len(running.stdout.read(MIB)), 0))

        yield Contender(
            SheepdogStore(
                options_of(
                    SheepdogStore,
                    sheepdog_store_address=server.address,
                    sheepdog_store_port=server.port,
                    sheepdog_store_program_path=server.path,
                )
            ),
            put,
            get,
            lambda name: subprocess.run(argv("delete", name), check=True),
        )


def _measure(name: str, contender: Contender, mebibytes: int, runs: int) -> Iterator[Result]:
    length = mebibytes * MIB
    store, ctx = contender.store, contender.context
    urls: list[str] = []

    def rate(work: Callable[[], object]) -> float:
        return mebibytes / seconds_of(work)

    def upload() -> float:
        upload = Upload(Memory(length), size=length)
        speed = rate(lambda: urls.append(store.add(ctx, str(uuid.uuid4()), upload)[0]))
        if len(urls) > 1:
            store.delete(ctx, urls.pop(0))
        return speed

    def bare_upload() -> float:
        return rate(lambda: contender.put("bare", Memory(length)))

    def download() -> float:
        with contextlib.closing(store.get(ctx, urls[0])) as body:
            received = [0]

            def drain() -> None:
                received[0] = sum(len(chunk) for chunk in body)

            speed = rate(drain)
        assert received[0] == length
        return speed

    def bare_download() -> float:
        received = []
        speed = rate(lambda: received.append(contender.get("bare")))
        assert received == [length]
        return speed

    for direction, ours, theirs in (
        ("upload to", upload, bare_upload),
        ("download from", download, bare_download),
    ):
        yield Result(
            "stores",
            f"{direction} {name}, {mebibytes} MiB",
            "MiB/s",
            yardstick="bare client library",
            aim=ratio_at_least(0.85),
            **alternate(runs, ours, theirs),
        )
    store.delete(ctx, urls.pop())
    contender.delete("bare")


def _wait_readable(descriptor: int) -> None:
    select.select([descriptor], [], [])


def stores(quick: bool) -> Iterator[Result]:
    """Each store whose server is installed, beside its bare client library and the same server."""
    sizes, runs = ((64,), 2) if quick else ((64, 512), 5)
    # Hashing goes on beside the transfer, as it does in the service.
    concurrency.install(NativeThreads(threading, queue, _wait_readable))
    for name, section in SECTIONS.items():
        if missing := section.server.missing():
            remedy = f"bash tests/servers/install.sh {section.server.install}"
            print(f"{name}: needs {', '.join(missing)}: {remedy}", file=sys.stderr)
            continue
        with section.start() as contender:
            for size in sizes:
                yield from _measure(name, contender, size, runs)
