"""The statement behind a page of a list.

What a caller may list is the union of a few branches (public images, his own, those shared with
him), and what comes after a marker is the union of a few ranges. Each branch within each range is
one run of an index that is already in order, so its first rows are the only ones ever read:
at most `limit` rows per run, merged and cut once more. A filter that matches few rows is the better
place to start from; then those rows are read and sorted (`_from_few`).

Every other condition hides its column from the indexes. Which one a statement follows is decided
here, not guessed by a database from statistics that it may not have.
"""

import operator
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any, Final, TypeVar

import sqlalchemy as sa
from sqlalchemy.sql import ColumnElement

from common.image import KILLED
from common.query import Scope
from glance_registry.db import ties
from glance_registry.db.models import image_members, image_properties, images
from glance_registry.db.prepared import Prepared
from glance_registry.db.rows import is_live, unindexed

Condition = ColumnElement[bool]
_Statement = TypeVar("_Statement", sa.Select[Any], sa.CompoundSelect[Any])
_Branch = tuple[Sequence[str], Iterable[list[Condition]]]

# Below every value there is, where NULL sorts lowest: "is not null" as a range of an index.
_LOWEST: Final[dict[str, Any]] = {"size": -(2**63), "updated_at": datetime(1000, 1, 1)}

# Filters other than equality with text: the column, and how it is compared.
BOUNDS: Final[dict[str, tuple[str, Callable[[Any, Any], Condition]]]] = {
    "size_min": ("size", operator.ge),
    "size_max": ("size", operator.le),
    "min_ram": ("min_ram", operator.eq),
    "min_disk": ("min_disk", operator.eq),
    "protected": ("protected", operator.eq),
    "changes_since": ("updated_at", operator.gt),
}
# Columns whose only index begins with what every list asks for.
_LISTED: Final = ("name", "status", "container_format", "disk_format", "size")

_ACCEPTED: Final = "accepted"
_OWNER: Final = sa.bindparam("owner", type_=sa.String)
_LIMIT: Final = sa.bindparam("limit", type_=sa.Integer)
_ONE: Final = sa.literal_column("1", sa.Integer)


@dataclass(frozen=True, slots=True)
class Shape:
    """All of a query that shows in its SQL text; queries of one shape share one statement."""

    columns: tuple[str, ...]
    scope: Scope
    has_owner: bool
    # The values of `deleted` to look at; killed images are left out where only live ones are.
    deleted: tuple[bool, ...]
    sort_key: str
    ascending: bool
    # None for the first page; else whether the marker's sort key is null.
    after_null: bool | None
    # Fields compared with text, and whether there is one value only.
    matches: tuple[tuple[str, bool], ...]
    bounds: tuple[str, ...]
    properties: int
    # Whether a share counts before it is accepted (SEC-011).
    unaccepted: bool = True


def order_of(sort_key: str) -> tuple[str, ...]:
    """The columns that a list is sorted by; the last is unique."""
    keys = (sort_key, "created_at", "id")
    return keys[: keys.index("id") + 1] if sort_key != "created_at" else keys[1:]


@lru_cache(maxsize=128)
def page(shape: Shape, start: str | None) -> Prepared:
    """A page's rows: the shape's columns, perhaps followed by others that they are sorted by.
    start is a filter of `counts`, or None for the order.
    """
    if start is not None:
        return Prepared(_from_few(shape, start))
    runs = [
        _following(_select(shape), indexes).where(*run, *_filters(shape, None))
        for indexes, branch in _branches(shape)
        for run in branch
    ]
    if len(runs) == 1:
        return Prepared(_sorted(runs[0], images.c, shape))
    # SQLite reads such runs side by side, and of none more than the page takes.
    side_by_side = sa.union_all(*runs)
    sqlite = _sorted(side_by_side, side_by_side.selected_columns, shape)
    return Prepared(_merged(runs, shape), {"sqlite": sqlite})


def _merged(runs: Sequence[sa.Select[Any]], shape: Shape) -> sa.Select[Any]:
    """The first rows of every run, read one run after the other."""
    first = (sa.select(_sorted(run, images.c, shape).subquery()) for run in runs)
    merged = sa.union_all(*first).subquery()
    return _sorted(sa.select(*merged.c), merged.c, shape)


@lru_cache(maxsize=128)
def counts(shape: Shape) -> tuple[tuple[str, Prepared], ...]:
    """Filters that could be the place to start from, each with a count that stops at `few`."""
    few = sa.bindparam("few", type_=sa.Integer)
    return tuple(
        (start, Prepared(sa.select(sa.func.count()).select_from(matching.limit(few).subquery())))
        for start, matching in _candidates(shape)
    )


