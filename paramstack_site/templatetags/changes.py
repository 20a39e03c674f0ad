"""An audit entry's before and after in words: which fact became what. What has no word shows its own name."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from django import template
from django.utils.dateparse import parse_datetime
from django.utils.translation import gettext, pgettext

from paramstack_site.templatetags.console import basis, compact, money, when
from paramstack_site.words import ACTIONS, FACTS
from tenants.models import AuditEntry, Member, Tenant

register = template.Library()

Change = tuple[Any, str, str]  # what, before ("" if there was nothing), after
LABELS = {**dict(Member.Role.choices), **dict(Tenant.Status.choices)}
NAMED = {"role", "status"}  # facts whose values have labels


@register.filter
def changes(entry: AuditEntry) -> list[Change]:
    """Only what differs; of something made or ended, all of it that is not empty."""
    before, after = entry.before, entry.after
    if isinstance(before, dict) or isinstance(after, dict):
        old, new = before or {}, after or {}
        names = [name for name in dict.fromkeys([*old, *new]) if old.get(name) != new.get(name)]
        return [(FACTS.get(name, name), _old(entry, name, old.get(name)), said(name, new.get(name))) for name in names]
    if before is None and after is None:
        return []
    name = "monthly_nano" if entry.action.startswith("budget.") else ""
    return [("", _old(entry, name, before), said(name, after))]


def _old(entry: AuditEntry, name: str, value: Any) -> str:
    """Nothing stands before the facts of what was just made."""
    return "" if entry.before is None else said(name, value)


def said(name: str, value: Any) -> str:
    """A JSON value as a person reads it."""
    if value is None or value == [] or value == "":
        return gettext("none")
    if isinstance(value, bool):
        return pgettext("audit", "yes") if value else pgettext("audit", "no")
    if isinstance(value, int):
        return money(value) if "nano" in name else basis(value) if name.endswith("_bp") else f"{value}"
    if isinstance(value, list):
        return ", ".join(map(compact, value))
    if name.endswith("_at") and (at := _instant(value)):
        return when(at)
    return str(LABELS.get(value, value)) if name in NAMED else compact(value)


def _instant(value: Any) -> datetime | None:
    try:
        return parse_datetime(value)
    except (TypeError, ValueError):
        return None


@register.simple_tag
def actions() -> list[tuple[str, Any]]:
    """Every kind of change that has a word, sorted by it."""
    return sorted(ACTIONS.items(), key=lambda pair: str(pair[1]))
