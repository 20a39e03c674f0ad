"""What a caller gets from the gateway is what vLLM gives it: the same calls by openai-python to both, side by side."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any

import openai
import pytest

from inference.tests.vllm.conftest import Front, Running, secret_of

pytestmark = pytest.mark.vllm
BASE = "demo-base"
ASK: list[Any] = [{"role": "user", "content": "kota nedir"}]
GREEDY: dict[str, Any] = {"model": BASE, "messages": ASK, "temperature": 0, "max_tokens": 16}
SCHEMA = {
    "type": "object",
    "properties": {"tur": {"enum": ["iade", "kota"]}, "acil": {"type": "boolean"}},
    "required": ["tur", "acil"],
    "additionalProperties": False,
}
TOOL = {
    "type": "function",
    "function": {"name": "ara", "description": "Belge arar.", "parameters": SCHEMA, "strict": True},
}
FORMAT = {"type": "json_schema", "json_schema": {"name": "talep", "schema": SCHEMA, "strict": True}}
# JSON may have blanks, and a model with random weights writes nothing else: without tab, line ends and space it ends.
NO_BLANKS = {"199": -100, "200": -100, "203": -100, "222": -100}
# Each answer's own, or the engine's about itself.
OWN = frozenset(("id", "created", "system_fingerprint", "service_tier", "metrics"))
Ask = Callable[[openai.OpenAI], Any]


def chat(**options: Any) -> Ask:
    return lambda client: plain(client.chat.completions.create(**GREEDY | options))


def stream(**options: Any) -> Ask:
    return lambda client: joined(client.chat.completions.create(**GREEDY | {"stream": True} | options))


def complete(**options: Any) -> Ask:
    asked: dict[str, Any] = {"model": BASE, "prompt": "kota nedir", "temperature": 0, "max_tokens": 16} | options
    if asked.get("stream"):
        return lambda client: joined(client.completions.create(**asked))
    return lambda client: plain(client.completions.create(**asked))


AGREEING: dict[str, Ask] = {
    "plain": chat(),
    "system and history": chat(
        messages=[
            {"role": "system", "content": "Kısa yaz."},
            *ASK,
            {"role": "assistant", "content": "Kota, aylık haktır."},
            {"role": "user", "content": "iade nasıl yapılır"},
        ]
    ),
    "text parts": chat(messages=[{"role": "user", "content": [{"type": "text", "text": "ğüşıöç ĞÜŞİÖÇ"}]}]),
    "max_completion_tokens": lambda client: plain(
        client.chat.completions.create(model=BASE, messages=ASK, temperature=0, max_completion_tokens=5)
    ),
    "one token": chat(max_tokens=1),
    "stream": stream(),
    "stream with usage": stream(stream_options={"include_usage": True}),
    "stream of two": stream(n=2, seed=3, temperature=1.0, stream_options={"include_usage": True}),
    "stop": chat(stop=["yap"], max_tokens=40),
    "stops": chat(stop=["zz", "ır"], max_tokens=40),
    "stream to a stop": stream(stop=["yap"], max_tokens=40),
    "n": chat(n=3, seed=5, temperature=0.7),
    "n with a seed": chat(n=3, seed=11, temperature=1.2),
    "seed": chat(seed=7, temperature=1.0),
    "top_p": chat(seed=7, temperature=1.0, top_p=0.4),
    "top_k of vLLM": chat(seed=7, temperature=1.0, extra_body={"top_k": 3}),
    "min_p of vLLM": chat(seed=7, temperature=1.0, extra_body={"min_p": 0.2}),
    "repetition penalty of vLLM": chat(extra_body={"repetition_penalty": 1.5}),
    "penalties": chat(presence_penalty=1.5, frequency_penalty=0.7, max_tokens=40),
    "logit_bias": chat(logit_bias={"40": 100}),
    "logprobs": chat(logprobs=True),
    "top_logprobs": chat(logprobs=True, top_logprobs=4),
    "stream of logprobs": stream(logprobs=True, top_logprobs=2),
    "json schema": chat(response_format=FORMAT, logit_bias=NO_BLANKS, max_tokens=60),
    "stream by a json schema": stream(response_format=FORMAT, logit_bias=NO_BLANKS, max_tokens=60),
    "json object": chat(response_format={"type": "json_object"}, max_tokens=40),
    "text format": chat(response_format={"type": "text"}),
    "a forced tool": chat(
        tools=[TOOL],
        tool_choice={"type": "function", "function": {"name": "ara"}},
        logit_bias=NO_BLANKS,
        max_tokens=100,
    ),
    "a stream of a forced tool": stream(
        tools=[TOOL],
        tool_choice={"type": "function", "function": {"name": "ara"}},
        logit_bias=NO_BLANKS,
        max_tokens=100,
    ),
    "tools as it likes": chat(tools=[TOOL]),
    "tools it must not use": chat(tools=[TOOL], tool_choice="none"),
    "a tool's answer": chat(
        tools=[TOOL],
        messages=[
            *ASK,
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [
                    {"id": "call_1", "type": "function", "function": {"name": "ara", "arguments": '{"tur": "kota"}'}}
                ],
            },
            {"role": "tool", "tool_call_id": "call_1", "content": "10 GB"},
        ],
    ),
    "completion": complete(),
    "completion with echo": complete(echo=True),
    "completion of prompts": complete(prompt=["kota nedir", "iade"]),
    "completion with logprobs": complete(logprobs=2),
    "completion, n and stop": complete(n=2, stop="yap", seed=2, temperature=1.0),
    "completion as a stream": complete(stream=True, stream_options={"include_usage": True}),
}
BAD: dict[str, tuple[int, dict[str, Any]]] = {
    "unknown model": (404, {"model": "nobody"}),
    "no messages": (400, {"messages": []}),
    "several greedy answers": (400, {"n": 3}),
    "temperature below zero": (400, {"temperature": -1}),
    "top_p above one": (400, {"top_p": 3}),
    "no tokens": (400, {"max_tokens": 0}),
    "more tokens than the context": (400, {"max_tokens": 100_000}),
    "a longer prompt than the context": (400, {"messages": [{"role": "user", "content": "qxz " * 400}]}),
    "too many logprobs": (400, {"logprobs": True, "top_logprobs": 500}),
    "a tool nobody offered": (400, {"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "yok"}}}),
    "a schema that is none": (
        400,
        {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "yok"}}}},
    ),
    "a format that is none": (400, {"response_format": {"type": "xml"}}),
}

# What vLLM would do and the gateway does not: nobody could check or count it, or it is another tenant's business.
STRICTER: dict[str, Ask] = {
    "a prompt that no guardrail can read": complete(prompt=[40, 41, 42]),
    "a role that is none": chat(messages=[{"role": "friend", "content": "a"}]),
    "another place in the queue": chat(extra_body={"priority": 0}),
    "another tenant's cache": chat(extra_body={"cache_salt": "guess"}),
    "what is not opened": chat(extra_body={"return_token_ids": True}),
    "a field that nobody knows": chat(extra_body={"surprise": 1}),
}


def plain(value: Any) -> Any:
    """An answer as data, without what is each answer's own, nor what is nothing."""
    value = value.model_dump() if hasattr(value, "model_dump") else value
    if isinstance(value, dict):
        return {name: kept for name, one in value.items() if name not in OWN and (kept := plain(one)) not in (None, {})}
    return [plain(one) for one in value] if isinstance(value, list) else value