def _following(statement: sa.Select[Any], indexes: Sequence[str]) -> sa.Select[Any]:
    """Tell MySQL, which prefers merging two poor indexes to following a good one."""
    hint = f"FORCE INDEX ({', '.join(indexes)})"
    for dialect in ("mysql", "mariadb"):
        statement = statement.with_hint(images, hint, dialect)
    return statement


def _select(shape: Shape) -> sa.Select[Any]:
    names = dict.fromkeys((*shape.columns, *order_of(shape.sort_key)))
    return sa.select(*(images.c[name] for name in names))


def _sorted(statement: _Statement, columns: Any, shape: Shape) -> _Statement:
    keys = (columns[name] for name in order_of(shape.sort_key))
    return statement.order_by(*_directed(keys, shape)).limit(_LIMIT)


def _directed(keys: Iterable[Any], shape: Shape) -> Iterator[Any]:
    for name, key in zip(order_of(shape.sort_key), keys, strict=True):
        if images.c[name].nullable:
            yield ties.ascending(key) if shape.ascending else ties.descending(key)
        else:
            yield key.asc() if shape.ascending else key.desc()


def _branches(shape: Shape) -> Iterator[_Branch]:
    """Disjoint parts of what may be listed: the indexes that serve one, and runs of these."""
    listing = [f"glance_v1_list_{shape.sort_key}"]
    if shape.sort_key == "created_at":
        listing += [f"glance_v1_list_{name}" for name, single in shape.matches if single]
    for deleted in shape.deleted:
        state = images.c.deleted == _boolean(deleted)
        if shape.scope != "private":
            yield listing, _runs(shape, [state, images.c.is_public == sa.true()])
        if shape.scope != "visible":
            yield listing, _runs(shape, [state, images.c.is_public == sa.false()])
        elif shape.has_owner:
            yield from _own(shape, state, deleted)


def _own(shape: Shape, state: Condition, deleted: bool) -> Iterator[_Branch]:
    private = unindexed(images.c.is_public) == sa.false()
    owned = [images.c.owner == _OWNER, state, private]
    # The index of an owner's images is in the default order; any other sorts what he has.
    in_order = shape.sort_key == "created_at"
    runs = _runs(shape, owned) if in_order else [[*owned, *_beyond_marker(shape)]]
    yield ["glance_v1_owned"], runs
    # The memberships of a deleted image went with it.
    if not deleted:
        foreign = sa.or_(images.c.owner.is_(None), images.c.owner != _OWNER)
        live = unindexed(images.c.deleted) == sa.false()
        shared = [images.c.id.in_(_shared(shape)), live, private, foreign]
        yield ["PRIMARY"], [[*shared, *_beyond_marker(shape)]]


def _shared(shape: Shape) -> sa.Select[tuple[str]]:
    memberships = sa.select(image_members.c.image_id).where(
        image_members.c.member == _OWNER, image_members.c.deleted == sa.false()
    )
    return (
        memberships if shape.unaccepted else memberships.where(image_members.c.status == _ACCEPTED)
    )


def _runs(shape: Shape, prefix: list[Condition]) -> Iterator[list[Condition]]:
    columns = {name: images.c[name] for name in order_of(shape.sort_key)}
    for after in _ranges(shape, columns):
        for side in _sides_of_killed(shape, after):
            yield [*prefix, *after, *side]


def _sides_of_killed(shape: Shape, after: list[Condition]) -> list[list[Condition]]:
    """Sorted by status, all killed images stand in one row, which a run of several statuses has
    to step over.
    """
    one_status = len(after) > 1
    if shape.sort_key != "status" or shape.deleted != (False,) or one_status:
        return [[]]
    return [[images.c.status < KILLED], [images.c.status > KILLED]]


def _beyond_marker(shape: Shape) -> list[Condition]:
    """What comes after the marker as one condition, of rows found by something else."""
    if shape.after_null is None:
        return []
    columns = {name: unindexed(images.c[name]) for name in order_of(shape.sort_key)}
    return [sa.or_(*(sa.and_(*after) for after in _ranges(shape, columns)))]


def _ranges(shape: Shape, columns: Mapping[str, ColumnElement[Any]]) -> Iterator[list[Condition]]:
    """What comes after the marker, as disjoint ranges of the order's columns."""
    if shape.after_null is None:
        yield []
        return
    same: list[Condition] = []
    for key, column in columns.items():
        marker = sa.bindparam(f"after_{key}", type_=images.c[key].type)
        is_null = shape.after_null and key == shape.sort_key
        yield from ([*same, beyond] for beyond in _beyond(shape, key, column, is_null))
        same.append(ties.is_null(column, _lowest(key)) if is_null else ties.equals(column, marker))


def _beyond(
    shape: Shape, key: str, column: ColumnElement[Any], is_null: bool
) -> Iterator[Condition]:
    """Values of one column after the marker's; null sorts below everything."""
    marker = sa.bindparam(f"after_{key}", type_=images.c[key].type)
    if is_null:
        if shape.ascending:
            yield column >= _lowest(key)
    elif shape.ascending:
        yield column > marker
    else:
        yield column < marker
        if images.c[key].nullable:
            yield ties.is_null(column, _lowest(key))


