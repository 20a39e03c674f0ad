"""The price book: what a million tokens of a model cost, by the instant from which a line is valid."""

from __future__ import annotations

from datetime import datetime

from django.utils import timezone

from tenants.metering import cost
from tenants.models import Price

__all__ = ["NoPrice", "cost", "first_of", "for_model"]


class NoPrice(LookupError):
    """No line of the price book covers a model. It cannot be sold before it has a price."""

    def __init__(self, model: str) -> None:
        super().__init__(f"The price book has no price for {model}.")
        self.model = model


def for_model(name: str, at: datetime | None = None) -> Price:
    """The line in force for `name` at an instant (default: now); raises NoPrice."""
    price = Price.objects.filter(model=name, valid_from__lte=at or timezone.now()).order_by("-valid_from").first()
    if price is None:
        raise NoPrice(name)
    return price


def first_of(names: list[str]) -> Price:
    """The line of the first name that has one; raises NoPrice about the first name."""
    for name in names:
        try:
            return for_model(name)
        except NoPrice:
            continue
    raise NoPrice(names[0])
