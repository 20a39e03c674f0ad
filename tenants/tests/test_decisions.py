"""A refusal's token: what goes in comes out, nothing else is read, and it never grows too long."""

from __future__ import annotations

import random
import uuid
from dataclasses import replace

import pytest

from tenants import decisions, metering

SECRET = b"s" * 32
TENANT = str(uuid.UUID(int=0x1234))
PLAIN = decisions.Decision(
    TENANT, "k1", 1_789_000_000_123_456, "rate_limit_exceeded", "key", "requests_per_minute", 60, 60, 1, 1_200_000
)
ALL = tuple(
    metering.Refusal(scope, name, 10**8, 10**8, 10**16 if name == "budget" else 10**9, -1, 2 * 10**8)
    for scope, name in metering.REFUSERS.values()
)


def test_a_decision_is_read_as_it_was_issued():
    text = decisions.issue(SECRET, PLAIN)
    assert text.startswith("dec_")
    assert len(text) < 120
    assert decisions.read(SECRET, text) == PLAIN


@pytest.mark.parametrize("code", decisions.CODES)
@pytest.mark.parametrize(("scope", "name"), [("", ""), ("key", "allowed_models"), *metering.REFUSERS.values()])
def test_every_code_and_limit_can_be_said(code, scope, name):
    decision = replace(PLAIN, code=code, scope=scope, limit_name=name, wait_us=-1, model="ğüşiöç-model")
    assert decisions.read(SECRET, decisions.issue(SECRET, decision)) == decision


def test_the_longest_is_bounded_and_only_its_model_is_cut():
    decision = replace(
        PLAIN, key="k" * 16, model="ş" * 500, limit=2**53, value=2**53, need=2**53, tokens=10**9, hold_nano=10**16,
        refusals=tuple(replace(r, need=1 if r.limit_name.startswith(("req", "con")) else r.need) for r in ALL),
    )  # fmt: skip
    text = decisions.issue(SECRET, decision)
    assert len(text) <= decisions.LONGEST
    read = decisions.read(SECRET, text)
    assert read.model.endswith("ş…")
    assert replace(read, model=decision.model) == decision


def test_a_tenant_that_is_no_uuid_keeps_its_name():
    decision = replace(PLAIN, tenant="acme")
    assert decisions.read(SECRET, decisions.issue(SECRET, decision)).tenant == "acme"


def test_what_a_caller_sends_never_breaks_a_refusal():
    wild = replace(PLAIN, model="\ud800\0" + "x" * 10_000, tokens=10**40, need=-5)
    read = decisions.read(SECRET, decisions.issue(SECRET, wild))
    assert (read.tokens, read.need) == (2**56 - 1, 0)
    assert read.model.startswith("?\0xxx")


def test_nothing_else_is_a_decision():
    text = decisions.issue(SECRET, PLAIN)
    for wrong in ["", "dec_", "x" + text, text + "A", text[:-1], text[4:], text + "=", text + "\n", "dec_" + "A" * 60]:
        with pytest.raises(decisions.NotADecision):
            decisions.read(SECRET, wrong)
    with pytest.raises(decisions.NotADecision):
        decisions.read(b"another", text)


def test_no_character_can_be_changed():
    text, rng = decisions.issue(SECRET, PLAIN), random.Random(1)
    for at in range(4, len(text)):
        other = rng.choice([c for c in "ABCabc019-_" if c != text[at]])
        with pytest.raises(decisions.NotADecision):
            decisions.read(SECRET, text[:at] + other + text[at + 1 :])


@pytest.mark.parametrize(
    ("name", "need", "limit", "code"),
    [
        ("requests_per_minute", 1, 60, "rate_limit_exceeded"),
        ("requests_per_second", 1, 0, "rate_limit_exceeded"),
        ("tokens_per_minute", 50, 60, "rate_limit_exceeded"),
        ("tokens_per_minute", 61, 60, "tokens_exceed_limit"),
        ("concurrent_calls", 1, 0, "concurrency_exceeded"),
        ("budget", 5, 60, "insufficient_quota"),
    ],
)
def test_admission_s_verdict_becomes_a_decision(name, need, limit, code):
    verdict = metering.Verdict("refused", 5, 1, None, None, "tenant", name, limit, 60, need, 7, ALL[:1])
    event = metering.Event("r", TENANT, "k1", "2026-07-01", "estimated", "destek", "base")
    decision = decisions.refused(verdict, event, 500, 9, 100, 2)
    assert (decision.code, decision.model, decision.refusals) == (code, "destek", ALL[:1])
    assert (decision.tokens, decision.hold_nano, decision.max_tokens, decision.answers) == (500, 9, 100, 2)
