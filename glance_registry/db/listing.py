"""One page of images, at a cost that does not grow with the table.

What a caller may list is the union of a few branches (public images, his own, those shared with
him), and what comes after a marker is the union of a few ranges. Each branch within each range is
one run of an index that is already in order, so its first rows are the only ones ever read:
`limit` rows per run, merged and cut once more. A filter that matches few rows is the better
place to start from; then those rows are read and sorted (`_from_few`).
"""

import operator
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from functools import lru_cache
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.engine import Connection
from sqlalchemy.sql import ColumnElement

from common import errors
from common.context import RequestContext
from common.image import BRIEF_FIELDS, CORE_FIELDS, KILLED, Image
from common.query import ListQuery, Scope
from glance_registry.db import rows, visibility
from glance_registry.db.models import image_members, image_properties, images

Condition = ColumnElement[bool]

# Up to this many matches of a filter are cheaper to sort than to look for along the order.
_FEW: Final = 5000

# Below every value there is, where NULL sorts lowest: "is not null" as a range of an index.
_LOWEST: Final[dict[str, Any]] = {"size": -(2**63), "updated_at": datetime(1000, 1, 1)}

_BOUNDS: Final[dict[str, tuple[str, Callable[[Any, Any], Condition]]]] = {
    "size_min": ("size", operator.ge),
    "size_max": ("size", operator.le),
    "min_ram": ("min_ram", operator.eq),
    "min_disk": ("min_disk", operator.eq),
    "protected": ("protected", operator.eq),
    "changes_since": ("updated_at", operator.gt),
}

_OWNER: Final = sa.bindparam("owner", type_=sa.String)
_LIMIT: Final = sa.bindparam("limit", type_=sa.Integer)
_SHARED: Final = sa.select(image_members.c.image_id).where(
    image_members.c.member == _OWNER, image_members.c.deleted == sa.false()
)


@dataclass(frozen=True, slots=True)
class _Shape:
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
    matches: tuple[tuple[str, bool], ...]
    bounds: tuple[str, ...]
    properties: int
    # The filter to start from if it matches few rows; None follows the order's index.
    start: str | None = None


def page(
    connection: Connection, ctx: RequestContext, query: ListQuery, limit: int, *, brief: bool
) -> list[Image]:
    """At most limit images that ctx may list, in order; brief ones have the six fields only.

    Raises Invalid for a marker that does not exist or that ctx may not see.
    """
    marker = None if query.marker is None else _marker(connection, ctx, query, query.marker)
    if limit == 0 or not all(query.matches.values()):
        return []
    shape = _shape(ctx, query, marker, BRIEF_FIELDS if brief else CORE_FIELDS)
    parameters = _parameters(ctx, query, marker, limit)
    shape = replace(shape, start=_starting_point(connection, shape, parameters))
    found = connection.execute(_statement(shape), parameters)
    if brief:
        return [Image(**dict(zip(BRIEF_FIELDS, row, strict=False))) for row in found]
    page = [Image(*row) for row in found]
    rows.attach_details(connection, page, removed=True in shape.deleted)
    for image in page:
        if not visibility.can_see_locations(ctx, image):
            image.locations = []
    return page


def _marker(connection: Connection, ctx: RequestContext, query: ListQuery, marker: str) -> Image:
    image = rows.image_row(connection, marker)
    if image is not None and image.deleted and query.changes_since is not None:
        image.deleted = False
    if image is None or not visibility.is_visible(
        ctx, image, lambda member: rows.is_member(connection, marker, member)
    ):
        raise errors.Invalid(f"Invalid marker: image {marker} could not be found.")
    return image


def _shape(
    ctx: RequestContext, query: ListQuery, marker: Image | None, columns: tuple[str, ...]
) -> _Shape:
    if query.deleted is not None:
        deleted: tuple[bool, ...] = (query.deleted,)
    else:
        deleted = (False,) if query.changes_since is None else (False, True)
    return _Shape(
        columns=columns,
        scope=query.scope,
        has_owner=ctx.owner is not None,
        deleted=deleted,
        sort_key=query.sort_key,
        ascending=query.sort_dir == "asc",
        after_null=None if marker is None else getattr(marker, query.sort_key) is None,
        matches=tuple((name, len(values) == 1) for name, values in query.matches.items()),
        bounds=tuple(name for name in _BOUNDS if getattr(query, name) is not None),
        properties=len(query.properties),
    )


