"""Which notifications are sent, and how."""

from typing import Final

from oslo_config import cfg

from common.options.area import Area

EVENTS: Final = (
    cfg.StrOpt(
        "default_publisher_id", default="image.localhost", help="publisher_id of the messages."
    ),
    cfg.ListOpt(
        "disabled_notifications",
        default=[],
        help="Events (image.create) or groups of them (image) that are not sent.",
    ),
)

DRIVERS: Final = (
    cfg.MultiStrOpt(
        "driver",
        default=[],
        deprecated_opts=[cfg.DeprecatedOpt("notification_driver", group="DEFAULT")],
        help="How notifications leave: messaging, messagingv2 (both need the messaging extra), log "
        "or noop. May be repeated; empty sends none.",
    ),
    cfg.StrOpt(
        "transport_url",
        secret=True,
        deprecated_opts=[cfg.DeprecatedOpt("notification_transport_url", group="DEFAULT")],
        help="Message bus for notifications, if another than [DEFAULT] transport_url.",
    ),
    cfg.ListOpt(
        "topics",
        default=["notifications"],
        deprecated_opts=[
            cfg.DeprecatedOpt("notification_topics", group="DEFAULT"),
            cfg.DeprecatedOpt("topics", group="rpc_notifier2"),
        ],
        help="Topics to publish to.",
    ),
)

AREAS: Final = (
    Area("DEFAULT", "A", EVENTS),
    Area("oslo_messaging_notifications", "AR", DRIVERS),
)
