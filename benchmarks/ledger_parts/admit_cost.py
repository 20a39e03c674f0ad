"""cost: CPU of one admission with its settlement, in the gateway's process and in Redis.

The gateway's own counters, 64 callers at once, limits of all kinds on tenant and key. The CPU of making the event is
measured apart and taken off.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

import redis

from benchmarks.ledger_parts import cast
from benchmarks.ledger_parts.stand import Stand, say
from inference.gateway.admission import Counters
from tenants import ledger
from tenants.ledger.writer import Writer
from tenants.models import LedgerHead

CALLERS, TURNS = 64, 5
LIMITS = (1_000_000, 60_000_000, 10_000_000, 100_000_000, 100_000)


def measure(ground: Stand, quick: bool) -> tuple[dict[str, float], dict[str, Any]]:
    calls = 500 if quick else 8_000
    people = cast.accounts(20)
    writer = Writer("bench")
    writer.drain()
    head = ledger.head()
    client = redis.Redis.from_url(ground.redis_url)
    found = []
    for _ in range(1 if quick else TURNS):
        before, script = cpu(client), scripts(client)
        spent = asyncio.run(run(ground.redis_url, people, head, calls))
        found.append((spent / calls, (cpu(client) - before) / calls, (scripts(client) - script) / calls))
        writer.drain()
    gateway, server, inside = (sorted(column)[len(column) // 2] * 1e6 for column in zip(*found, strict=True))
    say(f"Redis {server:.0f} us a call, of which {inside:.0f} in the two scripts; its file is written in it")
    return {"admit_cpu_us": round(gateway, 1), "redis_us": round(server, 1)}, {"scripts_us": round(inside, 1)}


async def run(url: str, people: list[cast.Account], head: LedgerHead, calls: int) -> float:
    """CPU seconds of this process for so many calls, without making them."""
    counters = Counters(url, cast.heedless)
    counters.adopt(head.mark, head.sequence)
    counters.start()
    made = []
    for number in range(calls):
        account = people[number % len(people)]
        call = cast.Open(cast.event(account), cast.terms(account, head.mark, cast.BUDGET, LIMITS, LIMITS), 10**7, 900)
        made.append((call, cast.settled(call.event, 300, number % 500)))

    async def caller() -> None:
        while made:
            call, end = made.pop()
            verdict = await counters.admit(call)
            assert not verdict.reason, verdict
            await counters.settle(end)

    started = time.process_time()
    await asyncio.gather(*(caller() for _ in range(CALLERS)))
    spent = time.process_time() - started
    await counters.close()
    return spent


def cpu(client: redis.Redis) -> float:
    info: Any = client.info("cpu")
    return float(info["used_cpu_user"] + info["used_cpu_sys"])


def scripts(client: redis.Redis) -> float:
    """Seconds that Redis has spent in scripts."""
    info: Any = client.info("commandstats")
    return float(info.get("cmdstat_evalsha", {}).get("usec", 0)) / 1e6
