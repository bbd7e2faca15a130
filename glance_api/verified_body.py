"""A download that is hashed on its way out (`verify_on_download`, SEC-008)."""

import hashlib
import logging
from collections.abc import Iterator

from common import errors
from common.body import Body
from common.concurrency import offload

LOG = logging.getLogger(__name__)


class ContentChanged(errors.ServiceUnavailable):
    default = "The stored bytes do not match the recorded checksum."


class VerifiedBody(Body):
    """Withholds the last piece until everything matches; a mismatch cuts the download short."""

    def __init__(self, body: Body, checksum: str, image_id: str) -> None:
        super().__init__(body.length)
        self._body = body
        self._checksum = checksum
        self._image_id = image_id

    def chunks(self) -> Iterator[bytes]:
        digest = hashlib.md5(usedforsecurity=False)
        held = b""
        for chunk in self._body:
            offload(digest.update, chunk)
            if held:
                yield held
            held = chunk
        if digest.hexdigest() != self._checksum:
            LOG.error("image %s: the stored bytes have changed", self._image_id)
            raise ContentChanged()
        if held:
            yield held

    def release(self) -> None:
        self._body.close()
