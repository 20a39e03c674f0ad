"""Each atomic step: what it admits, what it counts, and that nothing is counted twice or left behind."""

import math
import random

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tenants import metering
from tenants.metering import LIMITS
from tenants.tests.world import MARK, START, World

PERIODS = {"requests_per_second": 10**6, "requests_per_minute": 6 * 10**7}
PERIODS |= {"tokens_per_second": 10**6, "tokens_per_minute": 6 * 10**7}


def only(name, limit):
    return tuple(limit if each == name else None for each in LIMITS)


@pytest.fixture
def world(redis_url):
    made = World(redis_url)
    made.found()
    made.now = START
    yield made
    made.client.close()


def everything(world):
    """All that Redis counts; the refusals beside it, which are only counted."""
    names = [name for name in world.client.keys("ps:*") if not name.startswith(metering.REFUSED)]
    return world.dump().keys() - set(world.client.keys(f"{metering.REFUSED}*")), {
        name: world.client.hgetall(name) for name in names if world.client.type(name) == "hash"
    }


@pytest.mark.parametrize("scope", ["tenant", "key"])
@pytest.mark.parametrize("name", PERIODS)
def test_a_rate_admits_its_burst_at_one_instant_and_then_one_each_interval(world, scope, name):
    limit, unit = (7, 1) if name.startswith("requests") else (7_000, 1_000)
    limits = {f"{scope}_limits": only(name, limit)}
    told = [world.admit(f"r{n}", unit, **limits) for n in range(9)]
    assert [verdict.reason for verdict in told] == [""] * 7 + ["refused"] * 2
    refused = told[7]
    assert (refused.scope, refused.limit_name, refused.limit, refused.value, refused.need) == (
        scope, name, limit, limit, unit,
    )  # fmt: skip
    interval = math.ceil(PERIODS[name] * unit / limit)
    assert refused.wait_us == interval
    world.now += interval - 1
    assert world.admit("early", unit, **limits).wait_us == 1
    world.now += 1
    assert world.admit("in time", unit, **limits).reason == ""
    assert world.admit("again", unit, **limits).reason == "refused"


@pytest.mark.parametrize("scope", ["tenant", "key"])
def test_concurrent_calls_are_those_that_are_open(world, scope):
    limits = {f"{scope}_limits": only("concurrent_calls", 3)}
    assert [world.admit(f"r{n}", **limits).reason for n in range(4)] == ["", "", "", "refused"]
    world.settle("r1")
    assert world.admit("r4", **limits).reason == ""
    refused = world.admit("r5", **limits)
    assert (refused.scope, refused.limit_name, refused.value) == (scope, "concurrent_calls", 3)


def test_a_limit_of_nothing_admits_nothing_and_says_that_waiting_does_not_help(world):
    for name in LIMITS:
        refused = world.admit("r", 1, tenant_limits=only(name, 0))
        assert (refused.reason, refused.limit_name, refused.wait_us) == ("refused", name, -1)
    too_long = world.admit("r", 101, key_limits=only("tokens_per_minute", 100))
    assert (too_long.need, too_long.wait_us) == (101, -1)


def test_the_budget_admits_to_the_last_nano_dollar_and_no_further(world):
    assert world.admit("r1", hold=60, budget=100).reason == ""
    assert world.admit("r2", hold=41, budget=100).limit_name == "budget"
    assert world.admit("r3", hold=40, budget=100).reason == ""
    world.settle("r1", cost=10)
    assert world.month() == {"spent": 10, "held": 40, "corrected": 0} or world.month() == {"spent": 10, "held": 40}
    assert world.admit("r4", hold=51, budget=100).reason == "refused"
    assert world.admit("r5", hold=50, budget=100).reason == ""


def test_amounts_near_2_to_the_53_are_exact(world):
    budget = 9_000_000 * 10**9
    assert world.admit("r1", hold=budget - 1, budget=budget).reason == ""
    assert world.admit("r2", hold=2, budget=budget).reason == "refused"
    assert world.admit("r3", hold=1, budget=budget).reason == ""
    world.settle("r1", cost=budget - 1)
    assert world.month()["spent"] == budget - 1
    _, text = world.run(metering.PROOF, metering.proof(MARK, "n"))
    read = orjson.loads(text)
    assert read["months"]["t:202611"][:2] == [str(budget - 1), "1"]
    assert read["holds"] == {"t:202611": "1"}