def _parameters(
    ctx: RequestContext, query: ListQuery, marker: Image | None, limit: int
) -> dict[str, Any]:
    parameters: dict[str, Any] = {"limit": limit}
    if ctx.owner is not None:
        parameters["owner"] = ctx.owner
    if marker is not None:
        for key in _order(query.sort_key):
            parameters[f"after_{key}"] = getattr(marker, key)
    for name, values in query.matches.items():
        parameters[f"match_{name}"] = values[0] if len(values) == 1 else list(values)
    for name in _BOUNDS:
        if (value := getattr(query, name)) is not None:
            parameters[name] = value
    for number, (name, value) in enumerate(query.properties.items()):
        parameters[f"property_{number}"] = name
        parameters[f"value_{number}"] = value
    return parameters


def _order(sort_key: str) -> tuple[str, ...]:
    """The columns that a list is sorted by; the last is unique."""
    keys = (sort_key, "created_at", "id")
    return keys[: keys.index("id") + 1] if sort_key != "created_at" else keys[1:]


@lru_cache(maxsize=128)
def _statement(shape: _Shape) -> sa.Select[Any]:
    if shape.start is not None:
        return _from_few(shape)
    runs = [
        _ordered(_select(shape).where(*branch, *after, *_filters(shape)), images.c, shape)
        for branch in _branches(shape)
        for after in _ranges(shape)
    ]
    if len(runs) == 1:
        return runs[0]
    merged = sa.union_all(*(sa.select(run.subquery()) for run in runs)).subquery()
    visible = (merged.c[name] for name in shape.columns)
    return _ordered(sa.select(*visible), merged.c, shape)


def _select(shape: _Shape) -> sa.Select[Any]:
    names = dict.fromkeys((*shape.columns, *_order(shape.sort_key)))
    return sa.select(*(images.c[name] for name in names))


def _ordered(statement: sa.Select[Any], columns: Any, shape: _Shape) -> sa.Select[Any]:
    keys = (columns[name] for name in _order(shape.sort_key))
    return statement.order_by(
        *(key.asc() if shape.ascending else key.desc() for key in keys)
    ).limit(_LIMIT)


def _branches(shape: _Shape) -> Iterator[list[Condition]]:
    """Disjoint parts of what may be listed; each starts at a prefix of an index."""
    for deleted in shape.deleted:
        state = images.c.deleted == _boolean(deleted)
        if shape.scope != "private":
            yield [state, images.c.is_public == sa.true()]
        if shape.scope != "visible":
            yield [state, images.c.is_public == sa.false()]
        elif shape.has_owner:
            private = _unindexed(images.c.is_public) == sa.false()
            yield [images.c.owner == _OWNER, state, private]
            # The memberships of a deleted image went with it.
            if not deleted:
                foreign = sa.or_(images.c.owner.is_(None), images.c.owner != _OWNER)
                live = _unindexed(images.c.deleted) == sa.false()
                yield [images.c.id.in_(_SHARED), live, private, foreign]


def _ranges(shape: _Shape) -> Iterator[list[Condition]]:
    """What comes after the marker, as disjoint ranges of the order's columns."""
    if shape.after_null is None:
        yield []
        return
    same: list[Condition] = []
    for key in _order(shape.sort_key):
        column, marker = images.c[key], sa.bindparam(f"after_{key}", type_=images.c[key].type)
        is_null = shape.after_null and key == shape.sort_key
        yield from ([*same, beyond] for beyond in _beyond(shape, column, marker, is_null))
        same.append(column.is_(None) if is_null else column == marker)


def _beyond(
    shape: _Shape, column: sa.Column[Any], marker: sa.BindParameter[Any], is_null: bool
) -> Iterator[Condition]:
    """Values of one column after the marker's; null sorts below everything."""
    if is_null:
        if shape.ascending:
            yield column >= _LOWEST.get(column.name, "")
    elif shape.ascending:
        yield column > marker
    else:
        yield column < marker
        if column.nullable:
            yield column.is_(None)


