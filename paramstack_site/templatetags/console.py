"""What the console's templates share: icons, statuses, money, shares, times, small graphics.

Rule: a number follows the page's language, and what is missing is a dash, never a zero.
"""

from __future__ import annotations

import json
import math
from datetime import datetime
from decimal import Decimal
from typing import Any

from django import template
from django.utils import formats, timezone, translation
from django.utils.html import format_html, json_script
from django.utils.safestring import SafeString
from django.utils.translation import gettext, ngettext

from inference.models import Adapter
from paramstack_site.words import ACTIONS, ARMS, STAGES, STATES, STATUS, SUBJECTS
from tenants import costs
from tenants.models import NANO, Tenant
from training.models import Source, TrainingRun

register = template.Library()


@register.simple_tag
def icon(name: str, size: str = "") -> SafeString:
    return format_html(
        '<svg class="i{}" aria-hidden="true" focusable="false"><use href="#i-{}"/></svg>', size and f" {size}", name
    )


@register.simple_tag
def status(kind: str, word: str = "") -> SafeString:
    """The status `kind` (vocabulary or model state), with its own or a more exact word."""
    kind, default = STATES.get(kind, (kind, ""))
    symbol, classes, own = STATUS.get(kind, STATUS["unknown"])
    return format_html('<span class="status {}">{}{}</span>', classes, icon(symbol), word or default or own)


def _digits(value: str) -> str:
    """`1234.5` in the page's language: `1.234,5` or `1,234.5`."""
    whole, _dot, decimals = value.partition(".")
    grouped = f"{int(whole):,}"
    if translation.get_language() == "tr":
        return grouped.replace(",", ".") + (f",{decimals}" if decimals else "")
    return grouped + (f".{decimals}" if decimals else "")


