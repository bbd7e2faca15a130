"""The arrows between the packages, and the libraries that are kept to few places."""

import ast
import sys
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("common", "glance_api", "glance_registry", "glance_store")

# Imports point one way: a package may import itself and these.
ARROWS = {
    "common": set(),
    "glance_store": {"common"},
    "glance_api": {"common", "glance_store"},
    "glance_registry": {"common"},
}

# Administrators' programs that look at the database and at the stores in one process; the
# daemons never do.
ACROSS = (
    "glance_api/cmd/manage.py",
    "glance_api/cmd/consistency.py",
    "glance_api/cmd/locations.py",
)

# Libraries that may be exchanged one day, or that only one place needs to know.
CONFINED = {
    "eventlet": (
        "*/cmd/*.py",
        "common/wsgi/server.py",
        "common/wsgi/sendfile.py",
    ),
    "sqlalchemy": ("glance_registry/db/*",),
    "alembic": ("glance_registry/db/*",),
    "requests": (
        "glance_api/registry_client.py",
        "glance_store/drivers/http.py",
        "glance_store/drivers/http_session.py",
        # What swiftclient and keystoneauth send their requests with is given to them.
        "glance_store/drivers/swift_connections.py",
    ),
    "pytest": ("glance_store/testing/*",),
}

# Clients of backends, installed as extras: a driver that nobody enabled must not need its own.
ON_USE = {
    "boto3",
    "botocore",
    "bson",
    "cinderclient",
    "gridfs",
    "keystoneauth1",
    "keystoneclient",
    "os_brick",
    "oslo_vmware",
    "pymongo",
    "rados",
    "rbd",
    "suds",
    "swiftclient",
}


class Import(NamedTuple):
    """One name that a file imports; `early` if that happens when the file is imported."""

    file: str
    line: int
    module: str
    early: bool

    @property
    def package(self) -> str:
        return self.module.partition(".")[0]

    def __str__(self) -> str:
        return f"{self.file}:{self.line} imports {self.module}"


def is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)


def imports_in(source: str, file: str) -> Iterator[Import]:
    def visit(node: ast.AST, early: bool) -> Iterator[Import]:
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(file, node.lineno, alias.name, early)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{file}:{node.lineno}: imports are absolute"
            yield Import(file, node.lineno, str(node.module), early)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            [name, *_] = node.args
            if isinstance(name, ast.Constant):
                yield Import(file, node.lineno, str(name.value), early)
        is_function = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for child in ast.iter_child_nodes(node):
            yield from visit(child, early and not is_function and not is_type_checking(node))

    yield from visit(ast.parse(source), True)


def all_imports() -> list[Import]:
    files = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]
    return [
        found
        for path in files
        for found in imports_in(path.read_text(), path.relative_to(ROOT).as_posix())
    ]


IMPORTS = all_imports()


def test_the_walk_finds_the_code():
    assert {found.file.partition("/")[0] for found in IMPORTS} == set(PACKAGES)
    assert any(found.package == "oslo_config" for found in IMPORTS)


@pytest.mark.parametrize("package", PACKAGES)
def test_imports_point_one_way(package):
    forbidden = {*PACKAGES, "tests"} - ARROWS[package] - {package}
    strays = [
        str(found)
        for found in IMPORTS
        if found.file.startswith(f"{package}/") and found.package in forbidden
        if not (found.file in ACROSS and found.package == "glance_registry")
    ]
    assert strays == []


@pytest.mark.parametrize("library", CONFINED)
def test_library_is_named_only_where_it_belongs(library):
    strays = [
        str(found)
        for found in IMPORTS
        if found.package == library
        and not any(fnmatch(found.file, place) for place in CONFINED[library])
    ]
    assert strays == []


def test_clients_of_backends_are_imported_on_use():
    strays = [str(found) for found in IMPORTS if found.package in ON_USE and found.early]
    assert strays == []


def test_clients_of_backends_are_named_in_drivers_only():
    # The API talks to Keystone by a session of its own, where it is used at all.
    strays = [
        str(found)
        for found in IMPORTS
        if found.package in ON_USE - {"keystoneauth1", "keystoneclient"}
        and not found.file.startswith("glance_store/")
    ]
    assert strays == []


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("import requests.adapters", [("requests.adapters", True)]),
        ("from requests import Session", [("requests", True)]),
        ("def use():\n    import boto3", [("boto3", False)]),
        ("try:\n    import boto3\nexcept ImportError:\n    pass", [("boto3", True)]),
        ("class Store:\n    import boto3", [("boto3", True)]),
        ("if TYPE_CHECKING:\n    from pymongo import x", [("pymongo", False)]),
        ("def use():\n    importlib.import_module('rbd')", [("rbd", False)]),
    ],
)
def test_the_walk_sees_every_form_of_import(source, expected):
    found = list(imports_in(source, "x.py"))
    assert [(one.module, one.early) for one in found] == expected


def test_a_stray_import_would_be_found():
    [stray] = imports_in("import sqlalchemy.orm", "common/image.py")
    assert stray.package == "sqlalchemy"
    assert not any(fnmatch(stray.file, place) for place in CONFINED["sqlalchemy"])
    assert str(stray) == "common/image.py:1 imports sqlalchemy.orm"


def test_standard_library_is_not_shadowed():
    """`common` and `tests` are common names; none of ours may hide a standard module."""
    assert not {*PACKAGES} & set(sys.stdlib_module_names)
