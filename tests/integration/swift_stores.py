"""What the tests of the swift store share: stores, callers, and peers that misbehave."""

import contextlib
import logging
import socket
import threading
import uuid
from urllib.parse import quote

import pytest
from keystoneauth1.identity import v3
from keystoneauth1.session import Session

from common.context import RequestContext
from glance_store import BackendUnavailable
from glance_store.drivers.swift import SwiftStore
from glance_store.testing import StoreConformance, upload_of

MIB = 1024 * 1024
SEGMENTED = {"swift_store_large_object_size": 0, "swift_store_large_object_chunk_size": 1}


def make_store(**options):
    defaults = {option.dest: option.default for option in SwiftStore.options}
    return SwiftStore({**defaults, "swift_store_timeout": 15, **options})


def account_options(swift, **options):
    return {
        "swift_store_auth_address": swift.auth_url,
        "swift_store_auth_version": swift.auth_version,
        "swift_store_user": swift.user,
        "swift_store_key": swift.key,
        "swift_store_create_container_on_put": True,
        **options,
    }


def read(store, ctx, url, offset=0, length=None):
    with contextlib.closing(store.get(ctx, url, offset, length)) as body:
        return b"".join(body)


def check_that_credentials_stay_secret(server, ctx, caplog):
    """Every call with credentials that the server does not know: an error and no canary."""
    caplog.set_level(logging.INFO)
    image_id, user, key = str(uuid.uuid4()), "canary-tenant:canary-user", "canary-key"
    secrets = (user, key, "127.0.0.1", str(server.port))
    store = make_store(**account_options(server, swift_store_user=user, swift_store_key=key))
    address = server.auth_url.removeprefix("http://")
    url = f"swift+http://{quote(user)}:{key}@{address}/glance/{image_id}"
    calls = [
        lambda: store.get(ctx, url),
        lambda: store.size(ctx, url),
        lambda: store.delete(ctx, url),
        lambda: store.add(ctx, image_id, upload_of(b"content")),
        lambda: store.discard(ctx, image_id),
        lambda: list(store.contents()),
    ]
    for call in calls:
        with pytest.raises(BackendUnavailable) as caught:
            call()
        assert not any(secret in caught.value.message for secret in secrets)
        assert caught.value.__context__ is None or caught.value.__suppress_context__
    assert "canary" not in caplog.text


class SwiftConformance(StoreConformance):
    malformed = (
        "swift://",
        "swift://container/object",
        "swift://user@auth/container/object",
        "swift+http://user:key@/container/object",
        "swift+https://auth/v1//object",
        "swift+https://auth/v1/container/",
        "swift://user:key@http://auth/v1/container/object",
        "swift+config://ref/container",
        "swift+config://ref/more/container/object",
        "swiftly://auth/v1/container/object",
    )

    def backend(self, store):
        return frozenset(self.swift.objects())

    @contextlib.contextmanager
    def broken(self, store):
        with self.swift.killed():
            yield


def context_of(keystone, name, **changes):
    """What the API makes of a token: the user, the tenant, the roles and the catalogue."""
    user = keystone.users[name]
    plugin = v3.Password(
        keystone.url,
        username=user.name,
        password=user.password,
        project_name=user.project,
        user_domain_id=keystone.domain,
        project_domain_id=keystone.domain,
    )
    access = plugin.get_access(Session())
    identity = {
        "user": access.user_id,
        "tenant": access.project_id,
        "roles": tuple(access.role_names),
        "token": access.auth_token,
        "service_catalog": tuple(access.service_catalog.catalog),
    }
    return RequestContext(**{**identity, **changes})


class Peer:
    """A server of one thread per connection, for answers that Swift would not give."""

    def __init__(self, host):
        self._listener = socket.create_server((host, 0))
        self.port = self._listener.getsockname()[1]
        self._threads = []

    def __enter__(self):
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_):
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection):
        with contextlib.suppress(OSError), connection:
            self.serve(connection)


class Liar(Peer):
    """An identity service of version 1 that names any storage URL; remembers being asked."""

    def __init__(self, host, storage_url):
        super().__init__(host)
        self.asked = False
        self._storage_url = storage_url

    def serve(self, connection):
        connection.recv(65536)
        self.asked = True
        connection.sendall(
            b"HTTP/1.1 200 OK\r\nX-Auth-Token: t\r\nContent-Length: 0\r\n"
            + f"X-Storage-Url: {self._storage_url}\r\n\r\n".encode()
        )


class Cutter(Peer):
    """Passes requests on to a port and cuts every answer after so many bytes."""

    def __init__(self, port, after):
        super().__init__("127.0.0.1")
        self._to = port
        self._after = after

    def serve(self, connection):
        with socket.create_connection(("127.0.0.1", self._to)) as server:
            threading.Thread(target=self._pass_on, args=(connection, server), daemon=True).start()
            left = self._after
            while left and (piece := server.recv(min(65536, left))):
                connection.sendall(piece)
                left -= len(piece)
            connection.shutdown(socket.SHUT_RDWR)

    def _pass_on(self, connection, server):
        with contextlib.suppress(OSError):
            while piece := connection.recv(65536):
                server.sendall(piece)
