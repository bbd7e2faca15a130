"""What a driver author imports; see `glance_store.driver.Store` for the contract."""

from common.body import Body, FileBody, StreamBody
from common.context import RequestContext
from common.upload import Upload
from glance_store.driver import Capability, Store, Stored
from glance_store.errors import (
    AddDisabled,
    BackendUnavailable,
    BadLocation,
    BadStoreConfiguration,
    DeleteUnsupported,
    ReadUnsupported,
    StorageFull,
    StorageWriteDenied,
    UnknownScheme,
)

__all__ = [
    "AddDisabled",
    "BackendUnavailable",
    "BadLocation",
    "BadStoreConfiguration",
    "Body",
    "Capability",
    "DeleteUnsupported",
    "FileBody",
    "ReadUnsupported",
    "RequestContext",
    "StorageFull",
    "StorageWriteDenied",
    "Store",
    "Stored",
    "StreamBody",
    "UnknownScheme",
    "Upload",
]
