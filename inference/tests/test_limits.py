"""Limits through the gateway: each kind refuses, says by what and until when, and a refused call consumes nothing."""

import json

import pytest

from inference.gateway.refusing import dollars, duration
from inference.tests.conftest import HELLO
from tenants import decisions, keys, limits, refusals
from tenants.models import APIKey, Price, Quota

pytestmark = pytest.mark.journey

BOUND = len(json.dumps(HELLO | {"max_tokens": 9})) + 64
NEED = BOUND + 9  # tokens that a call with max_tokens 9 reserves
NINE = {"max_tokens": 9}


@pytest.fixture
def alone(serving, key, cast):
    """Acme without any limit, and an engine that takes its time."""
    Quota.objects.all().delete()
    serving.engine.pause = 0.3
    return APIKey.objects.get()


@pytest.mark.parametrize(
    ("field", "value", "code", "words"),
    [
        ("requests_per_second", 1, "rate_limit_exceeded", "1 requests a second"),
        ("requests_per_minute", 1, "rate_limit_exceeded", "1 requests a minute"),
        ("tokens_per_second", NEED + 5, "rate_limit_exceeded", f"{NEED + 5} tokens a second"),
        ("tokens_per_minute", NEED + 5, "rate_limit_exceeded", f"{NEED + 5} tokens a minute"),
        ("concurrent_calls", 1, "concurrency_exceeded", "1 calls at a time"),
    ],
)
@pytest.mark.parametrize("scope", ["key", "tenant"])
def test_each_limit_lets_one_of_two_calls_through(serving, alone, key, cast, field, value, code, words, scope):
    limits.set_quota(cast.acme, cast.owner, key=alone if scope == "key" else None, **{field: value})
    passed, refused = sorted(serving.crowd(key, 2, NINE))
    assert (passed.status, refused.status) == (200, 429)
    error = refused.body["error"]
    assert error["code"] == code
    assert words in error["message"]
    assert {"key": "this key", "tenant": "your organisation"}[scope] in error["message"]
    assert 0 < int(refused.headers["retry-after-ms"]) <= 1000 * int(refused.headers["retry-after"])
    kind = field.partition("_")[0]
    assert refused.headers.get(f"x-ratelimit-limit-{kind}") == (None if kind == "concurrent" else str(value))
    told = decisions.read(refusals.secret(), error["decision_id"])
    assert refused.headers["x-paramstack-decision"] == error["decision_id"]
    assert (told.tenant, told.key, told.code) == (str(cast.acme.pk), alone.pk, code)
    assert (told.scope, told.limit_name, told.limit) == (scope, field, value)
    assert (told.model, told.tokens, told.hold_nano, told.max_tokens) == ("demo-base", NEED, BOUND + 4 * 9, 9)
    assert len(serving.rows()) == 1 == len(serving.engine.asked)


def test_a_cached_price_above_the_input_price_is_in_the_hold(serving, alone, key, cast):
    Price.objects.update(cached_nano_per_mtok=9_000_000)
    limits.set_budget(cast.acme, 1, cast.owner)
    error = serving.post(key, NINE).json()["error"]
    assert error["code"] == "insufficient_quota"
    assert decisions.read(refusals.secret(), error["decision_id"]).hold_nano == 9 * BOUND + 4 * 9


@pytest.mark.parametrize("field", Quota.FIELDS)
def test_a_limit_of_nothing_lets_nothing_pass_and_waiting_does_not_help(serving, alone, key, cast, field):
    limits.set_quota(cast.acme, cast.owner, key=None, **{field: 0})
    response = serving.post(key, NINE)
    assert response.status_code == 429
    assert "retry-after" not in response.headers
    assert response.headers["x-should-retry"] == "false"
    assert serving.rows() == []


