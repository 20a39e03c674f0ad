"""Dollars as exact decimal text and as integer nano-dollars. What leaves the REST API is text: JSON numbers round."""

from __future__ import annotations

from decimal import Decimal, InvalidOperation
from typing import Any

from django.utils.translation import gettext as _

from tenants.models import NANO
from tenants.problems import Refused

LONGEST = 24  # characters; more digits than these would be rounded
MOST = Decimal(10**12)


class BadAmount(Refused):
    def __init__(self) -> None:
        super().__init__(_('An amount is a decimal in quotes, for example "0.15", with at most nine decimals.'))


def nano(dollars: Any) -> int:
    """An exact decimal text as nano-dollars; raises BadAmount for what is finer, absurd or no number."""
    try:
        amount = Decimal(dollars) if isinstance(dollars, str) and len(dollars) <= LONGEST else Decimal("NaN")
        if amount.is_finite() and -MOST <= amount <= MOST and amount * NANO == int(amount * NANO):
            return int(amount * NANO)
    except InvalidOperation:
        pass
    raise BadAmount


def dollars(nano: int) -> str:
    """Nano-dollars as an exact decimal without an exponent: 1500000000 is 1.5."""
    text = f"{Decimal(nano).scaleb(-9):.9f}"
    return text.rstrip("0").rstrip(".")
