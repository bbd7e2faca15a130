"""The registry's wiring, by its options."""

from pathlib import Path

import pytest
import webob

from common import config
from glance_registry.app import build


@pytest.mark.parametrize(("enabled", "status"), [("true", 400), ("false", 404)])
def test_the_routes_can_be_switched_off(tmp_path: Path, enabled: str, status: int) -> None:
    """registry-v1.md section 1; a faulty parameter tells without a database whether they are on."""
    file = tmp_path / "glance-registry.conf"
    database = f"connection = sqlite:///{tmp_path / 'glance.sqlite'}"
    file.write_text(f"[DEFAULT]\nenable_v1_registry = {enabled}\n[database]\n{database}\n")
    app = build(config.load("registry", ["--config-file", str(file)]))
    answer = webob.Request.blank("/images?limit=x").get_response(app)
    assert answer.status_int == status
    assert webob.Request.blank("/healthcheck").get_response(app).status_int == 200