def _dollars(nano: int, decimals: int) -> str:
    """`nano` at `decimals` places (0-9), half up, sign in front of the currency."""
    step = 10 ** (9 - decimals)
    rounded = (abs(nano) + step // 2) // step
    whole, rest = divmod(rounded, 10**decimals)
    text = f"{whole}.{rest:0{decimals}d}" if decimals else str(whole)
    return f"{'−' if nano < 0 else ''}${_digits(text)}"


@register.filter
def money(nano: int | None) -> str:
    """Nano-dollars for reading: cents, and for amounts under a dollar three digits that count."""
    if nano is None:
        return "–"
    size = abs(nano)
    if size >= NANO or size == 0:
        return _dollars(nano, 2)
    decimals = min(9, 12 - len(str(size)))
    text = _dollars(nano, decimals)
    shortest = len(text) - decimals + 2
    return text[:shortest] + text[shortest:].rstrip("0")


@register.filter
def money_exact(nano: int) -> str:
    """Every nano-dollar, for the ledger."""
    return _dollars(nano, 9)


@register.filter
def exact(value: Decimal) -> str:
    """Every decimal of an exact number that is not a trailing zero, and at least two."""
    whole, _dot, decimals = f"{value:f}".partition(".")
    return _digits(f"{whole}.{decimals.rstrip('0'):0<2}")


@register.filter
def decimal(value: float | str | None, places: int = 2) -> str:
    """A number at `places`; `–` when there is none (a template hands on what is missing as an empty text)."""
    if value is None or isinstance(value, str) or not math.isfinite(value):
        return "–"
    text = _digits(f"{abs(value):.{places}f}")
    return f"−{text}" if value < 0 and text.strip("0.,") else text


@register.filter
def signed(value: float | str | None, places: int = 2) -> str:
    text = decimal(value, places)
    return f"+{text}" if isinstance(value, float | int) and value > 0 else text


@register.filter
def percent(share: float | str | None, places: int = 1) -> str:
    """A share of 1 as `%12,4` or `12.4%`."""
    if share is None or isinstance(share, str):
        return "–"
    text = decimal(share * 100, places)
    if translation.get_language() != "tr":
        return f"{text}%"
    return f"−%{text[1:]}" if text.startswith("−") else f"%{text}"


@register.filter
def scientific(value: float) -> str:
    """A learning rate the way the field writes it: `5e-4`."""
    return f"{value:.2g}" if value >= 0.01 else f"{value:.0e}".replace("e-0", "e-")


@register.filter
def basis(points: int) -> str:
    """A weight in 1/10,000 as a percentage without needless decimals."""
    return percent(points / 10_000, 0 if points % 100 == 0 else 2)


@register.filter
def short(digest: str, size: int = 6) -> str:
    """`9f2c61…e41a`: enough of a digest to recognise it."""
    return digest if len(digest) <= 2 * size else f"{digest[:size]}…{digest[-4:]}"


@register.filter
def when(at: datetime | None) -> str:
    """`14.32` today, else `23 Kas 2026, 14.32`."""
    if at is None:
        return "–"
    local = timezone.localtime(at)
    clock = formats.date_format(local, "H.i" if translation.get_language() == "tr" else "H:i")
    return clock if local.date() == timezone.localdate() else f"{day(at)}, {clock}"


@register.filter
def clock(at: datetime) -> str:
    """Hour, minute and second."""
    return formats.date_format(timezone.localtime(at), "H.i.s" if translation.get_language() == "tr" else "H:i:s")


@register.filter
def day(at: datetime | None) -> str:
    return "–" if at is None else formats.date_format(timezone.localtime(at), "j M Y")


@register.filter
def duration(seconds: float | str | None) -> str:
    """`38 dk`, `3 sa 14 dk`: one or two units."""
    if seconds is None or isinstance(seconds, str):
        return "–"
    whole = max(0, round(seconds))
    if whole < 60:
        return gettext("%(n)d s") % {"n": whole}
    minutes = round(whole / 60)
    if minutes < 60:
        return gettext("%(n)d min") % {"n": minutes}
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return gettext("%(h)d h %(m)d min") % {"h": hours, "m": minutes}
    return ngettext("%(n)d day", "%(n)d days", hours // 24) % {"n": hours // 24}


@register.filter
def ago(at: datetime | None) -> str:
    if at is None:
        return gettext("never")
    seconds = (timezone.now() - at).total_seconds()
    return gettext("just now") if seconds < 2 else gettext("%(duration)s ago") % {"duration": duration(seconds)}


@register.simple_tag
def bar(value: float, total: float, tone: str = "a", tick: float | None = None) -> SafeString:
    """A share of a whole as a bar; `tick` (share of 1) marks today or a limit. Decoration: the number stands beside."""
    width = max(0.0, min(100.0, 100 * value / total)) if total else 0.0
    mark = "" if tick is None else format_html('<rect class="k" x="{}" width=".6" height="10"/>', f"{100 * tick:.1f}")
    return format_html(
        '<svg class="bar {}" viewBox="0 0 100 10" preserveAspectRatio="none" aria-hidden="true">'
        '<rect class="f" width="{}" height="10"/>{}</svg>',
        tone,
        f"{width:.1f}",
        mark,
    )


@register.simple_tag
def interval(low: float, value: float, high: float, reach: float, zero: float = 0.0, tone: str = "") -> SafeString:
    """A point with its interval on a line of `zero` ± `reach`; the numbers stand beside."""

    def x(at: float) -> str:
        return f"{74 + 74 * max(-1.0, min(1.0, (at - zero) / reach)):.1f}"

    return format_html(
        '<svg class="ci {}" viewBox="0 0 148 20" aria-hidden="true">'
        '<line class="axis" x1="0" x2="148" y1="10" y2="10"/><line class="zero" x1="74" x2="74" y1="2" y2="18"/>'
        '<line class="w" x1="{}" x2="{}" y1="10" y2="10"/>'
        '<circle class="m" cx="{}" cy="10" r="4"/></svg>',
        tone,
        x(low),
        x(high),
        x(value),
    )


@register.filter
def get(mapping: dict[str, Any], key: str) -> Any:
    return mapping.get(key)


@register.filter
def initials(name: str) -> str:
    return name[:2]


@register.simple_tag(takes_context=True)
def query(context: template.Context, **changes: Any) -> str:
    """The page's query string with `changes`; an empty value drops its key."""
    params = context["request"].GET.copy()
    for key, value in changes.items():
        params.pop(key, None)
        if value not in (None, ""):
            params[key] = value
    return f"?{params.urlencode()}"


@register.filter
def compact(value: Any) -> str:
    """A small JSON value in one line: `{"weight_bp": 1000}` as `weight_bp: 1000`."""
    if isinstance(value, dict):
        return ", ".join(f"{key}: {compact(each)}" for key, each in value.items())
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return short(text) if len(text) == 64 and text.isalnum() else text


@register.filter
def action(name: str) -> Any:
    """An audit action in words; one without words shows its name."""
    return ACTIONS.get(name, name)


@register.filter
def arm(name: str) -> Any:
    """Who answered for a model name, in words."""
    return ARMS.get(name, name)


@register.filter
def stage(name: str) -> Any:
    return STAGES.get(name, name)


@register.filter
def subject(name: str) -> str:
    """An audit subject with its kind in the page's language."""
    kind, space, rest = name.partition(" ")
    return f"{SUBJECTS.get(kind, kind)}{space}{rest}"


@register.filter
def said(line: str) -> str:
    """A line of a program's log; its JSON progress as `train 70/90 loss=0.1111`."""
    try:
        told = json.loads(line)
    except ValueError:
        return line
    if not isinstance(told, dict):
        return line
    rest = {name: value for name, value in told.items() if name not in {"stage", "done", "total"}}
    words = [f"{name}={value:.4g}" if isinstance(value, float) else f"{name}={value}" for name, value in rest.items()]
    return " ".join([f"{told.get('stage', '')} {told.get('done', '')}/{told.get('total', '')}", *words])


@register.filter
def source(value: str) -> Any:
    return Source(value).label


@register.filter
def figure(value: dict[str, Any], name: str) -> SafeString:
    """The JSON block that `charts.js` draws into `<figure data-chart="fig-NAME">`."""
    return json_script(value, f"fig-{name}")


@register.simple_tag
def share(part: float, total: float, places: int = 1) -> str:
    return percent(part / total, places) if total else "–"


@register.simple_tag
def month_passed(tenant: Tenant) -> float:
    """How much of this month has passed where the tenant is, 0 to 1."""
    return costs.passed(tenant, costs.this_month(tenant))


@register.simple_tag
def training_run(adapter: Adapter) -> TrainingRun | None:
    """The run that an adapter came from: `inference` itself does not know about training."""
    return TrainingRun.objects.filter(adapter=adapter).first()
