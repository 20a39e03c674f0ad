"""The real SDK against the loopback server: what it is told, and every way in which it can be refused."""

from __future__ import annotations

import json
import re

import anthropic
import pytest
from anthropic.types import shared

from training.loopback import bill, catalogue, tokens, wire
from training.loopback.options import KEY, Options, changed
from training.loopback.server import Loopback, served

HAIKU, OPUS = "claude-haiku-5-5", "claude-opus-5-5"
HELLO = [{"role": "user", "content": "Merhaba"}]


@pytest.fixture
def app():
    return Loopback()


@pytest.fixture
def address(app, monkeypatch, tmp_path):
    monkeypatch.setenv("ANTHROPIC_CONFIG_DIR", str(tmp_path))
    with served(app) as found:
        yield found


@pytest.fixture
def client(address):
    with anthropic.Anthropic(api_key=KEY, base_url=address, max_retries=0) as found:
        yield found


def ask(client, content="Merhaba", model=HAIKU, most=500, **more):
    return client.messages.create(model=model, max_tokens=most, messages=[{"role": "user", "content": content}], **more)


def test_an_answer_is_a_whole_message_and_thinks_first(client):
    message = ask(client, system="Türkçe yanıtla.")
    assert [block.type for block in message.content] == ["thinking", "text"]
    assert (message.type, message.role, message.model, message.stop_reason) == (
        "message", "assistant", HAIKU, "end_turn",
    )  # fmt: skip
    assert message._request_id.startswith("req_01")
    assert message.usage.input_tokens == tokens.count("Merhaba") + tokens.count("Türkçe yanıtla.")
    said = sum(tokens.count(part) for part in (message.content[0].thinking, message.content[1].text))
    assert message.usage.output_tokens == said


async def test_the_asynchronous_client_is_answered_the_same(client, address):
    async with anthropic.AsyncAnthropic(api_key=KEY, base_url=address) as other:
        message = await ask(other)
    assert message.content[1].text == ask(client).content[1].text


def test_a_stream_ends_as_the_message_it_tells(client):
    with client.messages.stream(model=HAIKU, max_tokens=500, messages=HELLO) as stream:
        words = "".join(stream.text_stream)
        message = stream.get_final_message()
    assert message.content[1].text == words == ask(client).content[1].text
    assert (message.stop_reason, message.usage.output_tokens) == ("end_turn", ask(client).usage.output_tokens)


def test_what_max_tokens_holds_is_what_is_said(client):
    message = ask(client, most=20)
    assert message.stop_reason == "max_tokens"
    assert message.usage.output_tokens == 20
    assert ask(client, most=0).content[0].thinking == ""


def test_headers_say_what_is_left_of_each_limit(client, app):
    app.change(calls_per_second=0.5, burst=3, input_tokens_per_minute=6_000)
    told = client.messages.with_raw_response.create(model=HAIKU, max_tokens=50, messages=HELLO).headers
    assert told["anthropic-ratelimit-requests-limit"] == "30"
    assert told["anthropic-ratelimit-requests-remaining"] == "2"
    assert told["anthropic-ratelimit-input-tokens-limit"] == "6000"
    assert int(told["anthropic-ratelimit-input-tokens-remaining"]) in (5_997, 5_998)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", told["anthropic-ratelimit-output-tokens-reset"])


def test_a_middleware_sees_each_refusal_and_how_long_to_wait(address, app):
    app.change(calls_per_second=0.2, burst=1)
    seen = []

    def middleware(request, call_next):
        reply = call_next(request)
        seen.append((reply.status_code, reply.headers.get("retry-after")))
        return reply

    with anthropic.Anthropic(api_key=KEY, base_url=address, max_retries=0, middleware=[middleware]) as client:
        ask(client)
        with pytest.raises(anthropic.RateLimitError) as caught:
            ask(client)
    assert seen == [(200, None), (429, "5")]
    assert caught.value.response.headers["anthropic-ratelimit-requests-remaining"] == "0"
    assert app.bill.summary()["calls"] == 1


