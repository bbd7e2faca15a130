"""osprofiler's filter, and where its traces go."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from osprofiler import notifier, profiler, web
from osprofiler.drivers.base import Driver

from common import config
from common.config import ConfigurationError
from common.wsgi import paste
from common.wsgi.faults import Application
from common.wsgi.filters import osprofiler_factory

TRACES: list[dict[str, Any]] = []


class Kept(Driver):
    """Where traces go in these tests: kept://."""

    @classmethod
    def get_name(cls) -> str:
        return "kept"

    def notify(self, info: dict[str, Any], **_: Any) -> None:
        TRACES.append({**info, "service": self.service})


@pytest.fixture(autouse=True)
def _alone() -> Iterator[None]:
    TRACES.clear()
    yield
    profiler.clean()
    notifier.clear_notifier_cache()
    notifier.set(notifier._noop_notifier)
    web._ENABLED = web._HMAC_KEYS = None


def filtered(tmp_path: Path, *options: str) -> Application:
    file = tmp_path / "glance-api.conf"
    file.write_text("\n".join(("[profiler]", "connection_string = kept://", *options)))
    token = paste._configuration.set(config.load("api", ["--config-file", str(file)]))
    try:
        return osprofiler_factory({})(answer)
    finally:
        paste._configuration.reset(token)


def answer(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    start_response("200 OK", [])
    return [b"answer"]


def signed(key: str) -> dict[str, Any]:
    """A request that asks to be traced."""
    profiler.init(key)
    headers = web.get_trace_id_headers()
    profiler.clean()
    environ = {f"HTTP_{name.upper().replace('-', '_')}": text for name, text in headers.items()}
    where = {"SERVER_NAME": "here", "SERVER_PORT": "80", "wsgi.url_scheme": "http"}
    return {"REQUEST_METHOD": "GET", "PATH_INFO": "/v1/images", **where, **environ}


@pytest.mark.parametrize(("key", "names"), [("k2", ["wsgi-start", "wsgi-stop"]), ("other", [])])
def test_a_request_is_traced_if_it_is_signed(tmp_path: Path, key: str, names: list[str]) -> None:
    """Section 4.6"""
    app = filtered(tmp_path, "enabled = true", "hmac_keys = k1,k2")
    assert list(app(signed(key), lambda *_: None)) == [b"answer"]
    assert [trace["name"] for trace in TRACES] == names
    assert {trace["service"] for trace in TRACES} <= {"api"}


def test_nothing_is_traced_unless_asked_for(tmp_path: Path) -> None:
    assert filtered(tmp_path) is answer


def test_a_key_that_everybody_knows_stops_the_start(tmp_path: Path) -> None:
    """M06"""
    with pytest.raises(ConfigurationError, match="hmac_keys"):
        filtered(tmp_path, "enabled = true")
