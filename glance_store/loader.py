"""From configuration to stores: which drivers are loaded, and which scheme leads to which.

A driver is an entry point of the group `glance_store.drivers`. Only those that the option
`stores` names are imported, so a broken one that nobody enabled harms nobody.
"""

import contextlib
import copy
import importlib.metadata
import logging
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, Self

from oslo_config import cfg

from common import errors, log
from common.context import RequestContext
from glance_store import outbound as outbound_rules
from glance_store.driver import Store
from glance_store.errors import BadStoreConfiguration, UnknownScheme
from glance_store.fetch import OpenedSource
from glance_store.guarded import GuardedStore
from glance_store.outbound import Outbound, OutboundRules

LOG = logging.getLogger(__name__)

GROUP: Final = "glance_store"
ENTRY_POINTS: Final = "glance_store.drivers"

OPTIONS: Final = (
    cfg.ListOpt(
        "stores",
        default=["file", "http"],
        deprecated_opts=[cfg.DeprecatedOpt("known_stores", group="DEFAULT")],
        help="Drivers to enable, by name.",
    ),
    cfg.StrOpt(
        "default_store",
        default="file",
        deprecated_group="DEFAULT",
        help="Scheme of the store that takes uploads whose sender names none.",
    ),
    cfg.IntOpt(
        "store_capabilities_update_min_interval",
        default=0,
        help="Accepted for old files; what a store can do does not change while it runs.",
    ),
)

# What drivers were called before they were entry points.
_OLD_NAME: Final = re.compile(r"glance(?:\.store|_store\._drivers)\.(\w+)\.Store")
_RENAMED: Final = {"filesystem": "file", "vmware_datastore": "vmware"}


class Stores:
    """The enabled stores. Each is reached through the schemes of its URLs."""

    def __init__(
        self,
        drivers: Mapping[str, Store],
        default_scheme: str | None = None,
        outbound: Outbound | None = None,
    ) -> None:
        """drivers: by the name that the log knows them by; the first is the default one's."""
        self.outbound = outbound or Outbound()
        self._by_scheme: dict[str, GuardedStore] = {}
        self._stores = [GuardedStore(name, driver) for name, driver in drivers.items()]
        for driver in drivers.values():
            driver.outbound = self.outbound
        for store in self._stores:
            self._map(store)
        if default_scheme is None:
            default_scheme = next(iter(self._by_scheme))
        if default_scheme not in self._by_scheme:
            known = ", ".join(sorted(self._by_scheme))
            raise BadStoreConfiguration(
                f"default_store: '{default_scheme}' is not a scheme of an enabled store ({known})"
            )
        self.default_scheme = default_scheme

    @classmethod
    def configured(cls, conf: cfg.ConfigOpts) -> Self:
        """The stores that conf enables.

        Registers the options of their drivers. Raises BadStoreConfiguration, naming the option.
        """
        register(conf, [(GROUP, OPTIONS), (outbound_rules.GROUP, outbound_rules.OPTIONS)])
        # By class, so that a driver that is named twice, in different ways, is enabled once.
        named = {_load(entry_point): entry_point for entry_point in _enabled(conf)}
        drivers = {
            entry_point.name: _driver(driver, entry_point, conf)
            for driver, entry_point in named.items()
        }
        if not drivers:
            raise BadStoreConfiguration("stores: no driver is enabled")
        for driver in drivers.values():
            log.hide(*driver.secrets())
        rules = OutboundRules.configured(
            _values(conf, outbound_rules.GROUP, outbound_rules.OPTIONS)
        )
        return cls(drivers, conf.glance_store.default_store, Outbound(rules))

    def __iter__(self) -> Iterator[Store]:
        return iter(self._stores)

    @property
    def schemes(self) -> frozenset[str]:
        return frozenset(self._by_scheme)

    @property
    def external_schemes(self) -> frozenset[str]:
        """Schemes that a caller's location or copy-from may have."""
        allowed = self.outbound.rules.allowed_schemes
        return frozenset(
            scheme
            for scheme, store in self._by_scheme.items()
            if store.accepts_external and scheme not in store.internal_schemes
            if scheme in allowed or not allowed
        )

    @property
    def default(self) -> Store:
        return self._by_scheme[self.default_scheme]

    def for_scheme(self, scheme: str) -> Store:
        """Raises UnknownScheme."""
        try:
            return self._by_scheme[scheme]
        except KeyError:
            raise UnknownScheme(scheme) from None

    def for_url(self, url: str) -> Store:
        """The store behind url. Raises UnknownScheme."""
        return self.for_scheme(url.partition(":")[0])

    def named(self, name: str) -> Store:
        """The store that a caller asked for by scheme. Raises Invalid."""
        if name not in self._by_scheme:
            raise errors.Invalid(f"Required store {name} is invalid")
        return self._by_scheme[name]

    def lends_rights(self, ctx: RequestContext, url: str) -> bool:
        """Whether a copy from url would be read with the service's rights instead of ctx's.

        A scheme that the operator has listed in allowed_schemes is anybody's to copy from.
        """
        scheme = url.partition(":")[0]
        if scheme in self.outbound.rules.allowed_schemes:
            return False
        return self.for_scheme(scheme).lends_rights(ctx, url)

    def external_size(self, ctx: RequestContext, url: str) -> int | None:
        """The size of what a caller's url leads to, None if the source does not tell.

        Raises NotFound for a source that says so. Every other failure is BackendUnavailable,
        raised when sizing_timeout is over: neither words nor time tell a caller whether a port
        is open, closed or filtered (SEC-044).
        """
        started = time.monotonic()
        try:
            return self.for_url(url).size(ctx, url)
        except errors.ServiceUnavailable:
            spent = time.monotonic() - started
            time.sleep(max(self.outbound.rules.sizing_timeout - spent, 0))
            raise

    def open_source(self, ctx: RequestContext, url: str) -> OpenedSource:
        """Open url for copying; a context manager. Raises what Store.get raises."""
        return OpenedSource(self.for_url(url).get(ctx, url), self.outbound.rules)

    def _map(self, store: GuardedStore) -> None:
        for scheme in store.schemes:
            other = self._by_scheme.setdefault(scheme, store)
            if other is not store:
                raise BadStoreConfiguration(
                    f"stores: '{other.name}' and '{store.name}' both serve the scheme '{scheme}'"
                )