@pytest.mark.parametrize(
    ("options", "kind", "type_"),
    [
        ({"overloaded": 1.0}, anthropic.OverloadedError, "overloaded_error"),
        ({"server_error": 1.0}, anthropic.InternalServerError, "api_error"),
        ({"rate_limited": 1.0}, anthropic.RateLimitError, "rate_limit_error"),
        ({"closed_models": [HAIKU]}, anthropic.PermissionDeniedError, "permission_error"),
        ({"refused_keys": [KEY]}, anthropic.AuthenticationError, "authentication_error"),
        ({"credit_nano": 0}, anthropic.BadRequestError, "invalid_request_error"),
        ({"credit_nano": 0, "credit_status": 402}, anthropic.PaymentRequiredError, "billing_error"),
        ({"max_body": 10}, anthropic.RequestTooLargeError, "request_too_large"),
    ],
)
def test_each_fault_is_the_exception_of_its_kind_and_costs_nothing(client, app, options, kind, type_):
    app.change(**options)
    with pytest.raises(kind) as caught:
        ask(client)
    assert caught.value.type == type_
    assert caught.value.request_id == caught.value.body["request_id"]
    assert app.bill.total_nano == 0
    assert app.bill.refused == {f"{caught.value.status_code} {type_}": 1}


@pytest.mark.parametrize(
    ("limit", "kind"),
    [
        ("enforced", shared.enforced_spend_limit_reached_error.EnforcedSpendLimitReachedError),
        ("contract", shared.contract_spend_limit_reached_error.ContractSpendLimitReachedError),
        ("ramp", shared.ramp_limit_exceeded_error.RampLimitExceededError),
    ],
)
def test_spend_limits_are_told_apart_by_their_code(client, app, limit, kind):
    app.change(spend_limit=limit)
    with pytest.raises(kind) as caught:
        ask(client)
    assert caught.value.error_code == caught.value.details.error_code
    assert ("retry-after" in caught.value.response.headers) == (limit == "ramp")


@pytest.mark.parametrize("key", ["sk-ant-admin01-abc"])
def test_an_admin_key_is_refused(client, key):
    with pytest.raises(anthropic.AuthenticationError):
        ask(client.with_options(api_key=key))


@pytest.mark.parametrize("name", ["temperature", "top_p", "top_k", "unheard_of"])
def test_parameters_that_do_not_exist_are_refused_by_name(client, name):
    with pytest.raises(anthropic.BadRequestError, match=name):
        ask(client, extra_body={name: 1})


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"max_tokens": 5, "messages": HELLO}, "model: Field required"),
        ({"model": HAIKU, "messages": HELLO}, "max_tokens: Field required"),
        ({"model": HAIKU, "max_tokens": 999_999, "messages": HELLO}, "the maximum"),
        ({"model": HAIKU, "max_tokens": 5, "messages": []}, "at least one message"),
        ({"model": HAIKU, "max_tokens": 5, "messages": [{"role": "user", "content": ""}]}, "non-empty"),
        ({"model": HAIKU, "max_tokens": 5, "messages": [{"role": "user", "content": 7}]}, "content blocks"),
        ({"model": HAIKU, "max_tokens": 5, "messages": [*HELLO, {"role": "assistant", "content": "A"}]}, "prefill"),
        ({"model": HAIKU, "max_tokens": 5, "messages": HELLO, "output_config": {"effort": "utmost"}}, "effort"),
        ({"model": HAIKU, "max_tokens": 5, "messages": HELLO, "cache_control": {"type": "x"}}, "cache_control"),
    ],
)
def test_a_request_that_is_wrong_is_told_where(client, body, words):
    with pytest.raises(anthropic.BadRequestError, match=words):
        client.post("/v1/messages", body=body, cast_to=object)


