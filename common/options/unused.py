"""Options of Images API v2 and tasks, accepted so that an existing file works."""

from typing import Final

from oslo_config import cfg

from common.options.area import Area

_IGNORED: Final = "Accepted and ignored, as v2 is not served: "

V2: Final = (
    cfg.IntOpt("image_tag_quota", default=128, help=f"{_IGNORED}tags of one image."),
    cfg.IntOpt("image_location_quota", default=10, help=f"{_IGNORED}locations of one image."),
    cfg.BoolOpt(
        "allow_additional_image_properties",
        default=True,
        help=f"{_IGNORED}properties outside the schema are accepted.",
    ),
    cfg.BoolOpt("show_image_direct_url", default=False, help=f"{_IGNORED}show direct_url."),
    cfg.BoolOpt("show_multiple_locations", default=False, help=f"{_IGNORED}show locations."),
    cfg.StrOpt(
        "data_api",
        default="glance.db.sqlalchemy.api",
        help=f"{_IGNORED}module for direct access to the database.",
    ),
)

V2_API: Final = (
    cfg.StrOpt(
        "location_strategy",
        default="location_order",
        choices=["location_order", "store_type"],
        help=f"{_IGNORED}order in which several locations are tried.",
    ),
    cfg.ListOpt(
        "allowed_rpc_exception_modules",
        default=["glance.common.exception", "builtins", "exceptions"],
        help=f"{_IGNORED}modules whose exceptions may come from the v2 registry.",
    ),
)

TASK: Final = (
    cfg.IntOpt(
        "task_time_to_live", default=48, help=f"{_IGNORED}hours that a finished task is kept."
    ),
    cfg.StrOpt("task_executor", default="taskflow", help=f"{_IGNORED}name of the executor."),
    cfg.StrOpt("work_dir", help=f"{_IGNORED}scratch directory."),
)

TASKFLOW: Final = (
    cfg.StrOpt(
        "engine_mode",
        default="parallel",
        choices=["serial", "parallel"],
        help=f"{_IGNORED}engine mode.",
    ),
    cfg.IntOpt("max_workers", default=10, help=f"{_IGNORED}parallel activities."),
)

STORE_TYPE: Final = (
    cfg.ListOpt(
        "store_type_preference",
        default=[],
        help=f"{_IGNORED}preferred order of stores, with location_strategy=store_type.",
    ),
)

AREAS: Final = (
    Area("DEFAULT", "ARCS", V2),
    Area("DEFAULT", "A", V2_API),
    Area("task", "A", TASK),
    Area("taskflow_executor", "A", TASKFLOW),
    Area("store_type_location_strategy", "A", STORE_TYPE),
)
