"""What databases mean differently by the same words: ties in an index, and the place of NULL.

Conditions "as the marker has it" are for a column in the middle of an index that is in order.
SQLite follows the index when a column is compared for equality. MariaDB then takes the column for
a constant, forgets that the rows behind it are in order, and sorts all of them; told the same as a
range, it follows the index too.
"""

from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement


class _Condition(FunctionElement[bool]):
    """Two clauses compared, only ever joined to others by AND."""

    type = sa.Boolean()

    def self_group(self, against: Any = None) -> "_Condition":
        # Not a function's result, which SQLAlchemy would compare with 1.
        return self


class equals(_Condition):
    """`equals(column, value)`: column = value."""

    inherit_cache = True


class is_null(_Condition):
    """`is_null(column, unused)`: column IS NULL; unused is a value that the column never has."""

    inherit_cache = True


def _sides(element: _Condition, compiler: SQLCompiler, **kw: Any) -> tuple[str, str]:
    column, value = element.clauses
    return compiler.process(column, **kw), compiler.process(value, **kw)


@compiles(equals)
def _equals(element: equals, compiler: SQLCompiler, **kw: Any) -> str:
    column, value = _sides(element, compiler, **kw)
    return f"{column} = {value}"


@compiles(equals, "mysql")
@compiles(equals, "mariadb")
def _equals_mysql(element: equals, compiler: SQLCompiler, **kw: Any) -> str:
    column, value = _sides(element, compiler, **kw)
    return f"({column} >= {value} AND {column} <= {value})"


@compiles(is_null)
def _is_null(element: is_null, compiler: SQLCompiler, **kw: Any) -> str:
    column, _ = _sides(element, compiler, **kw)
    return f"{column} IS NULL"


@compiles(is_null, "mysql")
@compiles(is_null, "mariadb")
def _is_null_mysql(element: is_null, compiler: SQLCompiler, **kw: Any) -> str:
    column, unused = _sides(element, compiler, **kw)
    like_a_range = f"{column} IS NULL OR ({column} >= {unused} AND {column} <= {unused})"
    return f"({like_a_range}) AND coalesce({column}, NULL) IS NULL"


class ascending(FunctionElement[Any]):
    """`ascending(column)`, of a list's order: NULL is below everything, everywhere."""

    inherit_cache = True


class descending(FunctionElement[Any]):
    inherit_cache = True


@compiles(ascending)
def _ascending(element: ascending, compiler: SQLCompiler, **kw: Any) -> str:
    return f"{compiler.process(element.clauses, **kw)} ASC"


@compiles(descending)
def _descending(element: descending, compiler: SQLCompiler, **kw: Any) -> str:
    return f"{compiler.process(element.clauses, **kw)} DESC"


@compiles(ascending, "postgresql")
def _ascending_postgresql(element: ascending, compiler: SQLCompiler, **kw: Any) -> str:
    return f"{_ascending(element, compiler, **kw)} NULLS FIRST"


@compiles(descending, "postgresql")
def _descending_postgresql(element: descending, compiler: SQLCompiler, **kw: Any) -> str:
    return f"{_descending(element, compiler, **kw)} NULLS LAST"
