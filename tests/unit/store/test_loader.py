"""From configuration to stores."""

import subprocess
import sys
import textwrap

import pytest
from oslo_config import cfg

from common import errors, log
from common.context import RequestContext
from common.upload import BytesSource, Upload
from glance_store import BadStoreConfiguration, Capability, UnknownScheme
from glance_store.drivers.memory import MemoryStore
from glance_store.loader import Stores, option_groups
from glance_store.outbound import Outbound, OutboundRules

CTX = RequestContext()


def configuration(tmp_path, *sections):
    """A ConfigOpts over a file of these sections."""
    file = tmp_path / "glance-api.conf"
    images = f"[glance_store]\nfilesystem_store_datadir = {tmp_path}/images\n"
    file.write_text("\n".join(textwrap.dedent(section) for section in (images, *sections)))
    conf = cfg.ConfigOpts()
    conf([], default_config_files=[str(file)])
    return conf


def stores(tmp_path, *sections):
    return Stores.configured(configuration(tmp_path, *sections))


def test_by_default_images_go_to_files_and_may_come_from_http(tmp_path):
    enabled = stores(tmp_path)
    assert enabled.schemes == {"file", "filesystem", "http", "https"}
    assert enabled.external_schemes == {"http", "https"}
    assert enabled.default_scheme == "file"
    assert enabled.default is enabled.for_scheme("filesystem")
    assert len(list(enabled)) == 2


@pytest.mark.parametrize(
    "name",
    [
        "filesystem",
        "glance.store.filesystem.Store",
        "glance_store._drivers.filesystem.Store",
        "glance_store.drivers.filesystem.FilesystemStore",
        "glance_store.drivers.filesystem:FilesystemStore",
    ],
)
def test_old_names_and_class_paths_are_accepted(tmp_path, name):
    """decisions.md 17."""
    enabled = stores(tmp_path, f"stores = {name}, glance.store.http.Store, file")
    assert "file" in enabled.schemes
    assert "http" in enabled.schemes


def test_one_driver_under_two_names_is_enabled_once(tmp_path):
    assert len(list(stores(tmp_path, "stores = file, filesystem, file"))) == 1


@pytest.mark.parametrize(
    ("settings", "option"),
    [
        ("stores = file, floppy", "stores"),
        ("stores = nowhere.at.All", "stores"),
        ("stores = glance_store.drivers.memory:CHUNK", "stores"),
        ("stores =", "stores"),
        ("default_store = memory", "default_store"),
        ("stores = http", "default_store"),
        ("filesystem_store_file_perm = 689", "filesystem_store_file_perm"),
        ("filesystem_store_datadirs = /a:b", "filesystem_store_datadir"),
        ("[copy_from]\ndenied_networks = 10.0.0.0/33", "denied_networks"),
    ],
)
def test_configuration_that_cannot_work_is_refused_by_option(tmp_path, settings, option):
    with pytest.raises(BadStoreConfiguration, match=option):
        stores(tmp_path, settings)


def test_missing_library_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "glance_store.drivers.swift", None)
    with pytest.raises(BadStoreConfiguration, match=r"pip install '\.\[swift\]'"):
        stores(tmp_path, "stores = file, swift")


def test_broken_driver_that_is_not_enabled_harms_nobody(tmp_path, monkeypatch):
    """REL-087."""
    monkeypatch.setitem(sys.modules, "glance_store.drivers.swift", None)
    assert stores(tmp_path).default_scheme == "file"


def test_store_options_are_read_from_where_they_once_were(tmp_path):
    file = tmp_path / "glance-api.conf"
    file.write_text(
        f"[DEFAULT]\nfilesystem_store_datadir = {tmp_path}/old\n"
        "default_store = memory\nknown_stores = file, memory\n"
    )
    conf = cfg.ConfigOpts()
    conf([], default_config_files=[str(file)])
    enabled = Stores.configured(conf)
    assert enabled.default_scheme == "memory"
    url, _ = enabled.for_scheme("file").add(CTX, "0" * 32, Upload(BytesSource(b"x")))
    assert url == f"file://{tmp_path}/old/{'0' * 32}"


def test_options_may_have_been_registered_before(tmp_path):
    conf = configuration(tmp_path)
    for group, options in option_groups():
        conf.register_opts(options, group=group)
    assert Stores.configured(conf).default_scheme == "file"


def test_unknown_scheme_is_named():
    enabled = Stores({"memory": MemoryStore({})})
    for lookup in (enabled.for_scheme, lambda scheme: enabled.for_url(f"{scheme}://x/y")):
        with pytest.raises(UnknownScheme, match="Store for scheme floppy not found"):
            lookup("floppy")


def test_two_drivers_cannot_serve_one_scheme():
    with pytest.raises(BadStoreConfiguration, match="'a' and 'b' both serve the scheme 'memory'"):
        Stores({"a": MemoryStore({}), "b": MemoryStore({})})