def joined(chunks: Iterable[Any]) -> dict[str, Any]:
    """What a stream amounts to, however it was cut."""
    found: dict[str, Any] = {}
    for chunk in chunks:
        if chunk.usage:
            assert not chunk.choices
            found["usage"] = plain(chunk.usage)
        for choice in chunk.choices:
            one = found.setdefault(choice.index, {"text": "", "arguments": "", "names": [], "logprobs": []})
            delta = getattr(choice, "delta", None)
            one["text"] += (delta.content if delta else getattr(choice, "text", "")) or ""
            for call in (delta and delta.tool_calls) or ():
                one["arguments"] += call.function.arguments or ""
                one["names"] += [call.function.name] if call.function.name else []
            one["logprobs"] += (plain(choice.logprobs) or {}).get("content", [])
            one["reason"] = choice.finish_reason
    return found


@pytest.fixture
def both(front: Front, vllm: Running) -> tuple[openai.OpenAI, openai.OpenAI]:
    """openai-python at the gateway, and at vLLM itself."""
    options: dict[str, Any] = {"max_retries": 0, "timeout": 60}
    return (
        openai.OpenAI(base_url=front.url, api_key=front.key, **options),
        openai.OpenAI(base_url=f"{vllm.url}/v1", api_key=secret_of(vllm), **options),
    )


