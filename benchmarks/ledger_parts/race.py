"""race: 64 callers after the last cent, 200 rounds, Redis emptied in the middle of one.

The gateways' own counters (`inference.gateway.admission`), several of them, each with its connection. One tenant is
short of money, the other of its limits. Afterwards every step is put in the order in which Redis did it, by its own
number, and added up: what was spent and held after each admission against the budget of that admission, also across the
emptying, where Redis itself no longer knows; and each window of time against each limit. Then the ledger's rows.
"""

from __future__ import annotations

import asyncio
import random
import time
from dataclasses import dataclass, field
from typing import Any

import redis.asyncio
from django.db.models import Sum

from benchmarks.ledger_parts import cast
from benchmarks.ledger_parts.stand import NotThere, Stand, say, until
from benchmarks.ledger_parts.windows import most, overshoot
from benchmarks.ledger_parts.witness import Call, Watch, Witness
from inference.gateway.admission import Counters
from inference.gateway.pipeline import Unavailable
from tenants import ledger, metering
from tenants.ledger.writer import Writer
from tenants.models import UsageEvent

CALLERS, GATEWAYS, CENT, ROUND_SECONDS = 64, 8, 10_000_000, 0.35
LONG_SECONDS = 5.0  # of calls that are open when Redis is emptied, and still when it has been rebuilt
SECOND, MINUTE = 1_000_000, 60_000_000
PERIODS = (SECOND, MINUTE, SECOND, MINUTE)
# requests per second and minute, tokens per second and minute, concurrent calls
TIGHT, TIGHT_KEY = (300, 9_000, 60_000, 1_500_000, 24), (200, 6_000, 40_000, 1_000_000, 16)
LOOSE, LOOSE_KEY = (2_000, 60_000, 500_000, 12_000_000, 60), (1_500, 50_000, 400_000, 9_000_000, 50)
LIMITS = ((TIGHT, TIGHT_KEY), (LOOSE, LOOSE_KEY))
DEAREST = (100_000, 3_000_000)  # nano-dollars of a hold


