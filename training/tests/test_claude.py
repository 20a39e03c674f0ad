"""What every failure of Anthropic's API becomes: one sentence with what to do, and no secret in it."""

from __future__ import annotations

import pytest
from django.utils import translation

from training import claude, quotes
from training.tests import messages_api
from training.tests.conftest import KEY


@pytest.fixture(autouse=True)
def _english():
    with translation.override("en"):
        yield


def ask(api) -> claude.Reply:
    return claude.ask(claude.client(), claude.MODEL, "Türkçe yanıtla.", "Merhaba", 100)


def test_an_answer_comes_with_its_tokens_its_cost_and_its_request_id(api):
    api.script = [messages_api.text("Selam!", input_tokens=1_000, output_tokens=500)]
    reply = ask(api)
    assert (reply.text, reply.stop_reason, reply.model) == ("Selam!", "end_turn", "claude-haiku-5-5")
    assert (reply.input_tokens, reply.output_tokens, reply.cost_nano) == (1_000, 500, 350_000)
    assert reply.request_id == "req_01"
    assert api.headers[0]["authorization"] == f"Bearer {KEY}"


@pytest.mark.parametrize("first", [messages_api.RATE_LIMIT, messages_api.OVERLOADED])
def test_a_busy_moment_is_waited_out(api, first):
    api.script = [first, messages_api.text("Selam!")]
    assert ask(api).text == "Selam!"
    assert len(api.requests) == 2


@pytest.mark.parametrize(
    ("answer", "problem", "calls"),
    [
        (messages_api.UNAUTHORIZED, claude.KeyRefused, 1),
        (messages_api.LOW_CREDIT, claude.LowCredit, 1),
        (messages_api.error(402, "billing_error", "pay"), claude.LowCredit, 1),
        (messages_api.error(404, "not_found_error", "model: claude-x"), claude.NotAllowed, 1),
        (messages_api.error(403, "permission_error", "no"), claude.NotAllowed, 1),
        (messages_api.RATE_LIMIT, claude.Busy, 3),
        (messages_api.OVERLOADED, claude.Busy, 3),
    ],
)
def test_each_refusal_is_its_own_problem(api, answer, problem, calls):
    api.script = [answer] * 3
    with pytest.raises(problem) as caught:
        ask(api)
    assert len(api.requests) == calls
    assert KEY not in str(caught.value)


def test_low_credit_says_where_to_add_it(api):
    api.script = [messages_api.LOW_CREDIT]
    with pytest.raises(claude.LowCredit, match="Plans & Billing"):
        ask(api)


def test_an_unreachable_api_names_the_address_and_the_setting(settings):
    settings.ANTHROPIC_API_KEY = KEY
    settings.ANTHROPIC_BASE_URL = "http://127.0.0.1:9"
    with pytest.raises(claude.Unreachable, match=r"127\.0\.0\.1:9.*ANTHROPIC_BASE_URL"):
        claude.ask(claude.client().with_options(max_retries=0), claude.MODEL, "s", "u", 10)


@pytest.mark.parametrize(
    ("key", "kind"),
    [
        ("", "empty"),
        ("sk-ant-api03-abc", "api"),
        ("sk-ant-admin01-abc", "admin"),
        ("sk-ant-oat01-abc", "oauth"),
        ("sk-proj-abc", "openai"),
        ("ps_live_abc_def_123", "own"),
        ("two words", "text"),
        ("sk-ant-new-kind", "unknown"),
        ("something-else", "unknown"),
    ],
)
def test_kinds_of_keys_are_told_apart(key, kind):
    assert claude.key_kind(key) == kind


@pytest.mark.parametrize("key", ["", "  ", "sk-ant-admin01-abc", "sk-ant-oat01-abc", "sk-proj-abc", "a b"])
def test_a_wrong_key_is_refused_before_anything_is_sent(key):
    with pytest.raises(claude.WrongKeyKind):
        claude.client(key)


def test_a_pasted_line_end_does_not_spoil_a_key(api):
    claude.ask(claude.client(KEY + "\n"), claude.MODEL, "s", "u", 10)
    assert api.headers[0]["authorization"] == f"Bearer {KEY}"


def test_a_purse_holds_what_calls_in_the_air_could_cost():
    purse = quotes.Purse(cap_nano=100)
    with purse.hold(60):
        with pytest.raises(quotes.CapReached), purse.hold(60):
            pytest.fail("the cap could be passed")
        purse.pay(30)
    with purse.hold(60):
        purse.pay(10)
    assert purse.spent_nano == 40
    with pytest.raises(quotes.CapReached), purse.hold(61):
        pytest.fail("the cap could be passed")


def test_a_quote_counts_calls_and_is_free_without_claude():
    config = {"generators": ["claude"], "judges": ["claude"], "num_responses": 4,
              "generator_model": claude.MODEL, "judge_model": claude.MODEL}  # fmt: skip
    quote = quotes.quote(["soru"] * 10, config)
    assert quote.calls == 10 * (4 + 2 * 3)
    assert 0 < quote.likely_nano < quote.most_nano
    assert quotes.quote(["soru"], {**config, "generators": ["written"], "judges": ["rules"]}) == quotes.Quote(0, 0, 0)


def test_an_unlisted_model_is_priced_as_the_dearest():
    assert quotes.cost("claude-unheard-of", 1_000_000, 0) == 10 * quotes.NANO
    assert quotes.cost("claude-haiku-5-5", 200_000, 0) == 5 * quotes.cost("claude-haiku-5-5", 100_000, 0) * 2
