"""The embedded engine is one setting away from vLLM: the same requests to both, the same answers from both."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest

from inference.engines.client import Engine
from inference.tests.test_engine import serve, wait_until_ready
from inference.tests.tiny import WORDS
from inference.tests.vllm.conftest import Running

pytestmark = pytest.mark.vllm
GREEDY: dict[str, Any] = {"temperature": 0, "max_tokens": 12}
PLAIN = [{"prompt": WORDS[0]}, {"prompt": WORDS[:3]}, {"prompt": WORDS[1], "stop": ["a", "e"], "max_tokens": 40}]
LOGGED = [{"prompt": WORDS[0], "logprobs": 3}, {"prompt": WORDS[:2], "logprobs": 0}]
STREAMED = [{"prompt": WORDS[0], "logprobs": 2}, {"prompt": WORDS[:2]}]
REFUSED = [
    {"prompt": ""},
    {"prompt": "a", "max_tokens": 100_000},
    {"prompt": "a", "logprobs": 500},
    {"model": "nobody"},
]
USAGE = {"stream": True, "stream_options": {"include_usage": True, "continuous_usage_stats": True}}


@pytest.fixture(scope="module")
def embedded(vllm: Running) -> Iterator[Engine]:
    server, engine = serve(vllm.base)
    wait_until_ready(engine)
    for name in ("a0", "a1"):
        engine.load(name, vllm.paths[name])
    yield engine
    server.should_exit = True


def ask(engine: Engine, asked: dict[str, Any], path: str = "/v1/completions") -> httpx2.Response:
    body = {"model": "a0", "prompt": "a"} | GREEDY | asked
    return httpx2.post(engine.url + path, json=body, headers=engine.headers(), timeout=60)


def told(choice: dict[str, Any], *names: str) -> tuple[Any, list[float]]:
    """Of a choice what both have; apart from that its log-probabilities, to compare as numbers."""
    values: list[float] = []
    rest = json.dumps({name: choice[name] for name in ("index", "finish_reason", "logprobs", *names)})
    found = json.loads(rest, parse_float=lambda text: values.append(float(text)))  # None takes its place
    return found, values


def agree(one: tuple[Any, list[float]], other: tuple[Any, list[float]]) -> bool:
    return one[0] == other[0] and one[1] == pytest.approx(other[1], abs=1e-3)


@pytest.mark.parametrize("asked", [*PLAIN, *LOGGED], ids=str)
def test_completions_are_vllm_s(vllm: Running, embedded: Engine, asked: dict[str, Any]):
    ours, theirs = (ask(engine, asked).json() for engine in (embedded, vllm.engine))
    assert len(ours["choices"]) == len(theirs["choices"])
    for mine, vllm_s in zip(ours["choices"], theirs["choices"], strict=True):
        assert agree(told(mine, "text"), told(vllm_s, "text"))
    for name in ("prompt_tokens", "completion_tokens", "total_tokens"):
        assert ours["usage"][name] == theirs["usage"][name]
    assert ours["object"] == theirs["object"]
    assert ours["id"][:5] == theirs["id"][:5]


@pytest.mark.parametrize("asked", STREAMED, ids=str)
def test_streams_are_vllm_s(vllm: Running, embedded: Engine, asked: dict[str, Any]):
    ours, theirs = (joined(ask(engine, asked | USAGE).text) for engine in (embedded, vllm.engine))
    assert ours == theirs


def joined(text: str) -> dict[Any, Any]:
    """By answer: text, tokens, reason and its last count; and the usage of all."""
    found: dict[Any, Any] = {}
    for line in text.splitlines():
        if not line.startswith("data: {"):
            continue
        event = json.loads(line[6:])
        counts = [event["usage"][name] for name in ("prompt_tokens", "completion_tokens")]
        if not event["choices"]:
            found["usage"] = counts
        for choice in event["choices"]:
            one = found.setdefault(choice["index"], {"text": "", "tokens": []})
            one["text"] += choice["text"]
            one["tokens"] += (choice["logprobs"] or {}).get("tokens", [])
            one["reason"], one["usage"] = choice["finish_reason"], counts
    return found


def test_a_chat_s_log_probabilities_are_vllm_s(vllm: Running, embedded: Engine):
    asked: dict[str, Any] = {"messages": [{"role": "user", "content": WORDS[0]}], "logprobs": True, "top_logprobs": 3}
    both = []
    for engine in (embedded, vllm.engine):
        body = {"model": "a1"} | GREEDY | asked
        answer = httpx2.post(f"{engine.url}/v1/chat/completions", json=body, headers=engine.headers(), timeout=60)
        (choice,) = answer.json()["choices"]
        both.append((told(choice), choice["message"]["content"]))
    assert agree(both[0][0], both[1][0])
    assert both[0][1] == both[1][1]


@pytest.mark.parametrize("asked", REFUSED, ids=str)
def test_refusals_are_vllm_s(vllm: Running, embedded: Engine, asked: dict[str, Any]):
    ours, theirs = (ask(engine, asked) for engine in (embedded, vllm.engine))
    assert ours.status_code == theirs.status_code
    assert ours.json()["error"]["message"]
