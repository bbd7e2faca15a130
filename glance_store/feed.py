"""An upload as the body of an outgoing HTTP request."""

from collections.abc import Iterator

from common.upload import CHUNK, Upload


class FeedFailed(Exception):
    """Ends the request under way; what went wrong is in `Feed.error`.

    The upload's own error must not pass through an HTTP library: an OSError among them would
    be taken for trouble with the server.
    """


class Feed:
    """The chunks of an upload whose size is known, `len(feed)` bytes in all.

    The last chunk is handed out after the upload has been verified. A server that commits as
    soon as it has Content-Length bytes therefore never commits bytes that were refused.
    """

    def __init__(self, upload: Upload, length: int) -> None:
        self.error: Exception | None = None
        self._upload = upload
        self._length = length

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[bytes]:
        chunk = self._next()
        while chunk:
            following = self._next()
            yield chunk
            chunk = following

    def raise_error(self) -> None:
        """Raise what the upload raised, if it did; to be asked first when a request failed."""
        if self.error is not None:
            raise self.error

    def _next(self) -> bytes:
        try:
            return self._upload.read(CHUNK)
        except Exception as error:
            self.error = error
            raise FeedFailed() from error
