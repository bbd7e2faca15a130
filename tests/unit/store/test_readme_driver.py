"""The driver that README.md shows, installed as a third party would, and the test it shows."""

import importlib
import re
import sys
import types
from pathlib import Path

import pytest

from common import config
from common.context import RequestContext
from common.upload import BytesSource, Upload
from glance_store.loader import Stores, option_groups

README = Path(__file__).resolve().parents[3] / "README.md"
CHAPTER = README.read_text().partition("## Writing a store driver")[2].partition("\n## ")[0]
DRIVER, SETUP, TEST = re.findall(r"```python\n(.*?)```", CHAPTER, re.DOTALL)


def module_from(name: str, source: str) -> types.ModuleType:
    module = types.ModuleType(name)
    exec(compile(source, f"{README.name}: {name}.py", "exec"), module.__dict__)
    return module


# pytest runs the suite that this class inherits.
sys.modules["shelf"] = module_from("shelf", DRIVER)
TestShelfStore = module_from("test_shelf", TEST).TestShelfStore
TestShelfStore.__module__ = __name__


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory on the path with what pip makes of the package that README shows."""
    site = tmp_path / "site"
    described = site / "shelf-0.dist-info"
    described.mkdir(parents=True)
    (site / "shelf.py").write_text(DRIVER)
    (described / "METADATA").write_text("Metadata-Version: 2.1\nName: shelf\nVersion: 0\n")
    [entry_point] = re.findall(r'"glance_store.drivers": \["(.*)"\]', SETUP)
    (described / "entry_points.txt").write_text(f"[glance_store.drivers]\n{entry_point}\n")
    monkeypatch.delitem(sys.modules, "shelf")
    monkeypatch.syspath_prepend(site)
    importlib.invalidate_caches()
    return site


def test_the_package_brings_a_store_that_options_enable(
    installed: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shelf = tmp_path / "shelf"
    shelf.mkdir()
    file = tmp_path / "glance-api.conf"
    file.write_text(
        f"[glance_store]\nfilesystem_store_datadir = {tmp_path}/images\n"
        f"stores = file,http,shelf\ndefault_store = shelf\nshelf_dir = {shelf}\n"
    )
    conf = config.load("api", ["--config-file", str(file)], extra_groups=option_groups())
    stores = Stores.configured(conf)
    config.report(conf)
    assert "unknown options" not in caplog.text

    ctx = RequestContext()
    url, _ = stores.default.add(ctx, "an-image", Upload(BytesSource(b"bytes")))
    assert (shelf / "an-image").read_bytes() == b"bytes"
    assert b"".join(stores.for_url(url).get(ctx, url)) == b"bytes"
    assert "shelf" not in stores.external_schemes
