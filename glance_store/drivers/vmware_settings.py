"""The options of the VMware driver, checked and made into values."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Self

from oslo_config import cfg
from oslo_utils import netutils

from glance_store.drivers.vmware_session import Server
from glance_store.errors import BadStoreConfiguration

LOG = logging.getLogger(__name__)

OPTIONS: Final = (
    cfg.StrOpt(
        "vmware_server_host",
        help="Host name or address of the vCenter or ESX, with :port if that is not 443.",
    ),
    cfg.StrOpt("vmware_server_username", help="User of the vCenter or ESX."),
    cfg.StrOpt("vmware_server_password", secret=True, help="That user's password."),
    cfg.IntOpt(
        "vmware_api_retry_count",
        default=10,
        help="How often a call is repeated when the server is away or overloaded.",
    ),
    cfg.IntOpt(
        "vmware_task_poll_interval",
        default=5,
        help="Seconds between two looks at a task that vSphere is working on, at most.",
    ),
    cfg.StrOpt(
        "vmware_store_image_dir",
        default="/openstack_glance",
        help="Directory on the datastores that holds the images.",
    ),
    cfg.BoolOpt(
        "vmware_insecure",
        default=False,
        deprecated_name="vmware_api_insecure",
        help="Do not verify the server's certificate. Ignored where vmware_ca_file is set.",
    ),
    cfg.StrOpt("vmware_ca_file", help="CA bundle to verify the server's certificate with."),
    cfg.MultiStrOpt(
        "vmware_datastores",
        default=[],
        help="A datastore for images, as datacenter:datastore:weight; repeatable. Among those "
        "of the greatest weight that have room, the one with the most free space is used.",
    ),
)


@dataclass(frozen=True, slots=True)
class Datastore:
    """One entry of vmware_datastores; of two, the one with the greater weight is filled first."""

    datacenter: str
    name: str
    weight: int = 0


@dataclass(frozen=True, slots=True)
class Settings:
    """What the section says. `host` is as configured, for URLs; `directory` has no outer slash."""

    host: str
    server: Server
    directory: str
    datastores: tuple[Datastore, ...]
    api_retry_count: int
    task_poll_interval: int

    @classmethod
    def read(cls, conf: Mapping[str, Any]) -> Self:
        """Raises BadStoreConfiguration, naming the option."""
        return cls(
            host=_required(conf, "vmware_server_host"),
            server=_server(conf),
            directory=_directory(conf.get("vmware_store_image_dir") or "/openstack_glance"),
            datastores=_datastores(conf.get("vmware_datastores") or ()),
            api_retry_count=_positive(conf, "vmware_api_retry_count", 10),
            task_poll_interval=_positive(conf, "vmware_task_poll_interval", 5),
        )


def _required(conf: Mapping[str, Any], name: str) -> str:
    value: str = conf.get(name) or ""
    if not value:
        raise BadStoreConfiguration(f"{name} must be set for the vmware store.")
    return value


def _server(conf: Mapping[str, Any]) -> Server:
    try:
        host, port = netutils.parse_host_port(_required(conf, "vmware_server_host"), 443)
    except ValueError:
        raise BadStoreConfiguration("vmware_server_host is not a host or host:port.") from None
    ca_file = conf.get("vmware_ca_file") or None
    insecure = bool(conf.get("vmware_insecure"))
    if insecure and not ca_file:
        LOG.warning("vmware_insecure is set: the server's certificate is not verified")
    return Server(
        host,
        port,
        username=_required(conf, "vmware_server_username"),
        password=_required(conf, "vmware_server_password"),
        ca_file=ca_file,
        insecure=insecure,
    )


def _directory(text: str) -> str:
    directory = text.strip("/")
    if not directory or any(part in ("", ".", "..") for part in directory.split("/")):
        raise BadStoreConfiguration("vmware_store_image_dir must name a directory.")
    return directory


def _positive(conf: Mapping[str, Any], name: str, default: int) -> int:
    value = int(conf.get(name, default))
    if value <= 0:
        raise BadStoreConfiguration(f"{name} must be greater than zero.")
    return value


def _datastores(entries: Sequence[str]) -> tuple[Datastore, ...]:
    if not entries:
        raise BadStoreConfiguration("vmware_datastores must name at least one datastore.")
    return tuple(_datastore(entry) for entry in entries)


def _datastore(entry: str) -> Datastore:
    # From the right: the path of a datacenter may hold colons.
    parts = [part.strip() for part in entry.rsplit(":", 2)]
    weight = parts[2] if len(parts) == 3 and parts[2] else "0"
    if len(parts) < 2 or not parts[0] or not parts[1] or not weight.isdecimal():
        raise BadStoreConfiguration(
            "vmware_datastores must be datacenter:datastore:weight, with a whole number as weight."
        )
    return Datastore(parts[0], parts[1], int(weight))
