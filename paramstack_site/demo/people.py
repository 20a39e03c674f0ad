"""Two tenants, their members, one key each. The demo's password and keys are kept in `var/secrets`, mode 0600."""

from __future__ import annotations

import json
import os
import secrets
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from django.conf import settings
from django.contrib.auth.hashers import make_password
from django.db import transaction

from inference import aliases, policies
from inference.guardrails import policy
from inference.models import Alias, BaseModel
from tenants import keys, limits
from tenants.models import NANO, Budget, Member, Quota, Tenant, User
from tenants.prices import pricebook

BASE = "demo-base"
ALIAS = "destek"
TENANTS = (("acme", "Acme", 120, 50), ("globex", "Globex", 60, 20))  # slug, name, requests a minute, dollars a month
REVIEWER = "demo-reviewer"


@dataclass
class Secrets:
    """What the demo shows: one password for its people, one API key for each tenant."""

    password: str
    api_keys: dict[str, str] = field(default_factory=dict)

    @staticmethod
    def path() -> Path:
        return Path(settings.VAR) / "secrets" / "demo.json"

    @cached_property
    def hashed(self) -> str:
        """One slow hash for all, since all have the one password."""
        return make_password(self.password)

    @classmethod
    def load(cls) -> Secrets:
        try:
            return cls(**json.loads(cls.path().read_text()))
        except FileNotFoundError:
            return cls(password=secrets.token_urlsafe(9))

    def save(self) -> None:
        draft = self.path().with_suffix(".draft")
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            json.dump({"password": self.password, "api_keys": self.api_keys}, file)
        draft.replace(self.path())


def settle_in(kept: Secrets) -> dict[str, Tenant]:
    """Creates what is missing: operator, tenants, members, quotas, budgets, prices, a policy and one key a tenant."""
    person("operator", kept, is_staff=True, is_superuser=True)
    tenants = {slug: move_in(kept, slug, name, rate, dollars) for slug, name, rate, dollars in TENANTS}
    pricebook.load(settings.ROOT / "data" / "prices.json")
    kept.save()
    return tenants


def person(username: str, kept: Secrets, **flags: Any) -> User:
    return User.objects.get_or_create(username=username, defaults={"password": kept.hashed, **flags})[0]


@transaction.atomic
def move_in(kept: Secrets, slug: str, name: str, requests_per_minute: int, dollars: int) -> Tenant:
    tenant, _ = Tenant.objects.get_or_create(slug=slug, defaults={"name": name})
    for role in Member.Role.values:
        username = role if slug == "acme" else f"{slug}-{role}"
        Member.objects.get_or_create(tenant=tenant, user=person(username, kept), defaults={"role": role})
    if slug == "acme":
        Member.objects.get_or_create(
            tenant=tenant, user=person(REVIEWER, kept), defaults={"role": Member.Role.REVIEWER}
        )
    if not Quota.objects.filter(tenant=tenant, key=None).exists():
        limits.set_quota(tenant, None, requests_per_minute=requests_per_minute)
    if not Budget.objects.filter(tenant=tenant).exists():
        limits.set_budget(tenant, dollars * NANO, None)
    if not tenant.policies.exists():
        policies.save(tenant, policy.DEFAULT.read_text(), None)
    if keys.authenticate(kept.api_keys.get(slug, "")) is None:
        _, kept.api_keys[slug] = keys.create(tenant, "demo")
    return tenant


def open_alias(tenant: Tenant) -> Alias:
    """The tenant's stable model name; until a rollout it answers with the base model."""
    found = Alias.objects.filter(tenant=tenant, name=ALIAS).first()
    return found or aliases.create(tenant, ALIAS, BaseModel.objects.get(name=BASE))
