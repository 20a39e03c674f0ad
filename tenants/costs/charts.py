"""Figures of what calls cost. Pure: rows in, Plotly figure out; colours are token names, resolved in the browser."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, timedelta
from typing import Any

from tenants.costs.forecasts import Forecast
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
            "range": [f"{first - timedelta(1)}T12:00:00", f"{last}T12:00:00"],
            "dtick": 4 * 86_400_000,
            "tick0": first.isoformat(),
            "hoverformat": "%-d %B %A",
        },
        "yaxis": {"tickprefix": "$", "nticks": 5, "rangemode": "tozero", "tickformat": ",~f"},
    }
    return {"data": [bars], "layout": layout}


def burn_down(
    rows: Sequence[dict[str, Any]], last: date, budget: int, forecast: Forecast | None, words: dict[str, str]
) -> Figure:
    """What is left of the budget at the end of each day of `rows` {day, spent, left}, and the forecast to `last` with
    its 80 % band; without a budget what has been spent, adding up. Words: left, spent, forecast, even.
    """
    if not rows:
        return {"data": [], "layout": {}}
    before = rows[0]["day"] - timedelta(1)

    def height(spent: int) -> float:
        return (budget - spent if budget else spent) / NANO

    days_, values = [before, *(row["day"] for row in rows)], [0, *(row["spent"] for row in rows)]
    name = words["left"] if budget else words["spent"]
    seen = _line(days_, [height(value) for value in values], "--accent", name=name)
    data, notes = _band(rows[-1], forecast, height, words), []
    if budget:
        data.insert(0, _line([before, last], [budget / NANO, 0], "--line-control", width=1, dash="dot"))
        middle = before + (last - before) / 3
        notes.append(_note(middle, height(budget // 3), words["even"], "--ink-3", yanchor="top"))
    layout = {
        "xaxis": {
            "type": "date",
            "tickformat": "%-d %b",
            "range": [before.isoformat(), (last + timedelta(1)).isoformat()],
            "dtick": 7 * 86_400_000,
            "tick0": rows[0]["day"].isoformat(),
            "hoverformat": "%-d %B",
        },
        "yaxis": {"tickprefix": "$", "nticks": 5, "tickformat": ",~f", "rangemode": "tozero"},
        "annotations": notes,
        "shapes": [_zero()] if budget else [],
    }
    return {"data": [*data, seen], "layout": layout}


def _band(last: dict[str, Any], forecast: Forecast | None, height: Any, words: dict[str, str]) -> list[Figure]:
    """The forecast as three lines: two edges with the band between them, and the expected course."""
    if forecast is None:
        return []
    ahead = [each for each in forecast.path if each.day > last["day"]]
    days_ = [last["day"], *(each.day for each in ahead)]
    edges = [[height(last["spent"]), *(height(getattr(each, edge)) for each in ahead)] for edge in ("high", "low")]
    low, high = (_line(days_, edge, "--band", width=0) for edge in edges)
    high |= {"fill": "tonexty", "fillcolor": "--band"}
    expected = [height(last["spent"]), *(height(each.expected) for each in ahead)]
    return [low, high, _line(days_, expected, "--accent", width=1.5, dash="dash", name=words["forecast"])]


def _line(
    x: Sequence[date], y: Sequence[float], color: str, width: float = 2, dash: str = "", name: str = ""
) -> Figure:
    line: Figure = {"color": color, "width": width} | ({"dash": dash} if dash else {})
    shown = {"name": name, "hovertemplate": "$%{y:,.2~f}"} if name else {"hoverinfo": "skip"}
    return {"type": "scatter", "mode": "lines", "x": [day.isoformat() for day in x], "y": list(y), "line": line} | shown


def _note(x: date, y: float, text: str, color: str, **anchors: str) -> Figure:
    font = {"color": color, "size": 12}
    return {"x": x.isoformat(), "y": y, "text": text, "showarrow": False, "font": font, "xanchor": "right"} | anchors


def _zero() -> Figure:
    """The line at which nothing is left."""
    line = {"color": "--bad", "width": 1}
    return {"type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": 0, "y1": 0, "line": line}
