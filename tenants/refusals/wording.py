"""What a refusal is called and how it is told: whole sentences, one for each limit of tenant and key."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from django.utils import formats
from django.utils.translation import gettext_lazy as _

from tenants.models import NANO

TITLES: dict[str, Any] = {
    "requests": _("The request limit was reached"),
    "tokens": _("The token limit was reached"),
    "tokens_exceed_limit": _("The call needs more tokens than its limit allows"),
    "concurrency_exceeded": _("Too many calls were open"),
    "insufficient_quota": _("The month's budget did not cover the call"),
    "model_not_allowed": _("The key may not call this model"),
}
LIMITS: dict[str, Any] = {
    "requests_per_second": _("Requests per second"),
    "requests_per_minute": _("Requests per minute"),
    "tokens_per_second": _("Tokens per second"),
    "tokens_per_minute": _("Tokens per minute"),
    "concurrent_calls": _("Concurrent calls"),
    "budget": _("Budget of the month"),
    "allowed_models": _("Allowed models"),
}
STEPS: dict[tuple[str, str], Any] = {
    ("tenant", "requests_per_second"): _(
        "Requests per second of the tenant: %(value)s of %(limit)s were in use, the call is one more."
    ),
    ("tenant", "requests_per_minute"): _(
        "Requests per minute of the tenant: %(value)s of %(limit)s were in use, the call is one more."
    ),
    ("tenant", "tokens_per_second"): _(
        "Tokens per second of the tenant: %(value)s of %(limit)s were in use, the call needed %(need)s."
    ),
    ("tenant", "tokens_per_minute"): _(
        "Tokens per minute of the tenant: %(value)s of %(limit)s were in use, the call needed %(need)s."
    ),
    ("tenant", "concurrent_calls"): _("Open calls of the tenant: %(value)s of %(limit)s."),
    ("key", "requests_per_second"): _(
        "Requests per second of the key %(key)s: %(value)s of %(limit)s were in use, the call is one more."
    ),
    ("key", "requests_per_minute"): _(
        "Requests per minute of the key %(key)s: %(value)s of %(limit)s were in use, the call is one more."
    ),
    ("key", "tokens_per_second"): _(
        "Tokens per second of the key %(key)s: %(value)s of %(limit)s were in use, the call needed %(need)s."
    ),
    ("key", "tokens_per_minute"): _(
        "Tokens per minute of the key %(key)s: %(value)s of %(limit)s were in use, the call needed %(need)s."
    ),
    ("key", "concurrent_calls"): _("Open calls of the key %(key)s: %(value)s of %(limit)s."),
    ("tenant", "budget"): _(
        "Budget of the month: %(value)s of %(limit)s was spent or held, the call could cost %(need)s."
    ),
}
RAISES: dict[tuple[str, str], Any] = {
    ("tenant", "requests_per_second"): _("Raise requests per second of the tenant from %(limit)s to %(enough)s."),
    ("tenant", "requests_per_minute"): _("Raise requests per minute of the tenant from %(limit)s to %(enough)s."),
    ("tenant", "tokens_per_second"): _("Raise tokens per second of the tenant from %(limit)s to %(enough)s."),
    ("tenant", "tokens_per_minute"): _("Raise tokens per minute of the tenant from %(limit)s to %(enough)s."),
    ("tenant", "concurrent_calls"): _("Raise concurrent calls of the tenant from %(limit)s to %(enough)s."),
    ("key", "requests_per_second"): _("Raise requests per second of the key %(key)s from %(limit)s to %(enough)s."),
    ("key", "requests_per_minute"): _("Raise requests per minute of the key %(key)s from %(limit)s to %(enough)s."),
    ("key", "tokens_per_second"): _("Raise tokens per second of the key %(key)s from %(limit)s to %(enough)s."),
    ("key", "tokens_per_minute"): _("Raise tokens per minute of the key %(key)s from %(limit)s to %(enough)s."),
    ("key", "concurrent_calls"): _("Raise concurrent calls of the key %(key)s from %(limit)s to %(enough)s."),
    ("tenant", "budget"): _("Raise the budget by exactly %(missing)s, from %(limit)s to %(enough)s."),
}


def amount(name: str, value: int) -> str:
    """A value of the limit `name` in the page's language: a count, or dollars for the budget."""
    return money(value) if name == "budget" else number(value)


def number(value: int) -> str:
    return str(formats.number_format(value, force_grouping=True))


def money(nano: int) -> str:
    """Dollars, every nano-dollar that is not a trailing zero, and at least cents."""
    whole, rest = divmod(abs(nano), NANO)
    decimals = max(2, len(f"{rest:09d}".rstrip("0")))
    text = formats.number_format(Decimal(whole) + Decimal(rest) / NANO, decimal_pos=decimals, force_grouping=True)
    return f"{'−' if nano < 0 else ''}${text}"


def seconds(microseconds: int) -> str:
    """Whole milliseconds as seconds, rounded up so that waiting so long is enough."""
    return str(formats.number_format(Decimal(-(-microseconds // 1000)) / 1000))