def test_a_refused_call_consumes_nothing(world):
    limits = {"tenant_limits": (5, 50, 1_000, 10_000, 5), "key_limits": (1, 50, 1_000, 10_000, 5)}
    assert world.admit("r1", 10, 5, **limits).reason == ""
    before = everything(world)
    assert world.admit("r2", 10, 5, **limits).reason == "refused"  # by the last limit that is looked at but one
    assert world.admit("r3", 10, 10**16, **limits).reason == "refused"
    assert world.admit("r4", 10, 5, epoch=2, **limits).reason == "stale"
    assert everything(world) == before
    minute = f"{metering.REFUSED}{world.now // 60_000_000}"
    assert sum(map(int, world.client.hgetall(minute).values())) == 2


def test_asking_twice_takes_one_hold(world):
    assert world.admit("r1", hold=5).reason == ""
    before = everything(world)
    assert world.admit("r1", hold=5).reason == ""
    assert everything(world) == before


def test_a_server_that_forgot_steps_or_carries_another_mark_admits_nobody(world):
    sequence = world.admit("r1").sequence
    assert world.admit("r2", seen=sequence + 1).reason == "unmarked"
    assert world.client.hget(metering.STATE, "mark") is None
    assert world.admit("r2").reason == "unmarked"
    world.client.hset(metering.STATE, "mark", f"{'cd' * 16}:1")
    assert world.admit("r2").reason == "unmarked"
    assert world.settle("r1").written == -1
    assert world.client.hexists(metering.HOLDS, "r1")


def test_terms_that_have_run_out_are_stale(world):
    event = world.event("r1")
    terms = metering.Terms(MARK, 1, START, "2026-11-25", 100)
    assert metering.verdict(world.run(metering.ADMIT, metering.admit(event, terms, 1, 1))).reason == "stale"


def test_a_full_stream_admits_nobody(world, monkeypatch):
    monkeypatch.setattr(metering, "LONGEST_STREAM", 2)
    for number in range(2):
        world.admit(f"r{number}")
        world.settle(f"r{number}")
    assert world.admit("r9").reason == "backlog"


def test_settling_twice_books_once_and_the_second_is_late(world):
    world.admit("r1", 10, 100)
    first, second = world.settle("r1", 5, 70), world.settle("r1", 5, 70)
    assert (first.written, second.written) == (1, 2)
    assert world.month() == {"spent": 70, "held": 0}
    assert world.client.hgetall(metering.OPEN) == {}
    entries = world.client.xrange(metering.STREAM)
    assert ["late" in fields for _, fields in entries] == [False, True]
    assert entries[0][1]["at"] == str(START)


def test_a_lapsed_hold_is_ended_only_if_it_is_still_that_and_still_lapsed(world):
    world.admit("r1", 10, 100)
    row = world.client.hget(metering.HOLDS, "r1")
    assert world.settle("r1", cost=1, lapsed=row).written == 0
    world.now += 31_000_000
    assert world.settle("r1", cost=1, lapsed=row + " ").written == 0
    assert world.renew(("r1", 3, 4, 50), ("gone", 1, 1, 1)) == [1, 0]
    assert world.settle("r1", cost=1, lapsed=row).written == 0
    renewed = world.client.hget(metering.HOLDS, "r1")
    assert world.settle("r1", cost=1, lapsed=renewed).written == 0
    world.now += 31_000_000
    hold = metering.read_hold(renewed)
    assert (hold.nano, hold.tokens, hold.event.cost_nano, hold.event.output_tokens) == (100, 10, 50, 4)
    assert (hold.event.status, hold.event.at_us) == ("estimated", START)
    assert world.settle("r1", cost=50, lapsed=renewed).written == 1
    assert world.month() == {"spent": 50, "held": 0}
    assert world.client.zcard(metering.LEASES) == 0


