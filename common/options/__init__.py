"""Every option of every program as data, for `common.config` and for the sample files.

Each module holds the areas of one subject; nothing is read or registered here. The options of
store drivers are declared by the drivers.
"""

from common.options import (
    api,
    database,
    images,
    libraries,
    limits,
    logs,
    notifications,
    server,
    unused,
)
from common.options.area import Area

AREAS: tuple[Area, ...] = (
    *server.AREAS,
    *api.AREAS,
    *images.AREAS,
    *limits.AREAS,
    *notifications.AREAS,
    *logs.AREAS,
    *database.AREAS,
    *unused.AREAS,
    *libraries.AREAS,
)

__all__ = ["AREAS", "Area"]
