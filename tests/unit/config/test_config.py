"""Loading: which files, whose values, what stops a program and what is only reported."""

import logging
from collections.abc import Callable
from pathlib import Path

import pytest
from oslo_config import cfg

from common import config

Load = Callable[..., config.Configuration]

# What an operator's file of that time says, comments left out.
MITAKA_API = """
[DEFAULT]
verbose = True
debug = False
bind_host = 10.0.0.5
bind_port = 9292
workers = 4
registry_host = glance.internal
sql_connection = mysql://glance:pw@db/glance
notification_driver = messaging
rpc_backend = rabbit
transport_url = rabbit://u:p@mq/
log_file = /var/log/glance/api.log
show_image_direct_url = True
user_storage_quota = 500GB
disk_formats = raw,qcow2
[glance_store]
stores = file,http
default_store = file
filesystem_store_datadir = /var/lib/glance/images/
[keystone_authtoken]
auth_uri = http://keystone:5000
identity_uri = http://keystone:35357
admin_tenant_name = service
admin_user = glance
admin_password = secret
[paste_deploy]
flavor = keystone
[oslo_concurrency]
lock_path = /var/lock/glance
[task]
task_time_to_live = 48
"""


@pytest.fixture
def load(tmp_path: Path) -> Load:
    """Load the configuration of a program from a file with this text."""

    def run(text: str, *argv: str, program: str = "api", **options: object) -> config.Configuration:
        path = tmp_path / f"glance-{program}.conf"
        path.write_text(text, encoding="utf-8")
        return config.load(program, ["--config-file", str(path), *argv], **options)

    return run


def test_a_mitaka_file_works_unchanged(load: Load) -> None:
    conf = load(MITAKA_API)
    assert conf.bind_host == "10.0.0.5"
    assert conf.workers == 4
    assert conf.registry_host == "glance.internal"
    assert conf.database.connection == "mysql://glance:pw@db/glance"
    assert conf.user_storage_quota == 500 * 1024**3
    assert conf.image_format.disk_formats == ["raw", "qcow2"]
    assert conf.log_file == "/var/log/glance/api.log"
    assert conf.paste_deploy.flavor == "keystone"
    assert conf.oslo_policy.policy_file == "policy.json"
    assert conf.oslo_messaging_notifications.driver == ["messaging"]


@pytest.mark.parametrize(("program", "port"), [("api", 9292), ("registry", 9191)])
def test_each_daemon_has_its_own_port(load: Load, program: str, port: int) -> None:
    assert load("", program=program).bind_port == port


def test_at_most_eight_workers_by_default(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    """REL-084."""
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: range(64))
    assert load("").workers == 8
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: range(2))
    assert load("").workers == 2
    assert load("[DEFAULT]\nworkers = 20\n").workers == 20


@pytest.mark.parametrize(
    "value",
    ["1 MB", "1mb", "-1", "abc", "", "1.5GB", "1PB", "MB", "\uff11", "8388608TB", "9" * 5000],
)
def test_a_malformed_storage_quota_stops_the_start(load: Load, value: str) -> None:
    """V1-IMG-227; one that no registry takes would fail every upload."""
    with pytest.raises(config.ConfigurationError, match="user_storage_quota"):
        load(f"[DEFAULT]\nuser_storage_quota = {value}\n")


@pytest.mark.parametrize(
    ("value", "quota"), [("0", 0), ("7", 7), ("7B", 7), ("3KB", 3072), ("2TB", 2 * 1024**4)]
)
def test_a_storage_quota_is_a_number_of_bytes(load: Load, value: str, quota: int) -> None:
    assert load(f"[DEFAULT]\nuser_storage_quota = {value}\n").user_storage_quota == quota


@pytest.mark.parametrize(
    ("section", "option", "value"),
    [
        ("DEFAULT", "image_size_cap", "9223372036854775809"),
        ("DEFAULT", "image_size_cap", "-1"),
        ("DEFAULT", "api_limit_max", "-5"),
        ("DEFAULT", "bind_port", "65536"),
        ("DEFAULT", "workers", "many"),
        ("DEFAULT", "owner_is_tenant", "perhaps"),
        ("DEFAULT", "property_protection_rule_format", "other"),
        ("DEFAULT", "hashing_algorithm", "md4"),
        ("database", "connection_debug", "101"),
        ("limits", "images_per_tenant", "-1"),
        ("leases", "seconds", "0"),
        ("leases", "seconds", "86401"),
    ],
)
def test_a_value_that_cannot_be_stops_the_start_and_is_named(
    load: Load, section: str, option: str, value: str
) -> None:
    """SEC-082."""
    with pytest.raises(config.ConfigurationError, match=rf"{option} of section \[{section}\]"):
        load(f"[{section}]\n{option} = {value}\n")


