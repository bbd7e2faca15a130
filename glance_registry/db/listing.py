"""One page of images, at a cost that does not grow with the table.

What a page needs beside its statement (list_statements.py): the marker, the parameters, and the
decision whether to follow the order's index or to start from a filter that matches few rows.
"""

from dataclasses import replace
from typing import Any, Final

from sqlalchemy.engine import Connection

from common import errors
from common.context import RequestContext
from common.image import BRIEF_FIELDS, CORE_FIELDS, KILLED, Image
from common.query import ListQuery
from glance_registry.db import list_statements, rows, visibility
from glance_registry.db.list_statements import BOUNDS, Shape, order_of

# Up to this many matches of a filter are cheaper to sort than to look for along the order.
_FEW: Final = 5000


def page(
    connection: Connection,
    ctx: RequestContext,
    query: ListQuery,
    limit: int,
    *,
    brief: bool,
    unaccepted: bool = True,
) -> list[Image]:
    """At most limit images that ctx may list, in order; brief ones have the six fields only.

    unaccepted: also those that are shared with ctx and not yet accepted (SEC-011).

    Raises Invalid for a marker that does not exist or that ctx may not see.
    """
    marker = None if query.marker is None else _marker(connection, ctx, query, query.marker)
    if limit == 0 or _matches_nothing(query):
        return []
    shape = _shape(ctx, query, marker, BRIEF_FIELDS if brief else CORE_FIELDS)
    shape = replace(shape, unaccepted=unaccepted)
    parameters = _parameters(ctx, query, marker, limit)
    start = _starting_point(connection, shape, parameters)
    found = list_statements.page(shape, start).fetch(connection, parameters)
    if brief:
        return [Image(**dict(zip(BRIEF_FIELDS, row, strict=False))) for row in found]
    page = [Image(*row) for row in found]
    rows.attach_details(connection, page, removed=True in shape.deleted)
    for image in page:
        if not visibility.can_see_locations(ctx, image):
            image.locations = []
    return page


def _matches_nothing(query: ListQuery) -> bool:
    """Nothing has one of no values, and killed images are listed only with others' changes."""
    live_only = query.deleted is False or (query.deleted is None and query.changes_since is None)
    only_killed = set(query.matches.get("status", ())) == {KILLED}
    return not all(query.matches.values()) or (live_only and only_killed)


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
) -> Shape:
    if query.deleted is not None:
        deleted: tuple[bool, ...] = (query.deleted,)
    else:
        deleted = (False,) if query.changes_since is None else (False, True)
    return Shape(
        columns=columns,
        scope=query.scope,
        has_owner=ctx.owner is not None,
        deleted=deleted,
        sort_key=query.sort_key,
        ascending=query.sort_dir == "asc",
        after_null=None if marker is None else getattr(marker, query.sort_key) is None,
        matches=tuple((name, len(values) == 1) for name, values in query.matches.items()),
        bounds=tuple(name for name in BOUNDS if getattr(query, name) is not None),
        properties=len(query.properties),
    )


def _parameters(
    ctx: RequestContext, query: ListQuery, marker: Image | None, limit: int
) -> dict[str, Any]:
    parameters: dict[str, Any] = {"limit": limit, "few": _FEW + 1}
    if ctx.owner is not None:
        parameters["owner"] = ctx.owner
    if marker is not None:
        for key in order_of(query.sort_key):
            parameters[f"after_{key}"] = getattr(marker, key)
    for name, values in query.matches.items():
        parameters[f"match_{name}"] = values[0] if len(values) == 1 else list(values)
    for name in BOUNDS:
        if (value := getattr(query, name)) is not None:
            parameters[name] = value
    for number, (name, value) in enumerate(query.properties.items()):
        parameters[f"property_{number}"] = name
        parameters[f"value_{number}"] = value
    return parameters


def _starting_point(connection: Connection, shape: Shape, parameters: dict[str, Any]) -> str | None:
    """The first filter that the order's index does not serve and that matches few rows."""
    for start, count in list_statements.counts(shape):
        if count.fetch(connection, parameters)[0][0] <= _FEW:
            return start
    return None