def _filters(shape: _Shape) -> Iterator[Condition]:
    """The query's own conditions. None may tempt the database away from the index that is in
    order, so each hides its column unless it narrows that very index.
    """
    if shape.deleted == (False,):
        yield _unindexed(images.c.status) != KILLED
    for name, single in shape.matches:
        served = single and shape.start is None and shape.sort_key in ("created_at", name)
        column = images.c[name] if served or shape.start == name else _unindexed(images.c[name])
        yield _match(column, name, single)
    for name in shape.bounds:
        field, compare = _BOUNDS[name]
        narrows = shape.start == name or (shape.start is None and shape.sort_key == field)
        column = images.c[field] if narrows else _unindexed(images.c[field])
        yield compare(column, sa.bindparam(name, type_=images.c[field].type))
    for number in range(shape.properties):
        matching = _having_property(number)
        if shape.start == f"property_{number}":
            yield images.c.id.in_(matching)
        else:
            yield matching.where(image_properties.c.image_id == images.c.id).exists()


def _match(column: ColumnElement[Any], name: str, single: bool) -> Condition:
    if single:
        return column == sa.bindparam(f"match_{name}", type_=images.c[name].type)
    return column.in_(sa.bindparam(f"match_{name}", expanding=True, type_=images.c[name].type))


def _having_property(number: int) -> sa.Select[Any]:
    return sa.select(image_properties.c.image_id).where(
        image_properties.c.name == sa.bindparam(f"property_{number}"),
        image_properties.c.value == sa.bindparam(f"value_{number}"),
        image_properties.c.deleted == sa.false(),
    )


def _unindexed(column: sa.ColumnElement[Any]) -> ColumnElement[Any]:
    """The column's value, in a form that no index answers."""
    return sa.func.coalesce(column, sa.null(), type_=column.type)


def _boolean(value: bool) -> ColumnElement[bool]:
    return sa.true() if value else sa.false()


def _from_few(shape: _Shape) -> sa.Select[Any]:
    """Start from the filter shape.start, which matches few rows, and sort what is left."""
    hidden = {name: _unindexed(images.c[name]) for name in ("deleted", "is_public", "owner")}
    conditions: list[Condition] = list(_filters(shape))
    if len(shape.deleted) == 1:
        conditions.append(hidden["deleted"] == _boolean(shape.deleted[0]))
    if shape.scope == "private":
        conditions.append(hidden["is_public"] == sa.false())
    elif shape.scope == "visible":
        visible = [hidden["is_public"] == sa.true()]
        if shape.has_owner:
            shared = sa.and_(hidden["deleted"] == sa.false(), images.c.id.in_(_SHARED))
            visible += [hidden["owner"] == _OWNER, shared]
        conditions.append(sa.or_(*visible))
    if shape.after_null is not None:
        conditions.append(sa.or_(*(sa.and_(*after) for after in _ranges(shape))))
    keys = (_unindexed(images.c[name]) for name in _order(shape.sort_key))
    return (
        sa.select(*(images.c[name] for name in shape.columns))
        .where(*conditions)
        .order_by(*(key.asc() if shape.ascending else key.desc() for key in keys))
        .limit(_LIMIT)
    )


def _starting_point(
    connection: Connection, shape: _Shape, parameters: dict[str, Any]
) -> str | None:
    """The first filter that the sorted index does not serve and that matches few rows."""
    for start, matching in _candidates(shape):
        counted = sa.select(sa.func.count()).select_from(matching.limit(_FEW + 1).subquery())
        if connection.execute(counted, parameters).scalar_one() <= _FEW:
            return start
    return None


def _candidates(shape: _Shape) -> Iterator[tuple[str, sa.Select[Any]]]:
    for number in range(shape.properties):
        yield f"property_{number}", _having_property(number)
    if "changes_since" in shape.bounds and shape.sort_key != "updated_at":
        changed = sa.select(images.c.updated_at)
        yield "changes_since", changed.where(images.c.updated_at > sa.bindparam("changes_since"))
    for name, single in shape.matches:
        if single and shape.sort_key not in ("created_at", name):
            yield (
                name,
                sa.select(images.c.created_at).where(
                    images.c.deleted.in_(_boolean(value) for value in shape.deleted),
                    images.c.is_public.in_((sa.true(), sa.false())),
                    _match(images.c[name], name, single),
                ),
            )