def test_a_bad_value_for_a_command_line_option_stops_the_start_and_is_named(
    load: Load, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(config.ConfigurationError):
        load("[DEFAULT]\ndebug = maybe\n")
    assert "--debug" in capsys.readouterr().err


def test_a_message_about_a_secret_does_not_show_it(load: Load) -> None:
    with pytest.raises(config.ConfigurationError) as stopped:
        load("[database]\nconnection = mysql://glance:pa$canary@db/glance\n")
    assert "connection" in str(stopped.value)
    assert "canary" not in str(stopped.value)


@pytest.mark.parametrize("text", ["debug = true\n", "[DEFAULT]\nnonsense\n", "\xff"])
def test_a_file_that_is_no_configuration_stops_the_start(load: Load, text: str) -> None:
    with pytest.raises(config.ConfigurationError):
        load(text)


def test_a_missing_file_that_was_asked_for_stops_the_start(tmp_path: Path) -> None:
    with pytest.raises(config.ConfigurationError, match="missing"):
        config.load("api", ["--config-file", str(tmp_path / "missing.conf")])


def test_options_refer_to_each_other(load: Load) -> None:
    conf = load("[DEFAULT]\nlog_dir = /logs\nlog_file = $log_dir/api.log\nadmin_role = a$$b\n")
    assert (conf.log_file, conf.admin_role) == ("/logs/api.log", "a$b")


def test_later_files_win_and_directories_come_where_they_are_named(tmp_path: Path) -> None:
    (tmp_path / "a.conf").write_text("[DEFAULT]\nbacklog = 1\nworkers = 1\nadmin_role = a\n")
    (tmp_path / "b.conf").write_text("[DEFAULT]\nworkers = 2\nadmin_role = b\n")
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "c.conf").write_text("[DEFAULT]\nadmin_role = c\n")
    (tmp_path / "d" / "ignored.txt").write_text("nonsense")
    argv = [f"--config-file={tmp_path / 'a.conf'}", "--config-file", str(tmp_path / "b.conf")]
    conf = config.load("api", [*argv, "--config-dir", str(tmp_path / "d")])
    assert (conf.backlog, conf.workers, conf.admin_role) == (1, 2, "c")
    assert [Path(file).name for file in conf.files] == ["a.conf", "b.conf", "c.conf"]


@pytest.mark.parametrize(
    ("program", "names"),
    [
        ("api", ["glance.conf", "glance-api.conf"]),
        ("scrubber", ["glance.conf", "glance-scrubber.conf"]),
        (
            "manage",
            ["glance.conf", "glance-registry.conf", "glance.conf", "glance-api.conf"],
        ),
        ("cache-pruner", ["glance.conf", "glance-cache.conf"]),
    ],
)
def test_files_are_searched_in_the_home_directory_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: str, names: list[str]
) -> None:
    home = tmp_path / "home"
    (home / ".glance").mkdir(parents=True)
    for name in {*names}:
        (home / name).write_text("")
        (home / ".glance" / name).write_text("")
    monkeypatch.setenv("HOME", str(home))
    found = config.find_files(program)
    assert [Path(file).name for file in found][: len(names)] == names
    assert {Path(file).parent for file in found} == {home / ".glance"}


def test_each_load_stands_alone(load: Load) -> None:
    first = load("[DEFAULT]\nadmin_role = first\n")
    second = load("[DEFAULT]\nadmin_role = second\n")
    assert (first.admin_role, second.admin_role) == ("first", "second")


@pytest.mark.parametrize(
    ("argv", "option", "value"),
    [
        (["--debug"], "debug", True),
        (["-d"], "debug", True),
        (["--nodebug"], "debug", False),
        (["--noverbose"], "verbose", False),
        (["-v"], "verbose", True),
        (["--log-file", "x"], "log_file", "x"),
        (["--log-dir", "x"], "log_dir", "x"),
        (["--log-config-append", "x"], "log_config_append", "x"),
        (["--log-date-format", "x"], "log_date_format", "x"),
        (["--use-syslog"], "use_syslog", True),
        (["--syslog-log-facility", "LOG_LOCAL1"], "syslog_log_facility", "LOG_LOCAL1"),
        (["--watch-log-file"], "watch_log_file", True),
    ],
)
def test_the_common_options_work_on_the_command_line(
    load: Load, argv: list[str], option: str, value: object
) -> None:
    assert load("", *argv)[option] == value


