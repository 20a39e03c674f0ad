"""What a person fills in on a tenant's pages."""

from __future__ import annotations

from typing import Any

from django import forms
from django.utils.translation import gettext_lazy as _

from tenants import access

SCOPES = [
    ("inference", _("Call models")),
    ("usage", _("Read usage and receipts")),
    ("manage", _("Manage the loop by REST")),
]


class NewKey(forms.Form):
    name = forms.CharField(label=_("Name"), max_length=80, widget=forms.TextInput(attrs={"class": "in"}))
    scopes = forms.MultipleChoiceField(
        label=_("Allowed"), choices=SCOPES, initial=["inference", "usage"], widget=forms.CheckboxSelectMultiple
    )

    def __init__(self, *args: Any, role: str, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if not access.can(role, "engineer"):
            self.fields["scopes"].choices = SCOPES[:2]  # type: ignore[attr-defined]
