"""The back-test: it refuses exactly what Redis would have refused, and counts and costs as the rows say."""

from __future__ import annotations

import random
from datetime import UTC, date, datetime, timedelta

import pytest
import redis
from django.core.management import CommandError, call_command
from django.urls import reverse
from django.utils import timezone

from tenants import costs, keys, metering
from tenants.costs import backtest
from tenants.costs.proposals import BadProposal, Proposal, in_force
from tenants.models import NANO, RefusalCount
from tenants.tests import usage

SINCE = date(2026, 11, 20)
AT = datetime(2026, 11, 20, 9, 0, tzinfo=UTC)
MARK = "f" * 32 + ":1"
# ADMIT and SETTLE with an instant that the test gives, as two arguments more, in place of Redis's own clock.
CLOCK = "redis.call('TIME')"
FROZEN = {name: script.replace(CLOCK, "{ARGV[#ARGV - 1], ARGV[#ARGV]}") for name, script in (
    ("admit", metering.ADMIT), ("settle", metering.SETTLE)
)}  # fmt: skip


def row(at: datetime, number=0, tokens=10, cost=1_000, key="k", **fields):
    made = {
        "id": number, "request_id": f"req_{number}", "source": "gateway", "occurred_at": at, "day": at.date(),
        "key_id": key, "model": "m", "input_tokens": tokens, "cached_tokens": 0, "output_tokens": 0,
        "cost_nano": cost, "latency_ms": 100,
    }  # fmt: skip
    return made | fields


def replay(calls, proposal, most=1_000_000, before=None):
    return backtest.replay(calls, proposal, SINCE, AT, most, before or {})


def limits(**named):
    return tuple(named.get(name) for name in metering.LIMITS)


class Frozen:
    """The real steps in a real Redis, at instants of the test's choosing."""

    def __init__(self, url: str, terms: metering.Terms) -> None:
        self.client, self.terms = redis.Redis.from_url(url), terms
        self.client.hset(metering.STATE, mapping={"mark": MARK, "sequence": 0, "since": 0})
        self.client.hset(metering.EPOCHS, "t", 1)
        self.ends: list[tuple[datetime, metering.Event]] = []

    def eval(self, name: str, packed: metering.Packed, at: datetime):
        names, args = packed
        seconds, micros = divmod((at - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1), 1_000_000)
        return self.client.eval(FROZEN[name], len(names), *names, *args, str(seconds), str(micros))

    def ask(self, call: dict) -> metering.Verdict:
        """Ends what has ended by then, then asks for the call, reserving what it took."""
        at = call["occurred_at"]
        for end in sorted((end for end in self.ends if end[0] <= at), key=lambda end: end[0]):
            self.eval("settle", metering.settle(end[1], MARK), end[0])
            self.ends.remove(end)
        event = metering.Event(call["request_id"], "t", call["key_id"], str(call["day"]), "settled", "m", "m")
        tokens = call["input_tokens"] + call["output_tokens"]
        reply = self.eval("admit", metering.admit(event, self.terms, call["cost_nano"], tokens), at)
        verdict = metering.verdict(reply)
        if not verdict.reason:
            done = event.ending("settled", input_tokens=tokens, cost_nano=call["cost_nano"])
            self.ends.append((at + timedelta(milliseconds=call["latency_ms"]), done))
        return verdict


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("scope", ["tenant", "key"])
def test_it_refuses_what_the_script_in_redis_refuses(redis_url, seed, scope):
    rng = random.Random(seed)
    proposed = limits(
        requests_per_second=rng.choice([None, 2, 5]),
        requests_per_minute=rng.choice([None, 20, 90]),
        tokens_per_second=rng.choice([None, 150, 400]),
        tokens_per_minute=rng.choice([1_500, 4_000]),
        concurrent_calls=rng.choice([None, 2, 4]),
    )
    budget = rng.choice([60_000, 10**9])
    terms = metering.Terms(MARK, 1, 2**52, str(SINCE), budget, **{f"{scope}_limits": proposed})
    at, calls = AT, []
    for number in range(400):
        at += timedelta(microseconds=int(rng.expovariate(1 / 250_000)))
        facts = {"tokens": rng.randrange(1, 120), "cost": rng.randrange(1_000), "latency_ms": rng.randrange(1, 2_000)}
        calls.append(row(at, number, **facts))
    stand = Frozen(redis_url, terms)
    truth = [stand.ask(call) for call in calls]
    refused = [
        (scope if verdict.limit_name != "budget" else "tenant", verdict.limit_name)
        for verdict in truth
        if verdict.reason
    ]
    result = replay(calls, Proposal(proposed, "k" if scope == "key" else "", budget))
    assert 20 < len(refused) < 400
    assert dict(result.refused) == {which: refused.count(which) for which in set(refused)}
    passed = sum(call["cost_nano"] for call, verdict in zip(calls, truth, strict=True) if not verdict.reason)
    assert result.cost == passed


def test_one_period_s_burst_passes_and_the_next_call_does_not():
    calls = [row(AT, n) for n in range(4)] + [row(AT + timedelta(seconds=20), 4), row(AT + timedelta(seconds=20), 5)]
    result = replay(calls, Proposal(limits(requests_per_minute=3)))
    assert dict(result.refused) == {("tenant", "requests_per_minute"): 2}
    assert result.by_day == {SINCE: [6, 2]}


def test_limits_of_a_key_leave_other_keys_alone():
    calls = [row(AT, n, key="kq"[n % 2]) for n in range(6)]
    assert replay(calls, Proposal(limits(requests_per_minute=1), key="q")).refused == {
        ("key", "requests_per_minute"): 2
    }
    assert replay(calls, Proposal(limits(concurrent_calls=0))).refusals == 6