def test_answers_of_the_gateway_are_those_of_vllm(both: tuple[openai.OpenAI, openai.OpenAI]):
    gateway, engine = both
    differing = {}
    for name, ask in AGREEING.items():
        got, wanted = tried(ask, gateway), tried(ask, engine)
        if got != wanted or isinstance(got, Exception):
            differing[name] = (got, wanted)
    assert not differing


def tried(ask: Ask, client: openai.OpenAI) -> Any:
    try:
        return ask(client)
    except openai.APIError as error:
        return error


def test_the_list_says_something(both: tuple[openai.OpenAI, openai.OpenAI]):
    """Two empty answers would agree as well."""
    gateway, _ = both
    found = json.loads(AGREEING["json schema"](gateway)["choices"][0]["message"]["content"])
    assert found.keys() == {"tur", "acil"}
    call = AGREEING["a forced tool"](gateway)["choices"][0]["message"]["tool_calls"][0]
    assert json.loads(call["function"]["arguments"]).keys() == {"tur", "acil"}
    assert AGREEING["a stream of a forced tool"](gateway)[0]["names"] == ["ara"]
    assert AGREEING["stop"](gateway)["choices"][0]["finish_reason"] == "stop"
    assert len(AGREEING["top_logprobs"](gateway)["choices"][0]["logprobs"]["content"][0]["top_logprobs"]) == 4
    seeded = [choice["message"]["content"] for choice in AGREEING["n with a seed"](gateway)["choices"]]
    assert len(set(seeded)) == 3
    assert AGREEING["stream with usage"](gateway)["usage"]["completion_tokens"] == 16


@pytest.mark.parametrize("name", BAD)
def test_what_vllm_refuses_is_refused_alike(both: tuple[openai.OpenAI, openai.OpenAI], name: str):
    status, wrong = BAD[name]
    for client in both:
        with pytest.raises(openai.APIStatusError) as refused:
            client.chat.completions.create(**GREEDY | wrong)
        assert refused.value.status_code == status
        assert isinstance(refused.value.body, dict)
        assert refused.value.body["message"]


@pytest.mark.parametrize("name", STRICTER)
def test_the_gateway_refuses_what_vllm_alone_would_do(both: tuple[openai.OpenAI, openai.OpenAI], name: str):
    gateway, engine = both
    assert STRICTER[name](engine)
    with pytest.raises(openai.BadRequestError):
        STRICTER[name](gateway)


def test_the_gateway_lists_the_base_and_the_tenant_s_adapter(both: tuple[openai.OpenAI, openai.OpenAI], front: Front):
    gateway, _ = both
    cards = {card.id: card.model_dump() for card in gateway.models.list()}
    assert cards.keys() == {"demo-base", "destek-v1"}
    assert cards["destek-v1"]["parent"] == "demo-base"
    assert cards["destek-v1"]["root"] == front.adapter.engine_name
