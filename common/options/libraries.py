"""Options read by libraries: Keystone's filter, the message bus, the profiler.

We know their names, for the samples and for the warning about unknown options; the library
registers and checks them when it is used. Those of transports that are no longer made are
ignored.
"""

from typing import Any, Final

from oslo_config import cfg

from common.options.area import Area

_TYPES: Final[dict[str, type[cfg.Opt]]] = {
    "bool": cfg.BoolOpt,
    "dict": cfg.DictOpt,
    "float": cfg.FloatOpt,
    "int": cfg.IntOpt,
    "list": cfg.ListOpt,
    "port": cfg.PortOpt,
    "string": cfg.StrOpt,
}

# What glance_api/message_bus.py still reads where it stood in Kilo's days.
_FORMERLY_IN_DEFAULT: Final = frozenset(
    (
        "rabbit_host",
        "rabbit_hosts",
        "rabbit_password",
        "rabbit_port",
        "rabbit_userid",
        "rabbit_virtual_host",
    )
)

_SECRETS: Final = frozenset(
    (
        "connection_string",
        "hmac_keys",
        "memcache_secret_key",
        "password",
        "rabbit_password",
        "ssl_key_password",
        "transport_url",
    )
)


def _area(section: str, files: str, *rows: tuple[str, str, Any, str], library: bool = True) -> Area:
    """Rows are name, type, default and help."""
    options = [
        _TYPES[kind](
            name,
            default=value,
            secret=name in _SECRETS,
            help=text,
            deprecated_group="DEFAULT" if name in _FORMERLY_IN_DEFAULT else None,
        )
        for name, kind, value, text in rows
    ]
    return Area(section, files, options, library=library)