@dataclass
class Race:
    redis_url: str
    people: list[list[cast.Account]]  # by tenant, its keys
    mark: str
    sequence: int
    watch: Watch = field(default_factory=Watch)
    budgets: list[int] = field(default_factory=lambda: [0, 0])
    emptying: bool = False

    async def run(self, rounds: int) -> None:
        self.client = redis.asyncio.Redis.from_url(self.redis_url, decode_responses=True)
        self.gateways = [Counters(self.redis_url, cast.heedless) for _ in range(GATEWAYS)]
        for gateway in self.gateways:
            gateway._pipe = Witness(self.redis_url, self.watch)
            gateway.adopt(self.mark, self.sequence)
            gateway.start()
        for number in range(rounds):
            await self.round(number, emptied=number == rounds // 2)
            if (number + 1) % max(1, rounds // 4) == 0:
                say(f"round {number + 1}: {len(self.watch.calls):,} calls admitted, refused {dict(self.watch.refused)}")
        for gateway in self.gateways:
            await gateway.close()
        await self.client.aclose()

    async def round(self, number: int, emptied: bool) -> None:
        """One cent more than what is spent, and everybody after it."""
        self.number, self.until = number, time.monotonic() + ROUND_SECONDS
        for tenant in (0, 1):
            self.budgets[tenant] = await self.used(tenant) + CENT
        callers = [self.caller(self.gateways[n % GATEWAYS]) for n in range(CALLERS)]
        await asyncio.gather(*callers, *([self.empty()] if emptied else []))

    async def used(self, tenant: int) -> int:
        name = f"{metering.MONTH}{self.people[tenant][0].tenant}:{self.month()}"
        return sum(int(part or 0) for part in await self.client.hmget(name, "spent", "held"))

    def month(self) -> str:
        return cast.event(self.people[0][0]).month

    async def empty(self) -> None:
        """Redis forgets everything while calls are open; the round goes on when the writer has rebuilt it."""
        self.until, self.emptying = time.monotonic() + 60, True
        await asyncio.sleep(random.uniform(0.005, 0.05))
        async with self.client.pipeline(transaction=True) as pipe:
            pipe.time()
            pipe.flushall()
            clock, _ = await pipe.execute()
        self.emptying = False
        self.watch.emptied_us = clock[0] * SECOND + clock[1]
        mark, deadline = None, time.monotonic() + 60
        while mark is None:
            if time.monotonic() > deadline:
                raise NotThere("The writer does not rebuild Redis; run it alone to see why")
            await asyncio.sleep(0.005)
            mark = await self.client.hget(metering.STATE, "mark")
        self.mark, self.watch.rebuilt_us = str(mark), int(await self.client.hget(metering.STATE, "since") or 0)
        seconds = (self.watch.rebuilt_us - self.watch.emptied_us) / SECOND
        say(f"round {self.number + 1}: Redis emptied, rebuilt after {seconds:.2f} s")
        self.until = time.monotonic() + 2 * ROUND_SECONDS

    async def caller(self, gateway: Counters) -> None:
        """Calls until there is no money for it three times running, or the round is over."""
        broke = 0
        while broke < 3 and time.monotonic() < self.until:
            refusal = await self.call(gateway)
            self.watch.refused.update([refusal] if refusal else [])
            broke = broke + 1 if refusal == "budget" else 0
            if refusal:
                await asyncio.sleep(random.uniform(0, 0.004))

    async def call(self, gateway: Counters) -> str:
        """Admits, works a little, settles a part of the hold or nothing; why not, if it was refused."""
        tenant = random.randrange(2)
        account = random.choice(self.people[tenant])
        hold = random.randint(*DEAREST) // (1 if tenant else 30)
        terms = cast.terms(account, self.mark, self.budgets[tenant], *LIMITS[tenant])
        call = cast.Open(cast.event(account), terms, hold, random.randint(20, 400))
        try:
            verdict = await gateway.admit(call)
        except Unavailable:
            return "unavailable"
        if verdict.reason:
            return verdict.limit_name or verdict.reason
        made = Call(call, verdict.at_us, (0, verdict.sequence))
        self.watch.calls[call.event.request_id] = made
        await asyncio.sleep(random.choice((0, 0.001, 0.004, LONG_SECONDS) if self.emptying else (0, 0.001, 0.004)))
        made.actual_tokens = random.choice((0, random.randint(0, call.tokens), call.tokens))
        made.cost_nano = random.randint(0, hold) if made.actual_tokens else 0
        end = call.event.ending(
            "settled" if made.actual_tokens else "aborted", output_tokens=made.actual_tokens, cost_nano=made.cost_nano
        )
        await gateway.settle(end)
        return ""


def measure(ground: Stand, quick: bool) -> tuple[dict[str, float], dict[str, Any]]:
    rounds = 6 if quick else 200
    people = cast.accounts(2, 2)
    writer = Writer("bench")
    writer.drain()
    head = ledger.head()
    process = ground.writer()
    until(lambda: ledger.head().writer not in ("", "bench"), "The writer does not start", 60, process.log)
    pairs = [people[:2], people[2:]]
    race = Race(ground.redis_url, pairs, head.mark, head.sequence)
    asyncio.run(race.run(rounds))
    process.end()
    wait_for_lease(writer)
    watch = race.watch
    watch.close()
    wrong = rows_that_differ(watch)
    over = [overspent(watch, pair, race.budgets[tenant]) for tenant, pair in enumerate(pairs)]
    before, after = (max(part[number] for part in over) for number in (0, 1))
    limits = {name: excess for tenant, pair in enumerate(pairs) for name, excess in excesses(watch, pair, tenant)}
    open_calls = {name: excess for name, excess in limits.items() if "concurrent" in name}
    rates = {name: excess for name, excess in limits.items() if name not in open_calls}
    say(f"{len(watch.calls):,} calls; beyond concurrency {max(open_calls.values())}; rows that differ {wrong}")
    say(f"overspent before Redis was emptied {before}, from then on {after}")
    if wrong:
        raise NotThere(f"{wrong} calls have no row or another one")
    figures: dict[str, float] = {"overspend_nanodollars": max(before, after), "limit_overshoot": max(rates.values())}
    facts: dict[str, Any] = {"calls": len(watch.calls), "refused": dict(watch.refused), "rounds": rounds}
    facts |= {"beyond": {name: excess for name, excess in limits.items() if excess}}
    facts |= {"overspent_before_emptying": before, "overspent_after": after}
    return figures, facts | {"rebuilt_after_s": (watch.rebuilt_us - watch.emptied_us) / SECOND}


def wait_for_lease(writer: Writer) -> None:
    """Books the rest, once the process that has ended is not taken for the active writer."""
    deadline = time.monotonic() + 60
    while writer.drain() or UsageEvent.objects.count() == 0:
        if time.monotonic() > deadline:
            raise NotThere("The writer does not book the calls")
        time.sleep(0.1)


def overspent(watch: Watch, pair: list[cast.Account], last_budget: int) -> tuple[int, int]:
    """By how much spent and held was above the budget at the worst admission before and after the emptying; or rows."""
    steps: list[tuple[tuple[int, int], int, int]] = []
    for call in watch.calls.values():
        if call.open.event.tenant == pair[0].tenant:
            steps.append((call.admitted, call.open.hold_nano, call.open.terms.budget_nano))
            steps.append((call.ended, call.cost_nano - call.open.hold_nano, 1 << 62))
    used, worst = 0, [0, 0]
    for (life, _), nano, budget in sorted(steps):
        used += nano
        worst[life > 0] = max(worst[life > 0], used - budget)
    rows = UsageEvent.objects.filter(tenant_id=pair[0].tenant).aggregate(sum=Sum("cost_nano"))["sum"]
    return worst[0], max(worst[1], rows - last_budget)


def excesses(watch: Watch, pair: list[cast.Account], tenant: int) -> list[tuple[str, int]]:
    """Units beyond each limit of the tenant and of its keys: requests, tokens used in the end, calls at once."""
    found = []
    for scope, name in [("tenant", pair[0].tenant), *(("key", account.key) for account in pair)]:
        limits = LIMITS[tenant][scope == "key"]
        calls = [c for c in watch.calls.values() if name in (c.open.event.tenant, c.open.event.key)]
        calls.sort(key=lambda c: (c.at_us, c.admitted))
        for kind in range(4):
            needs = ((c.at_us, 1 if kind < 2 else c.actual_tokens) for c in calls)
            excess = overshoot(needs, limits[kind], PERIODS[kind])
            found.append((f"{tenant} {name} {metering.LIMITS[kind]}", excess))
        steps = sorted([(c.admitted, 1) for c in calls] + [(c.ended, -1) for c in calls])
        found.append((f"{tenant} {name} concurrent_calls", max(0, most((0, step) for _, step in steps) - limits[4])))
    return found


def rows_that_differ(watch: Watch) -> int:
    """Calls without exactly the row that they ended with."""
    rows = {row[0]: row[1:] for row in UsageEvent.objects.values_list("request_id", "output_tokens", "cost_nano")}
    right = sum(rows.get(id_) == (call.actual_tokens, call.cost_nano) for id_, call in watch.calls.items())
    return max(len(watch.calls), UsageEvent.objects.count()) - right
