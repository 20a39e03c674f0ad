"""What a person fills in on the loop's pages."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from django import forms
from django.conf import settings
from django.db.models import QuerySet
from django.utils.translation import gettext_lazy as _

from inference.models import BaseModel
from tenants.models import NANO, Tenant
from training import preferences, quotes
from training.models import Choice, Export, PreferencePair, PromptDataset, RlaifRun, Source

STATES = [("", _("All")), ("waiting", _("Waiting")), ("usable", _("Decided")), ("unused", _("Equal or bad"))]


class Styled(forms.Form):
    """Inputs in the console's look."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for field in self.fields.values():
            if not isinstance(field.widget, forms.CheckboxInput | forms.CheckboxSelectMultiple):
                field.widget.attrs.setdefault("class", "in")


class Import(Styled):
    name = forms.SlugField(label=_("Name"), max_length=60, help_text=_("The same name again makes the next version."))
    file = forms.FileField(label=_("File"), widget=forms.FileInput(attrs={"accept": ".jsonl,.ndjson,.json,.csv"}))
    keep_good = forms.BooleanField(label=_("Store the good rows, leave out the bad ones"), required=False)


class StartRlaif(Styled):
    """Who answers, who judges, how many answers, and the most it may cost. Claude is offered where a key is set."""

    dataset = forms.ModelChoiceField(PromptDataset.objects.none(), label=_("Prompt set"), empty_label=None)
    generators = forms.MultipleChoiceField(label=_("Who answers"), widget=forms.CheckboxSelectMultiple)
    judges = forms.MultipleChoiceField(label=_("Who judges"), widget=forms.CheckboxSelectMultiple)
    num_responses = forms.IntegerField(label=_("Answers to a prompt"), min_value=2, max_value=8)
    cap = forms.DecimalField(label=_("At most, dollars"), min_value=0, max_value=10_000, decimal_places=2)

    def __init__(self, *args: Any, tenant: Tenant, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        standard = preferences.default_config()
        self.fields["dataset"].queryset = PromptDataset.objects.filter(tenant=tenant)  # type: ignore[attr-defined]  # a ChoiceField, which the stubs do not know
        for name, known in (("generators", preferences.GENERATORS), ("judges", preferences.JUDGES)):
            offered = [one for one in known if one != Source.CLAUDE or settings.ANTHROPIC_API_KEY]
            self.fields[name].choices = [(one, Source(one).label) for one in offered]  # type: ignore[attr-defined]  # a ChoiceField, which the stubs do not know
            self.fields[name].initial = standard[name]
        self.fields["num_responses"].initial = standard["num_responses"]
        self.fields["cap"].initial = Decimal(standard["max_cost_nano"]) / NANO

    def config(self) -> dict[str, Any]:
        asked = self.cleaned_data
        chosen = {name: asked[name] for name in ("generators", "judges", "num_responses")}
        return chosen | {"max_cost_nano": int(asked["cap"] * NANO)}

    def quote(self) -> quotes.Quote | None:
        """What these choices will cost, before anything is asked; None while they do not add up."""
        if not self.is_valid():
            return None
        prompts = list(self.cleaned_data["dataset"].prompts.values_list("text", flat=True))
        return quotes.quote(prompts, preferences.DEFAULTS | self.config())


class StartTraining(Styled):
    export = forms.ModelChoiceField(Export.objects.none(), label=_("Frozen pairs"), empty_label=None)
    base = forms.ModelChoiceField(BaseModel.objects.all(), label=_("Base model"), empty_label=None)
    epochs = forms.FloatField(label=_("Epochs"), min_value=0.1, max_value=20, initial=2)
    beta = forms.FloatField(label=_("Beta"), min_value=0.01, max_value=1, initial=0.1)
    learning_rate = forms.FloatField(
        label=_("Learning rate"),
        min_value=0,
        max_value=1e-2,
        initial=0,
        help_text=_("0: by the size of the base model"),
    )
    rank = forms.IntegerField(label=_("LoRA rank"), min_value=1, max_value=256, initial=8)

    def __init__(self, *args: Any, tenant: Tenant, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        rows = Export.objects.filter(tenant=tenant).select_related("run")
        self.fields["export"].queryset = rows  # type: ignore[attr-defined]  # a ChoiceField, which the stubs do not know

    def config(self) -> dict[str, Any]:
        names = ("epochs", "beta", "learning_rate", "rank")
        return {name: self.cleaned_data[name] for name in names}


class PairFilter(Styled):
    q = forms.CharField(required=False)
    state = forms.ChoiceField(choices=STATES, required=False)
    run = forms.ModelChoiceField(RlaifRun.objects.none(), required=False, empty_label=_("Every run"))
    source = forms.ChoiceField(choices=[("", _("Every source")), *Source.choices], required=False)

    def __init__(self, *args: Any, tenant: Tenant, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["run"].queryset = RlaifRun.objects.filter(tenant=tenant)  # type: ignore[attr-defined]  # a ChoiceField, which the stubs do not know

    def narrow(self, rows: QuerySet[PreferencePair]) -> QuerySet[PreferencePair]:
        asked = self.cleaned_data
        if asked["q"]:
            rows = rows.filter(prompt__text__icontains=asked["q"])
        if asked["run"]:
            rows = rows.filter(run=asked["run"])
        if asked["source"]:
            # only of decided pairs: the filter must not tell a reviewer who wrote what
            rows = rows.exclude(decided_at=None)
            rows = rows.filter(a__source=asked["source"]) | rows.filter(b__source=asked["source"])
        narrowed = {
            "waiting": rows.filter(decided_at=None),
            "usable": rows.filter(decision__in=[Choice.A, Choice.B]),
            "unused": rows.filter(decision__in=[Choice.TIE, Choice.BAD]),
        }
        return narrowed.get(asked["state"], rows)
