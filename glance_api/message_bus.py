"""oslo.messaging's configuration, with the bus that an older file describes option by option."""

from collections.abc import Mapping, Sequence
from typing import Final
from urllib.parse import quote

from oslo_config import cfg

from common.config import Configuration, for_library, settings

_RABBIT: Final = "oslo_messaging_rabbit"
_RABBIT_BACKENDS: Final = ("rabbit", "kombu", "oslo_messaging._drivers.impl_rabbit:RabbitDriver")

Settings = Mapping[tuple[str, str], Sequence[str]]


def library_conf(conf: Configuration) -> cfg.ConfigOpts:
    """What oslo.messaging is given; needs oslo.messaging."""
    from oslo_messaging import opts

    library = for_library(conf)
    url = older_transport_url(settings(conf))
    if url is not None:
        declared = [option for _, options in opts.list_opts() for option in options]
        option = next(option for option in declared if option.name == "transport_url")
        library.register_opt(option)
        library.set_default("transport_url", url)
    return library


def older_transport_url(found: Settings) -> str | None:
    """The URL that rabbit_host, rabbit_userid and the like stand for.

    None where the files give a URL, none of these options, or another transport.
    """
    if ("DEFAULT", "transport_url") in found:
        return None
    if found.get(("DEFAULT", "rpc_backend"), ["rabbit"])[-1] not in _RABBIT_BACKENDS:
        return None
    values = {
        name.removeprefix("rabbit_"): given[-1]
        for section in ("DEFAULT", _RABBIT)
        for (where, name), given in found.items()
        if where == section and name.startswith("rabbit_")
    }
    if not values.keys() & {"host", "hosts", "port", "userid", "password", "virtual_host"}:
        return None
    default_port = values.get("port", "5672")
    hosts = values.get("hosts") or f"{values.get('host', 'localhost')}:{default_port}"
    user = quote(values.get("userid", "guest"), safe="")
    password = quote(values.get("password", "guest"), safe="")
    servers = (_with_port(host.strip(), default_port) for host in hosts.split(","))
    login = ",".join(f"{user}:{password}@{server}" for server in servers)
    return f"rabbit://{login}/{quote(values.get('virtual_host', '/').strip('/'), safe='')}"


def _with_port(host: str, port: str) -> str:
    return host if host.rpartition("]")[2].count(":") == 1 else f"{host}:{port}"