@pytest.mark.parametrize("url", ["MEMORY://x", " memory://x", "memoryx://x", "//x", ""])
def test_scheme_is_compared_whole_and_as_written(url):
    """SEC-040."""
    with pytest.raises(UnknownScheme):
        Stores({"memory": MemoryStore({})}).for_url(url)


def test_store_asked_for_by_a_caller_must_be_enabled():
    """V1-IMG-215, V1-IMG-314."""
    enabled = Stores({"memory": MemoryStore({})})
    assert enabled.named("memory") is enabled.default
    with pytest.raises(errors.Invalid, match="Required store bad is invalid"):
        enabled.named("bad")


class TwoSchemes(MemoryStore):
    schemes = ("two", "two+config")
    accepts_external = True
    internal_schemes = ("two+config",)


def test_internal_schemes_are_not_for_callers():
    """SEC-040."""
    enabled = Stores({"memory": MemoryStore({}), "two": TwoSchemes({})})
    assert enabled.external_schemes == {"two"}


def test_allowed_schemes_narrow_what_callers_may_name():
    rules = OutboundRules(allowed_schemes=frozenset({"https"}))
    enabled = Stores({"two": TwoSchemes({})}, outbound=Outbound(rules))
    assert enabled.external_schemes == frozenset()


def test_drivers_get_the_operators_outbound_rules():
    driver = MemoryStore({})
    outbound = Outbound(OutboundRules(max_redirects=1))
    Stores({"memory": driver}, outbound=outbound)
    assert driver.outbound is outbound


def test_secrets_outside_of_the_options_never_reach_the_log(tmp_path, monkeypatch):
    """SEC-031: an error of a library may quote what a file of Swift's accounts holds."""
    monkeypatch.setattr(log, "_secrets", set())
    monkeypatch.setattr(log, "_secret_pattern", None)
    accounts = tmp_path / "glance-swift.conf"
    accounts.write_text("[ref1]\nauth_address = https://auth\nuser = t:u\nkey = k3y/of-a-file\n")
    stores(
        tmp_path,
        f"""\
        stores = swift
        default_store = swift
        swift_store_config_file = {accounts}
        """,
    )
    assert log.scrub("refused: k3y/of-a-file") == "refused: ***"


def test_every_bundled_option_is_declared():
    groups = dict(option_groups())
    names = {option.dest for option in groups["glance_store"]}
    assert {"stores", "default_store", "filesystem_store_datadir", "https_insecure"} <= names
    assert "denied_networks" in {option.dest for option in groups["copy_from"]}


def test_https_is_verified_by_default():
    """M05."""
    options = {option.dest: option for option in dict(option_groups())["glance_store"]}
    assert options["https_insecure"].default is False


THIRD_PARTY = {
    "floppy_store.py": """
        from oslo_config import cfg
        from glance_store import Capability
        from glance_store.drivers.memory import MemoryStore

        class FloppyStore(MemoryStore):
            schemes = ("floppy",)
            options = (cfg.IntOpt("floppy_store_tracks", default=80),)

            def validate(self, url):
                pass

            def _image_id(self, url):
                return url.rpartition("/")[2]

            def add(self, ctx, image_id, upload):
                super().add(ctx, image_id, upload)
                return f"floppy://{self.conf['floppy_store_tracks']}/{image_id}", {}
    """,
    "floppy_store-1.0.dist-info/METADATA": """
        Metadata-Version: 2.1
        Name: floppy-store
        Version: 1.0
    """,
    "floppy_store-1.0.dist-info/entry_points.txt": """
        [glance_store.drivers]
        floppy = floppy_store:FloppyStore
    """,
}

USE = """
    from oslo_config import cfg
    from common.context import RequestContext
    from common.upload import BytesSource, Upload
    from glance_store.loader import Stores

    conf = cfg.ConfigOpts()
    conf([], default_config_files=["glance-api.conf"])
    store = Stores.configured(conf).default
    url, _ = store.add(RequestContext(), "image", Upload(BytesSource(b"bytes")))
    print(url, b"".join(store.get(RequestContext(), url)))
"""


def test_installed_third_party_driver_is_found_and_used(tmp_path):
    for name, text in THIRD_PARTY.items():
        path = tmp_path / "site" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text).strip() + "\n")
    (tmp_path / "glance-api.conf").write_text(
        "[glance_store]\nstores = floppy\ndefault_store = floppy\nfloppy_store_tracks = 40\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(USE)],
        cwd=tmp_path,
        env={"PYTHONPATH": str(tmp_path / "site")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.strip() == "floppy://40/image b'bytes'", done.stderr


def test_memory_declares_what_it_can_do():
    assert Capability.LIST in Stores({"memory": MemoryStore({})}).default.capabilities
