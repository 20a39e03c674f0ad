"""What is wrong with a price: the errors of `prices`, which lists them as its own."""

from __future__ import annotations

from datetime import datetime

from django.utils import timezone
from django.utils.translation import gettext as _

from tenants.models import Price
from tenants.problems import Refused


class NoPrice(LookupError):
    """No line of the price book covers a model. It cannot be sold before it has a price."""

    def __init__(self, model: str) -> None:
        super().__init__(_("The price book has no price for %(model)s.") % {"model": model})
        self.model = model


class BadPrice(Refused):
    """An amount, a span of time or a throughput that no price has."""


class Overlap(Refused):
    """`other` is the version that covers part of the same time."""

    field, status = "valid_from", 409

    def __init__(self, other: Price) -> None:
        words = {"model": other.model, "from": _instant(other.valid_from)}
        super().__init__(
            _("%(model)s has a price from %(from)s to %(until)s already. Choose another time, or end that one first.")
            % (words | {"until": _instant(other.valid_until)})
            if other.valid_until
            else _("%(model)s has a price from %(from)s on already. Choose another time, or end that one first.")
            % words
        )
        self.other = other


class Backdated(Refused):
    field, status = "valid_from", 409

    def __init__(self, model: str, valid_from: datetime) -> None:
        words = {"model": model, "from": _instant(valid_from)}
        super().__init__(_("Calls of %(model)s at or after %(from)s are in the ledger. Choose a later time.") % words)


class InUse(Refused):
    status = 409

    def __init__(self, price: Price) -> None:
        words = {"model": price.model, "from": _instant(price.valid_from)}
        super().__init__(
            _("Calls may have been billed by the price of %(model)s from %(from)s. Set a new version.") % words
        )


def _instant(moment: datetime | None) -> str:
    return f"{timezone.localtime(moment):%Y-%m-%d %H:%M}" if moment else ""
