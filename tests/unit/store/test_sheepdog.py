"""What the Sheepdog driver decides and how it treats its program, which here is a small script."""

import contextlib
import json
import sys
import time
import uuid

import pytest

from common import errors
from common.context import RequestContext
from glance_store import BackendUnavailable, BadLocation, BadStoreConfiguration, StorageFull
from glance_store.drivers.sheepdog import SheepdogStore, vdi_name
from glance_store.outbound import Outbound
from glance_store.testing import upload_of
from tests.registry import UNKNOWN_ID

CTX = RequestContext()
SYSTEM_PATH = "/usr/bin:/bin"


class Program:
    """Directory `path` holds a program of the given name; `runs` are its argument vectors."""

    def __init__(self, directory):
        self.directory = directory
        self.log = directory / "runs"
        self.path = f"{directory}:{SYSTEM_PATH}"

    def is_script(self, body, name="dog"):
        script = self.directory / name
        script.write_text(
            f"#!{sys.executable} -IS\n"
            "import json, os, sys, time\n"
            f"with open({str(self.log)!r}, 'a') as log:\n"
            "    log.write(json.dumps([sys.argv[1:], dict(os.environ), os.getpid()]) + '\\n')\n"
            "command = sys.argv[2]\n"
            f"{body}\n"
        )
        script.chmod(0o755)

    def entries(self):
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        return [json.loads(line) for line in lines]

    @property
    def runs(self):
        return [argv for argv, _, _ in self.entries()]


@pytest.fixture
def program(tmp_path):
    return Program(tmp_path)


def make_store(program, **options):
    defaults = {option.dest: option.default for option in SheepdogStore.options}
    return SheepdogStore({**defaults, "sheepdog_store_program_path": program.path, **options})


HOSTILE = (
    ";touch x", "a;b", "`id`", "$(id)", "a|b", "a\nb", "a\n", "-rf", "--help", "-", "a'b", 'a"b',
    "a b", "a&b", "a>b", "a\\b", "a*b", "a/b", "../a", "a\0b", "é", "", "a" * 300,
)  # fmt: skip


@pytest.mark.parametrize("part", HOSTILE)
def test_hostile_locations_are_bad_and_run_nothing(program, part):
    """SEC-042, CVE-2014-0162."""
    program.is_script("pass")
    store = make_store(program)
    for url in (
        f"sheepdog://{part}",
        f"sheepdog://localhost:7000:{part}",
        f"sheepdog://{part}:7000:name",
        f"sheepdog://localhost:{part}:name",
    ):
        for call in (
            lambda bad: store.validate(bad),
            lambda bad: store.get(CTX, bad),
            lambda bad: store.size(CTX, bad),
            lambda bad: store.delete(CTX, bad),
        ):
            with pytest.raises(BadLocation):
                call(url)
    assert program.runs == []


@pytest.mark.parametrize(
    "image_id", [f"----{'a' * 32}", f"{{{'a' * 32}}}", f"urn:{'a' * 32}", UNKNOWN_ID]
)
def test_every_image_id_becomes_a_name_that_is_no_option_and_fits_a_location(program, image_id):
    program.is_script("pass")
    name = vdi_name(image_id)
    assert not name.startswith("-")
    make_store(program).validate(f"sheepdog://localhost:7000:{name}")


def test_an_ordinary_image_id_is_the_vdis_name():
    image_id = str(uuid.uuid4())
    assert vdi_name(image_id) == image_id


def test_the_program_gets_an_argument_vector_and_no_environment_of_ours(program, monkeypatch):
    """SEC-042."""
    monkeypatch.setenv("CANARY", "canary")
    program.is_script("print('= name 0 1048576 0 0 1767323045 abc 1  22')")
    store = make_store(program, sheepdog_store_address="sheep.example", sheepdog_store_port=7123)
    assert next(iter(store._own.vdis())).size == 1048576
    [(argv, environment, _)] = program.entries()
    assert argv == ["vdi", "list", "-a", "sheep.example", "-p", "7123", "-r"]
    assert environment["PATH"] == program.path
    assert "CANARY" not in environment


def test_a_program_that_never_exits_is_killed_with_its_children(program):
    """SEC-042, REL-085."""
    program.is_script(
        "os.fork(); open(sys.argv[0] + str(os.getpid()), 'w').close(); time.sleep(99)"
    )
    with pytest.raises(BackendUnavailable):
        make_store(program, sheepdog_store_timeout=3).size(CTX, "sheepdog://name")
    started = [int(path.name[3:]) for path in program.directory.glob("dog?*")]
    assert len(started) == 2
    assert_end(started)


def assert_end(pids):
    """They are gone, or as good as: a signal takes its time to arrive."""
    deadline = time.monotonic() + 10
    for pid in pids:
        while is_running(pid):
            assert time.monotonic() < deadline


def is_running(pid):
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def upload(store):
    store.add(CTX, str(uuid.uuid4()), upload_of(bytes(9 << 20), 9 << 20))


def download(store):
    with contextlib.closing(store.get(CTX, "sheepdog://name")) as body:
        list(body)


@pytest.mark.parametrize(("command", "transfer"), [("write", upload), ("read", download)])
def test_a_transfer_that_stops_moving_is_ended(program, command, transfer):
    program.is_script(
        "if command == 'list' and sys.argv[-1] == 'name': print('= name 0 9 0 0 1 abc 1  22')\n"
        f"if command == {command!r}: time.sleep(99)"
    )
    with pytest.raises(BackendUnavailable):
        transfer(make_store(program, sheepdog_store_timeout=1))
    assert_end(pid for _, _, pid in program.entries())