def option_groups() -> list[tuple[str, list[cfg.Opt]]]:
    """Every section and option that the stores of this distribution read.

    A driver that cannot be loaded is left out: it matters only to whoever enables it.
    """
    options = list(OPTIONS)
    for entry_point in importlib.metadata.entry_points(group=ENTRY_POINTS):
        if entry_point.value.startswith(f"{__package__}."):
            with contextlib.suppress(BadStoreConfiguration):
                options += with_former_section(_load(entry_point).options)
    return [(GROUP, options), (outbound_rules.GROUP, list(outbound_rules.OPTIONS))]


def register(conf: cfg.ConfigOpts, groups: Sequence[tuple[str, Sequence[cfg.Opt]]]) -> None:
    for group, options in groups:
        conf.register_opts(options, group=group)


def with_former_section(options: Sequence[cfg.Opt]) -> list[cfg.Opt]:
    """options, read also from [DEFAULT], where they were before stores had a section."""
    copies = [copy.copy(option) for option in options]
    for option in copies:
        former = cfg.DeprecatedOpt(option.name, group="DEFAULT")
        option.deprecated_opts = [*option.deprecated_opts, former]
    return copies


def _values(conf: cfg.ConfigOpts, group: str, options: Sequence[cfg.Opt]) -> dict[str, Any]:
    return {option.dest: conf[group][option.dest] for option in options}


def _enabled(conf: cfg.ConfigOpts) -> Iterator[importlib.metadata.EntryPoint]:
    """The drivers that `stores` names, also by what they were called in older releases."""
    for name in conf.glance_store.stores:
        old = _OLD_NAME.fullmatch(name)
        module = old[1] if old else name
        yield _entry_point(_RENAMED.get(module, module))


def _driver(
    driver: type[Store], entry_point: importlib.metadata.EntryPoint, conf: cfg.ConfigOpts
) -> Store:
    options = with_former_section(driver.options)
    register(conf, [(GROUP, options)])
    try:
        return driver(_values(conf, GROUP, options))
    except ImportError as error:
        raise _missing(entry_point, error) from error


def _entry_point(name: str) -> importlib.metadata.EntryPoint:
    found = importlib.metadata.entry_points(group=ENTRY_POINTS)
    named = {entry_point.value: entry_point for entry_point in found.select(name=name)}
    if len(named) > 1:
        raise BadStoreConfiguration(f"stores: several packages provide a driver '{name}'")
    if named:
        return next(iter(named.values()))
    if "." in name:
        module, _, attribute = name.replace(":", ".").rpartition(".")
        return importlib.metadata.EntryPoint(name, f"{module}:{attribute}", ENTRY_POINTS)
    known = ", ".join(sorted(found.names))
    raise BadStoreConfiguration(f"stores: there is no driver '{name}'; installed are {known}")


def _load(entry_point: importlib.metadata.EntryPoint) -> type[Store]:
    try:
        driver = entry_point.load()
    except ImportError as error:
        raise _missing(entry_point, error) from error
    except Exception as error:
        raise BadStoreConfiguration(
            f"stores: the driver '{entry_point.name}' cannot be loaded: {error}"
        ) from error
    if not (isinstance(driver, type) and issubclass(driver, Store)):
        raise BadStoreConfiguration(f"stores: '{entry_point.name}' is not a store driver")
    return driver


def _missing(
    entry_point: importlib.metadata.EntryPoint, error: ImportError
) -> BadStoreConfiguration:
    message = f"stores: the driver '{entry_point.name}' cannot be loaded: {error}"
    extras = entry_point.dist.metadata.get_all("Provides-Extra") if entry_point.dist else None
    if entry_point.name in (extras or ()):
        message += f"; install what it needs with: pip install '.[{entry_point.name}]'"
    return BadStoreConfiguration(message)
