"""Why a call was refused: each change that is named would have admitted it, and one unit less would not."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
import redis
from django.utils import translation

from tenants import decisions, keys, metering, refusals
from tenants.models import NANO, Budget, Quota

MARK = "0" * 32 + ":1"
START = 1_789_000_000_000_000
NOBODY = (None,) * 5


class Admission:
    """The real ADMIT with a clock that the test sets, and a memory to go back to."""

    def __init__(self, client, tenant, key):
        self.client, self.tenant, self.key, self.count = client, str(tenant.pk), key, 0
        client.hset(metering.STATE, mapping={"mark": MARK, "sequence": 0, "since": 0})
        client.hset(metering.EPOCHS, self.tenant, 1)

    def terms(self, tenant=NOBODY, key=NOBODY, budget=NANO):
        return metering.Terms(MARK, 1, 2**52, "2026-09-10", budget, tenant, key)

    def call(self, at_us, terms, tokens=10, hold=100):
        self.count += 1
        name = f"req_{self.count}"
        self.event = metering.Event(name, self.tenant, self.key, terms.day, "estimated", "destek", "base")
        names, args = metering.admit(self.event, terms, hold, tokens)
        seconds, micros = divmod(at_us, 1_000_000)
        script = metering.ADMIT.replace("redis.call('TIME')", f"{{'{seconds}', '{micros}'}}")
        assert script != metering.ADMIT
        return metering.verdict(self.client.eval(script, len(names), *names, *args))

    def passes(self, *args, **kwargs):
        """Whether the call is admitted; whatever it did is undone."""
        before = {name: self.client.dump(name) for name in self.client.scan_iter("*")}
        verdict = self.call(*args, **kwargs)
        self.client.flushdb()
        for name, value in before.items():
            self.client.restore(name, 0, value)
        return not verdict.reason


@pytest.fixture
def admission(redis_url, cast):
    key, _ = keys.create(cast.acme, "destek-web", cast.owner)
    with redis.Redis.from_url(redis_url) as client, translation.override("en"):
        yield Admission(client, cast.acme, key.pk)


def explained(admission, cast, verdict, tokens, hold, max_tokens=0, answers=1):
    decision = decisions.refused(verdict, admission.event, tokens, hold, max_tokens, answers)
    return refusals.explain(cast.acme, decisions.issue(refusals.secret(), decision))


def test_the_sixty_first_call_of_a_minute(admission, cast):
    terms = admission.terms(key=(None, 60, None, None, None))
    for _ in range(60):
        assert not admission.call(START, terms).reason
    found = explained(admission, cast, admission.call(START, terms), 10, 100)
    assert (found.status, found.title, found.key) == (429, "The request limit was reached", "destek-web")
    assert [step.kind for step in found.steps] == ["ok", "bad", "ok", "ok", ""]
    assert found.steps[1].text == (
        "Requests per minute of the key destek-web: 60 of 60 were in use, the call is one more."
    )
    assert found.steps[1].now == "Today there is no such limit."
    assert [(change.kind, [move.text for move in change.moves]) for change in found.changes] == [
        ("wait", ["Send it 1 s later."]),
        ("raise", ["Raise requests per minute of the key destek-web from 60 to 61."]),
    ]


def test_lowering_max_tokens_is_computed_for_all_answers(admission, cast):
    terms = admission.terms(tenant=(None, None, None, 1000, None))
    verdict = admission.call(START, terms, tokens=100 + 3 * 1024)
    found = explained(admission, cast, verdict, 100 + 3 * 1024, 100, 1024, 3)
    assert found.title == "The call needs more tokens than its limit allows"
    lower, higher = found.changes
    assert lower.moves[0].text == "Lower max_tokens from 1,024 to at most 300."
    assert admission.passes(START, terms, tokens=100 + 3 * 300)
    assert not admission.passes(START, terms, tokens=100 + 3 * 301)
    assert higher.moves[0].after == 100 + 3 * 1024


def test_a_budget_is_raised_by_exactly_what_is_missing(admission, cast):
    terms = admission.terms(budget=1_000)
    admission.call(START, terms, hold=900)
    found = explained(admission, cast, admission.call(START, terms, hold=123_100), 10, 123_100)
    assert [change.kind for change in found.changes] == ["raise"]
    move = found.changes[0].moves[0]
    assert move.text == "Raise the budget by exactly $0.000123, from $0.000001 to $0.000124."
    assert admission.passes(START, admission.terms(budget=124_000), hold=123_100)
    assert not admission.passes(START, admission.terms(budget=123_999), hold=123_100)


def test_two_limits_that_both_refuse_are_both_named(admission, cast):
    terms = admission.terms(tenant=(None, 1, None, None, None), key=(None, 1, None, None, 1))
    admission.call(START, terms)
    found = explained(admission, cast, admission.call(START, terms), 10, 100)
    assert [(move.scope, move.name, move.after) for move in found.changes[-1].moves] == [
        ("tenant", "requests_per_minute", 2),
        ("key", "requests_per_minute", 2),
        ("key", "concurrent_calls", 2),
    ]
    assert [change.moves[0].text for change in found.changes if change.kind == "wait"] == [
        "Send it once one of the open calls has ended."
    ]


@pytest.mark.parametrize("seed", range(12))
def test_every_change_is_the_smallest_one_that_admits_the_call(admission, cast, seed):
    rng, seen = random.Random(seed), 0
    for _ in range(8):
        admission.client.flushdb()
        Admission(admission.client, cast.acme, admission.key)
        seen += _replay(admission, cast, rng)
    assert seen >= 4


def _replay(admission, cast, rng) -> int:
    """Calls at random instants until one is refused, then each change to it; answers how many changes."""
    scopes = []
    for _ in range(2):
        bounds = (rng.randint(1, 9), rng.randint(1, 30), rng.randint(20, 400), rng.randint(50, 3000), rng.randint(1, 9))
        scopes.append([bound if rng.random() < 0.5 else None for bound in bounds])
    terms, now = admission.terms(*scopes, budget=rng.randint(200, 5000)), START
    if rng.random() < 0.3:  # a rebuilt Redis: what nobody knows counts as used up
        admission.client.hset(metering.STATE, "since", START - rng.randint(1, 70_000_000))
    for _ in range(40):
        now += rng.choice([0, 1, rng.randint(1, 3_000_000)])
        bound, answers, longest = rng.randint(1, 40), rng.randint(1, 3), rng.randint(1, 120)
        call = {"tokens": bound + answers * longest, "hold": rng.randint(0, 400)}
        verdict = admission.call(now, terms, **call)
        if verdict.reason:
            break
    else:
        return 0
    found = explained(admission, cast, verdict, call["tokens"], call["hold"], longest, answers)
    for change in found.changes:
        CHECKS[change.kind](admission, now, terms, call, change, found.decision)
    return len(found.changes)


def _check_wait(admission, now, terms, call, change, decision):
    if (wait := change.moves[0].after) is not None:
        assert admission.passes(now + wait, terms, **call)
        assert not admission.passes(now + wait - 1, terms, **call)


def _check_lower(admission, now, terms, call, change, decision):
    move, units = change.moves[0], decision.answers if change.moves[0].name == "max_tokens" else 1
    fewer = call["tokens"] - units * (move.before - move.after)
    assert admission.passes(now, terms, **call | {"tokens": fewer})
    assert not admission.passes(now, terms, **call | {"tokens": fewer + units})


def _check_raise(admission, now, terms, call, change, decision):
    assert admission.passes(now, _raised(terms, change.moves), **call)
    for at, move in enumerate(change.moves):
        less = (*change.moves[:at], replace(move, after=move.after - 1), *change.moves[at + 1 :])
        assert not admission.passes(now, _raised(terms, less), **call), move


CHECKS = {"wait": _check_wait, "lower": _check_lower, "raise": _check_raise}


def _raised(terms, moves):
    for move in moves:
        if move.name == "budget":
            terms = replace(terms, budget_nano=move.after)
            continue
        limits = list(getattr(terms, f"{move.scope}_limits"))
        limits[metering.LIMITS.index(move.name)] = move.after
        terms = replace(terms, **{f"{move.scope}_limits": limits})
    return terms


def test_it_says_what_the_limit_is_today(admission, cast):
    Quota.objects.filter(tenant=cast.acme).update(requests_per_minute=1)
    terms = admission.terms(tenant=(None, 1, None, None, None))
    admission.call(START, terms)
    verdict = admission.call(START, terms)
    said = []
    for limit in (1, 2, 0, None):
        Quota.objects.filter(tenant=cast.acme).update(requests_per_minute=limit)
        said.append(explained(admission, cast, verdict, 10, 100).steps[1].now)
    assert said == [
        "The limit is the same today.",
        "Today the limit is 2, enough for the same call at that instant.",
        "Today the limit is 0, still too little for the same call at that instant.",
        "Today there is no such limit.",
    ]
    Budget.objects.filter(tenant=cast.acme).update(monthly_nano=7)
    spent = explained(admission, cast, admission.call(START, admission.terms(budget=5)), 10, 100)
    assert spent.steps[1].now == "Today the limit is $0.000000007, still too little for the same call at that instant."


def test_no_limit_may_be_raised_beyond_what_is_countable(admission, cast):
    verdict = admission.call(START, admission.terms(tenant=(None, None, None, 10, None)), tokens=200_000_000)
    found = explained(admission, cast, verdict, 200_000_000, 100, 199_999_995)
    assert [(change.kind, change.moves[0].after) for change in found.changes] == [("lower", 5)]


def test_a_model_that_the_key_may_not_call(cast):
    key, _ = keys.create(cast.acme, "dar", cast.owner)
    key.allowed_models = ["destek"]
    key.save()
    decision = decisions.Decision(
        str(cast.acme.pk), key.pk, START, "model_not_allowed", "key", "allowed_models", model="özet"
    )
    text = decisions.issue(refusals.secret(), decision)
    with translation.override("en"):
        found = refusals.explain(cast.acme, f" {text}\n")
        assert (found.status, found.text) == (403, text)
        assert found.steps[1].now == "The key still may not call it."
        assert found.changes[0].moves[0].text == "Allow the model özet on the key dar."
        key.allowed_models = ["destek", "özet"]
        key.save()
        assert refusals.explain(cast.acme, text).steps[1].now == "The key may call it now."


def test_another_tenant_s_decision_is_as_unknown_as_nonsense(admission, cast):
    terms = admission.terms(tenant=(0, None, None, None, None))
    decision = decisions.refused(admission.call(START, terms), admission.event, 10, 100)
    text = decisions.issue(refusals.secret(), decision)
    assert refusals.explain(cast.acme, text).status == 429
    for tenant, wrong in ((cast.globex, text), (cast.acme, "dec_nonsense"), (cast.acme, "")):
        with pytest.raises(decisions.NotADecision):
            refusals.explain(tenant, wrong)
