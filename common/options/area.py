"""What a table of options is made of."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from oslo_config import cfg, types

_QUOTA: Final = re.compile(r"(\d+)(B|KB|MB|GB|TB)?", re.ASCII)
_MOST: Final = 2**63 - 1
_MOST_DIGITS: Final = 19
_UNITS: Final = {"B": 0, "KB": 1, "MB": 2, "GB": 3, "TB": 4}


@dataclass(frozen=True, slots=True)
class Area:
    """Options of one section that belong to the same files.

    files: one letter for each sample that shows them: A glance-api.conf, R glance-registry.conf,
    C glance-cache.conf, S glance-scrubber.conf, M glance-manage.conf. library: whether they are
    registered and checked by the library that reads them, so that we only know their names.
    """

    section: str
    files: str
    options: Sequence[cfg.Opt]
    library: bool = False


class StorageQuota(types.ConfigType):
    """A number of bytes; a text that stands for none is a ValueError."""

    def __call__(self, value: Any) -> int:
        match = _QUOTA.fullmatch(str(value))
        if match is None:
            raise ValueError(
                f"{value!r} is not a number of bytes, such as 0 or 500GB (digits, then B, KB, MB, "
                "GB, TB or nothing, without a blank)"
            )
        scale: int = 1024 ** _UNITS[match[2] or "B"]
        number = int(match[1]) * scale if len(match[1]) <= _MOST_DIGITS else _MOST + 1
        if number > _MOST:
            raise ValueError(f"{value!r} is more bytes than a database counts")
        return number

    def _formatter(self, value: Any) -> str:
        return str(value)
