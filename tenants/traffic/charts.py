"""Figures of traffic. Pure: bars in, Plotly figure out; colours are token names, resolved in the browser."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tenants.traffic import Bar

Figure = dict[str, Any]
LINES = (
    ("p95", "latency", "p95", "--c5", "dot"),
    ("p50", "latency", "p50", "--accent", ""),
    ("first", "first", "p50", "--c2", ""),
)
KINDS = (("settled", "--c1"), ("blocked", "--c3"), ("broken", "--c4"), ("refused", "--c5"))


def calls(bars: Sequence[Bar], words: dict[str, Any], zone: Any) -> Figure:
    """Stacked bars by how calls ended; kinds that did not occur are left out, answered ones never are."""
    data = [
        {
            "type": "bar",
            "name": str(words[kind]),
            "x": _starts(bars, zone),
            "y": [getattr(bar, kind) for bar in bars],
            "marker": {"color": color, "line": {"width": 0}},
        }
        for kind, color in KINDS
        if kind == "settled" or any(getattr(bar, kind) for bar in bars)
    ]
    layout = _layout() | {"barmode": "stack"}
    layout["yaxis"] |= {"tickformat": ",d"}
    return {"data": data, "layout": layout}


def times(bars: Sequence[Bar], words: dict[str, Any], zone: Any) -> Figure:
    """Latency's median and 95th percentile and the median of the first token, in ms; a bar without calls is a gap."""
    data = [
        {
            "type": "scatter",
            "mode": "lines+markers",
            "name": str(words[name]),
            "x": _starts(bars, zone),
            "y": [getattr(each, quantile) if each else None for bar in bars for each in [getattr(bar, of)]],
            "line": {"color": color, "width": 2} | ({"dash": dash} if dash else {}),
            "marker": {"color": color, "size": 5},
            "hovertemplate": "%{y:,d} ms",
        }
        for name, of, quantile, color, dash in LINES
        if any(getattr(bar, of) for bar in bars)
    ]
    layout = _layout()
    layout["yaxis"] |= {"ticksuffix": " ms", "tickformat": ",d"}
    return {"data": data, "layout": layout}


def _starts(bars: Sequence[Bar], zone: Any) -> list[str]:
    return [bar.start.astimezone(zone).strftime("%Y-%m-%d %H:%M") for bar in bars]


def _layout() -> Figure:
    return {
        "xaxis": {"type": "date", "tickformat": "%H:%M", "nticks": 7, "hoverformat": "%-d %B %H:%M"},
        "yaxis": {"nticks": 4, "rangemode": "tozero"},
    }
