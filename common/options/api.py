"""What the API serves, who is who, and how much of everything."""

from typing import Final

from oslo_config import cfg

from common.options.area import Area, StorageQuota

VERSIONS: Final = (
    cfg.BoolOpt(
        "enable_v1_api",
        default=True,
        help="Serve /v1. Off, v1 vanishes from the version documents and its paths answer 300.",
    ),
    cfg.BoolOpt("enable_v2_api", default=True, help="Accepted and ignored: there is no v2 here."),
    cfg.BoolOpt(
        "enable_v1_registry",
        default=True,
        help="Serve the registry's routes. Off, they answer 404, and no API works with it.",
    ),
    cfg.BoolOpt(
        "enable_v2_registry", default=True, help="Accepted and ignored: there is no v2 here."
    ),
)

PUBLIC_ENDPOINT: Final = (
    cfg.StrOpt(
        "public_endpoint",
        help="Base URL put into version documents, such as https://images.example.com, instead of "
        "the scheme and host of the request.",
    ),
)

QUANTITIES: Final = (
    cfg.IntOpt(
        "limit_param_default",
        default=25,
        min=1,
        help="Images on a page when the caller gives no limit. The registry's value counts.",
    ),
    cfg.IntOpt(
        "api_limit_max",
        default=1000,
        min=1,
        help="Most images on a page, whatever limit the caller gives. The registry's value counts.",
    ),
    cfg.IntOpt(
        "image_size_cap",
        default=1099511627776,
        min=0,
        max=9223372036854775808,
        help="Largest image in bytes (1 TiB).",
    ),
    cfg.Opt(
        "user_storage_quota",
        type=StorageQuota(),
        default="0",
        help="Bytes that the images of one owner may take: digits, then B, KB, MB, GB, TB (powers "
        "of 1024) or nothing, without a blank. 0 means no limit.",
    ),
    cfg.IntOpt(
        "image_property_quota", default=128, help="Properties of one image; negative: no limit."
    ),
    cfg.IntOpt("image_member_quota", default=128, help="Members of one image; negative: no limit."),
)

METADATA_KEY: Final = (
    cfg.StrOpt(
        "metadata_encryption_key",
        secret=True,
        help="AES key of 16, 24 or 32 bytes that encrypts location URLs in the database. The same "
        "one on the API and the scrubber.",
    ),
    cfg.StrOpt(
        "digest_algorithm",
        default="sha256",
        help="Accepted and ignored: the TLS library checks that key and certificate match.",
    ),
)

OWNERSHIP: Final = (
    cfg.BoolOpt(
        "owner_is_tenant",
        default=True,
        help="Images belong to the caller's tenant; false: to the user. Must be the same on the "
        "API and the registry.",
    ),
)

ADMIN_ROLE: Final = (
    cfg.StrOpt(
        "admin_role",
        default="admin",
        help="Role, in any case, that makes a caller an administrator, besides the policy rule "
        "context_is_admin.",
    ),
)

CALLERS: Final = (
    cfg.BoolOpt(
        "allow_anonymous_access",
        default=False,
        help="Let requests without a confirmed identity read public images instead of answering "
        "401.",
    ),
    cfg.IntOpt(
        "max_request_id_length",
        default=64,
        help="Longest X-Openstack-Request-ID taken from a caller; 0 or less means no limit.",
    ),
)

PROTECTION: Final = (
    cfg.StrOpt(
        "property_protection_file",
        help="File with the rules that say who may create, read, update and delete which "
        "properties; unset: everybody who may change the image. See "
        "property-protections-roles.conf.sample.",
    ),
    cfg.StrOpt(
        "property_protection_rule_format",
        default="roles",
        choices=["roles", "policies"],
        help="What the values in that file are.",
    ),
)

HEADERS: Final = (
    cfg.StrOpt(
        "decode_header_values",
        default="glanceclient",
        choices=["glanceclient", "always", "never"],
        help="Whose percent-encoded x-image-meta-* and identity headers are decoded. "
        "python-glanceclient since 2.11.1 encodes every value it sends, so without decoding "
        "My image is stored as My%20image.",
    ),
)

POLICY: Final = (
    cfg.StrOpt(
        "policy_file",
        default="policy.json",
        help="File with the policy rules, JSON or YAML, searched in the same places as "
        "configuration files. Read again whenever it changes.",
    ),
    cfg.StrOpt(
        "policy_default_rule", default="default", help="Rule used where a rule is not defined."
    ),
    cfg.MultiStrOpt(
        "policy_dirs",
        default=["policy.d"],
        help="Directories with further rule files, beside the configuration files in use or "
        "absolute. May be repeated.",
    ),
)

AREAS: Final = (
    Area("DEFAULT", "ARCS", VERSIONS),
    Area("DEFAULT", "A", PUBLIC_ENDPOINT),
    Area("DEFAULT", "ARCS", QUANTITIES),
    Area("DEFAULT", "ARCS", METADATA_KEY),
    Area("DEFAULT", "AR", OWNERSHIP),
    Area("DEFAULT", "ARS", ADMIN_ROLE),
    Area("DEFAULT", "AR", CALLERS),
    Area("DEFAULT", "A", PROTECTION),
    Area("DEFAULT", "A", HEADERS),
    Area("oslo_policy", "ARCS", POLICY, library=True),
)
