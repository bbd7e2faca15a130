"""Statements that only read, compiled once and handed to the driver directly.

Executing a statement through SQLAlchemy costs some 45 µs before the driver sees it, three times
what SQLite takes to answer, and showing an image takes three statements. Here SQLAlchemy is asked
once for the text, and for how each column is read. Whatever goes wrong is still its affair: it
sends the statement again and raises the error that the rest of this package understands. So no
statement here takes a lock: sending one again must not hide that the transaction was undone.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Dialect

Rows = Sequence[Sequence[Any]]
Statement = sa.Select[Any] | sa.CompoundSelect[Any]
_Processor = Callable[[Any], Any]

# A list of ids is filled up to one of these lengths, so that few texts serve all of them.
_LENGTHS: Final = tuple(2**power for power in range(13))


class Prepared:
    """A SELECT with named parameters; `variants` says the same for single dialects, by name."""

    def __init__(
        self, statement: Statement, variants: Mapping[str, Statement] | None = None
    ) -> None:
        self.statement = statement
        self._variants = variants or {}
        self._plans: dict[str, _Plan] = {}

    def fetch(self, connection: Connection, parameters: Mapping[str, Any]) -> Rows:
        """All rows, as plain sequences in the order of the statement's columns."""
        dialect = connection.dialect
        plan = self._plans.get(dialect.name)
        if plan is None:
            statement = self._variants.get(dialect.name, self.statement)
            plan = self._plans[dialect.name] = _Plan(statement, dialect)
        try:
            return plan.run(connection, parameters)
        except Exception:
            return connection.execute(plan.statement, parameters).all()


class PreparedForIds:
    """A SELECT made for a list of ids by `build`, which is given their parameters."""

    def __init__(self, build: Callable[[Sequence[sa.BindParameter[Any]]], sa.Select[Any]]) -> None:
        self._build = build
        self._by_length: dict[int, Prepared] = {}

    def fetch(self, connection: Connection, ids: Sequence[str]) -> Rows:
        """All rows for these ids, at least one and at most 4096 of them."""
        length = next(size for size in _LENGTHS if size >= len(ids))
        prepared = self._by_length.get(length)
        if prepared is None:
            names = [sa.bindparam(f"id_{number}", type_=sa.String) for number in range(length)]
            prepared = self._by_length[length] = Prepared(self._build(names))
        filled = [*ids, *[ids[-1]] * (length - len(ids))]
        return prepared.fetch(connection, {f"id_{n}": found for n, found in enumerate(filled)})


class _Plan:
    """A statement's text for one dialect, how its parameters are passed and its rows read."""

    def __init__(self, statement: Statement, dialect: Dialect) -> None:
        self.statement = statement
        compiled = statement.compile(dialect=dialect)
        self._text = str(compiled)
        self._constants = {
            name: value for name, value in compiled.params.items() if value is not None
        }
        binds = {
            name: parameter.type.dialect_impl(dialect).bind_processor(dialect)
            for name, parameter in compiled.binds.items()
        }
        self._binds = {name: process for name, process in binds.items() if process is not None}
        # Names in the order of their marks, or None where the driver takes them by name.
        self._positions = compiled.positiontup if compiled.positional else None
        # A list of values becomes part of the text; only SQLAlchemy knows how.
        self._usable = not compiled.post_compile_params
        readers = (
            column.type.dialect_impl(dialect).result_processor(dialect, None)
            for column in statement.selected_columns
        )
        self._readers = [(n, read) for n, read in enumerate(readers) if read is not None]

    def run(self, connection: Connection, parameters: Mapping[str, Any]) -> Rows:
        if not self._usable:
            raise NotImplementedError
        values = {**self._constants, **parameters}
        for name, process in self._binds.items():
            values[name] = process(values[name])
        arguments: Any = values
        if self._positions is not None:
            arguments = [values[name] for name in self._positions]
        cursor = connection.connection.cursor()
        try:
            cursor.execute(self._text, arguments)
            rows: Rows = cursor.fetchall()
        finally:
            cursor.close()
        return self._read(rows) if self._readers else rows

    def _read(self, rows: Rows) -> Rows:
        readers = self._readers
        lists = [list(row) for row in rows]
        for row in lists:
            for number, read in readers:
                row[number] = read(row[number])
        return lists
