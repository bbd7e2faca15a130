"""A private Ceph object gateway: S3 as Ceph speaks it, on a cluster of its own."""

import json

from tests.servers.ceph import Ceph
from tests.servers.process import HOST, Server, answers


class Radosgw(Server):
    """S3 at `url` with `access_key` and `secret_key`; path addressing, any region.

    Faults concern the gateway; the cluster behind it is `ceph`.
    """

    name = "radosgw"
    programs = (*Ceph.programs, "radosgw", "radosgw-admin")
    install = "radosgw"

    access_key = "glance-access"
    secret_key = "glance-secret"
    region = "us-east-1"

    def __init__(self) -> None:
        super().__init__()
        # The gateway cannot connect to a cluster that does not authenticate.
        self.ceph = Ceph(pools=(), cephx=True)
        self.port = self.ceph.gateway_port
        self.url = f"http://{HOST}:{self.port}"

    def admin(self, *words: str) -> str:
        return self.run("radosgw-admin", "-c", self.ceph.conf, "-n", "client.rgw", *words)

    def buckets(self) -> dict[str, list[str]]:
        """Every bucket with its keys, the parts of unfinished uploads included."""
        found = {}
        for bucket in json.loads(self.admin("bucket", "list")):
            rows = json.loads(self.admin("bucket", "list", f"--bucket={bucket}"))
            found[bucket] = [row["name"] for row in rows]
        return found

    def prepare(self) -> None:
        self.ceph.start()

    def launch(self) -> None:
        self.spawn("radosgw", "radosgw", "-c", self.ceph.conf, "-n", "client.rgw", "-f")
        self.wait_until(lambda: answers(self.url), "an answer")
        if "glance" not in json.loads(self.admin("user", "list")):
            self.admin(
                *("user", "create", "--uid=glance", "--display-name=glance"),
                *(f"--access-key={self.access_key}", f"--secret-key={self.secret_key}"),
            )

    def log_tail(self, lines: int = 30) -> str:
        return super().log_tail(lines) + self.ceph.log_tail(lines)

    def stop(self) -> None:
        try:
            super().stop()
        finally:
            self.ceph.stop()
