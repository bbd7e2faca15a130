"""The s3 store's options: Glance's names and defaults; region, CA bundle and timeout are later."""

from typing import Final

from oslo_config import cfg

OPTIONS: Final = (
    cfg.StrOpt(
        "s3_store_host",
        help="Host of the S3 service, with a port if need be; http:// or https:// before it "
        "chooses the protocol, http otherwise.",
    ),
    cfg.StrOpt("s3_store_access_key", secret=True, help="Access key."),
    cfg.StrOpt("s3_store_secret_key", secret=True, help="Secret key."),
    cfg.StrOpt("s3_store_bucket", help="Bucket for images."),
    cfg.StrOpt(
        "s3_store_object_buffer_dir",
        help="Accepted and ignored: uploads are not buffered on disk.",
    ),
    cfg.BoolOpt("s3_store_create_bucket_on_put", default=False, help="Create a missing bucket."),
    cfg.StrOpt(
        "s3_store_bucket_url_format",
        default="subdomain",
        choices=("subdomain", "path"),
        help="Where requests name the bucket: in the host name or in the path.",
    ),
    cfg.IntOpt(
        "s3_store_large_object_size",
        default=100,
        min=0,
        help="MiB above which an image is uploaded in parts.",
    ),
    cfg.IntOpt(
        "s3_store_large_object_chunk_size",
        default=10,
        min=5,
        max=5120,
        help="MiB per part; more where an image would need over 10,000 parts.",
    ),
    cfg.IntOpt(
        "s3_store_thread_pools",
        default=10,
        min=1,
        help="Parts of one image under way at once; each is held in memory.",
    ),
    cfg.BoolOpt("s3_store_enable_proxy", default=False, help="Use the proxy below."),
    cfg.StrOpt("s3_store_proxy_host", help="Host of the proxy."),
    cfg.PortOpt("s3_store_proxy_port", default=8080, help="Port of the proxy."),
    cfg.StrOpt("s3_store_proxy_user", secret=True, help="User name for the proxy."),
    cfg.StrOpt("s3_store_proxy_password", secret=True, help="Password for the proxy."),
    cfg.StrOpt(
        "s3_store_region_name",
        default="",
        help="Region that requests are signed for. Empty: the one in an Amazon host's name, "
        "otherwise us-east-1.",
    ),
    cfg.StrOpt("s3_store_cacert", help="CA bundle to verify the service's certificate with."),
    cfg.IntOpt(
        "s3_store_timeout",
        default=60,
        min=1,
        help="Seconds the service may take to connect, or stay silent.",
    ),
)
