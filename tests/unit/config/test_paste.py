"""Paste files: which one, which pipeline, and that a file written for Glance works."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from common import config
from common.wsgi import paste

ETC = Path(__file__).parents[3] / "etc"

# As in an operator's Mitaka file, less the comments.
MITAKA_API = """
[pipeline:glance-api]
pipeline = cors healthcheck versionnegotiation osprofiler unauthenticated-context rootapp
[pipeline:glance-api-caching]
pipeline = cors healthcheck versionnegotiation osprofiler unauthenticated-context cache rootapp
[pipeline:glance-api-trusted-auth+cachemanagement]
pipeline = cors healthcheck versionnegotiation osprofiler context cache cachemanage rootapp
[pipeline:glance-api-gzipped]
pipeline = gzip rootapp
[composite:rootapp]
paste.composite_factory = glance.api:root_app_factory
/: apiversions
/v1: apiv1app
/v2: apiv2app
[app:apiversions]
paste.app_factory = glance.api.versions:create_resource
[app:apiv1app]
paste.app_factory = glance.api.v1.router:API.factory
[app:apiv2app]
paste.app_factory = glance.api.v2.router:API.factory
[filter:healthcheck]
paste.filter_factory = oslo_middleware:Healthcheck.factory
backends = disable_by_file
disable_by_file_path = /etc/glance/healthcheck_disable
[filter:versionnegotiation]
paste.filter_factory = glance.api.middleware.version_negotiation:VersionNegotiationFilter.factory
[filter:cache]
paste.filter_factory = glance.api.middleware.cache:CacheFilter.factory
[filter:cachemanage]
paste.filter_factory = glance.api.middleware.cache_manage:CacheManageFilter.factory
[filter:context]
paste.filter_factory = glance.api.middleware.context:ContextMiddleware.factory
[filter:unauthenticated-context]
paste.filter_factory = glance.api.middleware.context:UnauthenticatedContextMiddleware.factory
[filter:authtoken]
paste.filter_factory = keystonemiddleware.auth_token:filter_factory
delay_auth_decision = true
[filter:gzip]
paste.filter_factory = glance.api.middleware.gzip:GzipMiddleware.factory
[filter:osprofiler]
paste.filter_factory = osprofiler.web:WsgiMiddleware.factory
hmac_keys = SECRET_KEY  #DEPRECATED
enabled = yes  #DEPRECATED
[filter:cors]
paste.filter_factory =  oslo_middleware.cors:filter_factory
oslo_config_project = glance
oslo_config_program = glance-api
"""

FOLSOM_REGISTRY = """
[pipeline:glance-registry]
pipeline = unauthenticated-context registryapp
[app:registryapp]
paste.app_factory = glance.common.wsgi:app_factory
glance.app_factory = glance.registry.api.v1:API
[filter:unauthenticated-context]
paste.filter_factory = glance.common.wsgi:filter_factory
glance.filter_factory = glance.api.middleware.context:UnauthenticatedContextMiddleware
"""

Built = list[tuple[str, dict[str, str]]]


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch) -> Built:
    """Stand in for every factory; what was built, innermost last."""
    calls: Built = []

    def application(environ: Any, start_response: Any) -> Iterable[bytes]:
        return ()

    def factory(name: str) -> Any:
        def make_app(*arguments: Any, **local: str) -> Any:
            calls.append((name, local))
            if name.endswith("root_factory"):
                for app in local.values():
                    arguments[0].get_app(app)
            return application

        def make_filter(_: Any, **local: str) -> Any:
            calls.append((name, local))
            assert paste.configuration() is not None
            return lambda app: app

        is_filter = name.split(":")[0] not in ("glance_api.app", "glance_registry.app")
        return make_filter if is_filter else make_app

    class EntryPoint:
        def __init__(self, name: None, group: None, value: str) -> None:
            self.value = value.strip()

        def load(self) -> Any:
            if self.value.startswith(("glance.", "oslo_", "osprofiler.")):
                raise ImportError(self.value)
            return factory(self.value)

    monkeypatch.setattr("paste.deploy.loadwsgi.importlib_metadata.EntryPoint", EntryPoint)
    return calls


def load(
    tmp_path: Path, program: str, paste_file: str | None = None, flavor: str = ""
) -> config.Configuration:
    conf_file = tmp_path / f"glance-{program}.conf"
    conf_file.write_text(f"[paste_deploy]\nflavor = {flavor}\n")
    if paste_file is not None:
        (tmp_path / f"glance-{program}-paste.ini").write_text(paste_file)
    return config.load(program, ["--config-file", str(conf_file)])


def names(built: Built) -> list[str]:
    return sorted(name.removeprefix("common.wsgi.filters:") for name, _ in built)


def test_a_mitaka_paste_file_builds_our_pipeline_without_v2(tmp_path: Path, built: Built) -> None:
    paste.load_app(load(tmp_path, "api", MITAKA_API), "api")
    assert names(built) == [
        "cors_factory",
        "glance_api.app:root_factory",
        "glance_api.app:v1_factory",
        "glance_api.app:versions_factory",
        "glance_api.versions:version_negotiation_factory",
        "healthcheck_factory",
        "osprofiler_factory",
        "unauthenticated_context_factory",
    ]
    assert dict(built)["glance_api.app:root_factory"] == {"/": "apiversions", "/v1": "apiv1app"}


def test_a_folsom_paste_file_builds_our_registry(tmp_path: Path, built: Built) -> None:
    paste.load_app(load(tmp_path, "registry", FOLSOM_REGISTRY), "registry")
    assert names(built) == ["glance_registry.app:app_factory", "unauthenticated_context_factory"]


def test_a_factory_gets_the_options_of_its_section(tmp_path: Path, built: Built) -> None:
    paste.load_app(load(tmp_path, "api", MITAKA_API), "api")
    options = dict(built)["common.wsgi.filters:healthcheck_factory"]
    assert options["disable_by_file_path"] == "/etc/glance/healthcheck_disable"


@pytest.mark.parametrize(
    ("flavor", "filters"),
    [
        ("", ["unauthenticated_context_factory"]),
        ("keystone", ["common.wsgi.authtoken:filter_factory", "context_factory"]),
        ("trusted-auth", ["context_factory"]),
    ],
)
@pytest.mark.parametrize("program", ["api", "registry"])
def test_every_flavor_of_our_samples_builds(
    tmp_path: Path, built: Built, program: str, flavor: str, filters: list[str]
) -> None:
    sample = (ETC / f"glance-{program}-paste.ini").read_text()
    paste.load_app(load(tmp_path, program, sample, flavor), program)
    assert set(filters) <= set(names(built))
    assert ("context_factory" in names(built)) == ("context_factory" in filters)


def test_our_api_sample_names_the_same_filters_in_the_order_of_the_specification() -> None:
    text = (ETC / "glance-api-paste.ini").read_text()
    assert (
        "[pipeline:glance-api-keystone]\npipeline = cors healthcheck http_proxy_to_wsgi "
        "versionnegotiation osprofiler authtoken context rootapp\n"
    ) in text


@pytest.mark.parametrize("flavor", ["caching", "trusted-auth+cachemanagement", "mine"])
@pytest.mark.parametrize("paste_file", [MITAKA_API, None])
def test_a_flavor_with_the_cache_is_refused_by_name(
    tmp_path: Path, built: Built, flavor: str, paste_file: str | None
) -> None:
    mine = f"{paste_file or MITAKA_API}\n[pipeline:glance-api-mine]\npipeline = cache rootapp\n"
    conf = load(tmp_path, "api", mine if flavor == "mine" else paste_file, flavor)
    with pytest.raises(config.ConfigurationError, match="image cache"):
        paste.load_app(conf, "api")


@pytest.mark.parametrize(
    ("paste_file", "flavor", "message"),
    [
        (MITAKA_API, "nonsense", r"no pipeline glance-api-nonsense .*flavor"),
        ("[pipeline:glance-api]\npipeline = nothing app\n", "", "nothing|app"),
        ("[pipeline:glance-api\n", "", "cannot be used"),
        (
            "[pipeline:glance-api]\npipeline = app\n[app:app]\npaste.app_factory = glance.no:x\n",
            "",
            "glance.no:x",
        ),
    ],
)
def test_a_paste_file_that_cannot_work_stops_the_start(
    tmp_path: Path, built: Built, paste_file: str, flavor: str, message: str
) -> None:
    """MW-047."""
    conf = load(tmp_path, "api", paste_file, flavor)
    with pytest.raises(config.ConfigurationError, match=message):
        paste.load_app(conf, "api")


def test_a_missing_paste_file_that_was_asked_for_stops_the_start(tmp_path: Path) -> None:
    conf = load(tmp_path, "api")
    conf.set_override("config_file", str(tmp_path / "none.ini"), "paste_deploy")
    with pytest.raises(config.ConfigurationError, match=r"none\.ini"):
        paste.load_app(conf, "api")


def test_the_paste_file_is_named_after_the_last_configuration_file(tmp_path: Path) -> None:
    (tmp_path / "mine.conf").write_text("")
    (tmp_path / "mine-paste.ini").write_text("")
    conf = config.load("api", ["--config-file", str(tmp_path / "mine.conf")])
    assert paste.find_file(conf, "api") == str(tmp_path / "mine-paste.ini")


def test_without_any_paste_file_the_sample_is_used(tmp_path: Path) -> None:
    (tmp_path / "mine.conf").write_text("")
    conf = config.load("api", ["--config-file", str(tmp_path / "mine.conf")])
    assert Path(paste.find_file(conf, "api")).name == "glance-api-paste.ini"


def test_the_options_are_out_of_reach_once_the_application_is_built(
    tmp_path: Path, built: Built
) -> None:
    paste.load_app(load(tmp_path, "api", MITAKA_API), "api")
    with pytest.raises(LookupError):
        paste.configuration()
