"""What the same tokens would have cost elsewhere, and what a GPU that serves them costs. Integer nano-dollars."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from decimal import ROUND_HALF_UP, Decimal
from typing import Any

from django.utils import timezone

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
    """Prices for comparison, in order."""
    return ordered(Price.objects.filter(kind=Price.Kind.REFERENCE))


def ordered(prices: Iterable[Price], now: datetime | None = None) -> list[Price]:
    """Those on offer now first, the cheapest first: against a dear model anything is a saving."""
    at = now or timezone.now()

    def place(price: Price) -> tuple[bool, int, str]:
        gone = price.historical or price.valid_from > at or (price.valid_until is not None and price.valid_until <= at)
        return gone, price.input_nano_per_mtok + price.output_nano_per_mtok, price.model

    return sorted(prices, key=place)


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
    """GPU seconds to be paid for the tokens: at the basis' measured throughput, over the share of an hour that the GPU
    is busy. Cached input takes none. None if the basis has no throughput (`prices.gpu.from_gpu` writes it).
    """
    try:
        busy = Decimal(str(basis.get("utilisation", 1)))
        rates = [Decimal(str(basis[name])) for name in ("input_tokens_per_second", "output_tokens_per_second")]
        int(basis["gpu_hour_nano"])
        computed = row["input_tokens"] - row["cached_tokens"], row["output_tokens"]
        return sum((tokens / rate for tokens, rate in zip(computed, rates, strict=True)), Decimal(0)) / busy
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

    @property
    def busy(self) -> float:
        """The share of each hour that the GPU is taken to be busy."""
        return float(self.price.basis.get("utilisation", 1))
