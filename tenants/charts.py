"""Figures of what calls cost. Pure: rows in, Plotly figure out; colours are token names, resolved in the browser."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, timedelta
from typing import Any

from tenants.models import NANO

Figure = dict[str, Any]


def days(rows: Sequence[dict[str, Any]], first: date, last: date, name: str) -> Figure:
    """Spend per day in dollars from `first` to `last`; a day without calls is a zero, not a gap."""
    spent = {row["day"]: row["spent"] for row in rows}
    span = [first + timedelta(n) for n in range((last - first).days + 1)]
    bars = {
        "type": "bar",
        "name": name,
        "x": [day.isoformat() for day in span],
        "y": [spent.get(day, 0) / NANO for day in span],
        "marker": {"color": "--c1", "line": {"width": 0}},
        "hovertemplate": "$%{y:,.6~f}",
    }
    layout = {
        "xaxis": {
            "type": "date",
            "tickformat": "%-d %b",
            "range": [(first - timedelta(hours=12)).isoformat(), (last + timedelta(1)).isoformat()],
            "dtick": 4 * 86_400_000,
            "tick0": first.isoformat(),
            "hoverformat": "%-d %B %A",
        },
        "yaxis": {"tickprefix": "$", "nticks": 5, "rangemode": "tozero", "tickformat": ",~f"},
    }
    return {"data": [bars], "layout": layout}