@pytest.mark.parametrize(
    ("said", "status", "expected"),
    [
        ("Failed to create VDI x: VDI exists already", 1, errors.Duplicate),
        ("Failed to write object: Server has no space for new objects", 1, StorageFull),
        ("failed to connect to 127.0.0.1:7000: Connection refused", 2, BackendUnavailable),
        ("", 64, BackendUnavailable),
    ],
)
def test_failures_of_the_program_get_the_domains_meaning(program, said, status, expected):
    program.is_script(f"print({said!r}, file=sys.stderr)\nsys.exit({status})")
    with pytest.raises(expected) as caught:
        make_store(program).add(CTX, str(uuid.uuid4()), upload_of(b"content", 7))
    assert "127.0.0.1" not in caught.value.message


def test_a_failed_write_deletes_the_vdi_and_then_its_mark(program):
    program.is_script("if command == 'write': sys.exit('Failed: Server has no space left')")
    with pytest.raises(StorageFull):
        make_store(program).add(CTX, "name", upload_of(b"content", 7))
    deleted = [argv[-1] for argv in program.runs if argv[1] == "delete"]
    assert deleted == ["name", "name.part"]


def test_a_vdi_that_could_not_be_deleted_stays_marked(program):
    """Nothing half-made becomes readable."""
    program.is_script("sys.exit(command in ('write', 'delete'))")
    with pytest.raises(BackendUnavailable):
        make_store(program).add(CTX, "name", upload_of(b"content", 7))
    deleted = [argv[-1] for argv in program.runs if argv[1] == "delete"]
    assert deleted == ["name"]


def test_a_short_read_is_an_error_and_not_a_short_image(program):
    program.is_script(
        "if sys.argv[-1] == 'name': print('= name 0 9 0 0 1 abc 1  22')\n"
        "if command == 'read': print('short', end='')"
    )
    body = make_store(program).get(CTX, "sheepdog://name")
    with contextlib.closing(body), pytest.raises(BackendUnavailable):
        list(body)


def test_foreign_vdis_with_blanks_in_their_names_do_not_disturb_the_list(program):
    program.is_script(
        "print(r's a\\ b 1 5 0 0 1767323045 abc 1 tag 22')\n"
        "print(r'= a\\ b 0 5 0 0 1767323045 abc 1  22')\n"
        "print('c 6f6e7f8c-0000-4000-8000-000000000000 0 7 0 0 1767323045 abc 1  22')"
    )
    [found] = make_store(program).contents()
    assert (found.image_id, found.size) == ("6f6e7f8c-0000-4000-8000-000000000000", 7)
    assert found.modified.isoformat() == "2026-01-02T03:04:05"


class Resolver(Outbound):
    """Answers without a look-up."""

    def __init__(self, *addresses):
        super().__init__()
        self.addresses = addresses
        self.asked = []

    def resolve(self, host, port):
        self.asked.append((host, port))
        for address in self.addresses:
            self.check_address(address)
        return [(2, (address, port)) for address in self.addresses]


def test_another_cluster_in_a_location_is_reached_at_the_address_that_was_checked(program):
    """SEC-043."""
    program.is_script("if sys.argv[-1] == 'name': print('= name 0 9 0 0 1 abc 1  22')")
    store = make_store(program)
    store.outbound = Resolver("192.0.2.7")
    assert store.size(CTX, "sheepdog://elsewhere:7001:name") == 9
    assert store.outbound.asked == [("elsewhere", 7001)]
    assert all(argv[3] == "192.0.2.7" and argv[5] == "7001" for argv in program.runs)


def test_another_cluster_on_this_host_is_not_asked(program):
    """SEC-043."""
    program.is_script("pass")
    store = make_store(program)
    store.outbound = Resolver("127.0.0.1")
    with pytest.raises(BackendUnavailable):
        store.get(CTX, "sheepdog://elsewhere:22:name")
    assert program.runs == []


class TestConfiguration:
    def test_a_missing_program_is_named(self, program):
        with pytest.raises(BadStoreConfiguration, match="sheepdog_store_program_path"):
            make_store(program, sheepdog_store_program_path=str(program.directory))

    def test_old_installations_have_collie(self, program):
        program.is_script("pass", name="collie")
        store = make_store(program, sheepdog_store_program_path=str(program.directory))
        assert store._own.program == str(program.directory / "collie")

    @pytest.mark.parametrize(
        ("option", "value"),
        [
            ("sheepdog_store_address", "host;id"),
            ("sheepdog_store_address", "-host"),
            ("sheepdog_store_address", ""),
            ("sheepdog_store_chunk_size", 0),
        ],
    )
    def test_impossible_values_are_refused_by_option_name(self, program, option, value):
        program.is_script("pass")
        with pytest.raises(BadStoreConfiguration, match=option):
            make_store(program, **{option: value})

    def test_options_are_mitakas(self):
        """10.21."""
        defaults = {option.name: option.default for option in SheepdogStore.options}
        assert (
            defaults.items()
            >= {
                "sheepdog_store_address": "localhost",
                "sheepdog_store_port": 7000,
                "sheepdog_store_chunk_size": 64,
            }.items()
        )
