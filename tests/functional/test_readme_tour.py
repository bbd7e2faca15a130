"""The tours of README.md, pasted."""

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.functional.daemons import ROOT, free_port
from tests.functional.test_serve import Serve

CURL_TOUR, GLANCE_TOUR = re.findall(
    r"```sh\n(.*?)```",
    (ROOT / "README.md").read_text().partition("## Try it")[2].partition("\n## ")[0],
    re.DOTALL,
)

# Some versions of curl show the names of headers in bold type.
_ESCAPES = re.compile(r"\x1b\[\d*m")


@pytest.fixture(scope="module")
def serve(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serve]:
    running = Serve(tmp_path_factory.mktemp("serve"), (free_port(), free_port()))
    try:
        running.wait_until_ready()
        yield running
    finally:
        running.stop()


def pasted(shell: str, tour: str, serve: Serve, script: Path) -> str:
    """What the tour prints in a terminal, of which every step must succeed."""
    script.write_text(tour.replace(":9292", f":{serve.api_port}"))
    ended = subprocess.run(
        ["script", "-qec", f"{shell} -e {script}", "/dev/null"],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return _ESCAPES.sub("", ended.stdout).replace("\r", "")


@pytest.mark.skipif(not shutil.which("curl"), reason="needs curl")
@pytest.mark.parametrize("shell", ["bash", "sh"])
def test_the_tour_with_curl(shell: str, serve: Serve, tmp_path: Path) -> None:
    shown = pasted(shell, CURL_TOUR, serve, tmp_path / "tour.sh")
    assert '"os_type": "prose"' in shown
    assert "x-image-meta-name: read me\n" in shown
    assert "the same\n# Glance v1\n" in shown
    assert '"name": "later",\n        "status": "active",' in shown
    assert "}\nx-image-meta-status: active\n" in shown
    assert '"member_id": "some-tenant"' in shown
    assert serve.client.get("/v1/images?is_public=none").names == []


def test_the_tour_with_the_glance_command(serve: Serve, tmp_path: Path) -> None:
    installed = Path(sys.executable).with_name("glance")
    install, _, tour = GLANCE_TOUR.partition("\n")
    assert install.endswith("pip install --quiet python-glanceclient")
    copy = tmp_path / "setup.copy"
    tour = tour.replace("var/client/bin/glance", str(installed))
    tour = tour.replace("var/setup.copy", str(copy))
    shown = pasted("bash", tour, serve, tmp_path / "tour.sh")
    assert "| Größe M | raw         | bare             |" in shown
    assert "| Property 'os_type' | source" in shown
    assert copy.read_bytes() == (ROOT / "setup.py").read_bytes()
    assert serve.client.get("/v1/images?is_public=none").names == []
