"""Leases, and the limits that keep one caller from hurting the others."""

from typing import Final

from oslo_config import cfg

from common.options.area import Area

LEASES: Final = (
    cfg.StrOpt(
        "host",
        help="This host's name in the records of work under way. Unset means the host name. It "
        "must be different on every host and stay the same across restarts: a restarted daemon "
        "recognizes its own interrupted uploads by it.",
    ),
    cfg.IntOpt(
        "seconds",
        default=30,
        min=5,
        max=86400,
        help="How long the record of an upload, copy or delete lives without being renewed. After "
        "that, another worker finishes or undoes the work.",
    ),
)

CONNECTIONS: Final = (
    cfg.IntOpt(
        "max_connections",
        default=1000,
        min=1,
        help="Connections that one worker serves at the same time; more wait to be accepted.",
    ),
    cfg.IntOpt(
        "max_connections_per_peer",
        default=0,
        min=0,
        help="Connections that one address may have open to one worker; 0 means no limit. Do not "
        "set it where all clients come through one proxy.",
    ),
    cfg.IntOpt(
        "header_timeout",
        default=60,
        min=0,
        help="Seconds from the first byte of a request to the end of its headers; 0: no limit.",
    ),
)

TENANTS: Final = (
    cfg.IntOpt(
        "images_per_tenant",
        default=0,
        min=0,
        help="Images that one owner may have; one more is answered with 413. 0 means no limit.",
    ),
    cfg.IntOpt(
        "queued_images_per_tenant",
        default=0,
        min=0,
        help="Of these, how many without data (queued or saving); 0 means no limit.",
    ),
)

SHARING: Final = (
    cfg.BoolOpt(
        "list_unaccepted",
        default=True,
        help="List images that others share with the caller as soon as they are shared, as v1 "
        "always did. Off: only those whose membership has been accepted (by a tool of v2's), so "
        "that nobody can fill another's list. By its id a shared image is shown either way.",
    ),
)

TRANSFERS: Final = (
    cfg.IntOpt(
        "requests_per_second_per_tenant",
        default=0,
        min=0,
        help="Requests that one worker answers for one tenant in a second, more are answered with "
        "429; 0 means no limit.",
    ),
    cfg.IntOpt(
        "min_transfer_rate",
        default=0,
        min=0,
        help="Bytes a second that an upload or download must average over a minute, or it is cut; "
        "0 means no limit.",
    ),
    cfg.IntOpt(
        "copies_per_worker",
        default=32,
        min=1,
        help="Background copies (copy-from) that one worker runs at the same time; more wait.",
    ),
    cfg.IntOpt(
        "copies_per_tenant",
        default=0,
        min=0,
        help="Of these, how many may belong to one tenant; 0 means that tenants simply take turns.",
    ),
)

AREAS: Final = (
    Area("leases", "A", LEASES),
    Area("limits", "AR", CONNECTIONS),
    Area("limits", "R", TENANTS),
    Area("sharing", "R", SHARING),
    Area("limits", "A", TRANSFERS),
)
