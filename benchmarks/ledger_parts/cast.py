"""Who calls in the bench: tenants with keys, a priced model, and the terms by which calls are admitted."""

from __future__ import annotations

import os
import random
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from django.utils import timezone

from inference.models import BaseModel, Replica
from tenants import keys, metering
from tenants.models import NANO, Budget, Price, Quota, Tenant

MODEL = "demo-base"
INPUT, OUTPUT = 3_000_000_000, 15_000_000_000  # nano-dollars a million tokens: $3 and $15
BUDGET = 9_000_000 * NANO


@dataclass(frozen=True)
class Account:
    """A tenant with one of its keys, as the bench's processes pass it on."""

    tenant: str
    key: str
    text: str
    price: int
    epoch: int = 1


def priced_model() -> Price:
    """A base model with a price, on the engine at ENGINE_URL, whether somebody looks after that or not."""
    base, _ = BaseModel.objects.get_or_create(name=MODEL, defaults={"source": "/models/demo-base"})
    engine = {"url": os.environ["ENGINE_URL"], "base": base, "state": Replica.State.WELL}
    Replica.objects.get_or_create(name="engine", defaults=engine)
    book = {
        "input_nano_per_mtok": INPUT,
        "output_nano_per_mtok": OUTPUT,
        "valid_from": datetime(2024, 1, 1, tzinfo=UTC),
    }
    return Price.objects.get_or_create(model=MODEL, defaults=book)[0]


def accounts(tenants: int, each: int = 1, **limits: int) -> list[Account]:
    """Tenants with `each` keys, the highest budget there is, and a quota of these limits."""
    price, made = priced_model(), []
    for number in range(tenants):
        tenant = Tenant.objects.create(slug=f"tenant-{secrets.token_hex(3)}", name=f"Tenant {number}")
        Budget.objects.create(tenant=tenant, monthly_nano=BUDGET)
        Quota.objects.create(tenant=tenant, **limits)
        for _ in range(each):
            key, text = keys.create(tenant, "bench")
            made.append(Account(str(tenant.pk), key.pk, text, price.pk))
    epochs = {str(pk): epoch for pk, epoch in Tenant.objects.values_list("pk", "epoch")}
    return [Account(a.tenant, a.key, a.text, a.price, epochs[a.tenant]) for a in made]


def today(zone: str = "Europe/Istanbul") -> str:
    return timezone.now().astimezone(ZoneInfo(zone)).date().isoformat()


def terms(
    account: Account,
    mark: str,
    budget: int = BUDGET,
    tenant_limits: Sequence[int | None] = (None,) * 5,
    key_limits: Sequence[int | None] = (None,) * 5,
) -> metering.Terms:
    """Good for an hour: the bench has no midnight in it that matters, as a call's day is that of its event."""
    until = int((timezone.now() + timedelta(hours=1)).timestamp() * 1_000_000)
    return metering.Terms(mark, account.epoch, until, today(), budget, tenant_limits, key_limits)


def event(account: Account, request_id: str = "") -> metering.Event:
    """A call as the gateway admits it: nothing used yet."""
    return metering.Event(
        request_id=request_id or f"req_{secrets.token_hex(12)}",
        tenant=account.tenant,
        key=account.key,
        day=today(),
        status="estimated",
        model=MODEL,
        served=MODEL,
        price=account.price,
        end_user=random.choice(("", "ada", "ali", "ayşe")),
        request_digest=secrets.token_hex(32),
        policy_digest="0" * 64,
    )


def settled(call: metering.Event, inputs: int, outputs: int, status: str = "settled") -> metering.Event:
    """The call's end with these tokens at the bench's price."""
    cost = metering.cost(inputs, outputs, INPUT, OUTPUT)
    facts = {"input_tokens": inputs, "output_tokens": outputs, "cost_nano": cost, "latency_ms": 120, "ttft_ms": 40}
    return call.ending(status, answer_digest=secrets.token_hex(32), **facts)


@dataclass(slots=True)
class Open:
    """A call under way, as the gateway's counters want it; it renews nothing, being short."""

    event: metering.Event
    terms: metering.Terms
    hold_nano: int
    tokens: int

    def progress(self) -> tuple[int, int, int]:
        return 0, 0, 0

    def stop(self, reason: str) -> None:
        raise AssertionError(f"a call was ended: {reason}")


async def heedless(now: int, epochs: Mapping[str, int]) -> None:
    """For `Counters`: what a renewal tells is nothing to the bench's own callers."""
