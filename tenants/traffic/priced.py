"""How a call's cost came about: tokens times the price that was in force, rounded once (`metering.cost`)."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

from tenants import metering
from tenants.models import NANO, UsageEvent


@dataclass(frozen=True, slots=True)
class Line:
    """`kind` is input, cached or output; `dollars` is exact, before the sum is rounded to a nano-dollar."""

    kind: str
    tokens: int
    nano_per_mtok: int
    dollars: Decimal


@dataclass(frozen=True, slots=True)
class Computation:
    """`agrees` says that the lines, added up and rounded, are what the ledger booked."""

    lines: tuple[Line, ...]
    nano: int
    agrees: bool


def explain(row: UsageEvent) -> Computation | None:
    """None for a row without a price, or that cost nothing because it used nothing."""
    price = row.price
    if price is None or not (row.input_tokens or row.output_tokens):
        return None
    cached = price.input_nano_per_mtok if price.cached_nano_per_mtok is None else price.cached_nano_per_mtok
    lines = [
        _line("input", row.input_tokens - row.cached_tokens, price.input_nano_per_mtok),
        _line("cached", row.cached_tokens, cached),
        _line("output", row.output_tokens, price.output_nano_per_mtok),
    ]
    prices = price.input_nano_per_mtok, price.output_nano_per_mtok
    nano = metering.cost(row.input_tokens, row.output_tokens, *prices, row.cached_tokens, cached)
    shown = tuple(line for line in lines if line.tokens or line.kind != "cached")
    return Computation(shown, nano, nano == row.cost_nano)


def _line(kind: str, tokens: int, price: int) -> Line:
    return Line(kind, tokens, price, Decimal(tokens * price) / 1_000_000 / NANO)
