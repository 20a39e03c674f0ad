"""What a person fills in on the serving pages."""

from __future__ import annotations

from typing import Any

from django import forms
from django.utils.translation import gettext_lazy as _

from inference.gateway.snapshot import BASIS
from inference.models import Adapter, Alias, BaseModel
from tenants.models import Tenant

SHARES = (100, 500, 1_000, 2_500, 5_000, 10_000)  # what the pages offer, in 1/10,000


def select() -> forms.Select:
    return forms.Select(attrs={"class": "in"})


class NewAlias(forms.Form):
    name = forms.SlugField(label=_("Model name"), max_length=60, widget=forms.TextInput(attrs={"class": "in"}))
    base = forms.ModelChoiceField(BaseModel.objects.all(), label=_("Base model"), empty_label=None, widget=select())


class Weight(forms.Form):
    weight = forms.IntegerField(min_value=0, max_value=BASIS)


class Fallback(forms.Form):
    """What answers for a model name where no engine does."""

    alias = forms.ModelChoiceField(Alias.objects.none(), label=_("Model name"), empty_label=None, widget=select())
    target = forms.ChoiceField(label=_("Answered by"), required=False, widget=select())

    def __init__(self, *args: Any, tenant: Tenant, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        loaded = Adapter.objects.filter(tenant=tenant, state=Adapter.State.LOADED)
        names = [*map(str, BaseModel.objects.all()), *map(str, loaded)]
        self.fields["alias"].queryset = Alias.objects.filter(tenant=tenant)  # type: ignore[attr-defined]  # a ChoiceField, which the stubs do not know
        self.fields["target"].choices = [("", _("nothing")), *((name, name) for name in names)]  # type: ignore[attr-defined]  # a ChoiceField, which the stubs do not know


class StartRollout(Weight):
    alias = forms.ModelChoiceField(Alias.objects.none(), label=_("Model name"), empty_label=None, widget=select())
    adapter = forms.ModelChoiceField(Adapter.objects.none(), label=_("Adapter"), empty_label=None, widget=select())

    def __init__(self, *args: Any, tenant: Tenant, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        loaded = Adapter.objects.filter(tenant=tenant, state=Adapter.State.LOADED)
        self.fields["alias"].queryset = Alias.objects.filter(tenant=tenant)  # type: ignore[attr-defined]  # a ChoiceField, which the stubs do not know
        self.fields["adapter"].queryset = loaded  # type: ignore[attr-defined]  # a ChoiceField, which the stubs do not know


class Policy(forms.Form):
    text = forms.CharField(label=_("Policy, YAML"), strip=False)
