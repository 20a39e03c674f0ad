"""Pages of a REST list, by cursor: rows that come or go meanwhile neither repeat nor hide another one."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from django.core.exceptions import ValidationError
from django.db import DataError
from django.db.models import Q, QuerySet
from django.utils.translation import gettext as _
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.utils.urls import replace_query_param

PAGE_SIZE, MOST_ROWS = 50, 500  # a whole ledger is read page by page


class BadCursor(serializers.ValidationError):
    def __init__(self) -> None:
        super().__init__({"cursor": [_("This is no cursor of this list. Take it from the last answer's next.")]})


def page(
    request: Request,
    rows: QuerySet[Any],
    serializer: type[serializers.Serializer[Any]],
    order: Sequence[str] = (),
    **context: Any,
) -> Response:
    """One page: `{"next": address or null, "results": [...]}`; `?limit=` (at most 500) and `?cursor=` from `next`.

    A cursor names the last row seen by the values it is ordered by. `order` (default: the model's) must not hold a
    column that may be null; the id is added.
    """
    order = _unique([*(order or rows.query.order_by or rows.model._meta.ordering)])
    limit, cursor = limit_of(request), request.query_params.get("cursor")
    try:
        if cursor:
            rows = rows.filter(_after(order, _read(cursor, len(order))))
        found = list(rows.order_by(*order)[: limit + 1])
    except (ValueError, TypeError, OverflowError, ValidationError, DataError) as error:
        if not cursor:
            raise
        raise BadCursor from error
    following = _cursor(order, found[limit - 1]) if len(found) > limit else None
    address = following and replace_query_param(request.build_absolute_uri(), "cursor", following)
    shown = serializer(found[:limit], many=True, context=context).data
    return Response({"next": address, "results": shown})


def limit_of(request: Request) -> int:
    """How many rows `?limit=` asks for; raises a ValidationError."""
    text = request.query_params.get("limit", str(PAGE_SIZE))
    if not (text.isascii() and text.isdecimal() and text.strip("0")):
        raise serializers.ValidationError({"limit": [_("Give a whole number from 1 to 500.")]})
    return MOST_ROWS if len(text.lstrip("0")) > 3 else min(int(text), MOST_ROWS)


def _unique(order: list[str]) -> list[str]:
    """The order with the row's id at its end, in the direction of the last column, so that one index serves it."""
    if order and order[-1].lstrip("-") in {"pk", "id"}:
        return order
    return [*order, "-pk" if order and order[-1].startswith("-") else "pk"]


def _after(order: Sequence[str], values: Sequence[Any]) -> Q:
    """Rows behind `values`: a > A, or a = A and b > B, or ... The first column alone bounds what an index reads."""
    behind, same = Q(), Q()
    for name, value in zip(order, values, strict=True):
        field, step = name.lstrip("-"), "lt" if name.startswith("-") else "gt"
        behind |= same & Q(**{f"{field}__{step}": value})
        same &= Q(**{field: value})
    field, step = order[0].lstrip("-"), "lte" if order[0].startswith("-") else "gte"
    return Q(**{f"{field}__{step}": values[0]}) & behind


def _cursor(order: Sequence[str], row: Any) -> str:
    values = [_value(row, name.lstrip("-")) for name in order]
    return base64.urlsafe_b64encode(json.dumps(values).encode()).decode().rstrip("=")


def _value(row: Any, path: str) -> Any:
    for part in path.split("__"):
        row = getattr(row, part)
    return row if isinstance(row, int) else row.isoformat() if isinstance(row, datetime) else str(row)


def _read(cursor: str, count: int) -> list[Any]:
    try:
        values = json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
    except (binascii.Error, RecursionError) as error:
        raise ValueError(cursor) from error
    if not isinstance(values, list) or len(values) != count or not all(isinstance(v, str | int) for v in values):
        raise ValueError(cursor)
    return values
