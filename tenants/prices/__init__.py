"""The price book: what a million tokens of a model cost. A line has versions, each in force in [from, until).

Versions of one model never overlap, and what calls may have been billed by never changes: a new version follows it.
Prices for comparison (`reference`) stand beside; no call is billed by one.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from django.db import transaction
from django.db.models import Min, Q, QuerySet
from django.utils import timezone
from django.utils.translation import gettext as _

from tenants import audit, epochs
from tenants.metering import cost
from tenants.models import NANO, Price, UsageDay, UsageEvent, User
from tenants.prices.gpu import from_gpu
from tenants.prices.problems import Backdated, BadPrice, InUse, NoPrice, Overlap
from tenants.problems import FIRST, LAST

__all__ = ["AMOUNTS", "Backdated", "BadPrice", "InUse", "NoPrice", "Overlap", "change", "cost"]
__all__ += ["delete", "end", "first_of", "for_model", "from_gpu", "next_change", "set_"]
AMOUNTS = (
    "input_nano_per_mtok",
    "output_nano_per_mtok",
    "cached_nano_per_mtok",
    "batch_input_nano_per_mtok",
    "batch_output_nano_per_mtok",
)
MOST = 10_000 * NANO  # nano-dollars a million tokens; a slip of the decimal point lies above it
FIELDS = ("model", "kind", *AMOUNTS, "historical", "basis")


def for_model(name: str, at: datetime | None = None) -> Price:
    """The line that bills `name` at an instant (default: now); raises NoPrice."""
    price = _in_force(Price.objects.filter(model=name), at or timezone.now()).first()
    if price is None:
        raise NoPrice(name)
    return price


def first_of(names: Sequence[str]) -> Price:
    """The line in force of the first name that has one; raises NoPrice about the first name."""
    found = {price.model: price for price in _in_force(Price.objects.filter(model__in=names), timezone.now())}
    for name in names:
        if name in found:
            return found[name]
    raise NoPrice(names[0])


def next_change(names: Sequence[str], after: datetime) -> datetime | None:
    """The next instant at which a price of one of the names begins or ends; None if none does."""
    rows = Price.objects.filter(model__in=names).exclude(kind=Price.Kind.REFERENCE)
    found = rows.aggregate(
        begins=Min("valid_from", filter=Q(valid_from__gt=after)),
        ends=Min("valid_until", filter=Q(valid_until__gt=after)),
    )
    return min(filter(None, found.values()), default=None)


@transaction.atomic
def set_(
    model: str,
    actor: User | None,
    *,
    input_nano_per_mtok: int,
    output_nano_per_mtok: int,
    cached_nano_per_mtok: int | None = None,
    batch_input_nano_per_mtok: int | None = None,
    batch_output_nano_per_mtok: int | None = None,
    valid_from: datetime | None = None,
    valid_until: datetime | None = None,
    kind: str = Price.Kind.LIST,
    historical: bool = False,
    basis: dict[str, Any] | None = None,
) -> Price:
    """A new version from `valid_from` (default: now). One without an end that is in force then ends there.

    Nano-dollars per million tokens, up to $10,000. Raises BadPrice, Overlap, Backdated.
    """
    price = Price(
        model=model.strip(),
        kind=kind,
        input_nano_per_mtok=input_nano_per_mtok,
        output_nano_per_mtok=output_nano_per_mtok,
        cached_nano_per_mtok=cached_nano_per_mtok,
        batch_input_nano_per_mtok=batch_input_nano_per_mtok,
        batch_output_nano_per_mtok=batch_output_nano_per_mtok,
        valid_from=valid_from or timezone.now(),
        valid_until=valid_until,
        historical=historical,
        basis=basis or {},
    )
    _check(price)
    _lock(price)
    if price.kind != Price.Kind.REFERENCE and _called(price.model, price.valid_from):
        raise Backdated(price.model, price.valid_from)
    _make_room(price, actor)
    price.save(force_insert=True)
    _note(actor, "price.create", price, None, _facts(price))
    return price


@transaction.atomic
def change(price: Price, actor: User | None, **fields: Any) -> Price:
    """Changes a version that no call can have been billed by: one for comparison, or one that is still to begin.

    Raises InUse, BadPrice, Overlap, Backdated.
    """
    _lock(price)
    held = Price.objects.select_for_update().get(pk=price.pk)
    _unused(held)
    before = _facts(held)
    for name, value in fields.items():
        setattr(held, name, value)
    _check(held)
    _lock(held)
    if held.kind != Price.Kind.REFERENCE and _called(held.model, held.valid_from):
        raise Backdated(held.model, held.valid_from)
    if other := _others(held).first():
        raise Overlap(other)
    if _facts(held) != before:
        held.save()
        _note(actor, "price.change", held, before, _facts(held))
    return held


@transaction.atomic
def end(price: Price, actor: User | None, at: datetime | None = None) -> Price:
    """The version is in force until `at` (default: now), which may not lie in the past. Raises BadPrice."""
    _lock(price)
    held, moment, now = Price.objects.select_for_update().get(pk=price.pk), at or timezone.now(), timezone.now()
    if (
        moment < now - timedelta(seconds=1)
        or moment <= held.valid_from
        or (held.valid_until and held.valid_until < moment)
    ):
        raise BadPrice(
            _("A price ends after it began, not in the past, and never later than it was to end."), "valid_until"
        )
    before = _facts(held)
    held.valid_until = moment
    held.save(update_fields=["valid_until"])
    _note(actor, "price.change", held, before, _facts(held))
    return held


@transaction.atomic
def delete(price: Price, actor: User | None) -> None:
    """Takes back a version that no call can have been billed by. Raises InUse."""
    _lock(price)
    held = Price.objects.select_for_update().get(pk=price.pk)
    _unused(held)
    _note(actor, "price.delete", held, _facts(held), None)
    held.delete()


def _in_force(rows: QuerySet[Price], at: datetime) -> QuerySet[Price]:
    rows = rows.exclude(kind=Price.Kind.REFERENCE).filter(valid_from__lte=at)
    return rows.filter(Q(valid_until=None) | Q(valid_until__gt=at))


def _check(price: Price) -> None:
    if not 1 <= len(price.model) <= 120:
        raise BadPrice(_("A price names its model in 1 to 120 characters."), "model")
    if price.kind not in Price.Kind.values:
        raise BadPrice(_("The kind is one of %(kinds)s.") % {"kinds": ", ".join(Price.Kind.values)}, "kind")
    for name in AMOUNTS:
        value = getattr(price, name)
        if value is None and name not in AMOUNTS[:2]:
            continue
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MOST:
            raise BadPrice(_("A price is a whole number of nano-dollars from 0 to $10,000 a million tokens."), name)
    for name in ("valid_from", "valid_until"):
        if (moment := getattr(price, name)) and not FIRST <= moment <= LAST:
            raise BadPrice(_("A price begins and ends between the years 2000 and 2200."), name)
    if price.valid_until and price.valid_until <= price.valid_from:
        raise BadPrice(_("A price ends after it begins."), "valid_until")


def _lock(price: Price) -> None:
    """A price that bills is everybody's: raising all epochs also makes two who set prices wait for each other."""
    if price.kind != Price.Kind.REFERENCE:
        epochs.raise_all()