def _lowest(key: str) -> sa.BindParameter[Any]:
    return sa.bindparam(f"lowest_{key}", _LOWEST.get(key, ""), type_=images.c[key].type)


def _filters(shape: Shape, start: str | None) -> Iterator[Condition]:
    """The query's own conditions; those on the start's column, or without one on what narrows
    the order's index, are the only ones that an index may answer.
    """
    if shape.deleted == (False,):
        yield unindexed(images.c.status) != KILLED
    for name, single in shape.matches:
        served = start == name if start else single and shape.sort_key in ("created_at", name)
        yield _match(images.c[name] if served else unindexed(images.c[name]), name, single)
    for name in shape.bounds:
        field, _ = BOUNDS[name]
        served = start == field if start else shape.sort_key == field
        yield _bound(images.c[field] if served else unindexed(images.c[field]), name)
    for number in range(shape.properties):
        if start == f"property_{number}":
            yield images.c.id.in_(_having_property(number, image_properties.c.value))
        else:
            # Found by image and name; a common value would be a long way round.
            having = _having_property(number, unindexed(image_properties.c.value))
            yield having.where(image_properties.c.image_id == images.c.id).exists()


def _match(column: ColumnElement[Any], name: str, single: bool) -> Condition:
    if single:
        return column == sa.bindparam(f"match_{name}", type_=images.c[name].type)
    return column.in_(sa.bindparam(f"match_{name}", expanding=True, type_=images.c[name].type))


def _bound(column: ColumnElement[Any], name: str) -> Condition:
    field, compare = BOUNDS[name]
    return compare(column, sa.bindparam(name, type_=images.c[field].type))


def _having_property(number: int, value: ColumnElement[Any]) -> sa.Select[Any]:
    return sa.select(image_properties.c.image_id).where(
        image_properties.c.name == sa.bindparam(f"property_{number}"),
        value == sa.bindparam(f"value_{number}"),
        is_live(image_properties),
    )


def _boolean(value: bool) -> ColumnElement[bool]:
    return sa.true() if value else sa.false()


def _from_few(shape: Shape, start: str) -> sa.Select[Any]:
    """Start from the filter, which matches few rows, and sort what is left of them."""
    keys = (unindexed(images.c[name]) for name in order_of(shape.sort_key))
    return (
        sa.select(*(images.c[name] for name in shape.columns))
        .where(*_prefix(shape, start), *_filters(shape, start))
        .where(*_visible(shape), *_beyond_marker(shape))
        .order_by(*_directed(keys, shape))
        .limit(_LIMIT)
    )


def _visible(shape: Shape) -> Iterator[Condition]:
    """The branches as one condition, of rows found by something else."""
    hidden = {name: unindexed(images.c[name]) for name in ("deleted", "is_public", "owner")}
    if len(shape.deleted) == 1:
        yield hidden["deleted"] == _boolean(shape.deleted[0])
    if shape.scope == "private":
        yield hidden["is_public"] == sa.false()
    elif shape.scope == "visible":
        visible = [hidden["is_public"] == sa.true()]
        if shape.has_owner:
            shared = sa.and_(hidden["deleted"] == sa.false(), images.c.id.in_(_shared(shape)))
            visible += [hidden["owner"] == _OWNER, shared]
        yield sa.or_(*visible)


def _prefix(shape: Shape, start: str) -> Iterator[Condition]:
    if start in _LISTED:
        yield images.c.deleted.in_([_boolean(value) for value in shape.deleted])
        yield images.c.is_public.in_([sa.false(), sa.true()])


def _candidates(shape: Shape) -> Iterator[tuple[str, sa.Select[Any]]]:
    for number in range(shape.properties):
        # Removed ones too: whether they are is not in the index.
        yield (
            f"property_{number}",
            sa.select(_ONE).where(
                image_properties.c.name == sa.bindparam(f"property_{number}"),
                image_properties.c.value == sa.bindparam(f"value_{number}"),
            ),
        )
    for name, single in shape.matches:
        # Under the default order the index of such a filter is in order itself.
        if single and shape.sort_key not in ("created_at", name):
            yield name, _counted(shape, name, [_match(images.c[name], name, single)])
    for field in dict.fromkeys(BOUNDS[name][0] for name in shape.bounds):
        if shape.sort_key != field:
            within = [_bound(images.c[field], n) for n in shape.bounds if BOUNDS[n][0] == field]
            yield field, _counted(shape, field, within)


def _counted(shape: Shape, field: str, conditions: list[Condition]) -> sa.Select[Any]:
    return sa.select(_ONE).where(*_prefix(shape, field), *conditions)
