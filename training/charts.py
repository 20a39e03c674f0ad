"""Figures of a training run. Pure: points in, Plotly figure out; colours are token names, resolved in the browser."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

Point = tuple[int, Mapping[str, float]]  # step, values
Figure = dict[str, Any]
Row = tuple[str, int, Mapping[str, float]]  # split, step, values
MAX_POINTS = 1_000  # per trace
CURVES = {  # name: the value, and the level of a model that has learned nothing yet
    "loss": ("loss", math.log(2)),
    "margin": ("reward_margin", 0.0),
    "accuracy": ("reward_accuracy", 0.5),
}


def curves(rows: Sequence[Row], steps: int, names: tuple[str, str]) -> list[Figure]:
    """The three curves: name, figure, first and newest value (held-out where there are any, else training)."""
    train, heldout = ([(step, values) for split, step, values in rows if split == one] for one in ("train", "heldout"))
    drawn = []
    for name, (value, level) in CURVES.items():
        said = [values[value] for _step, values in heldout or train if value in values]
        drawn.append(
            {
                "name": name,
                "figure": curve(train, heldout, value, steps, names, level),
                "first": said[0] if said else None,
                "now": said[-1] if said else None,
                "heldout": bool(heldout),
            }
        )
    return drawn


def table(rows: Sequence[Row]) -> list[Row]:
    """At most about 40 rows for the table beside the curves: the newest held-out points, training points in between."""
    heldout, train = ([row for row in rows if row[0] == one] for one in ("heldout", "train"))
    stride = max(1, len(train) // 25)
    return sorted(heldout[-15:] + train[::stride], key=lambda row: (row[1], row[0]))


def curve(
    train: Sequence[Point], heldout: Sequence[Point], value: str, steps: int, names: tuple[str, str], line: float | None
) -> Figure:
    """`value` over the run's steps: training thin in accent, held-out in ink with markers; `line` is a drawn level."""
    trained = _trace(train, value, names[0]) | {"mode": "lines", "line": {"color": "--accent/55", "width": 1.25}}
    held = _trace(heldout, value, names[1]) | {
        "mode": "lines+markers",
        "line": {"color": "--ink", "width": 1.75},
        "marker": {"color": "--bg", "size": 6, "line": {"color": "--ink", "width": 1.5}},
    }
    last = max([steps, 1, *(step for step, _values in train)])
    layout: Figure = {
        "xaxis": {"range": [0, round(last * 1.03, 2)], "nticks": 5, "hoverformat": "d"},
        "yaxis": {"nticks": 5},
    }
    if line is not None:
        layout["shapes"] = [_level(line)]
    return {"data": [trained, held], "layout": layout}


def _trace(points: Sequence[Point], value: str, name: str) -> Figure:
    kept = _thin([(step, values[value]) for step, values in points if value in values])
    return {
        "type": "scatter",
        "name": name,
        "x": [step for step, _ in kept],
        "y": [round(y, 5) for _, y in kept],
        "hovertemplate": "%{y:.3f}",
    }


def _thin(points: list[tuple[int, float]]) -> Iterable[tuple[int, float]]:
    """At most MAX_POINTS, the last one included."""
    stride = -(-len(points) // MAX_POINTS) or 1
    return points[::-1][::stride][::-1]


def _level(y: float) -> Figure:
    return {
        "type": "line",
        "xref": "paper",
        "x0": 0,
        "x1": 1,
        "y0": y,
        "y1": y,
        "line": {"color": "--ink-3", "width": 1, "dash": "dot"},
    }
