"""What a person or a program may look for among calls: the form of the page and of its file, and REST's fields."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from django import forms
from django.utils import timezone
from django.utils.translation import gettext_lazy as _
from rest_framework import serializers

from tenants.models import Tenant, UsageEvent
from tenants.traffic.search import UNSETTLED, Filters

SPANS = {"1h": timedelta(hours=1), "24h": timedelta(days=1), "7d": timedelta(days=7), "30d": timedelta(days=30)}
SPAN_WORDS = (
    ("1h", _("Last hour")),
    ("24h", _("Last 24 hours")),
    ("7d", _("Last 7 days")),
    ("30d", _("Last 30 days")),
    ("all", _("All time")),
)
DEFAULT = "24h"
STATUSES = [("", _("Every status")), (UNSETTLED, _("Everything but settled")), *UsageEvent.Status.choices]
SHOWN = [choice for choice in STATUSES if choice[0] != UsageEvent.Status.ADJUSTMENT]
LONGEST_WAIT = 3_600_000  # ms


PROPOSED = {"model": {"list": "models"}, "adapter": {"list": "served"}}  # datalists of the page


class Search(forms.Form):
    """Filters of the calls page. Times are the tenant's."""

    span = forms.ChoiceField(label=_("Time"), choices=SPAN_WORDS, required=False)
    key = forms.ChoiceField(label=_("Key"), required=False)
    model = forms.CharField(label=_("Model asked for"), max_length=120, required=False)
    adapter = forms.CharField(label=_("Answered by"), max_length=160, required=False)
    status = forms.ChoiceField(label=_("Status"), choices=SHOWN, required=False)
    reason = forms.CharField(label=_("Reason"), max_length=80, required=False)
    end_user = forms.CharField(label=_("End user"), max_length=64, required=False)
    min_ms = forms.IntegerField(label=_("At least, ms"), min_value=0, max_value=LONGEST_WAIT, required=False)
    since = forms.DateTimeField(label=_("Since"), required=False)
    until = forms.DateTimeField(label=_("Before"), required=False)

    def __init__(self, data: Any, tenant: Tenant) -> None:
        super().__init__({"span": DEFAULT} | {name: data[name] for name in data})
        keys = [(key.pk, f"{key.name} · {key.pk}") for key in tenant.api_keys.all()]
        self.fields["key"].choices = [("", _("Every key")), *keys]  # type: ignore[attr-defined]  # a ChoiceField, which the stubs do not know
        for name, field in self.fields.items():
            field.widget.attrs |= {"class": "in", "autocomplete": "off"} | PROPOSED.get(name, {})
            if name in ("since", "until"):
                field.widget = forms.DateTimeInput({"class": "in", "type": "datetime-local"}, format="%Y-%m-%dT%H:%M")

    @property
    def detailed(self) -> bool:
        """Whether one of the fields behind "More filters" is filled in."""
        return any(self.data.get(name) for name in ("reason", "end_user", "min_ms", "since", "until"))

    def filters(self) -> Filters:
        """Of the fields that are right; what is wrong filters nothing and is said at its field."""
        self.is_valid()
        told = {name: value for name, value in self.cleaned_data.items() if value}
        span = told.pop("span", DEFAULT)
        if not {"since", "until"} & told.keys():
            told["since"] = began(span)
        return Filters(**told)


def began(span: str) -> datetime | None:
    """Where a span of time begins; None for all time."""
    return timezone.now() - SPANS[span] if span in SPANS else None


class Wanted(serializers.Serializer[Any]):
    since = serializers.DateTimeField(required=False)
    until = serializers.DateTimeField(required=False, help_text="not included")
    request_id = serializers.CharField(max_length=40, required=False)
    key = serializers.CharField(max_length=16, required=False)
    model = serializers.CharField(max_length=120, required=False, help_text="as it was asked for")
    adapter = serializers.CharField(
        max_length=160, required=False, help_text="the served name, or the beginning of the adapter's digest"
    )
    status = serializers.ChoiceField([name for name, _word in SHOWN if name], required=False)
    reason = serializers.CharField(max_length=80, required=False)
    end_user = serializers.CharField(max_length=64, required=False)
    min_ms = serializers.IntegerField(min_value=0, max_value=LONGEST_WAIT, required=False, help_text="of latency")
