"""glance-manage as it is typed (middleware-and-config.md section 11.1)."""

import json
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from glance_api.cmd import manage

Run = Callable[..., int]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "glance.sqlite"


@pytest.fixture
def run(tmp_path: Path, file: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs `glance-manage ...` and returns its exit status."""
    conf = tmp_path / "glance-manage.conf"
    conf.write_text(f"[database]\nconnection = sqlite:///{file}\n")

    def run(*words: str) -> int:
        monkeypatch.setattr("sys.argv", ["glance-manage", "--config-file", str(conf), *words])
        try:
            return manage.main()
        except SystemExit as usage:
            return int(usage.code or 0)

    return run


def tables(file: Path) -> set[str]:
    with sqlite3.connect(file) as connection:
        found = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
        return {name for (name,) in found if not name.startswith("sqlite_")}


@pytest.mark.parametrize("words", [(), ("db",), ("db", "foo"), ("foo",), ("db_foo",)])
def test_without_a_known_action_there_is_usage(
    run: Run, words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    """MW-048"""
    assert run(*words) == 2
    assert "usage: glance-manage" in capsys.readouterr().err


@pytest.mark.parametrize("words", [("db", "version"), ("db_version",)])
def test_version(run: Run, words: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    """DB-001, MW-049"""
    assert run(*words) == 0
    assert capsys.readouterr().out == "0\n"
    assert run("db", "sync") == 0
    capsys.readouterr()
    assert run(*words) == 0
    assert capsys.readouterr().out == "44\n"


@pytest.mark.parametrize(
    "words",
    [
        ("db", "sync"),
        ("db", "sync", "44"),
        ("db", "sync", "--version", "44"),
        ("db", "upgrade"),
        ("db", "upgrade", "--version", "44"),
        ("db_sync",),
        ("db_sync", "44"),
        ("db_upgrade", "44"),
    ],
)
def test_sync_builds_everything_and_again_changes_nothing(
    run: Run, file: Path, words: tuple[str, ...]
) -> None:
    """DB-001, DB-002"""
    assert run(*words) == 0
    made = tables(file)
    assert made >= {"images", "image_tags", "tasks", "metadef_objects", "artifacts",
                    "migrate_version", "image_leases", "owner_usage"}  # fmt: skip
    assert run(*words) == 0
    assert tables(file) == made


@pytest.mark.parametrize("words", [("db", "sync", "10"), ("db_sync", "43"), ("db", "upgrade", "1")])
def test_there_is_no_way_down(
    run: Run, words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    """MW-051, M11"""
    assert run("db", "sync") == 0
    assert run(*words) == 1
    assert "ERROR: " in capsys.readouterr().err
    run("db", "version")
    assert capsys.readouterr().out.endswith("44\n")


@pytest.mark.parametrize("words", [("db", "sync", "10"), ("db", "sync", "45"), ("db_sync", "1")])
def test_an_empty_database_is_built_to_no_other_level(
    run: Run, file: Path, words: tuple[str, ...]
) -> None:
    assert run(*words) == 1
    assert tables(file) == set()


@pytest.mark.parametrize("words", [("db", "downgrade", "40"), ("db_downgrade", "40")])
def test_downgrading_is_refused(
    run: Run, words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    run("db", "sync")
    assert run(*words) == 1
    assert "deprecated" in capsys.readouterr().err


def test_a_level_is_declared_once(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("db", "version_control", "--version", "44") == 0
    assert run("db_version_control", "44") == 0
    assert run("db", "version_control", "--version", "43") == 1
    capsys.readouterr()
    run("db", "version")
    assert capsys.readouterr().out == "44\n"


def test_sync_declares_the_current_level_first(run: Run) -> None:
    assert run("db", "sync", "--current_version", "42") == 0
    assert run("db", "sync", "44", "43") == 1
    assert run("db_sync", "44", "44") == 0


@pytest.mark.parametrize(
    ("words", "status"),
    [
        (("purge",), 0),
        (("purge", "1", "5"), 0),
        (("purge", "--age_in_days", "1", "--max_rows", "5"), 0),
        (("purge", "--age_in_days", "x"), 2),
        (("purge", "x"), 2),
        (("purge", "--age_in_days", "0"), 1),
        (("purge", "--age_in_days", "-1"), 1),
        (("purge", "-1"), 1),
        (("purge", "--age_in_days", "40000"), 1),
        (("purge", "--max_rows", "0"), 1),
    ],
)
def test_purge(run: Run, words: tuple[str, ...], status: int) -> None:
    """MW-050, DB-011 to DB-015"""
    run("db", "sync")
    assert run("db", *words) == status


def test_images_without_data_are_deleted_when_asked_to(
    run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    """SEC-074"""
    run("db", "sync")
    assert run("db", "delete_unfilled", "--age_in_days", "7", "--max_rows", "1000") == 0
    assert "0 images without data deleted." in capsys.readouterr().out
    assert run("db", "delete_unfilled", "0") == 1


def test_there_is_no_older_form_of_purge(run: Run) -> None:
    assert run("db_purge") == 2


def test_recount(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    run("db", "sync")
    assert run("db", "recount") == 0
    assert run("db", "recount", "--owner", "t1") == 0
    assert "0 owners" in capsys.readouterr().out


def test_a_database_that_cannot_be_used_is_said_so(
    run: Run, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file.mkdir()
    assert run("db", "sync") == 1
    assert "ERROR: " in capsys.readouterr().err


PROPERTIES = {"action": {"type": "string", "enum": ["reset", "none"]}}
NAMESPACE = {
    "namespace": "OS::Compute/Watchdog:x",
    "display_name": "Watchdog",
    "description": "What to do when it barks",
    "visibility": "public",
    "protected": True,
    "owner": "admin",
    "properties": PROPERTIES,
    "objects": [
        {"name": "dog", "description": "d", "required": ["a", "b"], "properties": {"a": {}}}
    ],
    "tags": [{"name": "loud"}],
    "resource_type_associations": [
        {"name": "OS::Glance::Image", "prefix": "hw_", "properties_target": None}
    ],
}


class TestMetadefs:
    @pytest.fixture
    def directory(self, run: Run, tmp_path: Path) -> Path:
        run("db", "sync")
        directory = tmp_path / "metadefs"
        directory.mkdir()
        (directory / "a.json").write_text(json.dumps(NAMESPACE))
        (directory / "README").write_text("not one")
        return directory

    def exported(self, run: Run, tmp_path: Path) -> list[object]:
        out = tmp_path / "out"
        for old in out.glob("*"):
            old.unlink()
        assert run("db", "export_metadefs", "--path", str(out)) == 0
        return [json.loads(file.read_text()) for file in sorted(out.iterdir())]

    def change(self, directory: Path) -> dict[str, object]:
        changed = {**NAMESPACE, "properties": {"action": {"type": "int"}, "new": {}}, "tags": []}
        (directory / "a.json").write_text(json.dumps(changed))
        return changed

    def test_what_is_loaded_is_exported(self, run: Run, directory: Path, tmp_path: Path) -> None:
        assert run("db", "load_metadefs", "--path", str(directory)) == 0
        assert self.exported(run, tmp_path) == [NAMESPACE]

    def test_what_is_there_stays_unless_told(
        self, run: Run, directory: Path, tmp_path: Path
    ) -> None:
        run("db_load_metadefs", str(directory))
        changed = self.change(directory)
        run("db_load_metadefs", str(directory))
        assert self.exported(run, tmp_path) == [NAMESPACE]
        run("db", "load_metadefs", str(directory), "--merge")
        properties = {**PROPERTIES, "new": {}}
        assert self.exported(run, tmp_path) == [{**NAMESPACE, "properties": properties}]
        run("db_load_metadefs", str(directory), "True", "True")
        assert self.exported(run, tmp_path) == [{**changed, "tags": NAMESPACE["tags"]}]
        run("db", "load_metadefs", str(directory), "--overwrite")
        assert self.exported(run, tmp_path) == [changed]

    def test_all_go(self, run: Run, directory: Path, tmp_path: Path) -> None:
        run("db", "load_metadefs", "--path", str(directory))
        assert run("db", "unload_metadefs") == 0
        assert self.exported(run, tmp_path) == []

    @pytest.mark.parametrize("content", ["{", "[]", "{}", '{"namespace": 5}'])
    def test_a_file_that_is_none_loads_nothing(
        self, run: Run, directory: Path, tmp_path: Path, content: str
    ) -> None:
        (directory / "b.json").write_text(content)
        assert run("db", "load_metadefs", "--path", str(directory)) == 1
        assert self.exported(run, tmp_path) == []
        assert run("db", "load_metadefs", "--path", str(directory / "none")) == 1


@pytest.mark.parametrize("action", ["check", "reconcile", "rewrite-locations"])
def test_an_unusable_key_for_locations_is_named(
    run: Run, tmp_path: Path, action: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with (tmp_path / "glance-manage.conf").open("a") as conf:
        conf.write("[DEFAULT]\nmetadata_encryption_key = short\n")
    assert run(action) == 1
    assert capsys.readouterr().err.startswith("ERROR: metadata_encryption_key")


@pytest.mark.parametrize(
    ("option", "name"),
    [("log_file = /nonexistent/log", "log_file"), ("[database]\nconnection = x", "connection")],
)
def test_what_cannot_be_used_is_told_in_a_line_that_names_it(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str], option: str, name: str
) -> None:
    """SEC-082"""
    (tmp_path / "glance-manage.conf").write_text(f"[DEFAULT]\n{option}\n")
    assert run("db_version") == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("ERROR: ")
    assert name in line