def _others(price: Price) -> QuerySet[Price]:
    """Versions that cover part of a version's time, of its side: those that bill, or those for comparison."""
    rows = Price.objects.filter(model=price.model).exclude(pk=price.pk)
    side = Q(kind=Price.Kind.REFERENCE) if price.kind == Price.Kind.REFERENCE else ~Q(kind=Price.Kind.REFERENCE)
    meets = Q(valid_until=None) | Q(valid_until__gt=price.valid_from)
    if price.valid_until:
        meets &= Q(valid_from__lt=price.valid_until)
    return rows.filter((side & meets) | Q(valid_from=price.valid_from)).order_by("valid_from")


def _make_room(price: Price, actor: User | None) -> None:
    """Ends the open version that a lasting one follows; raises Overlap with any other."""
    for other in _others(price):
        if other.valid_until or price.valid_until or other.valid_from >= price.valid_from:
            raise Overlap(other)
        before = _facts(other)
        other.valid_until = price.valid_from
        other.save(update_fields=["valid_until"])
        _note(actor, "price.change", other, before, _facts(other))


def _unused(price: Price) -> None:
    """A version in force counts as used: calls that it bills may be under way, or on their way into the ledger."""
    if price.kind == Price.Kind.REFERENCE:
        return
    if price.valid_from <= timezone.now() or UsageDay.objects.filter(price_id=price.pk).exists():
        raise InUse(price)


def _called(model: str, at: datetime) -> bool:
    """Whether the ledger has calls at or after an instant that were billed by, asked for or answered by `model`."""
    versions = list(Price.objects.filter(model=model).exclude(kind=Price.Kind.REFERENCE).values_list("pk", flat=True))
    day = at.date() - timedelta(days=1)  # no time zone is a whole day off
    named = Q(price_id__in=versions) | Q(model=model) | Q(served=model)
    tenants = list(UsageDay.objects.filter(named, day__gte=day).values_list("tenant", flat=True).distinct())
    return UsageEvent.objects.filter(named, tenant__in=tenants, occurred_at__gte=at).order_by().exists()


def _facts(price: Price) -> dict[str, Any]:
    times = {
        name: value and value.isoformat() for name in ("valid_from", "valid_until") for value in [getattr(price, name)]
    }
    return {name: getattr(price, name) for name in FIELDS} | times


def _note(actor: User | None, action: str, price: Price, before: Any, after: Any) -> None:
    audit.record(actor, action, price.model, before, after)
