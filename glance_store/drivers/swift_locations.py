"""The URLs of images in Swift, and the references that keep credentials out of them.

Three forms exist in databases: `swift+https://tenant%3Auser:key@auth/v2.0/container/object`
from the single-tenant store of old, `swift+https://host/v1/AUTH_account/container/object` from
the multi-tenant store, and `swift+config://reference/container/object`, where the reference
names a section of swift_store_config_file. Nothing here connects.
"""

import configparser
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final
from urllib.parse import quote, unquote

from glance_store.errors import BadLocation, BadStoreConfiguration

SCHEMES: Final = ("swift", "swift+http", "swift+https", "swift+config")
CONFIG_SCHEME: Final = "swift+config"
AUTH_VERSIONS: Final = {"1": "1", "1.0": "1", "2": "2", "2.0": "2", "3": "3", "3.0": "3"}


@dataclass(frozen=True, slots=True)
class SwiftLocation:
    """One parsed URL. Exactly one of `reference` and `base` is set.

    `base` is the http(s) URL of the identity service if there is a user, otherwise of the
    storage account itself.
    """

    container: str
    name: str
    reference: str | None = None
    base: str | None = field(default=None, repr=False)
    user: str | None = None
    key: str | None = field(default=None, repr=False)

    @property
    def url(self) -> str:
        if self.reference is not None:
            return f"{CONFIG_SCHEME}://{self.reference}/{self.container}/{self.name}"
        protocol, _, rest = (self.base or "").partition("://")
        who = ""
        if self.user is not None:
            who = f"{quote(self.user, safe='')}:{quote(self.key or '', safe='')}@"
        return f"swift+{protocol}://{who}{rest.strip('/')}/{self.container}/{self.name}"


def parse(url: str) -> SwiftLocation:
    """Take a URL apart. Raises BadLocation unless it has one of the three forms."""
    scheme, _, rest = url.partition("://")
    # The container and the object are the last two parts; a key may hold a slash, quoted or not.
    parts = rest.rsplit("/", 2)
    if scheme not in SCHEMES or "://" in rest or len(parts) != 3 or not all(parts):
        raise BadLocation()
    where, container, name = parts
    if scheme == CONFIG_SCHEME:
        if "/" in where or "@" in where:
            raise BadLocation()
        return SwiftLocation(container, name, reference=where)
    who, at, where = where.rpartition("@")
    if not where.strip("/") or where.startswith("/"):
        raise BadLocation()
    protocol = "http" if scheme == "swift+http" else "https"
    base = f"{protocol}://{where}"
    if not at:
        return SwiftLocation(container, name, base=base)
    user, colon, key = who.rpartition(":")
    if not colon or not user:
        raise BadLocation()
    return SwiftLocation(container, name, base=base, user=unquote(user), key=unquote(key))


@dataclass(frozen=True, slots=True)
class Reference:
    """Credentials of one Swift account: a section of swift_store_config_file."""

    auth_address: str = field(repr=False)
    user: str
    key: str = field(repr=False)
    auth_version: str = "2"
    user_domain_id: str | None = "default"
    user_domain_name: str | None = None
    project_domain_id: str | None = "default"
    project_domain_name: str | None = None

    def used_by(self, location: SwiftLocation) -> "Reference":
        """These settings with the address, user and key that a location brings."""
        assert location.base is not None
        return replace(
            self, auth_address=location.base, user=location.user or "", key=location.key or ""
        )


def read_references(conf: Mapping[str, Any]) -> dict[str, Reference]:
    """The configured references by name.

    Without swift_store_config_file the deprecated options make up the default one, as they did
    in Glance, so that a URL never needs to hold a key. Raises BadStoreConfiguration.
    """
    version = _auth_version(str(conf["swift_store_auth_version"]), "swift_store_auth_version")
    path = conf["swift_store_config_file"]
    if path:
        return _read_file(path, version)
    address, user = conf["swift_store_auth_address"], conf["swift_store_user"]
    key = conf["swift_store_key"]
    if not (address and user and key):
        return {}
    reference = Reference(_with_scheme(address), user, key, version)
    return {conf["default_swift_reference"]: reference}


def _read_file(path: str, version: str) -> dict[str, Reference]:
    parser = configparser.ConfigParser()
    try:
        with open(path, encoding="utf-8") as file:
            # Glance allowed indented lines, which would otherwise continue the one before.
            parser.read_string("\n".join(line.strip() for line in file))
    except (OSError, UnicodeDecodeError):
        raise BadStoreConfiguration("swift_store_config_file cannot be read.") from None
    except configparser.Error as error:
        # The parser's own message quotes the line, which may be the one with the key.
        problem = type(error).__name__
        raise BadStoreConfiguration(f"swift_store_config_file is malformed: {problem}.") from None
    return {name: _reference(name, _values(parser, name), version) for name in parser.sections()}


def _values(parser: configparser.ConfigParser, name: str) -> dict[str, str]:
    """A section with %% read as %, as Glance did, and a single % taken as it stands."""
    try:
        return dict(parser.items(name))
    except configparser.InterpolationError:
        return dict(parser.items(name, raw=True))


def _reference(name: str, section: Mapping[str, str], version: str) -> Reference:
    values = {option: section.get(option, "").strip() for option in ("auth_address", "user", "key")}
    for option, value in values.items():
        if not value:
            raise BadStoreConfiguration(
                f"swift_store_config_file: reference {name} has no {option}."
            )
    where = f"swift_store_config_file: auth_version of reference {name}"
    return Reference(
        _with_scheme(values["auth_address"]),
        values["user"],
        values["key"],
        _auth_version(section.get("auth_version", version), where),
        **_domain(section, "user_domain"),
        **_domain(section, "project_domain"),
    )


def _domain(section: Mapping[str, str], kind: str) -> dict[str, str | None]:
    """A domain's name counts where no identifier is given; "default" where neither is."""
    name, identifier = section.get(f"{kind}_name"), section.get(f"{kind}_id")
    if identifier is None and name is None:
        identifier = "default"
    return {f"{kind}_id": identifier, f"{kind}_name": name}


def _with_scheme(address: str) -> str:
    return address if address.startswith(("http://", "https://")) else f"https://{address}"


def _auth_version(text: str, option: str) -> str:
    try:
        return AUTH_VERSIONS[text.strip().removeprefix("v")]
    except KeyError:
        raise BadStoreConfiguration(f"{option} must be 1, 2 or 3.") from None