def test_what_is_no_json_and_what_is_no_endpoint(client):
    with pytest.raises(anthropic.BadRequestError, match="not valid JSON"):
        client.post("/v1/messages", content=b"{", cast_to=object)
    with pytest.raises(anthropic.NotFoundError):
        client.get("/v1/nothing", cast_to=object)


def test_the_version_header_is_required(client):
    with pytest.raises(anthropic.BadRequestError, match="anthropic-version"):
        ask(client, extra_headers={"anthropic-version": anthropic.Omit()})


def test_a_refusal_is_an_answer_with_its_reason(client, app):
    app.change(refused=1.0)
    message = ask(client)
    assert (message.stop_reason, message.stop_details.category, message.content) == ("refusal", "general_harms", [])
    assert message.usage.output_tokens == 1


def test_a_cut_connection_was_paid_for_and_loses_the_answer(client, app):
    app.change(cut=1.0)
    with pytest.raises(anthropic.APIConnectionError):
        ask(client)
    assert app.bill.summary()["calls"] == 1


def test_a_slow_answer_is_too_late_and_still_paid(client, app):
    app.change(slow=1.0, slow_ms=300)
    with pytest.raises(anthropic.APITimeoutError):
        ask(client, timeout=0.1)
    assert app.bill.summary()["calls"] == 1


def test_retries_of_the_sdk_meet_other_dice(client, app):
    app.change(overloaded=0.5)
    patient = client.with_options(max_retries=10)
    assert all(ask(patient, f"soru {n}", extra_headers={"x-should-retry": "1"}).content for n in range(2))


def test_scripted_replies_come_first(client, app):
    app.script.append(wire.error_reply(wire.Refused(529, "overloaded_error", "Overloaded"), "req_01"))
    with pytest.raises(anthropic.OverloadedError):
        ask(client)
    assert ask(client).stop_reason == "end_turn"
    assert [json.loads(request.body)["model"] for request in app.requests] == [HAIKU, HAIKU]


def test_counting_tokens_is_free_and_says_what_a_call_will_use(client, app):
    counted = client.messages.count_tokens(model=HAIKU, messages=HELLO, system="Kısa yanıtla.")
    assert app.bill.total_nano == 0
    assert counted.input_tokens == ask(client, system="Kısa yanıtla.").usage.input_tokens


def test_models_are_listed_page_by_page_and_found_by_name(client):
    names = [model.id for model in client.models.list(limit=2)]
    assert names == list(catalogue.MODELS)
    assert client.models.retrieve(HAIKU).max_input_tokens == 1_000_000
    assert client.models.retrieve("claude-haiku-4-5-20251001").lifecycle == "deprecated"
    with pytest.raises(anthropic.NotFoundError):
        client.models.retrieve("claude-unheard-of")
    with pytest.raises(anthropic.BadRequestError):
        client.models.list(limit=0)


def test_the_bill_is_exact_and_knows_what_was_asked_twice(client, app):
    one, two = ask(client), ask(client)
    other = ask(client, "Başka", model=OPUS)
    used = one.usage
    assert app.bill.total_nano == sum(
        message.usage.input_tokens * price_in + message.usage.output_tokens * price_out
        for message, price_in, price_out in ((one, 100, 500), (two, 100, 500), (other, 4_000, 20_000))
    )
    told = client.get("/_bill?lines=1", cast_to=object)
    assert (told["calls"], told["kinds"], list(told["repeated"].values())) == (3, {"answer": 3}, [2])
    assert told["lines"][0]["request_id"] == one._request_id
    assert told["lines"][0]["cost_nano"] == used.input_tokens * 100 + used.output_tokens * 500
    assert told["first_at"] <= told["last_at"]


