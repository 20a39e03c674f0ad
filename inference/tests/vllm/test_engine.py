"""What vLLM does that this product relies on: the same tokens as transformers and PEFT, and its control addresses."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2
import pytest

from inference.engines import lock
from inference.engines.client import Engine, EngineError
from inference.tests.tiny import WORDS, make_adapter
from inference.tests.vllm.conftest import NAMES, Running, secret_of

pytestmark = pytest.mark.vllm
TOKENS = 24
BASE = "demo-base"


def ids(engine: Engine, model: str, text: str, tokens: int = TOKENS) -> list[int]:
    messages = [{"role": "user", "content": text}]
    answer = engine.chat(model, messages, temperature=0, max_tokens=tokens, return_token_ids=True)
    return list(answer["choices"][0]["token_ids"])


def test_alone_every_adapter_answers_token_for_token_as_peft_does(vllm: Running):
    wanted = [(model, text) for model in (BASE, *NAMES) for text in WORDS]
    got = [ids(vllm.engine, model, text) for model, text in wanted]
    assert got == [vllm.alone.answer("" if model == BASE else model, text, TOKENS)[0] for model, text in wanted]
    first = {tuple(answer) for (_, text), answer in zip(wanted, got, strict=True) if text == WORDS[0]}
    assert len(first) == 1 + len(NAMES)  # they really differ


def test_sixteen_at_once_of_base_and_five_adapters_change_no_token(vllm: Running):
    wanted = [(model, text) for text in WORDS for model in (BASE, *NAMES)] * 2
    engine = vllm.engine
    with ThreadPoolExecutor(16) as pool:
        got = list(pool.map(lambda pair: ids(engine, *pair), wanted))
    assert got == [vllm.alone.answer("" if model == BASE else model, text, TOKENS)[0] for model, text in wanted]


def test_an_adapter_is_loaded_served_and_unloaded_by_its_name(vllm: Running):
    engine = vllm.engine
    engine.load("fresh", vllm.paths["a3"])
    assert "fresh" in engine.models()
    assert ids(engine, "fresh", WORDS[0]) == vllm.alone.answer("a3", WORDS[0], TOKENS)[0]
    engine.load("fresh", vllm.paths["a4"])  # a name that is there stays what it is
    assert ids(engine, "fresh", WORDS[0]) == vllm.alone.answer("a3", WORDS[0], TOKENS)[0]
    engine.unload("fresh")
    assert "fresh" not in engine.models()
    with pytest.raises(EngineError) as gone:
        ids(engine, "fresh", WORDS[0])
    assert gone.value.status == 404
    engine.unload("fresh")  # and one that is not there is no error


def test_what_it_says_of_a_load_that_cannot_be(vllm: Running, tmp_path: Path):
    make_adapter(vllm.base, tmp_path / "wide", 9, rank=16)
    with pytest.raises(EngineError, match="rank") as wide:
        vllm.engine.load("wide", tmp_path / "wide")
    assert wide.value.status == 500  # so the registry must not take 500 for a broken engine's last word
    with pytest.raises(EngineError) as nowhere:
        vllm.engine.load("nowhere", tmp_path / "nowhere")
    assert nowhere.value.status == 404
    taken = {"lora_name": "a0", "lora_path": str(vllm.paths["a1"])}
    answer = httpx2.post(f"{vllm.url}/v1/load_lora_adapter", json=taken, headers=bearer(secret_of(vllm)))
    assert answer.status_code == 400
    assert ids(vllm.engine, "a0", WORDS[0]) == vllm.alone.answer("a0", WORDS[0], TOKENS)[0]


def test_an_adapter_loaded_in_the_midst_of_other_answers_changes_none(vllm: Running):
    """The upstream fault vllm#47724: an `add_lora` made requests under way decode with another adapter."""
    engine = vllm.engine
    wanted = [(name, text) for name in NAMES for text in WORDS[:2]] * 2
    alone = [vllm.alone.answer(name, text, 64)[0] for name, text in wanted]
    with ThreadPoolExecutor(12) as pool:
        under_way = [pool.submit(ids, engine, name, text, 64) for name, text in wanted]
        for turn in range(6):
            engine.load(f"turn-{turn}", vllm.paths[NAMES[turn % 5]])
            engine.unload(f"turn-{turn}")
        assert [answer.result() for answer in under_way] == alone


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/models"),
        ("POST", "/v1/chat/completions"),
        ("POST", "/v1/load_lora_adapter"),
        ("POST", "/v1/unload_lora_adapter"),
        # vLLM's own check does not look at these
        ("GET", "/metrics"),
        ("GET", "/version"),
        ("POST", "/tokenize"),
        ("POST", "/invocations"),
        ("POST", "/adapters"),
        ("DELETE", "/adapters/a0"),
        ("OPTIONS", "/v1/models"),
    ],
)
def test_without_its_key_it_answers_nothing(vllm: Running, method: str, path: str):
    body = {"model": BASE, "lora_name": "a0", "lora_path": "/", "name": "a0", "src": str(vllm.paths["a0"])}
    for headers in ({}, bearer("guess"), {"Authorization": secret_of(vllm)}):
        answer = httpx2.request(method, vllm.url + path, json=body, headers=headers, timeout=20)
        assert answer.status_code == 401
    assert httpx2.get(f"{vllm.url}/health").status_code == 200


def test_its_key_is_in_no_command_line_and_in_no_log(vllm: Running):
    secret = secret_of(vllm)
    assert len(secret) >= 40
    assert vllm.key_file.stat().st_mode & 0o777 == 0o600
    assert secret not in vllm.log.read_text()
    assert lock.VARIABLE in vllm.log.read_text()  # the command was shown, and says where the key is
    lines = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if path.parent.exists()]
    assert not any(secret.encode() in line for line in lines)


def bearer(secret: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {secret}"}
