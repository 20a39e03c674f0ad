"""A call through the gateway: what the caller sees, what the engine is asked, what the ledger says."""

import hashlib
import json
import time
from datetime import UTC, datetime
from typing import Any

import httpx2
import openai
import pytest

from attestation import keyring, receipts
from inference import policies
from inference.tests.conftest import ANSWER, HELLO, Serving
from tenants import costs, gauges, keys, ledger, limits
from tenants.models import APIKey, Budget, Price

pytestmark = pytest.mark.journey


def refusal(response):
    error = response.json()["error"]
    assert error["message"]
    assert error["request_id"] == response.headers["x-request-id"]
    return response.status_code, error["code"]


def test_a_plain_call_is_answered_and_booked_once(serving, key, cast):
    response = serving.post(key)
    assert response.status_code == 200
    data = response.json()
    assert data["choices"][0]["message"]["content"] == ANSWER
    assert data["model"] == "demo-base"
    assert data["id"] == response.headers["x-request-id"]
    (row,) = serving.rows()
    assert (row.request_id, row.status, row.tenant) == (data["id"], "settled", cast.acme)
    assert (row.input_tokens, row.output_tokens, row.cost_nano) == (7, 4, 7 * 1 + 4 * 4)
    assert row.request_digest == hashlib.sha256(json.dumps(HELLO).encode()).hexdigest()
    assert row.answer_digest == hashlib.sha256(ANSWER.encode()).hexdigest()
    assert row.policy_digest
    assert row.served == "demo-base"
    assert row.engine == "engine"
    assert serving.book() == 0


def test_the_openai_client_streams_and_gets_usage_only_when_it_asks(serving, key):
    client: Any = openai.OpenAI(base_url=serving.url, api_key=key, max_retries=0)
    without = list(client.chat.completions.create(stream=True, **HELLO))
    asked = list(client.chat.completions.create(stream=True, stream_options={"include_usage": True}, **HELLO))
    assert all(chunk.choices and chunk.usage is None for chunk in without)
    assert "".join(chunk.choices[0].delta.content for chunk in without) == ANSWER
    assert asked[-1].usage.completion_tokens == 4
    assert all(question["stream_options"]["include_usage"] for question in serving.engine.asked)
    rows = serving.rows()
    assert {row.request_id for row in rows} == {without[0].id, asked[0].id}
    assert {row.answer_digest for row in rows} == {hashlib.sha256(ANSWER.encode()).hexdigest()}
    assert {(row.status, row.cost_nano) for row in rows} == {("settled", 23)}


def test_the_row_has_a_receipt_that_verifies(serving, key, cast):
    request_id = serving.post(key).json()["id"]
    serving.book()
    verified = receipts.verify(json.loads(json.dumps(ledger.receipt(cast.acme, request_id))), keyring.public_keys())
    assert verified["row"]["cost_nano"] == 23
    with pytest.raises(ledger.NoSuchRow):
        ledger.receipt(cast.globex, request_id)
    assert costs.month(cast.acme)["spent"] == 23
    assert costs.by_day(cast.acme)[0]["calls"] == 1
    assert costs.by_model(cast.acme)[0]["model"] == "demo-base"


def test_a_key_that_opens_nothing_is_401(serving, key, cast):
    head, secret, crc = key.rsplit("_", 2)
    other = keys.create(cast.acme, "other")[1]
    stolen_id = "_".join(key.split("_")[:3]) + "_" + "_".join(other.split("_")[3:])
    expired, expired_text = keys.create(cast.acme, "old")
    APIKey.objects.filter(pk=expired.pk).update(expires_at=datetime(2026, 1, 1, tzinfo=UTC))
    reader = keys.create(cast.acme, "reader", scopes=["usage"])[1]
    for text in ("?", "sk-1", key[:-1], f"{head}_{secret[::-1]}_{crc}", stolen_id, expired_text, reader):
        assert refusal(serving.post(text)) == (401, "invalid_api_key")
    assert refusal(httpx2.get(f"{serving.url}/models")) == (401, "invalid_api_key")
    assert serving.rows() == []


def test_a_revoked_key_is_refused_on_the_next_call(serving, key, cast):
    assert serving.post(key).status_code == 200
    keys.revoke(APIKey.objects.get(), cast.owner)
    assert refusal(serving.post(key)) == (401, "invalid_api_key")
    assert refusal(httpx2.get(f"{serving.url}/models", headers={"authorization": f"Bearer {key}"}))[0] == 401


def test_a_request_that_is_not_understood_is_refused_with_the_place(serving, key):
    cases = [
        (b'{"model": "demo-base",\n "messages": [}', (400, "invalid_json"), "line 2, column 15"),
        (b"x" * (2**20 + 1), (413, "body_too_large"), "1048576"),
        ({"model": "gpt-9"}, (404, "model_not_found"), "gpt-9"),
        ({"model": None}, (404, "model_not_found"), "/v1/models"),
        ({"max_tokens": 2_000_000}, (400, "invalid_request"), "1000000"),
        ({"max_tokens": 5, "max_completion_tokens": 6}, (400, "invalid_request"), "differ"),
        ({"n": 9}, (400, "invalid_request"), "1 to 8"),
    ]
    for body, expected, words in cases:
        response = serving.post(key, body)
        assert refusal(response) == expected
        assert words in response.json()["error"]["message"]
    assert serving.engine.asked == []
    assert serving.rows() == []


