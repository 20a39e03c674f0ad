"""What the same tokens would have cost elsewhere, and what a GPU that serves them costs. Integer nano-dollars."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal
from typing import Any

from tenants import metering
from tenants.models import Price


@dataclass(frozen=True, slots=True)
class Saving:
    """`api` is what the tokens cost at `price`; `paid` what the ledger says. Negative saving: the API was cheaper."""

    price: Price
    paid: int
    api: int
    input_tokens: int  # without the cached ones
    cached_tokens: int
    output_tokens: int

    @property
    def saved(self) -> int:
        return self.api - self.paid

    @property
    def share(self) -> float | None:
        """Of the API's price; None when there was nothing to pay there."""
        return self.saved / self.api if self.api else None


def references() -> list[Price]:
    """Prices for comparison, those still offered first, newest first."""
    return ordered(Price.objects.filter(kind=Price.Kind.REFERENCE))


def ordered(prices: Iterable[Price]) -> list[Price]:
    return sorted(prices, key=lambda price: (price.historical, -price.valid_from.timestamp(), price.model))


def default(prices: list[Price]) -> Price | None:
    return prices[0] if prices else None


def of(row: dict[str, Any], price: Price) -> Saving:
    """The saving on a row of sums {spent, input_tokens, cached_tokens, output_tokens}."""
    cached = row["cached_tokens"]
    return Saving(price, row["spent"], at(row, price), row["input_tokens"] - cached, cached, row["output_tokens"])


def at(row: dict[str, Any], price: Price) -> int:
    """What tokens cost at a price, rounded half up once; cached input without a price of its own costs as input."""
    cached = price.input_nano_per_mtok if price.cached_nano_per_mtok is None else price.cached_nano_per_mtok
    tokens = row["input_tokens"], row["output_tokens"]
    prices = price.input_nano_per_mtok, price.output_nano_per_mtok
    return metering.cost(*tokens, *prices, row["cached_tokens"], cached)


def margins(rows: Iterable[dict[str, Any]], prices: dict[int, Price]) -> list[Margin]:
    """The margin of each self-hosted price among rows of sums by `price_id`, those whose basis can be read."""
    found = []
    for row in rows:
        price = prices.get(row["price_id"])
        seconds = gpu_seconds(row, price.basis) if price else None
        if price and seconds is not None:
            nano = int((seconds * int(price.basis["gpu_hour_nano"]) / 3600).to_integral_value(ROUND_HALF_UP))
            found.append(Margin(price, row["spent"], seconds, nano))
    return found


def gpu_seconds(row: dict[str, Any], basis: dict[str, Any]) -> Decimal | None:
    """GPU seconds that the tokens take at the basis' measured throughput; None if it has none."""
    try:
        rates = [Decimal(str(basis[name])) for name in ("input_tokens_per_second", "output_tokens_per_second")]
        int(basis["gpu_hour_nano"])
        computed = row["input_tokens"] - row["cached_tokens"], row["output_tokens"]
        return sum((tokens / rate for tokens, rate in zip(computed, rates, strict=True)), Decimal(0))
    except (KeyError, ValueError, ArithmeticError):
        return None


@dataclass(frozen=True, slots=True)
class Margin:
    """What a self-hosted price brought in against the GPU time that its tokens take at the measured throughput."""

    price: Price
    revenue: int
    seconds: Decimal
    cost: int

    @property
    def profit(self) -> int:
        return self.revenue - self.cost

    @property
    def share(self) -> float | None:
        return self.profit / self.revenue if self.revenue else None

    @property
    def hour(self) -> int:
        """Nano-dollars of an hour of the GPU, as the price's basis says."""
        return int(self.price.basis["gpu_hour_nano"])
