"""The bytes of images: formats, checks, downloads, deletion, cache."""

from typing import Final

from oslo_config import cfg

from common.options.area import Area

FORMATS: Final = (
    cfg.ListOpt(
        "disk_formats",
        default=[
            "ami",
            "ari",
            "aki",
            "vhd",
            "vhdx",
            "vmdk",
            "raw",
            "qcow2",
            "vdi",
            "iso",
            "ploop",
        ],
        deprecated_group="DEFAULT",
        help="Accepted values of disk_format.",
    ),
    cfg.ListOpt(
        "container_formats",
        default=["ami", "ari", "aki", "bare", "ovf", "ova", "docker"],
        deprecated_group="DEFAULT",
        help="Accepted values of container_format.",
    ),
)

INSPECTION: Final = (
    cfg.BoolOpt(
        "safety_check",
        default=True,
        help="Refuse content that would make whoever uses the image read other files, such as a "
        "qcow2 image with a backing file, whatever its disk_format says.",
    ),
    cfg.BoolOpt(
        "require_image_format_match",
        default=False,
        help="Refuse content that is not what its disk_format says.",
    ),
)

HASHES: Final = (
    cfg.StrOpt(
        "hashing_algorithm",
        default="",
        choices=["", "sha256", "sha512", "blake2b"],
        help="A second digest computed while an image is uploaded, besides MD5, and kept in the "
        "database (os_hash_algo, os_hash_value). Empty: none.",
    ),
    cfg.BoolOpt(
        "verify_on_download",
        default=False,
        help="Check the MD5 of every complete download and break the connection before its last "
        "bytes if it is wrong. Costs the zero-copy path.",
    ),
)

DOWNLOADS: Final = (
    cfg.BoolOpt(
        "ranges", default=True, help="Answer Range and If-Range requests with a part of the image."
    ),
    cfg.BoolOpt(
        "conditional",
        default=True,
        help="Answer an If-None-Match that names the image's ETag with 304.",
    ),
)

DELETION: Final = (
    cfg.BoolOpt(
        "delayed_delete",
        default=False,
        help="Keep the data of deleted images until glance-scrubber removes it.",
    ),
    cfg.IntOpt(
        "scrub_time",
        default=0,
        min=0,
        help="Seconds that an image must have been deleted before it is scrubbed.",
    ),
    cfg.IntOpt("scrub_pool_size", default=1, min=1, help="Images scrubbed at the same time."),
)

SCRUBBER: Final = (
    cfg.IntOpt(
        "wakeup_time", default=300, min=1, help="Seconds between two runs of a scrubber daemon."
    ),
    cfg.BoolOpt(
        "daemon",
        short="D",
        default=False,
        help="Run for ever instead of once (also --daemon or -D).",
    ),
)

_NO_CACHE: Final = "Accepted and ignored, as this version has no cache: "

CACHE: Final = (
    cfg.StrOpt("image_cache_dir", help=f"{_NO_CACHE}directory of the local image cache."),
    cfg.StrOpt(
        "image_cache_driver",
        default="sqlite",
        help=f"{_NO_CACHE}where it keeps its books, sqlite or xattr.",
    ),
    cfg.StrOpt(
        "image_cache_sqlite_db",
        default="cache.db",
        help=f"{_NO_CACHE}file of the sqlite driver, relative to image_cache_dir.",
    ),
    cfg.IntOpt(
        "image_cache_max_size",
        default=10737418240,
        min=0,
        help=f"{_NO_CACHE}bytes that the pruner cuts it down to.",
    ),
    cfg.IntOpt(
        "image_cache_stall_time",
        default=86400,
        min=0,
        help=f"{_NO_CACHE}seconds after which an incomplete file is removed.",
    ),
)

AREAS: Final = (
    Area("image_format", "A", FORMATS),
    Area("image_format", "A", INSPECTION),
    Area("DEFAULT", "A", HASHES),
    Area("downloads", "A", DOWNLOADS),
    Area("DEFAULT", "AS", DELETION),
    Area("DEFAULT", "S", SCRUBBER),
    Area("DEFAULT", "AC", CACHE),
)
