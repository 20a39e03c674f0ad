"""Usage for the tests of cost: seeded calls, booked by the ledger itself."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from tenants import ledger, metering
from tenants.models import Price, Tenant

START = datetime(2026, 1, 1, tzinfo=UTC)


def price(model="demo-base", input_nano=100_000_000, output_nano=400_000_000, **fields) -> Price:
    made = {"input_nano_per_mtok": input_nano, "output_nano_per_mtok": output_nano, "valid_from": START} | fields
    return Price.objects.create(model=model, **made)


def call(tenant: Tenant, key, at: datetime, number=0, cost=1_000, **fields) -> metering.Event:
    """One settled call; its day is that of the tenant's time zone."""
    day = at.astimezone(ZoneInfo(tenant.time_zone)).date().isoformat()
    at_us = int(at.timestamp() * 1_000_000)
    told: dict[str, Any] = {
        "status": "settled",
        "model": "destek",
        "served": "demo-base",
        "input_tokens": 7,
        "output_tokens": 3,
    }
    return metering.Event(
        f"req_{tenant.slug}_{number}", str(tenant.pk), key.pk, day, at_us=at_us, cost_nano=cost, **(told | fields)
    )


def spread(tenant: Tenant, keys, prices, n: int, until: datetime, days: int, seed: int = 7) -> list[metering.Event]:
    """`n` calls of the last `days` days, of every key, price, status and a few end users."""
    rng = random.Random(seed)
    made = []
    for number in range(n):
        at = until - timedelta(seconds=rng.randrange(days * 86_400))
        paid, cached = rng.choice(prices), rng.choice([0, 0, 50])
        read, written = rng.randrange(50, 3_000), rng.randrange(2_000)
        cost = metering.cost(
            read, written, paid.input_nano_per_mtok, paid.output_nano_per_mtok, cached, paid.input_nano_per_mtok
        )
        facts = {
            "status": rng.choice(["settled", "settled", "aborted", "blocked"]),
            "model": rng.choice(["destek", "demo-base"]),
            "served": rng.choice(["demo-base", "acme/destek-v1"]),
            "adapter_digest": rng.choice(["", "ab" * 32]),
            "end_user": rng.choice(["", *(f"kişi-{n}" for n in range(30))]),
            "input_tokens": read,
            "output_tokens": written,
            "price": paid.pk,
            "cached_tokens": cached,
            "latency_ms": rng.randrange(10, 9_000),
        }
        made.append(call(tenant, rng.choice(keys), at, number, cost, **facts))
    return made


def book(events) -> None:
    ledger.write(events)
