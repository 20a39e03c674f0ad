"""A proposal to replay: limits, a budget, prices. Checked before anything is read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from django.utils.translation import gettext

from tenants import costs, metering
from tenants.models import NANO, Quota, Tenant
from tenants.problems import Refused

MOST = dict(zip(Quota.FIELDS, (*(Quota.MOST_PER_SECOND, Quota.MOST_PER_MINUTE) * 2, Quota.MOST_OPEN), strict=True))
MOST_BUDGET, MOST_PRICE = 9_000_000 * NANO, 10_000 * NANO


class BadProposal(Refused):
    """A proposal that cannot be replayed; `field` is the part of it."""


@dataclass(frozen=True, slots=True)
class Proposal:
    """Limits in the order of metering.LIMITS for the tenant, or for its key `key`; nano-dollars a month; prices in
    nano-dollars a million tokens, for `model` or for all. None: not proposed, so not applied.
    """

    limits: Sequence[int | None] = (None,) * 5
    key: str = ""
    budget_nano: int | None = None
    input_nano_per_mtok: int | None = None
    output_nano_per_mtok: int | None = None
    cached_nano_per_mtok: int | None = None
    model: str = ""

    def check(self) -> None:
        """Raises BadProposal."""
        for name, limit in zip(metering.LIMITS, self.limits, strict=True):
            if limit is not None and not 0 <= limit <= MOST[name]:
                raise BadProposal(
                    gettext("This limit is a whole number from 0 to %(most)d.") % {"most": MOST[name]}, name
                )
        if self.budget_nano is not None and not 0 <= self.budget_nano <= MOST_BUDGET:
            raise BadProposal(gettext("A budget is 0 to 9,000,000 dollars a month."), "budget")
        prices = (self.input_nano_per_mtok, self.output_nano_per_mtok, self.cached_nano_per_mtok)
        if any(price is not None and not 0 <= price <= MOST_PRICE for price in prices):
            raise BadProposal(gettext("A price is 0 to 10,000 dollars a million tokens."), "input_price")
        if (self.input_nano_per_mtok is None) != (self.output_nano_per_mtok is None):
            raise BadProposal(gettext("Give a price for the input and one for the output."), "output_price")
        if self.cached_nano_per_mtok is not None and self.prices is None:
            raise BadProposal(gettext("Give the prices of input and output beside the cached one."), "input_price")
        if not (any(limit is not None for limit in self.limits) or self.budget_nano is not None or self.prices):
            raise BadProposal(gettext("Propose at least one limit, a budget or prices."))

    @property
    def prices(self) -> tuple[int, int, int] | None:
        """Of input, output and cached input; None if none are proposed."""
        if self.input_nano_per_mtok is None or self.output_nano_per_mtok is None:
            return None
        cached = self.input_nano_per_mtok if self.cached_nano_per_mtok is None else self.cached_nano_per_mtok
        return self.input_nano_per_mtok, self.output_nano_per_mtok, cached

    def cost(self, row: dict[str, Any]) -> int:
        """What a row costs under the proposal: as booked, unless prices are proposed for its model."""
        if self.prices is None or (self.model and row["model"] != self.model):
            return int(row["cost_nano"])
        input_price, output_price, cached_price = self.prices
        tokens = row["input_tokens"], row["output_tokens"]
        return metering.cost(*tokens, input_price, output_price, row["cached_tokens"], cached_price)


def in_force(tenant: Tenant) -> Proposal:
    """The tenant's own limits and budget as a proposal."""
    quota = Quota.objects.filter(tenant=tenant, key=None).first()
    limits = tuple(getattr(quota, name) for name in Quota.FIELDS) if quota else (None,) * 5
    return Proposal(limits=limits, budget_nano=costs.budget(tenant))
