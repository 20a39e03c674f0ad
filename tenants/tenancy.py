"""Tenants: made, renamed, moved to another time zone, suspended, resumed, closed. Never deleted: a ledger stays."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache
from typing import Any
from zoneinfo import available_timezones

from django.db import IntegrityError, transaction
from django.utils.text import slugify
from django.utils.translation import gettext as _

from tenants import audit, epochs
from tenants.models import Member, Tenant, User
from tenants.problems import Refused

LONGEST_SLUG = 50
SLUG = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*", re.ASCII)
# Words of the addresses, and of the price book: `adapter` is every adapter, `slug/name-vN` is one.
RESERVED = frozenset(
    {"adapter", "admin", "api", "base", "invitations", "login", "logout", "new", "operator", "preferences", "receipts"}
    | {"schema", "static", "t", "tenants", "v1"}
)
TURKISH = str.maketrans("çğıöşüâîûÇĞİÖŞÜÂÎÛI", "cgiosuaiucgiosuaiui")
CLOCKS = {"Factory", "localtime"}  # in the database of zones, but no place's


class BadSlug(Refused):
    field = "slug"


class SlugTaken(Refused):
    field, status = "slug", 409

    def __init__(self, slug: str) -> None:
        super().__init__(_("There is a tenant %(slug)s already. Choose another slug.") % {"slug": slug})


class BadName(Refused):
    field = "name"

    def __init__(self) -> None:
        super().__init__(_("A tenant's name has 1 to 120 characters."))


class UnknownZone(Refused):
    field = "time_zone"

    def __init__(self, zone: str) -> None:
        super().__init__(_("%(zone)s is no time zone. Name one as Europe/Istanbul is named.") % {"zone": zone})


class WrongStatus(Refused):
    field, status = "status", 409

    def __init__(self, tenant: Tenant) -> None:
        words = {"name": tenant.name, "status": tenant.get_status_display()}
        super().__init__(_("%(name)s cannot become that: it is %(status)s.") % words)


def slug_of(name: str) -> str:
    """`Çağrı Merkezi İzmir` is cagri-merkezi-izmir. Empty if the name has no letter or digit of ours."""
    return slugify(name.translate(TURKISH))[:LONGEST_SLUG].strip("-_").replace("_", "-")


@transaction.atomic
def create(
    actor: User | None, name: str, slug: str = "", time_zone: str = "Europe/Istanbul", owner: User | None = None
) -> Tenant:
    """A new, active tenant; `slug` is its address, by default that of its name; `owner` becomes its first member.

    Raises BadName, BadSlug, SlugTaken, UnknownZone.
    """
    name, slug = _name(name), slug or slug_of(name)
    if slug in RESERVED or len(slug) > LONGEST_SLUG or not SLUG.fullmatch(slug):
        raise BadSlug(_("A slug has a-z, 0-9 and single hyphens, at most 50, and is no word of the addresses."))
    zone = _zone(time_zone)
    try:
        with transaction.atomic():
            tenant = Tenant.objects.create(name=name, slug=slug, time_zone=zone)
    except IntegrityError:
        raise SlugTaken(slug) from None
    audit.record(actor, "tenant.create", slug, None, {"name": name, "slug": slug, "time_zone": zone}, tenant)
    if owner:
        Member.objects.create(tenant=tenant, user=owner, role=Member.Role.OWNER)
        audit.record(actor, "member.create", owner.username, None, {"role": Member.Role.OWNER}, tenant)
    epochs.raise_(tenant)
    return tenant


def rename(tenant: Tenant, name: str, actor: User | None) -> Tenant:
    """Raises BadName. The slug stays: addresses and the engine's names hold it."""
    return _change(tenant, actor, "name", _name(name))


def set_time_zone(tenant: Tenant, zone: str, actor: User | None) -> Tenant:
    """From the next call on its days, and the months of its budget, are those of `zone`. Raises UnknownZone."""
    return _change(tenant, actor, "time_zone", _zone(zone))


def keep_answers(tenant: Tenant, kept: bool, actor: User | None) -> Tenant:
    """Whether answers to calls with an Idempotency-Key stay in Redis for a day, to be given again."""
    return _change(tenant, actor, "keeps_answers", kept)


def open_extras(tenant: Tenant, names: Iterable[str], actor: User | None) -> Tenant:
    """Which of the engine's own fields its calls may have; whoever calls this knows which there are."""
    return _change(tenant, actor, "engine_extras", sorted(set(names)))


def suspend(tenant: Tenant, actor: User | None) -> Tenant:
    """Refuses every call and every key until it is resumed; people still see its pages. Raises WrongStatus."""
    return _change(tenant, actor, "status", Tenant.Status.SUSPENDED, {Tenant.Status.ACTIVE})


def resume(tenant: Tenant, actor: User | None) -> Tenant:
    """Ends a suspension. Raises WrongStatus."""
    return _change(tenant, actor, "status", Tenant.Status.ACTIVE, {Tenant.Status.SUSPENDED})


def close(tenant: Tenant, actor: User | None) -> Tenant:
    """For ever: nobody enters it and no key works; what it did stays. Raises WrongStatus."""
    return _change(tenant, actor, "status", Tenant.Status.CLOSED, {Tenant.Status.ACTIVE, Tenant.Status.SUSPENDED})


@transaction.atomic
def _change(tenant: Tenant, actor: User | None, field: str, value: Any, from_: set[str] | None = None) -> Tenant:
    """One field, audited under what it was; `from_` are the values it may have had."""
    held = Tenant.objects.select_for_update().get(pk=tenant.pk)
    before = getattr(held, field)
    if before != value:
        if held.status == Tenant.Status.CLOSED or (from_ and before not in from_):
            raise WrongStatus(held)
        Tenant.objects.filter(pk=held.pk).update(**{field: value})
        audit.record(actor, "tenant.change", held.slug, {field: before}, {field: value}, held)
    setattr(tenant, field, value)
    if before != value:
        epochs.raise_(tenant)
    return tenant


def _name(name: str) -> str:
    if not 1 <= len(name.strip()) <= 120:
        raise BadName
    return name.strip()


def _zone(zone: str) -> str:
    if zone not in _zones():
        raise UnknownZone(zone)
    return zone


@cache
def _zones() -> frozenset[str]:
    return frozenset(available_timezones() - CLOCKS)