def test_unknown_addresses_and_methods(serving, key):
    assert refusal(serving.post(key, path="/responses")) == (404, "not_found")
    assert refusal(serving.post(key, path="/models")) == (405, "method_not_allowed")


def test_models_lists_what_the_key_may_call(serving, key):
    headers = {"authorization": f"Bearer {key}"}
    data = httpx2.get(f"{serving.url}/models", headers=headers).json()["data"]
    assert [card["id"] for card in data] == ["demo-base"]
    assert httpx2.get(f"{serving.url}/models/demo-base", headers=headers).json()["id"] == "demo-base"
    assert refusal(httpx2.get(f"{serving.url}/models/nope", headers=headers)) == (404, "model_not_found")


def test_without_money_nothing_is_admitted(serving, key, cast):
    Budget.objects.filter(tenant=cast.acme).update(monthly_nano=10)
    response = serving.post(key)
    assert refusal(response) == (429, "insufficient_quota")
    assert response.json()["error"]["type"] == "insufficient_quota"
    assert response.headers["x-should-retry"] == "false"
    assert "retry-after" not in response.headers
    assert "$0.00000001 " in response.json()["error"]["message"]
    assert serving.rows() == []


def test_a_model_without_a_price_answers_nobody(serving, key):
    Price.objects.all().delete()
    assert refusal(serving.post(key)) == (503, "model_not_priced")


def test_a_blocked_prompt_costs_nothing_and_reaches_nobody(serving, key, cast):
    rules = "rules: [{id: short, validator: length, action: block, max_characters: 5}]"
    saved = policies.save(cast.acme, f"version: 1\n{rules}", cast.owner)
    response = serving.post(key)
    assert refusal(response) == (400, "guardrail_blocked")
    assert "short" in response.json()["error"]["message"]
    (row,) = serving.rows()
    assert (row.status, row.reason, row.cost_nano, row.input_tokens) == ("blocked", "short", 0, 0)
    assert row.policy_digest == saved.digest
    assert serving.engine.asked == []


@pytest.mark.parametrize("stream", [False, True])
def test_a_blocked_prompt_counts_against_requests_and_gives_its_tokens_and_money_back(serving, key, cast, stream):
    rules = "rules: [{id: short, validator: length, action: block, max_characters: 5}]"
    policies.save(cast.acme, f"version: 1\n{rules}", cast.owner)
    limits.set_quota(cast.acme, cast.owner, requests_per_minute=2, tokens_per_minute=400, concurrent_calls=1)
    body = {"stream": stream, "max_tokens": 100}  # two of these would not fit into the tokens
    for left in ("1", "0"):
        response = serving.post(key, body)
        assert refusal(response) == (400, "guardrail_blocked")
        assert response.headers["content-type"] == "application/json"  # no stream has begun
        assert response.headers["x-ratelimit-remaining-requests"] == left
    assert refusal(serving.post(key, body)) == (429, "rate_limit_exceeded")
    rows = serving.rows()
    assert [(row.status, row.cost_nano, row.output_tokens) for row in rows] == [("blocked", 0, 0)] * 2
    reading = gauges.read(cast.acme)
    assert (reading.spent, reading.held) == (0, 0)
    assert {gauge.name: gauge.used for gauge in reading.limits}["concurrent_calls"] == 0
    assert serving.engine.asked == []


def test_personal_data_does_not_reach_the_engine(serving, key):
    text = "TCKN 10000000146, IBAN TR33 0006 1005 1978 6457 8413 26, ayse@example.com.tr, 0532 123 45 67"
    parts = [{"type": "text", "text": "Kart: 4242 4242 4242 4242"}]
    messages = [{"role": "user", "content": text}, {"role": "user", "content": parts}]
    assert serving.post(key, {"messages": messages, "user": "ayse@example.com.tr"}).status_code == 200
    (asked,) = serving.engine.asked
    assert asked["messages"][0]["content"] == "TCKN [TCKN], IBAN [IBAN], [EMAIL], [PHONE]"
    assert asked["messages"][1]["content"][0]["text"] == "Kart: [CARD]"
    assert "user" not in asked


def test_personal_data_beside_the_content_does_not_reach_the_engine_either(serving, key):
    function = {"name": "find", "arguments": '{"no": "10000000146"}'}
    call = {"id": "call_1", "type": "function", "function": function}
    messages = [{"role": "user", "content": "x"}, {"role": "assistant", "content": None, "tool_calls": [call]}]
    tools = [{"type": "function", "function": {"name": "find", "description": "10000000146"}}]
    schema = {"type": "json_schema", "json_schema": {"name": "a", "schema": {"const": "10000000146"}}}
    choice = {"type": "function", "function": {"name": "10000000146"}}
    body = {"messages": messages, "tools": tools, "response_format": schema, "tool_choice": choice}
    assert serving.post(key, body).status_code == 200
    (asked,) = serving.engine.asked
    assert "10000000146" not in json.dumps(asked)
    assert asked["tools"][0]["function"] == {"name": "find", "description": "[TCKN]"}
    assert refusal(serving.post(key, {"messages": [{"role": "user", "content": "Merhaba", "x": "y"}]})) == (
        400,
        "invalid_request",
    )


