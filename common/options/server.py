"""Listening socket, workers, TLS, pipeline, and the way from the API to the registry."""

from typing import Final

from oslo_config import cfg

from common.options.area import Area

LISTEN: Final = (
    cfg.StrOpt("bind_host", default="0.0.0.0", help="Address to listen on (IPv4 or IPv6)."),
    cfg.PortOpt(
        "bind_port", help="Port to listen on; unset means 9292 for the API, 9191 for the registry."
    ),
    cfg.IntOpt("backlog", default=4096, min=1, help="Connections that may wait to be accepted."),
    cfg.IntOpt(
        "tcp_keepidle",
        default=600,
        min=1,
        help="Seconds of silence before a connection is probed (TCP_KEEPIDLE).",
    ),
    cfg.IntOpt(
        "workers",
        min=0,
        help="Child processes. Unset means one for each CPU, but at most 8: each worker serves "
        "many requests at once, so more cost memory and gain little. 0 serves in the parent "
        "process, without signal handling, for debugging.",
    ),
    cfg.IntOpt(
        "max_header_line",
        default=16384,
        min=1,
        help="Longest header line in bytes; a longer one is answered with 400. Large tokens and "
        "service catalogs may need more.",
    ),
    cfg.BoolOpt(
        "http_keepalive",
        default=True,
        help="Keep connections open between requests; false answers Connection: close.",
    ),
    cfg.IntOpt(
        "client_socket_timeout",
        default=900,
        min=0,
        help="Seconds that a client connection may stand idle; 0 means for ever.",
    ),
    cfg.StrOpt(
        "cert_file", help="Server certificate (PEM). Together with key_file it switches TLS on."
    ),
    cfg.StrOpt(
        "key_file",
        help="Private key of the certificate. With only one of the two the service does not start.",
    ),
    cfg.StrOpt(
        "ca_file", help="If set, clients must present a certificate that this CA has signed."
    ),
)

DEBUGGER: Final = (
    cfg.StrOpt(
        "pydev_worker_debug_host", help="Accepted and ignored: no debugger code is built in."
    ),
    cfg.PortOpt("pydev_worker_debug_port", default=5678, help="Accepted and ignored."),
)

REGISTRY: Final = (
    cfg.StrOpt(
        "registry_host",
        default="0.0.0.0",
        help="Host of the registry. The default means this host; better say so: 127.0.0.1.",
    ),
    cfg.PortOpt("registry_port", default=9191, help="Port of the registry."),
)

REGISTRY_CLIENT: Final = (
    cfg.StrOpt(
        "registry_client_protocol",
        default="http",
        choices=["http", "https"],
        help="Protocol spoken with the registry.",
    ),
    cfg.StrOpt(
        "registry_client_key_file",
        help="Private key for the registry (also GLANCE_CLIENT_KEY_FILE in the environment).",
    ),
    cfg.StrOpt(
        "registry_client_cert_file",
        help="Certificate for the registry (also GLANCE_CLIENT_CERT_FILE in the environment).",
    ),
    cfg.StrOpt(
        "registry_client_ca_file",
        help="CA bundle the registry's certificate is checked against (also "
        "GLANCE_CLIENT_CA_FILE in the environment).",
    ),
    cfg.BoolOpt(
        "registry_client_insecure",
        default=False,
        help="Do not check the registry's certificate. Anyone on the way can then read and "
        "change what is sent.",
    ),
    cfg.IntOpt(
        "registry_client_timeout",
        default=600,
        min=0,
        help="Seconds that one request to the registry may take; 0 means no limit.",
    ),
    cfg.BoolOpt(
        "send_identity_headers",
        default=False,
        help="Tell the registry who is asking in identity headers, for a registry whose flavor is "
        "trusted-auth.",
    ),
)

REGISTRY_CREDENTIALS: Final = (
    cfg.BoolOpt(
        "use_user_token",
        default=True,
        deprecated_for_removal=True,
        help="Forward the caller's token to the registry; false uses the credentials below.",
    ),
    cfg.StrOpt(
        "admin_user",
        deprecated_for_removal=True,
        help="Administrator the registry is asked as, by the scrubber for example.",
    ),
    cfg.StrOpt(
        "admin_password",
        secret=True,
        deprecated_for_removal=True,
        help="The administrator's password.",
    ),
    cfg.StrOpt(
        "admin_tenant_name", deprecated_for_removal=True, help="The administrator's tenant."
    ),
    cfg.StrOpt(
        "auth_url", deprecated_for_removal=True, help="Keystone's URL for these credentials."
    ),
    cfg.StrOpt(
        "auth_strategy",
        default="noauth",
        deprecated_for_removal=True,
        help="How to authenticate when there is no auth_url: noauth or keystone.",
    ),
    cfg.StrOpt(
        "auth_region",
        deprecated_for_removal=True,
        help="Accepted and ignored: where the registry is, registry_host says.",
    ),
)