AREAS: Final = (
    _area(
        "profiler",
        "AR",
        ("enabled", "bool", False, "Trace requests that are signed."),
        ("trace_sqlalchemy", "bool", False, "Accepted and ignored: SQL is not traced."),
        (
            "hmac_keys",
            "string",
            "SECRET_KEY",
            "Comma-separated keys that may sign trace requests. Profiling does not start with the "
            "default.",
        ),
        (
            "connection_string",
            "string",
            "messaging://",
            "Where traces go: the message bus of [DEFAULT] transport_url, or another of "
            "osprofiler's drivers, such as redis://host:6379.",
        ),
        library=False,  # our filter decides by these whether to load the profiler at all
    ),
    _area(
        "keystone_authtoken",
        "AR",
        ("auth_type", "string", None, "How the filter proves who it is, usually password."),
        ("auth_url", "string", None, "With auth_type=password: Keystone's URL."),
        ("username", "string", None, "With auth_type=password: the service's user."),
        ("password", "string", None, "With auth_type=password: its password."),
        ("project_name", "string", None, "With auth_type=password: its project, service."),
        ("user_domain_name", "string", None, "With auth_type=password: the user's domain."),
        ("project_domain_name", "string", None, "With auth_type=password: the project's domain."),
        ("www_authenticate_uri", "string", None, "Public Keystone URL, put into WWW-Authenticate."),
        ("auth_uri", "string", None, "Former name of www_authenticate_uri."),
        ("auth_version", "string", None, "Keystone API version; unset = negotiate."),
        (
            "delay_auth_decision",
            "bool",
            False,
            "Pass requests without a valid token on, marked invalid. The API's paste file sets "
            "true; the registry's leaves false (401).",
        ),
        ("http_connect_timeout", "int", None, "Seconds."),
        ("http_request_max_retries", "int", 3, "Retries."),
        ("cache", "string", None, "WSGI environment key of a cache object."),
        ("certfile", "string", None, "Client certificate."),
        ("keyfile", "string", None, "Client key."),
        ("cafile", "string", None, "CA bundle."),
        ("insecure", "bool", False, "Skip verification."),
        ("region_name", "string", None, "Region of Keystone."),
        ("signing_dir", "string", None, "Directory for PKI token material."),
        ("memcached_servers", "list", None, "Token cache; unset = in-process."),
        ("token_cache_time", "int", 300, "Seconds; -1 = off."),
        ("revocation_cache_time", "int", 10, "Seconds for the revocation list."),
        ("memcache_security_strategy", "string", "None", "None, MAC, ENCRYPT."),
        ("memcache_secret_key", "string", None, "Key for it."),
        ("memcache_pool_dead_retry", "int", 300, "Seconds."),
        ("memcache_pool_maxsize", "int", 10, "Connections."),
        ("memcache_pool_socket_timeout", "int", 3, "Seconds."),
        ("memcache_pool_unused_timeout", "int", 60, "Seconds."),
        ("memcache_pool_conn_get_timeout", "int", 10, "Seconds."),
        ("memcache_use_advanced_pool", "bool", False, "Use the pooled client."),
        ("include_service_catalog", "bool", True, "Ask for and set X-Service-Catalog."),
        (
            "enforce_token_bind",
            "string",
            "permissive",
            "disabled, permissive, strict, required or a bind method.",
        ),
        (
            "check_revocations_for_cached",
            "bool",
            False,
            "Check cached PKI tokens against the revocation list.",
        ),
        ("hash_algorithms", "list", ["md5"], "Hashes for PKI tokens."),
        ("auth_section", "string", None, "Section holding its options."),
    ),
    _area(
        "DEFAULT",
        "AR",
        ("transport_url", "string", None, "Message-bus URL, such as rabbit://user:password@host/."),
        ("rpc_backend", "string", "rabbit", "Driver when there is no URL."),
        (
            "control_exchange",
            "string",
            "openstack",
            "Exchange; API and registry default to glance.",
        ),
        ("rpc_conn_pool_size", "int", 30, "Pooled bus connections."),
        ("rpc_response_timeout", "int", 60, "Seconds to wait for a bus reply."),
        ("executor_thread_pool_size", "int", 64, "Threads of bus executors."),
    ),
    _area(
        "DEFAULT",
        "AR",
        ("rpc_zmq_bind_address", "string", "*", "Address to bind."),
        ("rpc_zmq_matchmaker", "string", "redis", "redis or dummy."),
        ("rpc_zmq_concurrency", "string", "eventlet", "eventlet or native."),
        ("rpc_zmq_contexts", "int", 1, "Contexts."),
        ("rpc_zmq_topic_backlog", "int", None, "Queued messages; unset = no limit."),
        ("rpc_zmq_ipc_dir", "string", "/var/run/openstack", "Socket directory."),
        ("rpc_zmq_host", "string", "localhost", "This node's name."),
        ("rpc_cast_timeout", "int", -1, "Seconds before a cast expires."),
        ("rpc_poll_timeout", "int", 1, "Seconds."),
        ("zmq_target_expire", "int", 120, "Seconds."),
        ("use_pub_sub", "bool", True, "Use PUB/SUB."),
        ("rpc_zmq_min_port", "port", 49152, "Port range."),
        ("rpc_zmq_max_port", "int", 65536, "Port range."),
        ("rpc_zmq_bind_port_retries", "int", 100, "Attempts."),
    ),
    _area(
        "matchmaker_redis",
        "AR",
        ("host", "string", "127.0.0.1", "Redis host."),
        ("port", "port", 6379, "Port."),
        ("password", "string", "", "Password."),
        ("sentinel_hosts", "list", [], "Sentinels."),
        ("sentinel_group_name", "string", "oslo-messaging-zeromq", "Group."),
        ("wait_timeout", "int", 500, "Milliseconds."),
        ("check_timeout", "int", 20000, "Milliseconds."),
        ("socket_timeout", "int", 1000, "Milliseconds."),
    ),
    _area(
        "oslo_messaging_amqp",
        "AR",
        ("server_request_prefix", "string", "exclusive", "Address prefix."),
        ("broadcast_prefix", "string", "broadcast", "Address prefix."),
        ("group_request_prefix", "string", "unicast", "Address prefix."),
        ("container_name", "string", None, "Container name."),
        ("idle_timeout", "int", 0, "Seconds."),
        ("trace", "bool", False, "Debug output."),
        ("ssl_ca_file", "string", "", "CA."),
        ("ssl_cert_file", "string", "", "Certificate."),
        ("ssl_key_file", "string", "", "Key."),
        ("ssl_key_password", "string", None, "Its password."),
        ("allow_insecure_clients", "bool", False, "Accept both TLS and clear."),
        ("sasl_mechanisms", "string", "", "Mechanisms."),
        ("sasl_config_dir", "string", "", "SASL configuration."),
        ("sasl_config_name", "string", "", "SASL configuration."),
        ("username", "string", "", "User."),
        ("password", "string", "", "Password."),
    ),
    _area(
        "oslo_messaging_rabbit",
        "AR",
        ("rabbit_host", "string", "localhost", "Broker."),
        ("rabbit_port", "port", 5672, "Port."),
        ("rabbit_hosts", "list", ["$rabbit_host:$rabbit_port"], "List of host:port."),
        ("rabbit_use_ssl", "bool", False, "TLS."),
        ("rabbit_userid", "string", "guest", "User."),
        ("rabbit_password", "string", "guest", "Password."),
        ("rabbit_login_method", "string", "AMQPLAIN", "Login method."),
        ("rabbit_virtual_host", "string", "/", "Vhost."),
        ("rabbit_retry_interval", "int", 1, "Seconds."),
        ("rabbit_retry_backoff", "int", 2, "Seconds added per retry."),
        ("rabbit_interval_max", "int", 30, "Seconds."),
        ("rabbit_max_retries", "int", 0, "0 = for ever."),
        ("rabbit_ha_queues", "bool", False, "Mirrored queues."),
        ("rabbit_transient_queues_ttl", "int", 600, "Seconds."),
        ("rabbit_qos_prefetch_count", "int", 0, "Prefetch."),
        ("heartbeat_timeout_threshold", "int", 60, "Seconds; 0 = off."),
        ("heartbeat_rate", "int", 2, "Checks per threshold."),
        ("fake_rabbit", "bool", False, "In-memory driver."),
        ("amqp_durable_queues", "bool", False, "Durable queues."),
        ("amqp_auto_delete", "bool", False, "Auto-delete queues."),
        ("kombu_ssl_version", "string", "", "TLS version."),
        ("kombu_ssl_keyfile", "string", "", "Key."),
        ("kombu_ssl_certfile", "string", "", "Certificate."),
        ("kombu_ssl_ca_certs", "string", "", "CA."),
        ("kombu_reconnect_delay", "float", 1.0, "Seconds."),
        ("kombu_compression", "string", None, "gzip or bz2."),
        ("kombu_missing_consumer_retry_timeout", "int", 60, "Seconds."),
        ("kombu_failover_strategy", "string", "round-robin", "round-robin or shuffle."),
        ("channel_max", "int", None, "Pika: channels."),
        ("frame_max", "int", None, "Pika: frame size."),
        ("heartbeat_interval", "int", 1, "Pika: seconds."),
        ("ssl", "bool", None, "Pika: TLS."),
        ("ssl_options", "dict", None, "Pika: TLS options."),
        ("socket_timeout", "float", 0.25, "Pika: seconds."),
        ("tcp_user_timeout", "float", 0.25, "Pika: seconds."),
        ("host_connection_reconnect_delay", "float", 0.25, "Pika: seconds."),
        ("pool_max_size", "int", 10, "Pika: connections."),
        ("pool_max_overflow", "int", 0, "Pika: extra connections."),
        ("pool_timeout", "int", 30, "Pika: seconds."),
        ("pool_recycle", "int", 600, "Pika: seconds."),
        ("pool_stale", "int", 60, "Pika: seconds."),
        ("notification_persistence", "bool", False, "Pika: persistent notifications."),
        (
            "default_notification_exchange",
            "string",
            "${control_exchange}_notification",
            "Pika: exchange.",
        ),
        ("notification_listener_prefetch_count", "int", 100, "Pika: prefetch."),
        ("default_notification_retry_attempts", "int", -1, "Pika: -1 = for ever."),
        ("notification_retry_delay", "float", 0.25, "Pika: seconds."),
        ("rpc_queue_expiration", "int", 60, "Pika: seconds."),
        ("default_rpc_exchange", "string", "${control_exchange}_rpc", "Pika: exchange."),
        ("rpc_reply_exchange", "string", "${control_exchange}_rpc_reply", "Pika: exchange."),
        ("rpc_listener_prefetch_count", "int", 100, "Pika: prefetch."),
        ("rpc_reply_listener_prefetch_count", "int", 100, "Pika: prefetch."),
        ("rpc_reply_retry_attempts", "int", -1, "Pika: attempts."),
        ("rpc_reply_retry_delay", "float", 0.25, "Pika: seconds."),
        ("default_rpc_retry_attempts", "int", -1, "Pika: attempts."),
        ("rpc_retry_delay", "float", 0.25, "Pika: seconds."),
    ),
)