@pytest.mark.parametrize("stream", [False, True])
def test_with_the_engine_down_the_call_is_503_and_costs_nothing(serving, key, stream):
    serving.stop_engine()
    response = serving.post(key, {"stream": stream})
    assert refusal(response) == (503, "engine_unavailable")
    assert "operator" in response.json()["error"]["message"]
    (row,) = serving.rows()
    assert (row.status, row.reason, row.cost_nano) == ("aborted", "engine_unavailable", 0)


@pytest.mark.parametrize(("status", "expected"), [(400, (400, "engine_refused")), (500, (503, "engine_unavailable"))])
def test_what_the_engine_refuses_costs_nothing(serving, key, status, expected):
    serving.engine.refuse = status
    assert refusal(serving.post(key)) == expected
    (row,) = serving.rows()
    assert (row.status, row.reason, row.cost_nano) == ("aborted", expected[1], 0)


def test_a_stream_that_breaks_says_so_and_is_not_charged(serving, key):
    serving.engine.break_after = 2
    response = serving.post(key, {"stream": True})
    *_, last = [json.loads(line[6:]) for line in response.text.splitlines() if line.startswith("data: ")]
    assert last["error"]["code"] == "engine_unavailable"
    assert "[DONE]" not in response.text
    (row,) = serving.rows()
    assert (row.status, row.reason, row.cost_nano) == ("aborted", "engine_failed", 0)


def test_a_client_that_hangs_up_pays_for_what_was_produced(serving, key):
    serving.engine.tokens, serving.engine.pause = ["a"] * 200, 0.02
    body = json.dumps(HELLO | {"stream": True})
    headers = {"authorization": f"Bearer {key}"}
    with httpx2.stream("POST", f"{serving.url}/chat/completions", content=body, headers=headers) as response:
        lines = response.iter_lines()
        seen = [next(lines) for _ in range(6)]  # three events and the blank lines after them
    deadline = time.monotonic() + 5
    while not (rows := serving.rows()) and time.monotonic() < deadline:
        time.sleep(0.02)
    (row,) = rows
    assert (row.status, row.reason) == ("aborted", "client_disconnected")
    assert sum(line.startswith("data:") for line in seen) <= row.output_tokens < 100
    assert row.cost_nano == row.input_tokens + 4 * row.output_tokens > 0
    assert row.answer_digest == hashlib.sha256(b"a" * row.output_tokens).hexdigest()
    written = serving.engine.written
    time.sleep(0.1)
    assert serving.engine.written <= written + 1  # the engine was told to stop


def test_a_client_that_leaves_a_whole_answer_stops_the_engine_and_pays_for_its_prompt(serving, key):
    serving.engine.pause = 30.0
    body = json.dumps(HELLO).encode()
    with pytest.raises(httpx2.ReadTimeout):
        httpx2.post(
            f"{serving.url}/chat/completions", content=body, headers={"authorization": f"Bearer {key}"}, timeout=0.5
        )
    deadline = time.monotonic() + 5
    while not (rows := serving.rows()) and time.monotonic() < deadline:
        time.sleep(0.02)
    (row,) = rows
    assert (row.status, row.reason) == ("aborted", "client_disconnected")
    assert (row.input_tokens, row.output_tokens) == (-(-len(body) // 4), 0)
    assert row.cost_nano == row.input_tokens


def test_without_a_report_of_usage_the_deltas_are_counted(serving, key):
    serving.engine.usage = False
    assert serving.post(key, {"stream": True}).text.endswith("data: [DONE]\n\n")
    (row,) = serving.rows()
    assert row.status == "settled"
    assert row.output_tokens == 4
    assert row.input_tokens > 0


def test_with_redis_down_nobody_is_admitted(serving, key, loop_thread):
    cut_off = Serving(loop_thread, "unix:///nonexistent/redis.sock")
    cut_off.start()
    assert refusal(cut_off.post(key)) == (503, "counters_unavailable")
    assert cut_off.engine.asked == []
    cut_off.stop()


def test_a_gateway_that_shuts_down_finishes_what_runs(serving, key):
    serving.engine.tokens, serving.engine.pause = ["a"] * 10, 0.03
    body = json.dumps(HELLO | {"stream": True})
    headers = {"authorization": f"Bearer {key}"}
    with httpx2.stream("POST", f"{serving.url}/chat/completions", content=body, headers=headers) as response:
        serving.loop.run(serving.gateway.shutdown())
        text = response.read().decode()
    assert text.endswith("data: [DONE]\n\n")
    assert [row.status for row in serving.rows()] == ["settled"]
    assert refusal(serving.post(key)) == (503, "shutting_down")