REGISTRY_KEY: Final = (
    cfg.StrOpt(
        "registry_auth_key",
        secret=True,
        help="A text of your choice, the same in glance-api.conf, glance-registry.conf and "
        "glance-scrubber.conf. When the registry has one, it answers only callers that present "
        "it; without one, anybody who can connect to a registry whose flavor is empty or "
        "trusted-auth can read and change every image. 'openssl rand -hex 32' makes a good one.",
    ),
)

STOPPING: Final = (
    cfg.IntOpt(
        "graceful_shutdown_timeout",
        default=60,
        min=0,
        help="Seconds that running requests and copies are given to complete after SIGTERM; "
        "0 cuts them at once.",
    ),
)

READINESS: Final = (
    cfg.BoolOpt(
        "enabled",
        default=True,
        help="Answer /readiness, without credentials, with 200 or 503: whether what the daemon "
        "depends on is there (the API: the registry and the default store; the registry: the "
        "database). /healthcheck says only that the daemon itself is.",
    ),
)

PASTE: Final = (
    cfg.StrOpt(
        "flavor",
        help="Which pipeline of the paste file to use, the part after glance-api- or "
        "glance-registry-: empty, keystone, trusted-auth, or one of your own.",
    ),
    cfg.StrOpt(
        "config_file",
        help="Paste file. Unset means the last --config-file with .conf replaced by -paste.ini, "
        "else <program>-paste.ini, searched in the same places as configuration files.",
    ),
)

CORS: Final = (
    cfg.ListOpt(
        "allowed_origin",
        help="Origins whose scripts may call the API, such as https://horizon.example.com; "
        "scheme, host and port must match exactly. Unset switches CORS off.",
    ),
    cfg.BoolOpt(
        "allow_credentials",
        default=True,
        help="Send Access-Control-Allow-Credentials: true.",
    ),
    cfg.ListOpt(
        "expose_headers",
        default=[
            "X-Image-Meta-Checksum",
            "X-Auth-Token",
            "X-Subject-Token",
            "X-Service-Token",
            "X-OpenStack-Request-ID",
        ],
        help="Response headers that scripts may read.",
    ),
    cfg.IntOpt("max_age", default=3600, help="Seconds that a browser may cache a preflight."),
    cfg.ListOpt(
        "allow_methods",
        default=["GET", "PUT", "POST", "DELETE", "PATCH"],
        help="Methods that scripts may use.",
    ),
    cfg.ListOpt(
        "allow_headers",
        default=[
            "Content-MD5",
            "X-Image-Meta-Checksum",
            "X-Storage-Token",
            "Accept-Encoding",
            "X-Auth-Token",
            "X-Identity-Status",
            "X-Roles",
            "X-Service-Catalog",
            "X-User-Id",
            "X-Tenant-Id",
            "X-OpenStack-Request-ID",
        ],
        help="Request headers that scripts may send.",
    ),
)

PROXY: Final = (
    cfg.BoolOpt(
        "enable_proxy_headers_parsing",
        default=False,
        help="Believe Forwarded and X-Forwarded-Proto, -Host, -Prefix and -For. Switch it on only "
        "behind a proxy that sets them.",
    ),
)

AREAS: Final = (
    Area("DEFAULT", "AR", LISTEN),
    Area("DEFAULT", "AR", STOPPING),
    Area("DEFAULT", "ARCS", DEBUGGER),
    Area("DEFAULT", "ACS", REGISTRY),
    Area("DEFAULT", "AS", REGISTRY_CLIENT),
    Area("DEFAULT", "ARCS", REGISTRY_KEY),
    Area("DEFAULT", "ACS", REGISTRY_CREDENTIALS),
    Area("paste_deploy", "AR", PASTE),
    Area("readiness", "AR", READINESS),
    Area("cors", "A", CORS),
    Area("oslo_middleware", "A", PROXY),
)