def test_a_hold_that_cannot_be_read_is_buried_once_it_has_lapsed(world):
    world.client.hset(metering.HOLDS, "r1", "nonsense")
    world.client.zadd(metering.LEASES, {"r1": START // 1000 + 1})
    assert world.run(metering.BURY, metering.bury("r1")) == 0
    world.now += 2_000
    assert world.run(metering.BURY, metering.bury("r1")) == 1
    assert world.run(metering.BURY, metering.bury("r1")) == 0
    ((_, fields),) = world.client.xrange(metering.DEAD_STREAM)
    assert fields == {"request_id": "r1", "hold": "nonsense"}


def test_a_hold_whose_event_alone_cannot_be_read_gives_back_what_it_held(world):
    assert world.admit("r1", 10, hold=7).reason == world.admit("r2", 10, hold=5).reason == ""
    row = world.client.hget(metering.HOLDS, "r1")
    world.client.hset(metering.HOLDS, "r1", row.rpartition("|")[0] + '|{"of": "another version"}')
    world.now += 31_000_000
    assert world.run(metering.BURY, metering.bury("r1")) == 1
    assert world.month() == {"spent": 0, "held": 5}
    assert world.client.hgetall(metering.OPEN) == {"t": "1", "k": "1"}


def test_what_was_reserved_and_not_used_comes_back(world):
    limits = {"tenant_limits": only("tokens_per_minute", 600)}
    assert world.admit("r1", 600, **limits).reason == ""
    assert world.admit("r2", 100, **limits).reason == "refused"
    world.settle("r1", used=100)
    assert world.admit("r2", 500, **limits).reason == ""
    assert world.admit("r3", 1, **limits).reason == "refused"


def test_what_had_drained_meanwhile_does_not_come_back_twice(world):
    limits = {"tenant_limits": only("tokens_per_minute", 600)}
    world.admit("r1", 600, **limits)
    world.now += 60_000_000  # all of it has drained
    assert world.admit("r2", 600, **limits).reason == ""
    world.settle("r1", used=0)
    assert world.admit("r3", 1, **limits).reason == "refused"


def test_using_more_than_was_reserved_is_a_debt(world):
    limits = {"key_limits": only("tokens_per_minute", 600)}
    world.admit("r1", 100, **limits)
    world.settle("r1", used=700)
    refused = world.admit("r2", 100, **limits)
    assert (refused.reason, refused.wait_us) == ("refused", 20_000_000)


def test_tokens_do_not_come_back_twice_when_the_limit_was_raised_meanwhile(world):
    minute = "tokens_per_minute"
    world.admit("a", 60_000, tenant_limits=only(minute, 60_000))
    world.now += 10_000_000
    raised = {"tenant_limits": only(minute, 600_000)}
    assert world.admit("b", 600_000, **raised).reason == ""
    world.now += 1_000_000
    world.settle("a", used=0)
    assert world.admit("c", 10_001, **raised).reason == "refused"
    assert world.admit("c", 10_000, **raised).reason == ""


def test_a_limit_that_was_lowered_says_rightly_when_it_passes_again(world):
    minute = "tokens_per_minute"
    world.admit("a", 60_000, tenant_limits=only(minute, 60_000))
    lowered = {"tenant_limits": only(minute, 10_000)}
    refused = world.admit("b", 10_000, **lowered)
    assert (refused.wait_us, refused.value) == (360_000_000, 60_000)
    world.now += 360_000_000 - 1
    assert world.admit("b", 10_000, **lowered).wait_us == 1
    world.now += 1
    assert world.admit("b", 10_000, **lowered).reason == ""


def test_a_limit_that_was_taken_away_begins_anew(world):
    both = (None, 99, None, 600, None)
    assert world.admit("a", 600, tenant_limits=both).reason == ""
    assert world.admit("b", 600, tenant_limits=(None, 99, None, None, None)).reason == ""
    world.settle("a", used=0)
    assert world.admit("c", 600, tenant_limits=both).reason == ""
    world.settle("b", used=0)
    assert world.admit("d", 1, tenant_limits=both).reason == "refused"


def test_a_refusal_tells_the_windows_without_the_call(world):
    limits = {"tenant_limits": only("requests_per_minute", 3), "key_limits": only("tokens_per_minute", 600)}
    told = world.admit("a", 500, **limits)
    refused = world.admit("b", 500, **limits)
    assert (refused.reason, refused.requests, refused.tokens) == ("refused", told.requests, told.tokens)
    assert (refused.requests.limit, refused.requests.remaining) == (3, 2)
    assert (refused.tokens.limit, refused.tokens.remaining) == (600, 100)


def excess(calls, limit, period):
    """Brute force: the most by which the tokens of calls admitted in a window passed burst + rate x its length."""
    worst = 0
    for first in range(len(calls)):
        units = 0
        for at, used in calls[first:]:
            units += used * period
            worst = max(worst, units - limit * period - limit * (at - calls[first][0]))
    return worst


@given(seed=st.integers(0, 2**32), lengths=st.sampled_from([2_000, 80_000, 700_000, 9_000_000]))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_window_ever_gets_more_tokens_than_burst_and_rate(world, seed, lengths):
    """Whatever is reserved, used and settled, and when; calls over both scopes, two keys, unequal limits."""
    dice = random.Random(seed)
    world.client.flushdb()
    world.found()
    world.now = START
    tenant, key = (20, 300, 5_000, 60_000, None), (15, 200, 3_000, 20_000, None)
    open_: list[str] = []
    admitted: dict[str, tuple[int, int, int, str]] = {}
    for number in range(120):
        world.now += dice.choice([0, 1, dice.randrange(lengths), dice.randrange(lengths)])
        if open_ and dice.random() < 0.5:
            name = open_.pop(dice.randrange(len(open_)))
            at, used, reserved, who = admitted[name]
            used = dice.choice([0, reserved, dice.randrange(reserved + 1)])
            admitted[name] = (at, used, reserved, who)
            world.settle(name, used=used, key=who)
        else:
            reserved, who = dice.choice([1, 50, 500, 3_000]), dice.choice(["k", "l"])
            verdict = world.admit(f"r{number}", reserved, tenant_limits=tenant, key_limits=key, key=who)
            if not verdict.reason:
                open_.append(f"r{number}")
                admitted[f"r{number}"] = (verdict.at_us, reserved, reserved, who)
    calls = list(admitted.values())
    for limits, whose in ((tenant, "kl"), (key, "k"), (key, "l")):
        mine = [(at, used) for at, used, _, who in calls if who in whose]
        for (name, period), limit in zip(PERIODS.items(), limits, strict=False):
            units = [(at, 1) for at, _ in mine] if name.startswith("requests") else mine
            assert excess(units, limit, period) <= 0, (name, whose)


def rebuild(world, expected, months=(), booked=(), full=True):
    packed = metering.rebuild(f"{'ab' * 16}:2", expected, 50, months, [("t", 3)], booked, full)
    return world.run(metering.REBUILD, packed)


def test_a_rebuild_waits_until_nothing_happens_and_keeps_the_holds_that_are_not_booked(world):
    limits = {"tenant_limits": only("tokens_per_minute", 600)}
    world.admit("r1", 10, 100)
    world.admit("r2", 10, 200)
    world.client.hset(metering.HOLDS, "r3", "nonsense")
    months = [("t", "202611", 77, 7), ("t", "202610", 5, 0)]
    assert rebuild(world, 3, months) == 0  # it carries a mark
    world.run(metering.UNMARK, metering.unmark(MARK))
    assert rebuild(world, 2, months) == 0  # it has counted a step more
    assert rebuild(world, 3, months, booked=["r1"]) == 1
    assert world.month() == {"spent": 77, "held": 200, "corrected": 7}
    assert world.month(month="202610") == {"spent": 5, "held": 0, "corrected": 0}
    assert world.client.hgetall(metering.OPEN) == {"t": "1", "k": "1"}
    assert world.client.hgetall(metering.EPOCHS) == {"t": "3"}
    assert world.client.hkeys(metering.HOLDS) == ["r2"]
    assert world.client.zrange(metering.LEASES, 0, -1) == ["r2"]
    assert world.client.xlen(metering.DEAD_STREAM) == 1
    state = world.client.hgetall(metering.STATE)
    assert state == {"mark": f"{'ab' * 16}:2", "sequence": "50", "since": str(START)}
    world.mark = state["mark"]
    refused = world.admit("r4", 60, epoch=3, **limits)  # nobody knows what was in the buckets: they count as full
    assert (refused.reason, refused.wait_us) == ("refused", 6_000_000)
    world.now += 6_000_000
    assert world.admit("r4", 60, epoch=3, **limits).reason == ""
    world.settle("r2", used=0)  # it reserved nothing in these buckets
    assert world.admit("r5", 1, epoch=3, **limits).reason == "refused"


def test_a_rebuild_waits_for_an_empty_stream(world):
    world.settle("r1")
    world.run(metering.UNMARK, metering.unmark(MARK))
    assert rebuild(world, 2) == 0
    world.client.xtrim(metering.STREAM, maxlen=0)
    assert rebuild(world, 2) == 1


def test_a_new_installation_begins_with_empty_buckets(world):
    world.client.flushdb()
    assert rebuild(world, 0, full=False) == 1
    world.mark = f"{'ab' * 16}:2"
    assert world.admit("r1", 600, epoch=3, tenant_limits=only("tokens_per_minute", 600)).reason == ""


def test_a_difference_is_applied_once_and_only_by_its_own_installation(world):
    world.admit("r1", hold=9)
    entry = world.settle("r1", cost=9).entry
    told = [(entry, "t", "202611", -4, "")]
    for mark in (f"{'cd' * 16}:1", ""):
        assert world.run(metering.CONFIRM, metering.confirm(mark, entry, told)) == -1
    assert world.client.xlen(metering.STREAM) == 1
    for _ in range(2):
        assert world.run(metering.CONFIRM, metering.confirm(MARK, entry, told)) == 0
        assert world.month() == {"spent": 5, "held": 0, "corrected": -4}
    assert world.client.hget(metering.STATE, "booked") == entry


def test_what_is_put_aside_keeps_its_fields_and_says_why(world):
    world.admit("r1")
    entry = world.settle("r1").entry
    for _ in range(2):
        world.run(metering.CONFIRM, metering.confirm(MARK, entry, [(entry, "", "", 0, "no such tenant")]))
    ((_, fields),) = world.client.xrange(metering.DEAD_STREAM)
    assert (fields["entry"], fields["why"], fields["at"]) == (entry, "no such tenant", str(START))
    assert metering.read_event(fields["event"]).request_id == "r1"


def test_epochs_are_never_lowered(world):
    for told, expected in (((("t", 7),), "7"), ((("t", 3),), "7"), ((("t", 8), ("u", 1)), "8")):
        world.run(metering.RAISE_EPOCHS, metering.raise_epochs(told))
        assert world.client.hget(metering.EPOCHS, "t") == expected
    assert world.client.hget(metering.EPOCHS, "u") == "1"


def test_the_reading_for_the_proof_adds_up_and_stands_in_the_stream(world):
    for number in range(3):
        world.admit(f"r{number}", hold=10)
    world.settle("r0", cost=4)
    entry, text = world.run(metering.PROOF, metering.proof(MARK, "nonce"))
    read = orjson.loads(text)
    assert read["months"] == {"t:202611": ["4", "20", "0"]}
    assert (read["holds"], read["calls"], read["open"]) == (
        {"t:202611": "20"},
        {"t": "2", "k": "2"},
        {"t": "2", "k": "2"},
    )
    assert (read["count"], read["unread"], read["at"]) == ("2", "0", str(START))
    assert world.client.xrange(metering.STREAM)[-1] == (entry, {"proof": text, "nonce": "nonce"})
    assert world.run(metering.PROOF, metering.proof(f"{'ab' * 16}:9", "nonce")) == []


@pytest.mark.parametrize("text", ["", "null", "[]", "{}", '{"request_id": "x"}'])
def test_what_is_no_event_is_unreadable(text):
    with pytest.raises(metering.UnreadableEvent):
        metering.read_event(text)


def test_an_event_survives_its_hold_and_an_older_gateway():
    event = metering.Event("req_1", "t", "k", "2026-11-25", "estimated", "m|{}", "m", reason="gateway_lost", at_us=5)
    row = f"0 0 0|9 8 5 t k 202611|-;1,2,3|{orjson.dumps(event).decode()}"
    assert metering.read_hold(row).event == event
    older = orjson.dumps(event).replace(b',"ttft_ms":0', b"")
    assert b"ttft_ms" not in older
    assert metering.read_event(older) == event
    wrong = orjson.dumps(event).replace(b'"cost_nano":0', b'"cost_nano":"5"').decode()
    with pytest.raises(metering.UnreadableEvent):
        metering.read_event(wrong)
