"""Disk and container formats: which are accepted, and which belong together."""

from dataclasses import dataclass
from typing import Any, Final

from common import errors
from common.image import Image

_AMAZON: Final = frozenset({"aki", "ari", "ami"})


@dataclass(frozen=True)
class Formats:
    """The configured disk and container formats."""

    disk: frozenset[str]
    container: frozenset[str]


def apply_amazon_rule(fields: dict[str, Any]) -> None:
    """An Amazon format given for one of the two formats is the other one too (section 8.1)."""
    disk, container = fields.get("disk_format"), fields.get("container_format")
    if disk in _AMAZON or container in _AMAZON:
        fields["disk_format"] = disk = disk or container
        fields["container_format"] = container = container or disk
        if disk != container:
            raise errors.Invalid(
                "Invalid mix of disk and container formats. When setting a disk or container "
                "format to one of 'aki', 'ari', or 'ami', the container and disk formats must "
                "match."
            )


def check_formats_set(image: Image) -> None:
    """Bytes can be interpreted only with both formats known, and belonging together."""
    if not image.disk_format:
        raise errors.Invalid("Disk format is not specified.")
    if not image.container_format:
        raise errors.Invalid("Container format is not specified.")
    # The request alone was checked before; now it is about the record it leads to.
    apply_amazon_rule(
        {"disk_format": image.disk_format, "container_format": image.container_format}
    )
