"""What a store raises. Each is a kind of a common error, which decides the HTTP status.

Messages are shown to callers: they never hold a URL, a host, a path or a credential (SEC-030).
Missing bytes are `common.errors.NotFound`, an existing object `common.errors.Duplicate`, and
bytes that something depends on `common.errors.InUse`.
"""

from common import errors


class StorageFull(errors.LimitExceeded):
    default = "There is not enough space in the store."


class StorageWriteDenied(errors.ServiceUnavailable):
    default = "The store refused to be written to."


class BackendUnavailable(errors.ServiceUnavailable):
    default = "The store cannot be reached."


class SourceFailed(errors.ServiceUnavailable):
    """What an image was to be copied from failed, not the store that it was to go into."""

    default = "The source of the image cannot be read."


class AddDisabled(errors.Gone):
    default = "The store does not accept new images."


class ReadUnsupported(errors.Invalid):
    default = "The store does not support reading images."


class DeleteUnsupported(errors.Invalid):
    default = "The store does not support deleting images."


class BadLocation(errors.Invalid):
    default = "Invalid location"


class UnknownScheme(errors.Invalid):
    def __init__(self, scheme: str) -> None:
        super().__init__(f"Store for scheme {scheme} not found")
        self.scheme = scheme


class BadStoreConfiguration(Exception):
    """A store cannot work as configured; the daemon does not start. Names the option."""
