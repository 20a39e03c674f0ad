"""The gateway before vLLM: five tenants at once, and nothing of the engine's but what is meant for callers."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx2
import pytest

from inference import registry
from inference.models import Adapter
from inference.tests.tiny import WORDS
from inference.tests.vllm.conftest import NAMES, Front, Running, open_up, publish
from tenants import keys
from tenants.models import Member, Quota, Tenant

pytestmark = pytest.mark.vllm
GREEDY = {"temperature": 0, "max_tokens": 24, "logprobs": True}


def told(front: Front, key: str, model: str, text: str) -> tuple[str, list[str]]:
    """The answer's text and its tokens."""
    body = {"model": model, "messages": [{"role": "user", "content": text}]} | GREEDY
    answer = front.serving.post(key, body)
    assert answer.status_code == 200, answer.text
    choice = answer.json()["choices"][0]
    return choice["message"]["content"], [token["token"] for token in choice["logprobs"]["content"]]


def expected(vllm: Running, model: str, text: str) -> tuple[str, list[str]]:
    """The same from vLLM itself, whose tokens are PEFT's (test_engine)."""
    choice = vllm.engine.chat(model, [{"role": "user", "content": text}], **GREEDY)["choices"][0]
    return choice["message"]["content"], [token["token"] for token in choice["logprobs"]["content"]]


def test_five_tenants_with_five_adapters_at_once_answer_as_each_alone(front: Front, vllm: Running, cast: Any):
    callers: dict[str, str] = {}
    for name in NAMES:
        tenant = Tenant.objects.create(slug=f"firma-{name}", name=name)
        Member.objects.create(tenant=tenant, user=cast.outsider, role="owner")
        Quota.objects.create(tenant=tenant)
        open_up(tenant)
        registry.load(publish(tenant, "ses", vllm.paths[name]))
        callers[name] = keys.create(tenant, "vllm", cast.outsider)[1]
    front.serving.look()
    wanted = [(name, text) for text in WORDS for name in NAMES] * 2
    with ThreadPoolExecutor(16) as pool:
        got = list(pool.map(lambda pair: told(front, callers[pair[0]], "ses-v1", pair[1]), wanted))
    assert got == [expected(vllm, name, text) for name, text in wanted]
    assert {row.served for row in front.serving.rows()} == {
        adapter.engine_name for adapter in Adapter.objects.filter(name="ses")
    }


@pytest.mark.parametrize(
    "path",
    [
        "/v1/load_lora_adapter",
        "/v1/unload_lora_adapter",
        "/v1/responses",
        "/v1/messages",
        "/v1/chat/completions/batch",
        "/v1/chat/completions/render",
        "/inference/v1/generate",
        "/metrics",
        "/tokenize",
        "/detokenize",
        "/invocations",
        "/adapters",
        "/adapters/a0",
        "/version",
        "/health",
        "/load",
        "/docs",
        "/openapi.json",
        "/v1/../metrics",
        "//v1/load_lora_adapter",
        "/v1/chat/completions/",
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
def test_what_is_the_engine_s_is_not_the_caller_s(front: Front, vllm: Running, method: str, path: str):
    before = vllm.engine.models()
    url = front.url.removesuffix("/v1") + path
    body = {"model": "demo-base", "lora_name": "evil", "lora_path": str(vllm.paths["a1"]), "prompt": "a"}
    answer = httpx2.request(method, url, json=body, headers={"Authorization": f"Bearer {front.key}"})
    assert answer.status_code == 404
    assert answer.json()["error"]["code"] == "not_found"
    assert vllm.engine.models() == before


@pytest.mark.parametrize("name", ["a1", "./a1", "demo-base:a1"])
def test_a_name_of_the_engine_s_opens_no_adapter(front: Front, name: str):
    answer = front.serving.post(front.key, {"model": name} | GREEDY)
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "model_not_found")


def test_the_ledger_says_what_vllm_counted_and_what_it_read_from_its_cache(front: Front):
    body = {"messages": [{"role": "user", "content": "kota nedir? " * 60}]} | GREEDY
    usages = [front.serving.post(front.key, body).json()["usage"] for _ in range(2)]
    assert usages[1]["prompt_tokens_details"]["cached_tokens"] >= 128  # a block
    rows = front.serving.rows()
    assert [(row.input_tokens, row.output_tokens) for row in rows] == [
        (usage["prompt_tokens"], usage["completion_tokens"]) for usage in usages
    ]
    assert rows[1].cached_tokens == usages[1]["prompt_tokens_details"]["cached_tokens"]


def test_one_tenant_s_prompt_is_not_in_another_one_s_cache(front: Front, cast: Any):
    """The time of an answer would tell whether somebody else has sent the same prompt."""
    open_up(cast.globex)
    stranger = keys.create(cast.globex, "vllm", cast.outsider)[1]
    body = {"messages": [{"role": "user", "content": "fatura ne zaman gelir? " * 40}]} | GREEDY
    front.serving.post(front.key, body)
    details = front.serving.post(stranger, body).json()["usage"]["prompt_tokens_details"] or {}
    assert not details.get("cached_tokens")
