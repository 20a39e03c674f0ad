"""What a person fills in on a tenant's pages."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any
from zoneinfo import available_timezones

from django import forms
from django.utils import timezone, translation
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from tenants import access, keys, limits
from tenants.models import NANO, Member, Quota, Tenant
from tenants.problems import Refused

SCOPES = [
    ("inference", _("Call models")),
    ("usage", _("Read usage and receipts")),
    ("manage", _("Manage the loop by REST")),
]
GRACES = [
    ("0", _("None: the old key ends now")),
    ("24", _("24 hours")),
    ("168", _("7 days")),
    ("720", _("30 days")),
]
MOST_DOLLARS = limits.MOST_DOLLARS  # a month
DEFAULT_TOKENS = 1024
LAST_YEAR = 2199  # of an expiry; a calendar ends soon after 9999


def separators() -> tuple[str, str]:
    """(between thousands, before decimals) in the page's language."""
    return (".", ",") if translation.get_language() == "tr" else (",", ".")


def plain(text: str) -> str:
    """`1.284,60` or `1,284.60` as `1284.60`, by the page's language; `0.125` is no group of thousands in any."""
    text = re.sub(r"[\s_$']", "", text)
    thousands, decimal = separators()
    if re.fullmatch(rf"[1-9]\d{{0,2}}({re.escape(thousands)}\d{{3}})+({re.escape(decimal)}\d*)?", text):
        text = text.replace(thousands, "")
    return text.replace(",", ".")


def explain(form: forms.Form, error: Refused, otherwise: str | None = None) -> None:
    """What a verb refused, under the field that it is about; above the form if it has none of that name."""
    form.add_error(error.field if error.field in form.fields else otherwise, str(error))


class Whole(forms.IntegerField):
    """A whole number, thousands grouped or not; shown as it was typed."""

    widget = forms.TextInput

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(min_value=kwargs.pop("min_value", 0), localize=False, **kwargs)
        self.error_messages["invalid"] = _("Write a whole number in digits, for example 600.")
        self.widget.attrs |= {"class": "in num", "inputmode": "numeric", "autocomplete": "off"}

    def to_python(self, value: Any) -> Any:
        return super().to_python(plain(value) if isinstance(value, str) else value)


class Dollars(forms.DecimalField):
    """Dollars as nano-dollars, an integer; an amount that is no whole number of cents is kept exactly."""

    widget = forms.TextInput

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(max_digits=20, decimal_places=9, localize=False, **kwargs)
        self.error_messages["invalid"] = _("Write an amount in dollars, for example 250.")
        self.widget.attrs |= {"class": "in num", "inputmode": "decimal", "autocomplete": "off"}

    def to_python(self, value: Any) -> Any:
        return super().to_python(plain(value) if isinstance(value, str) else value)

    def clean(self, value: Any) -> Any:
        dollars = super().clean(value)
        return None if dollars is None else int(dollars * NANO)


class Limits(forms.Form):
    """The five limits of a tenant or of a key; empty is no limit."""

    requests_per_second = Whole(
        label=_("Requests per second"), required=False, max_value=limits.MOST["requests_per_second"]
    )
    requests_per_minute = Whole(
        label=_("Requests per minute"), required=False, max_value=limits.MOST["requests_per_minute"]
    )
    tokens_per_second = Whole(label=_("Tokens per second"), required=False, max_value=limits.MOST["tokens_per_second"])
    tokens_per_minute = Whole(label=_("Tokens per minute"), required=False, max_value=limits.MOST["tokens_per_minute"])
    concurrent_calls = Whole(label=_("Concurrent calls"), required=False, max_value=limits.MOST["concurrent_calls"])

    def __init__(self, *args: Any, quota: Quota | None = None, **kwargs: Any) -> None:
        limits = {name: getattr(quota, name) for name in Quota.FIELDS} if quota else {}
        kwargs["initial"] = limits | (kwargs.get("initial") or {})
        super().__init__(*args, **kwargs)
        for name in Quota.FIELDS:
            self.fields[name].widget.attrs["placeholder"] = gettext("no limit")

    def limits(self) -> dict[str, int | None]:
        return {name: self.cleaned_data[name] for name in Quota.FIELDS}

    def limits_typed(self) -> bool:
        """Whether a person has written a limit, a good or a bad one."""
        return any(self.data.get(self.add_prefix(name)) for name in Quota.FIELDS)

    def limit_fields(self) -> list[forms.BoundField]:
        return [self[name] for name in Quota.FIELDS]


def amount(nano: int) -> str:
    """Nano-dollars as a person would type them in the page's language: `1284,6`."""
    text = f"{Decimal(nano) / NANO:f}"
    text = text.rstrip("0").rstrip(".") if "." in text else text
    return text.replace(".", separators()[1])


