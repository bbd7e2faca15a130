"""The URLs of images in S3: `s3+https://key:secret@host/bucket/object`, or without the keys.

Glance wrote the keys into every URL. We write none: a URL without them stands for the configured
ones, and only on the configured host. Nothing here connects.
"""

from dataclasses import dataclass, field
from typing import Final

from glance_store.errors import BadLocation

SCHEMES: Final = ("s3", "s3+http", "s3+https")


@dataclass(frozen=True, slots=True)
class S3Location:
    """One parsed URL; `host` may have a port and a path."""

    secure: bool
    host: str
    bucket: str
    key: str
    access_key: str | None = None
    secret_key: str | None = field(default=None, repr=False)

    @property
    def url(self) -> str:
        who = f"{self.access_key}:{self.secret_key}@" if self.access_key is not None else ""
        # Plain "s3" is what Glance wrote for http, too.
        scheme = "s3+https" if self.secure else "s3"
        return f"{scheme}://{who}{self.host}/{self.bucket}/{self.key}"

    @property
    def endpoint(self) -> str:
        return f"{'https' if self.secure else 'http'}://{self.host}"


def parse(url: str) -> S3Location:
    """Take a URL apart. Raises BadLocation if it is not one of this store's."""
    scheme, _, rest = url.partition("://")
    # Bucket and object are the last two parts; secret keys may hold slashes and are not quoted.
    parts = rest.rsplit("/", 2)
    if scheme not in SCHEMES or "://" in rest or len(parts) != 3 or not all(parts):
        raise BadLocation()
    where, bucket, key = parts
    who, at, host = where.rpartition("@")
    host = host.strip("/")
    if not host:
        raise BadLocation()
    secure = scheme == "s3+https"
    if not at:
        return S3Location(secure, host, bucket, key)
    # Swift's access keys are tenant:user.
    access_key, _, secret_key = who.rpartition(":")
    if not access_key or not secret_key:
        raise BadLocation()
    return S3Location(secure, host, bucket, key, access_key, secret_key)