@pytest.mark.parametrize("field", ["tokens_per_second", "tokens_per_minute"])
def test_a_call_larger_than_the_limit_is_told_that_it_never_passes(serving, alone, key, cast, field):
    limits.set_quota(cast.acme, cast.owner, key=None, **{field: NEED - 1})
    response = serving.post(key, NINE)
    assert response.json()["error"]["code"] == "tokens_exceed_limit"
    assert f"may take {NEED} tokens" in response.json()["error"]["message"]
    assert response.headers["x-should-retry"] == "false"
    limits.set_quota(cast.acme, cast.owner, key=None, **{field: NEED})
    assert serving.post(key, NINE).status_code == 200


def test_several_answers_reserve_so_many_times(serving, alone, key, cast):
    limits.set_quota(cast.acme, cast.owner, tokens_per_minute=BOUND + len(', "n": 3') + 3 * 9)
    assert serving.post(key, NINE | {"n": 3}).status_code == 200
    assert serving.post(key, NINE | {"n": 4}).json()["error"]["code"] == "tokens_exceed_limit"
    limits.set_quota(cast.acme, cast.owner, tokens_per_minute=None)
    limits.set_budget(cast.acme, 2 * BOUND + 3 * 4 * 9, cast.owner)
    assert serving.post(key, NINE | {"n": 8}).json()["error"]["code"] == "insufficient_quota"


def test_after_a_refusal_the_seconds_are_exact(serving, alone, key, cast):
    serving.engine.pause = 0
    limits.set_quota(cast.acme, cast.owner, requests_per_minute=2)
    assert [serving.post(key).status_code for _ in range(2)] == [200, 200]
    response = serving.post(key)
    milliseconds = int(response.headers["retry-after-ms"])
    assert 25_000 <= milliseconds <= 30_000
    assert int(response.headers["retry-after"]) == -(-milliseconds // 1000)


def test_a_call_that_the_key_refuses_takes_nothing_of_the_organisation(serving, alone, key, cast):
    serving.engine.pause = 0
    limits.set_quota(cast.acme, cast.owner, requests_per_minute=10)
    limits.set_quota(cast.acme, cast.owner, key=alone, requests_per_minute=1)
    assert [serving.post(key).status_code for _ in range(5)] == [200, 429, 429, 429, 429]
    other = keys.create(cast.acme, "other", cast.owner)[1]
    assert serving.post(other).headers["x-ratelimit-remaining-requests"] == "8"


@pytest.mark.parametrize("stream", [False, True])
def test_an_admitted_call_says_what_is_left(serving, alone, key, cast, stream):
    limits.set_quota(cast.acme, cast.owner, requests_per_minute=60, tokens_per_minute=6000)
    limits.set_quota(cast.acme, cast.owner, key=alone, requests_per_minute=6)
    headers = serving.post(key, NINE | {"stream": stream}).headers
    size = len(json.dumps(HELLO | NINE | {"stream": stream})) + 64 + 9
    found = {name: value for name, value in headers.items() if name.startswith("x-ratelimit")}
    assert found == {
        "x-ratelimit-limit-requests": "6",
        "x-ratelimit-remaining-requests": "5",
        "x-ratelimit-reset-requests": "10s",
        "x-ratelimit-limit-tokens": "6000",
        "x-ratelimit-remaining-tokens": str(6000 - size),
        "x-ratelimit-reset-tokens": duration(size * 10_000),
    }


def test_without_limits_no_window_is_told(serving, alone, key):
    assert not any(name.startswith("x-ratelimit") for name in serving.post(key, NINE).headers)


@pytest.mark.parametrize(
    ("us", "written"),
    [
        (0, "0ms"),
        (1, "1ms"),
        (12_000, "12ms"),
        (999_001, "1s"),
        (8_640_000, "8.64s"),
        (60_000_000, "1m0s"),
        (360_000_000, "6m0s"),
        (86_400_000, "1m26.4s"),
        (3_600_000_000, "1h0m0s"),
    ],
)
def test_a_duration_is_written_as_openai_writes_it(us, written):
    assert duration(us) == written


@pytest.mark.parametrize(
    ("nano", "written"), [(0, "0.00"), (1, "0.000000001"), (10**9, "1.00"), (1_500_000_000, "1.50")]
)
def test_money_is_written_exactly(nano, written):
    assert dollars(nano) == written