def test_a_budget_refuses_from_the_call_that_would_pass_it_and_counts_what_came_before():
    calls = [row(AT + timedelta(hours=n), n, cost=300) for n in range(5)]
    result = replay(calls, Proposal(budget_nano=1_000), before={"202611": 200})
    assert result.refused == {("tenant", "budget"): 3}
    assert result.reached == {"202611": AT + timedelta(hours=2)}
    assert (result.cost, result.booked, result.cost_of_all) == (600, 1_500, 1_500)


def test_each_month_has_its_own_budget():
    calls = [row(datetime(2026, month, 2, tzinfo=UTC), month, cost=600) for month in (9, 10, 11)]
    assert replay(calls, Proposal(budget_nano=600)).refusals == 0


def test_other_prices_are_charged_exactly_and_to_their_model_only():
    calls = [row(AT, 1, tokens=1_000_001, cached_tokens=1, cost=5), row(AT, 2, tokens=2, cost=5, model="other")]
    proposal = Proposal(input_nano_per_mtok=3, output_nano_per_mtok=9, cached_nano_per_mtok=500_000, model="m")
    result = replay(calls, proposal)
    assert result.cost_of_all == (1_000_000 * 3 + 500_000 + 500_000) // 1_000_000 + 5
    assert result.booked == 10


def test_a_correction_follows_its_call():
    calls = [row(AT, 1, cost=500), row(AT, 1, cost=-100, tokens=0, source="adjustment"), row(AT, 2, cost=600)]
    assert replay(calls, Proposal(budget_nano=1_000)).cost == 1_000
    assert replay(calls, Proposal(budget_nano=450)).cost == 0


def test_it_stops_at_its_bound_and_says_so():
    calls = [row(AT + timedelta(seconds=n), n) for n in range(10)]
    result = replay(calls, Proposal(budget_nano=0), most=4)
    assert (result.calls, result.cut, result.until) == (4, True, calls[4]["occurred_at"])
    assert not replay(calls, Proposal(budget_nano=0), most=10).cut


@pytest.mark.parametrize(
    "bad",
    [
        Proposal(),
        Proposal(limits(requests_per_second=-1)),
        Proposal(limits(tokens_per_minute=100_000_001)),
        Proposal(budget_nano=-1),
        Proposal(budget_nano=9_000_001 * NANO),
        Proposal(input_nano_per_mtok=1),
        Proposal(budget_nano=1, cached_nano_per_mtok=1),
        Proposal(input_nano_per_mtok=-1, output_nano_per_mtok=1),
    ],
)
def test_an_absurd_proposal_is_refused_before_anything_is_read(cast, bad):
    with pytest.raises(BadProposal):
        backtest.run(cast.acme, bad)


def test_the_key_must_be_the_tenants_own(cast, redis_url):
    key, _ = keys.create(cast.globex, "g")
    with pytest.raises(BadProposal) as refused:
        backtest.run(cast.acme, Proposal(limits(requests_per_minute=1), key=key.pk))
    assert refused.value.field == "key"


@pytest.fixture
def booked(cast, redis_url):
    """60 calls of Acme, one a second, ending a minute ago; one of Globex."""
    now = timezone.now()
    for tenant, n in ((cast.acme, 60), (cast.globex, 1)):
        key, _ = keys.create(tenant, "web")
        usage.book([usage.call(tenant, key, now - timedelta(seconds=60 + i), i, cost=NANO) for i in range(n)])
    minute = now.replace(second=0, microsecond=0)
    RefusalCount.objects.create(
        tenant=cast.acme, key_id="k", minute=minute - timedelta(minutes=5), limit="budget", count=4
    )
    return cast


def test_it_reads_the_rows_of_the_tenant_and_what_was_refused_then(booked):
    result = backtest.run(booked.acme, Proposal(limits(requests_per_minute=30)), days=2)
    assert (result.calls, result.booked, result.refused_then) == (60, 60 * NANO, 4)
    # 30 at once, then one every two seconds: 59 s later 29 more have come back, of 60.
    assert result.refusals == 60 - (30 + 29)
    assert backtest.run(booked.globex, in_force(booked.globex), days=2).calls == 1


def test_page_command_and_api_say_the_same(booked, client, capsys):
    client.force_login(booked.auditor)
    query = {"days": 2, "requests_per_minute": 10, "budget": "20"}
    truth = backtest.run(booked.acme, Proposal(limits(requests_per_minute=10), budget_nano=20 * NANO), days=2)
    page = client.get(reverse("backtest", args=["acme"]), query)
    assert page.context["result"].refused == truth.refused
    told = client.get("/api/v1/t/acme/usage/backtest/", query).json()
    assert (told["refused"], told["cost"]) == (truth.refusals, costs.dollars(truth.cost))
    call_command("backtest", "acme", "--days", "2", "--requests-per-minute", "10", "--budget", "20")
    out = capsys.readouterr().out
    assert f"refused: {truth.refusals} " in out
    for caveat in backtest.CAVEATS:
        assert str(caveat) in out


def test_what_cannot_be_replayed_is_said_in_a_sentence(booked, client):
    client.force_login(booked.auditor)
    for query in ({"days": 0}, {"days": 7}, {"days": 7, "requests_per_minute": -1}, {"days": 7, "input_price": 1}):
        answer = client.get(reverse("backtest", args=["acme"]), query)
        assert answer.status_code == 422
        assert answer.context["form"].errors
    for wrong in (["acme"], ["acme", "--budget", "x"], ["acme", "--days", "0", "--budget", "1"], ["nobody"]):
        with pytest.raises(CommandError):
            call_command("backtest", *wrong)
