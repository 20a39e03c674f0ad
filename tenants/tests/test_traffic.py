"""What traffic counts, and looking for calls: nothing is lost or shown twice, and a look is bounded."""

from __future__ import annotations

import random
from collections import Counter
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from tenants import keys, traffic
from tenants.models import NANO, RefusalCount, UsageEvent
from tenants.tests import usage
from tenants.traffic import asking, causes, priced, search

pytestmark = pytest.mark.django_db


@pytest.fixture
def key(cast):
    return keys.create(cast.acme, "web", cast.owner)[0]


def book(tenant, key, *calls, ago=timedelta(minutes=2)):
    """One row for each dict of facts, a second apart, the newest first; their request ids."""
    at = timezone.now() - ago
    first = UsageEvent.objects.count()
    events = [usage.call(tenant, key, at - timedelta(seconds=n), first + n, **facts) for n, facts in enumerate(calls)]
    usage.book(events)
    return [event.request_id for event in events]


def test_quantiles_are_of_the_nearest_rank_and_within_one_percent(cast, key):
    rng = random.Random(7)
    latencies = [round(rng.lognormvariate(5, 1.2)) + 1 for _ in range(400)]
    book(cast.acme, key, *({"latency_ms": ms, "ttft_ms": ms // 3} for ms in latencies), ago=timedelta(minutes=1))
    found = traffic.look(cast.acme, traffic.SPANS["15m"])
    exact = sorted(latencies)
    assert found.latency
    for share, seen in ((50, found.latency.p50), (95, found.latency.p95), (99, found.latency.p99)):
        true = exact[-(-len(exact) * share // 100) - 1]
        assert seen == pytest.approx(true, rel=0.01, abs=0.5), share
    assert found.first
    assert found.first.n == sum(ms // 3 > 0 for ms in latencies)


@pytest.mark.parametrize("ms", [1, 2, 7, 50, 99])
def test_a_small_time_is_told_exactly(cast, key, ms):
    book(cast.acme, key, {"latency_ms": ms})
    found = traffic.look(cast.acme, traffic.SPANS["15m"]).latency
    assert found
    assert (found.p50, found.p99) == (ms, ms)


def test_every_call_is_in_one_bar_and_under_one_end(cast, key):
    ends = [("settled", ""), ("blocked", "pii"), ("aborted", "engine_failed"), ("aborted", "client_disconnected")]
    book(
        cast.acme,
        key,
        *({"status": s, "reason": r} for s, r in ends * 3),
        {"status": "estimated", "reason": "gateway_lost"},
    )
    minute = timezone.now().replace(second=0, microsecond=0) - timedelta(minutes=1)
    for limit, n in (("requests_per_minute", 4), ("budget", 2)):
        RefusalCount.objects.create(tenant=cast.acme, key_id=key.pk, minute=minute, limit=limit, count=n)
    found = traffic.look(cast.acme, traffic.SPANS["1h"])
    sums = Counter[str]()
    for bar in found.bars:
        sums += Counter({name: getattr(bar, name) for name in ("settled", "blocked", "broken", "refused")})
    assert sums == {"settled": 3, "blocked": 3, "broken": 7, "refused": 6}
    assert (found.calls, found.blocked, found.broken, found.all_refused, found.unanswered) == (13, 3, 7, 6, 16)
    counted = {cause.name: (cause.side, n) for cause, n in causes.count(found.ends, found.refused)}
    assert counted == {
        "limits": ("yours", 4),
        "budget": ("yours", 2),
        "guardrails": ("yours", 3),
        "callers": ("yours", 3),
        "engine": ("ours", 3),
        "gateway": ("ours", 1),
    }
    assert traffic.ended(cast.acme, timedelta(hours=1)) == (found.ends, found.refused)


def test_the_last_minute_is_the_last_minute(cast, key):
    book(cast.acme, key, {}, {}, ago=timedelta(seconds=20))
    book(cast.acme, key, {}, ago=timedelta(seconds=70))
    for span in traffic.SPANS.values():
        assert traffic.look(cast.acme, span).last_minute == 2, span.name


def test_a_reason_nobody_knows_is_nobodys(cast):
    assert causes.of_row("aborted", "something_new").side == "unknown"
    assert causes.words("something_new") == "something_new"


def test_what_answered_is_told_apart(cast, key):
    adapter = {"served": "acme.destek-v1", "adapter_digest": "ab" * 32, "input_tokens": 5, "output_tokens": 2}
    book(cast.acme, key, {}, adapter, adapter | {"status": "aborted", "reason": "engine_failed", "engine": "gpu-2"})
    two, one = traffic.look(cast.acme, traffic.SPANS["15m"]).answering
    assert (two.served, two.calls, two.unsettled, two.input_tokens, two.output_tokens) == (
        "acme.destek-v1",
        2,
        1,
        10,
        4,
    )
    assert two.replicas == {"gpu-2"}
    assert (one.served, one.calls, one.unsettled) == ("demo-base", 1, 0)
    assert one.last
    assert two.last
    assert one.last > two.last


def test_another_tenants_calls_corrections_and_older_ones_do_not_count(cast, key):
    strange = keys.create(cast.globex, "g", cast.outsider)[0]
    book(cast.globex, strange, {})
    book(cast.acme, key, {}, ago=timedelta(minutes=40))
    (estimated,) = book(cast.acme, key, {"status": "estimated", "reason": "gateway_lost"})
    usage.book([usage.call(cast.acme, key, timezone.now(), int(estimated.rpartition("_")[2]), cost=3)])
    assert UsageEvent.objects.filter(source="adjustment").count() == 1
    found = traffic.look(cast.acme, traffic.SPANS["15m"])
    assert found.ends == {("estimated", "gateway_lost"): 1}
    assert traffic.look(cast.acme, traffic.SPANS["1h"]).calls == 2


def test_a_look_reads_the_newest_rows_only_and_says_so(cast, key, monkeypatch):
    monkeypatch.setattr(traffic, "MOST", 5)
    ids = book(cast.acme, key, *({} for _ in range(9)))
    found = traffic.look(cast.acme, traffic.SPANS["15m"])
    assert found.cut
    assert found.calls == 5
    assert found.since > UsageEvent.objects.get(request_id=ids[5]).occurred_at
    monkeypatch.setattr(traffic, "MOST", 9)
    whole = traffic.look(cast.acme, traffic.SPANS["15m"])
    assert (whole.cut, whole.calls) == (False, 9)


FACTS = [
    {"model": "destek", "served": "acme.destek-v1", "adapter_digest": "ab" * 32, "latency_ms": 900},
    {"model": "destek", "status": "blocked", "reason": "pii", "end_user": "ayşe"},
    {"model": "demo-base", "status": "aborted", "reason": "engine_failed", "latency_ms": 50},
    {"model": "demo-base", "latency_ms": 1_000, "end_user": "ayşe"},
]  # fmt: skip
WANTED = [
    ({}, [0, 1, 2, 3]),
    ({"model": "destek"}, [0, 1]),
    ({"adapter": "abab"}, [0]),
    ({"adapter": "acme.destek-v1"}, [0]),
    ({"status": "settled"}, [0, 3]),
    ({"status": "unsettled"}, [1, 2]),
    ({"status": "blocked", "model": "demo-base"}, []),
    ({"reason": "engine_failed"}, [2]),
    ({"end_user": "ayşe"}, [1, 3]),
    ({"min_ms": 900}, [0, 3]),
]


@pytest.mark.parametrize(("wanted", "places"), WANTED)
def test_a_filter_finds_what_it_says_and_nothing_else(cast, key, wanted, places):
    ids = book(cast.acme, key, *FACTS)
    found = search.find(cast.acme, search.Filters(**wanted))
    assert [row.request_id for row in found.rows] == [ids[place] for place in places]
    assert found.after == ""


def test_a_key_a_time_and_an_id_filter(cast, key):
    other = keys.create(cast.acme, "mobil", cast.owner)[0]
    (mine,) = book(cast.acme, key, {})
    (theirs,) = book(cast.acme, other, {}, ago=timedelta(hours=3))
    now = timezone.now()

    def ids(**wanted):
        return [row.request_id for row in search.find(cast.acme, search.Filters(**wanted)).rows]

    assert ids(key=other.pk) == [theirs]
    assert ids(since=now - timedelta(hours=1)) == [mine]
    assert ids(until=now - timedelta(hours=1)) == [theirs]
    assert ids(request_id=theirs) == [theirs]
    assert search.find(cast.globex, search.Filters(request_id=theirs)).rows == []


@pytest.mark.parametrize("wanted", [{}, {"status": "blocked"}, {"status": "aborted"}])
@pytest.mark.parametrize("looked", [3, 7, 1_000])
def test_pages_one_after_another_are_all_that_matches_each_once(cast, key, monkeypatch, wanted, looked):
    """Also where several rows have one instant, and where a page ends because it has looked at enough."""
    monkeypatch.setattr(search, "LOOKED", looked)
    at = timezone.now() - timedelta(minutes=5)
    states = ["settled", "settled", "blocked", "settled"]
    usage.book([usage.call(cast.acme, key, at - timedelta(seconds=n // 4), n, status=states[n % 4]) for n in range(24)])
    filters = search.Filters(**wanted)
    seen, after, turns = [], "", 0
    while True:
        page = search.find(cast.acme, filters, after, 5)
        seen += [row.request_id for row in page.rows]
        after, turns = page.after, turns + 1
        assert turns < 50
        if not after:
            break
    rows = UsageEvent.objects.filter(tenant=cast.acme).order_by("-occurred_at", "-id")
    assert seen == [row.request_id for row in rows if not wanted or row.status == wanted["status"]]
    assert seen == [row.request_id for chunk in search.chunks(cast.acme, filters) for row in chunk]


def test_a_rare_filter_says_how_far_it_looked(cast, key, monkeypatch):
    monkeypatch.setattr(search, "LOOKED", 4)
    ids = book(cast.acme, key, *({} for _ in range(6)))
    found = search.find(cast.acme, search.Filters(status="blocked"))
    assert found.rows == []
    assert found.reached == UsageEvent.objects.get(request_id=ids[3]).occurred_at
    assert search.find(cast.acme, search.Filters(status="blocked"), found.after).reached is None


def test_text_that_is_no_cursor_is_refused(cast):
    for text in ("x", "1-", "9" * 40 + "-1"):
        with pytest.raises(search.BadCursor):
            search.find(cast.acme, search.Filters(), text)


def test_looking_asks_few_questions(cast, key, django_assert_num_queries):
    book(cast.acme, key, *FACTS)
    with django_assert_num_queries(4):
        traffic.look(cast.acme, traffic.SPANS["1h"])
    with django_assert_num_queries(2):
        search.find(cast.acme, search.Filters(status="blocked"))


def test_rows_are_read_by_their_index(cast, key, django_assert_num_queries):
    """Each query on rows names the tenant and a bound of the instant, which is what the index stands on."""
    from django.db import connection

    book(cast.acme, key, *FACTS)
    with CaptureQueriesContext(connection) as asked:
        traffic.look(cast.acme, traffic.SPANS["1h"])
        search.find(cast.acme, search.Filters(since=timezone.now() - timedelta(days=1), reason="pii"))
    on_rows = [query["sql"] for query in asked if "tenants_usageevent" in query["sql"]]
    assert len(on_rows) == 5
    for sql in on_rows:
        assert '"tenants_usageevent"."tenant_id" =' in sql
        assert '"tenants_usageevent"."occurred_at" >=' in sql


def test_a_cost_is_explained_to_the_nano_dollar(cast, key):
    price = usage.price(input_nano=100_000_003, output_nano=400_000_001, cached_nano_per_mtok=10_000_001)
    cost = (30 * 100_000_003 + 20 * 10_000_001 + 7 * 400_000_001 + 500_000) // 1_000_000  # half up
    facts: dict[str, Any] = {
        "input_tokens": 50,
        "cached_tokens": 20,
        "output_tokens": 7,
        "price": price.pk,
        "cost": cost,
    }
    (id_,) = book(cast.acme, key, facts)
    told = priced.explain(UsageEvent.objects.select_related("price").get(request_id=id_))
    assert told
    assert [(line.kind, line.tokens) for line in told.lines] == [("input", 30), ("cached", 20), ("output", 7)]
    exact = sum((line.dollars for line in told.lines), Decimal(0)) * NANO
    assert abs(exact - told.nano) <= Decimal("0.5")
    assert (told.nano, told.agrees) == (cost, True)
    UsageEvent.objects.update(cost_nano=told.nano + 1)
    changed = priced.explain(UsageEvent.objects.select_related("price").get(request_id=id_))
    assert changed
    assert not changed.agrees


def test_a_call_that_used_nothing_has_no_computation(cast, key):
    (id_,) = book(cast.acme, key, {"input_tokens": 0, "output_tokens": 0, "cost": 0, "price": usage.price().pk})
    assert priced.explain(UsageEvent.objects.select_related("price").get(request_id=id_)) is None


def test_the_form_takes_what_is_right_and_names_what_is_not(cast, key):
    form = asking.Search({"min_ms": "viel", "status": "settled", "key": "nope"}, cast.acme)
    assert form.filters().status == "settled"
    assert set(form.errors) == {"min_ms", "key"}
    assert form.filters().min_ms == 0
    assert asking.Search({"since": "2026-11-01T10:00"}, cast.acme).filters().until is None
    day = asking.Search({}, cast.acme).filters().since
    assert day
    assert timedelta(hours=23) < timezone.now() - day < timedelta(hours=25)
    assert asking.Search({"span": "all"}, cast.acme).filters().since is None
