"""LangChain and LiteLLM (as a library) through the gateway to an adapter on vLLM: whole, streamed, and refused."""

from __future__ import annotations

import os
from typing import Any, cast

import pytest

from inference.tests.tiny import WORDS
from inference.tests.vllm.conftest import Front, Running
from inference.tests.vllm.test_conformance import NO_BLANKS

pytestmark = pytest.mark.vllm
MODEL, TEXT, TOKENS = "destek-v1", WORDS[0], 20


@pytest.fixture
def answer(front: Front, vllm: Running) -> str:
    """What the adapter says to TEXT, from vLLM itself."""
    messages = [{"role": "user", "content": TEXT}]
    chosen = vllm.engine.chat("a0", messages, temperature=0, max_tokens=TOKENS)["choices"][0]
    return str(chosen["message"]["content"])


def chat_openai(front: Front, **options: Any) -> Any:
    from langchain_openai import ChatOpenAI
    from pydantic import SecretStr

    told: dict[str, Any] = {"base_url": front.url, "api_key": SecretStr(front.key), "max_retries": 0}
    told |= {"model": MODEL, "temperature": 0, "max_tokens": TOKENS, "stream_usage": True}
    return cast(Any, ChatOpenAI)(**told | options)


@pytest.fixture
def langchain(front: Front) -> Any:
    return chat_openai(front)


def test_langchain_invokes(langchain: Any, answer: str):
    message = langchain.invoke(TEXT)
    assert message.content == answer
    assert message.usage_metadata["output_tokens"] == TOKENS
    assert message.response_metadata["model_name"] == MODEL


def test_langchain_streams(langchain: Any, answer: str):
    chunks = list(langchain.stream(TEXT))
    assert "".join(chunk.content for chunk in chunks) == answer
    assert len(chunks) > 3
    assert sum(chunk.usage_metadata["output_tokens"] for chunk in chunks if chunk.usage_metadata) == TOKENS


def test_langchain_gets_what_a_schema_asks_for(front: Front):
    schema = {
        "title": "Talep",
        "type": "object",
        "properties": {"tur": {"enum": ["iade", "kota"]}},
        "required": ["tur"],
        "additionalProperties": False,
    }
    patient = chat_openai(front, max_tokens=60, logit_bias=NO_BLANKS)
    found = patient.with_structured_output(schema, method="json_schema").invoke(TEXT)
    assert found["tur"] in ("iade", "kota")


@pytest.fixture
def litellm(front: Front, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setitem(os.environ, "LITELLM_LOCAL_MODEL_COST_MAP", "True")  # else it asks the internet for prices
    import litellm

    def complete(**options: Any) -> Any:
        asked = {"model": f"openai/{MODEL}", "messages": [{"role": "user", "content": TEXT}], "temperature": 0}
        address = {"api_base": front.url, "api_key": front.key, "num_retries": 0}
        return litellm.completion(**asked | address | {"max_tokens": TOKENS} | options)

    return complete


def test_litellm_completes(litellm: Any, answer: str):
    found = litellm()
    assert found.choices[0].message.content == answer
    assert found.usage.completion_tokens == TOKENS


def test_litellm_streams(litellm: Any, answer: str):
    chunks = list(litellm(stream=True, stream_options={"include_usage": True}))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == answer
    assert chunks[-1].usage.completion_tokens == TOKENS


def test_litellm_reads_a_refusal(litellm: Any):
    from litellm.exceptions import NotFoundError

    with pytest.raises(NotFoundError):
        litellm(model="openai/nobody")