class MonthlyBudget(forms.Form):
    dollars = Dollars(
        label=_("Dollars a calendar month"),
        min_value=0,
        max_value=MOST_DOLLARS,
    )


class NewKey(Limits):
    name = forms.CharField(label=_("Name"), max_length=80, widget=forms.TextInput(attrs={"class": "in"}))
    scopes = forms.MultipleChoiceField(
        label=_("It may"),
        choices=SCOPES,
        initial=["inference", "usage"],
        widget=forms.CheckboxSelectMultiple,
        error_messages={"required": _("Choose at least one.")},
    )
    allowed_models = forms.MultipleChoiceField(label=_("Models"), required=False, widget=forms.CheckboxSelectMultiple)
    expires_at = forms.DateField(
        label=_("Expires at the end of"),
        required=False,
        widget=forms.DateInput(attrs={"class": "in", "type": "date"}, format="%Y-%m-%d"),
        input_formats=["%Y-%m-%d", "%d.%m.%Y"],
        help_text=_("Empty: it does not expire."),
    )
    default_max_tokens = Whole(
        label=_("Tokens of an answer by default"),
        help_text=_("When the call names no max_tokens."),
        required=False,
        min_value=1,
        max_value=keys.MOST_TOKENS,
        initial=DEFAULT_TOKENS,
    )

    def __init__(self, *args: Any, role: str, models: Iterable[str] = (), zone: Any = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.zone = zone or timezone.get_current_timezone()
        self.fields["allowed_models"].choices = [(name, name) for name in models]  # type: ignore[attr-defined]  # a ChoiceField, which the stubs do not know
        if not access.can(role, "engineer"):
            self.fields["scopes"].choices = SCOPES[:2]  # type: ignore[attr-defined]  # a ChoiceField, which the stubs do not know

    def clean_default_max_tokens(self) -> int:
        return self.cleaned_data["default_max_tokens"] or DEFAULT_TOKENS

    def clean_expires_at(self) -> Any:
        """The instant at which that day ends where the tenant is."""
        day = self.cleaned_data["expires_at"]
        if day is None:
            return None
        if day.year > LAST_YEAR:
            raise forms.ValidationError(gettext("Choose an earlier day, or leave it empty for a key without an end."))
        end = datetime(day.year, day.month, day.day, tzinfo=self.zone) + timedelta(days=1)
        if end <= timezone.now():
            raise forms.ValidationError(gettext("This day is over. Choose today or a later day, or leave it empty."))
        return end


class Rotation(forms.Form):
    grace = forms.ChoiceField(label=_("Both keys work for"), choices=GRACES, initial="24")

    def duration(self) -> timedelta:
        return timedelta(hours=int(self.cleaned_data["grace"]))


class NewInvitation(forms.Form):
    email = forms.EmailField(
        label=_("E-mail"), widget=forms.EmailInput(attrs={"class": "in", "autocomplete": "off", "spellcheck": "false"})
    )
    role = forms.ChoiceField(
        label=_("Role"), choices=Member.Role, initial="developer", widget=forms.Select(attrs={"class": "in"})
    )


class NewRole(forms.Form):
    role = forms.ChoiceField(label=_("Role"), choices=Member.Role)


def zones(current: str) -> Sequence[tuple[str, str]]:
    """Time zones by region, as a person looks for them; the current one is always among them."""
    named = {zone for zone in available_timezones() if "/" in zone and not zone.startswith(("Etc/", "SystemV/", "US/"))}
    return [(zone, zone.replace("_", " ")) for zone in sorted(named | {"UTC", current})]


class TenantFacts(forms.Form):
    name = forms.CharField(label=_("Name"), max_length=120, widget=forms.TextInput(attrs={"class": "in"}))
    time_zone = forms.ChoiceField(
        label=_("Time zone"),
        widget=forms.Select(attrs={"class": "in"}),
        help_text=_("Days and months of budgets, statements and cost pages are those of this time zone."),
    )
    keeps_answers = forms.BooleanField(
        label=_("Keep answers for a day"),
        required=False,
        help_text=_("A call that is sent again with its Idempotency-Key then gets the same answer. Else none is kept."),
    )

    def __init__(self, *args: Any, tenant: Tenant, **kwargs: Any) -> None:
        facts = {"name": tenant.name, "time_zone": tenant.time_zone, "keeps_answers": tenant.keeps_answers}
        kwargs["initial"] = facts
        super().__init__(*args, **kwargs)
        self.fields["time_zone"].choices = zones(tenant.time_zone)  # type: ignore[attr-defined]  # a ChoiceField, which the stubs do not know


class WebhookAddress(forms.Form):
    url = forms.CharField(
        label=_("Address"),
        max_length=400,
        widget=forms.URLInput(attrs={"class": "in", "placeholder": "https://example.com/hooks/param-stack"}),
    )
