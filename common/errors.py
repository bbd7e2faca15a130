"""The domain's errors, free of HTTP.

`common.wsgi.faults` is the only place that knows which status each becomes.
"""


class GlanceError(Exception):
    """Something a caller should hear about; the message is shown to the caller as it is."""

    default = "The request could not be carried out."

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or self.default)

    @property
    def message(self) -> str:
        return str(self.args[0])


class Invalid(GlanceError):
    default = "The request is malformed."


class NotAuthenticated(GlanceError):
    default = "Authentication is required."


class Forbidden(GlanceError):
    default = "Forbidden"


class NotFound(GlanceError):
    default = "Not found."


class MethodNotAllowed(GlanceError):
    """`allow` names the methods that would have been answered."""

    default = "The method is not allowed for this resource."

    def __init__(self, allow: str) -> None:
        super().__init__()
        self.allow = allow


class NotImplementedMethod(GlanceError):
    default = "The method is not implemented."


class Conflict(GlanceError):
    default = "The request conflicts with the state of the image."


class Duplicate(Conflict):
    default = "It already exists."


class InUse(Conflict):
    """The stored bytes cannot be deleted because something depends on them."""

    default = "The image is in use and cannot be deleted."


class Gone(GlanceError):
    default = "That is no longer available."


class PreconditionFailed(GlanceError):
    default = "A precondition of the request does not hold."


class ImageDeleted(PreconditionFailed):
    """The image was deleted while its bytes were still arriving (D02)."""

    default = "The image was deleted during the upload."


class LimitExceeded(GlanceError):
    default = "A limit was exceeded."


class ImageSizeLimitExceeded(LimitExceeded):
    default = "The image is larger than image_size_cap allows."


class StorageQuotaFull(LimitExceeded):
    default = "The storage quota of the tenant (user_storage_quota) is exceeded."


class RangeNotSatisfiable(GlanceError):
    """`length` is the size of the whole image, for the answer's Content-Range."""

    default = "The requested range lies outside the image."

    def __init__(self, length: int) -> None:
        super().__init__()
        self.length = length


class TooManyRequests(GlanceError):
    default = "Too many requests; try again later."


class RequestHeaderTooLarge(GlanceError):
    default = "A request header is too large."


class ServiceUnavailable(GlanceError):
    """Something this service depends on is away; the same request may work later."""

    default = "The service is temporarily unavailable."


class ClientDisconnected(Invalid):
    """The client went away before the whole body had arrived; nobody reads the answer."""

    default = "The client closed the connection before the body was complete."