@pytest.mark.parametrize(("ttl", "price"), [("5m", 5_000), ("1h", 8_000)])
def test_a_long_system_prompt_is_written_once_and_then_read(client, app, ttl, price):
    system = [{"type": "text", "text": "a" * 1_536, "cache_control": {"type": "ephemeral", "ttl": ttl}}]
    first, second = (ask(client, content, OPUS, system=system).usage for content in ("bir", "iki"))
    assert (first.cache_creation_input_tokens, first.cache_read_input_tokens, first.input_tokens) == (512, 0, 1)
    assert (second.cache_creation_input_tokens, second.cache_read_input_tokens, second.input_tokens) == (0, 512, 1)
    assert getattr(first.cache_creation, f"ephemeral_{ttl}_input_tokens") == 512
    costs = [line.cost_nano - line.usage.output * 20_000 for line in app.bill.lines]
    assert costs == [512 * price + 4_000, 512 * 200 + 4_000]


def test_below_a_models_least_length_nothing_is_cached(client):
    system = [{"type": "text", "text": "a" * 1_533, "cache_control": {"type": "ephemeral"}}]
    for _ in range(2):
        usage = ask(client, model=OPUS, system=system).usage
        assert (usage.cache_creation_input_tokens, usage.cache_read_input_tokens) == (0, 0)


def test_a_prefix_that_is_still_being_answered_cannot_be_read():
    cache, found = tokens.Cache(), tokens.blocks({"system": [_marked("a" * 30)], "messages": HELLO})
    assert cache.take(HAIKU, found, 10, now=100, ready=101) == tokens.Usage(3, 0, 10, 0)
    assert cache.take(HAIKU, found, 10, now=100.5, ready=101.5) == tokens.Usage(3, 0, 10, 0)
    assert cache.take(HAIKU, found, 10, now=102, ready=103) == tokens.Usage(3, 10, 0, 0)
    assert cache.take(OPUS, found, 10, now=102, ready=103) == tokens.Usage(3, 0, 10, 0)
    assert cache.take(HAIKU, found, 10, now=102 + 300, ready=403) == tokens.Usage(3, 0, 10, 0)


def test_a_longer_conversation_reads_what_the_shorter_one_wrote():
    cache = tokens.Cache()
    short = {"system": [_marked("a" * 30)], "messages": [{"role": "user", "content": [_marked("b" * 30)]}]}
    longer = {**short, "messages": [*short["messages"], {"role": "user", "content": [_marked("c" * 30)]}]}
    assert cache.take(HAIKU, tokens.blocks(short), 10, 0, 0) == tokens.Usage(0, 0, 20, 0)
    assert cache.take(HAIKU, tokens.blocks(longer), 10, 1, 1) == tokens.Usage(0, 20, 10, 0)


def _marked(text):
    return {"type": "text", "text": text, "cache_control": {"type": "ephemeral"}}


def test_a_batch_rounds_its_half_price_up_and_a_long_prompt_costs_five_times():
    haiku = catalogue.MODELS[HAIKU]
    assert bill.cost(haiku, tokens.Usage(0, 0, 1, 0), batch=True) == 63
    assert bill.cost(haiku, tokens.Usage(100_001, 0, 0, 0)) == 5 * 100_001 * 100
    assert bill.cost(haiku, tokens.Usage(100_000, 0, 0, 0)) == 100_000 * 100


def test_the_list_prices_are_the_products_own():
    from training import quotes

    for name, (price_in, price_out) in quotes.PRICES.items():
        model = catalogue.MODELS[name]
        assert (model.input * 1_000_000, model.output * 1_000_000) == (price_in, price_out)


def test_options_are_checked_by_name_and_kind(client, app):
    with pytest.raises(ValueError, match="No option 'speed'"):
        changed(Options(), {"speed": 3})
    with pytest.raises(ValueError, match="latency_ms"):
        changed(Options(), {"latency_ms": "fast"})
    assert client.post("/_options", body={"refused": 1.0}, cast_to=object)["refused"] == 1.0
    assert app.engine.options.refused == 1.0
    with pytest.raises(anthropic.BadRequestError):
        client.post("/_options", body={"refused": "often"}, cast_to=object)
