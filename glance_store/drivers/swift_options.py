"""The swift store's options: Glance's names and defaults, and two of our own at the end."""

from typing import Final

from oslo_config import cfg

OPTIONS: Final = (
    cfg.StrOpt(
        "default_swift_reference",
        default="ref1",
        help="Section of swift_store_config_file used for new images.",
    ),
    cfg.StrOpt(
        "swift_store_config_file",
        help="File with one section per Swift account: user, key, auth_address, auth_version, "
        "and for version 3 user_domain_id and project_domain_id or their _name forms.",
    ),
    cfg.StrOpt(
        "swift_store_auth_version",
        default="2",
        help="Identity version of a reference that does not name one: 1, 2 or 3.",
    ),
    cfg.StrOpt(
        "swift_store_auth_address",
        help="Deprecated: identity service of the one account; use swift_store_config_file.",
    ),
    cfg.StrOpt(
        "swift_store_user",
        secret=True,
        help="Deprecated: tenant:user of the one account; use swift_store_config_file.",
    ),
    cfg.StrOpt(
        "swift_store_key",
        secret=True,
        help="Deprecated: key of the one account; use swift_store_config_file.",
    ),
    cfg.BoolOpt(
        "swift_store_auth_insecure",
        default=False,
        help="Do not verify the certificates of Swift and of its identity service.",
    ),
    cfg.StrOpt("swift_store_cacert", help="CA bundle for those certificates."),
    cfg.StrOpt("swift_store_region", help="Region of the endpoint in the service catalog."),
    cfg.StrOpt("swift_store_endpoint", help="Storage URL to use instead of the service catalog's."),
    cfg.StrOpt(
        "swift_store_endpoint_type",
        default="publicURL",
        help="Kind of the endpoint: publicURL, internalURL or adminURL.",
    ),
    cfg.StrOpt(
        "swift_store_service_type",
        default="object-store",
        help="Type of the service in the service catalog.",
    ),
    cfg.StrOpt(
        "swift_store_container",
        default="glance",
        help="Container for images; in multi-tenant or multi-container mode its name's beginning.",
    ),
    cfg.BoolOpt(
        "swift_store_create_container_on_put",
        default=False,
        help="Create a missing container. A multi-tenant store always does: each image has its "
        "own container there.",
    ),
    cfg.IntOpt(
        "swift_store_large_object_size",
        default=5120,
        min=0,
        help="MiB above which an image is stored in segments. One of unknown size always is, "
        "unless it turns out to be smaller than 1 MiB.",
    ),
    cfg.IntOpt("swift_store_large_object_chunk_size", default=200, min=1, help="MiB per segment."),
    cfg.BoolOpt(
        "swift_store_multi_tenant",
        default=False,
        help="Store images in their uploaders' accounts, with ACLs that follow members and "
        "is_public.",
    ),
    cfg.ListOpt(
        "swift_store_admin_tenants",
        default=[],
        help="Tenants that may read and write every container of a multi-tenant store.",
    ),
    cfg.IntOpt(
        "swift_store_multiple_containers_seed",
        default=0,
        min=0,
        max=32,
        help="Leading characters of the image's id that choose its container; 0: one container.",
    ),
    cfg.BoolOpt(
        "swift_store_ssl_compression",
        default=True,
        help="Accepted and ignored: TLS no longer compresses.",
    ),
    cfg.IntOpt(
        "swift_store_retry_get_count",
        default=0,
        min=0,
        help="How often a download that broke off is taken up again where it stopped.",
    ),
    cfg.IntOpt(
        "swift_store_expire_soon_interval",
        default=60,
        help="Seconds before its expiry when a token is renewed.",
    ),
    cfg.BoolOpt(
        "swift_store_use_trusts",
        default=True,
        help="Let a multi-tenant store make a Keystone trust for the length of a segmented "
        "upload, so that it outlives the uploader's token. Needs identity version 3 and "
        "default_swift_reference.",
    ),
    cfg.IntOpt(
        "swift_store_upload_concurrency",
        default=4,
        min=1,
        max=64,
        help="Segments of one image under way at once. Each holds up to 4 MiB in memory.",
    ),
    cfg.IntOpt(
        "swift_store_timeout",
        default=60,
        min=1,
        help="Seconds Swift or its identity service may take to connect, or stay silent.",
    ),
)