@pytest.mark.parametrize("flag", ["-D", "--daemon"])
def test_the_scrubber_is_made_a_daemon_on_the_command_line(load: Load, flag: str) -> None:
    assert load("", flag, program="scrubber").daemon is True


@pytest.mark.parametrize(("argv", "status"), [("--version", 0), ("--help", 0), ("--nonsense", 2)])
def test_the_command_line_may_end_the_program(load: Load, argv: str, status: int) -> None:
    with pytest.raises(SystemExit) as ended:
        load("", argv)
    assert ended.value.code == status


def test_unknown_options_are_named_in_one_warning(
    load: Load, caplog: pytest.LogCaptureFixture
) -> None:
    """Decision 17."""
    conf = load(
        "[DEFAULT]\nbind_hots = x\nrpc_zmq_host = h\n[nonsense]\na = 1\n"
        "[keystone_authtoken]\nwhatever = 1\n[cors.other]\nallowed_origin = http://o\n"
        "[oslo_messaging_kafka]\na = 1\n[glance_store]\nfilesystem_store_datdir = x\n",
    )
    with caplog.at_level(logging.WARNING):
        config.report(conf)
    (warning,) = caplog.messages
    assert warning.endswith("[DEFAULT] bind_hots, [nonsense] a, [oslo_messaging_kafka] a")


def test_an_unknown_store_option_is_named_by_a_program_that_knows_the_stores(
    load: Load, caplog: pytest.LogCaptureFixture
) -> None:
    stores = [("glance_store", [cfg.StrOpt("filesystem_store_datadir")])]
    text = "[glance_store]\nfilesystem_store_datdir = x\nfilesystem_store_datadir = y\n"
    conf = load(text, extra_groups=stores)
    config.report(conf)
    assert conf.glance_store.filesystem_store_datadir == "y"
    assert caplog.messages[0].endswith("options: [glance_store] filesystem_store_datdir")


def test_deprecated_options_and_former_names_are_noted(
    load: Load, caplog: pytest.LogCaptureFixture
) -> None:
    """With what has taken the place of a former name."""
    text = "[DEFAULT]\nsql_connection = sqlite://\nadmin_user = glance\nrabbit_host = mq\n"
    config.report(load(text))
    (warning,) = caplog.messages
    assert warning.endswith(
        "deprecated options: [DEFAULT] admin_user, "
        "[DEFAULT] rabbit_host (now [oslo_messaging_rabbit] rabbit_host), "
        "[DEFAULT] sql_connection (now [database] connection)"
    )


def test_a_file_without_surprises_is_not_mentioned(
    load: Load, caplog: pytest.LogCaptureFixture
) -> None:
    config.report(load("[DEFAULT]\ndebug = true\n[database]\nconnection = sqlite://\n"))
    assert caplog.messages == []


def test_loading_logs_nothing_before_the_log_is_set_up(
    load: Load, caplog: pytest.LogCaptureFixture
) -> None:
    load("[DEFAULT]\nsql_connection = sqlite://\nadmin_user = glance\n")
    assert caplog.messages == []


def test_a_further_cors_origin_inherits_what_it_leaves_out(load: Load) -> None:
    conf = load(
        "[cors]\nallowed_origin = http://a\nmax_age = 5\n"
        "[cors.b]\nallowed_origin = http://b\nallow_methods = GET\n"
    )
    assert conf["cors.b"].allowed_origin == ["http://b"]
    assert conf["cors.b"].allow_methods == ["GET"]
    assert conf["cors.b"].max_age == 5


def test_a_library_may_register_what_we_declare(load: Load) -> None:
    library = config.for_library(load("[cors]\nallowed_origin = http://a,http://b\n"))
    library.register_opt(cfg.StrOpt("allowed_origin", help="its own"), "cors")
    assert library.cors.allowed_origin == "http://a,http://b"


def test_secrets_are_found_under_any_name(load: Load) -> None:
    conf = load(
        "[DEFAULT]\nregistry_auth_key = one\nsql_connection = two\nadmin_role = no\n"
        "[keystone_authtoken]\npassword = three\nauth_type = no\n[x]\nswift_store_key = four\n"
    )
    assert config.secrets(conf) == {"one", "two", "three", "four"}


def test_the_environment_wins_over_the_files_and_its_secrets_are_known(
    load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OS_DATABASE__CONNECTION", "sqlite:///environment")
    conf = load("[database]\nconnection = sqlite:///file\n")
    assert conf.database.connection == "sqlite:///environment"
    assert config.secrets(conf) == {"sqlite:///environment", "sqlite:///file"}
