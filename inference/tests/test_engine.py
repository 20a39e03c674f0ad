"""The embedded engine, for real: a small Llama with random weights, two adapters, and the OpenAI wire."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from inference.engines.client import Engine, EngineDown, EngineError
from inference.tests import tiny

pytestmark = pytest.mark.training
QUESTIONS = ["kota nedir", "iade nasıl yapılır", "ğüşıöç", "a"]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("engine")
    template = "{% for message in messages %}{{ message['content'] }}{% endfor %}:"
    tiny.make_base(root / "base", QUESTIONS, template, hidden=32, heads=4, context=96)
    for name, seed in (("a", 2), ("b", 3)):
        tiny.make_adapter(root / "base", root / name, seed, rank=4)
    return root


def serve(path: Path, name: str = "base") -> tuple[Any, Engine]:
    import uvicorn

    from inference.engines.embedded import Server

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = uvicorn.Server(uvicorn.Config(Server(path, name).application(), port=port, log_level="warning"))
    threading.Thread(target=server.run, daemon=True).start()
    return server, Engine(f"http://127.0.0.1:{port}")


def wait_until_ready(engine: Engine) -> None:
    for _ in range(300):
        try:
            engine.health()
        except EngineError:
            time.sleep(0.1)
        else:
            return
    raise AssertionError("the engine did not become ready")


@pytest.fixture(scope="module")
def engine(files) -> Iterator[Engine]:
    server, engine = serve(files / "base")
    wait_until_ready(engine)
    engine.load("t.a-v1", files / "a")
    engine.load("t.b-v1", files / "b")
    yield engine
    server.should_exit = True


def ask(engine: Engine, model: str, text: str, **options: Any) -> str:
    settings = {"temperature": 0, "max_tokens": 12} | options
    answer = engine.chat(model, [{"role": "user", "content": text}], **settings)
    return str(answer["choices"][0]["message"]["content"])


def alone(files: Path, adapter: str | None, text: str) -> str:
    """The same greedy answer by transformers and PEFT without the engine."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    base = str(files / "base")
    tokenizer = AutoTokenizer.from_pretrained(base)
    model = AutoModelForCausalLM.from_pretrained(base)
    if adapter:
        model = PeftModel.from_pretrained(model, str(files / adapter))
    ids = tokenizer(text + ":", add_special_tokens=False, return_tensors="pt")
    with torch.inference_mode():
        made = model.eval().generate(**ids, max_new_tokens=12, do_sample=False)[0, ids["input_ids"].shape[1] :]
    return str(tokenizer.decode(made, skip_special_tokens=True))


def test_adapters_asked_together_answer_as_each_alone(files, engine):
    wanted = [(model, text) for text in QUESTIONS for model in ("base", "t.a-v1", "t.b-v1")]
    with ThreadPoolExecutor(12) as pool:
        together = list(pool.map(lambda pair: ask(engine, *pair), wanted))
    single = {"base": None, "t.a-v1": "a", "t.b-v1": "b"}
    assert together == [alone(files, single[model], text) for model, text in wanted]
    assert len(set(together)) > len(QUESTIONS)  # the adapters really differ


def test_a_stream_carries_the_same_text_and_the_usage(engine):
    import httpx2
    import orjson

    body = {"model": "t.a-v1", "messages": [{"role": "user", "content": "ğüşıöç"}], "temperature": 0, "max_tokens": 12}
    whole = engine.chat(**body)
    more = {"stream": True, "stream_options": {"include_usage": True}}
    with httpx2.stream("POST", f"{engine.url}/v1/chat/completions", json=body | more) as response:
        lines = [line[6:] for line in response.iter_lines() if line]
    assert lines[-1] == "[DONE]"
    chunks = [orjson.loads(line) for line in lines[:-1]]
    text = "".join(choice["delta"].get("content", "") for chunk in chunks for choice in chunk["choices"])
    assert text == whole["choices"][0]["message"]["content"]
    assert chunks[-1]["usage"] == whole["usage"]
    reasons = [choice["finish_reason"] for chunk in chunks for choice in chunk["choices"] if choice["finish_reason"]]
    assert reasons == [whole["choices"][0]["finish_reason"]]


def test_a_seed_repeats_a_draw_and_another_seed_draws_anew(engine):
    draws = [ask(engine, "base", "kota nedir", temperature=1.5, seed=seed) for seed in (5, 5, 6, 7)]
    assert draws[0] == draws[1]
    assert len(set(draws)) > 1


def test_a_sampling_row_leaves_a_greedy_row_of_its_batch_alone(engine):
    greedy = ask(engine, "base", "kota nedir")
    with ThreadPoolExecutor(8) as pool:
        noise = [pool.submit(ask, engine, "t.b-v1", text, temperature=2.0, seed=1) for text in QUESTIONS]
        beside = [pool.submit(ask, engine, "base", "kota nedir") for _ in range(4)]
        assert {future.result() for future in beside} == {greedy}
        assert all(isinstance(future.result(), str) for future in noise)


def test_sampling_follows_the_softmax():
    """Gumbel-max draws token i with probability softmax(logits)_i: chi-squared over 4,000 draws of three tokens."""
    import torch

    from inference.engines.generation import Request
    from inference.engines.sampling import Sampler

    logits = torch.tensor([[1.0, 0.0, -1.0]])
    sampler = Sampler([Request([0], "base", 1, lambda text, reason, made: None, temperature=1.0, seed=3)])
    counts = torch.zeros(3)
    for _ in range(4_000):
        counts[sampler(torch.zeros(1, 1), logits.clone()).argmax()] += 1
    expected = logits[0].softmax(-1) * 4_000
    assert float(((counts - expected) ** 2 / expected).sum()) < 13.8  # p = 0.001, two degrees of freedom


def test_a_stop_text_ends_the_answer_before_it(engine):
    text = ask(engine, "base", "kota nedir")
    cut = text[3:5]
    assert ask(engine, "base", "kota nedir", stop=[cut]) == text[: text.find(cut)]


def test_refusals_have_the_engine_s_shape(files, engine):
    with pytest.raises(EngineError) as unknown:
        ask(engine, "nobody", "a")
    assert unknown.value.status == 404
    with pytest.raises(EngineError, match="maximum context length") as long:
        ask(engine, "base", "kota " * 60)
    assert long.value.status == 400
    with pytest.raises(EngineError, match="already been loaded") as twice:
        engine._ask("POST", "/v1/load_lora_adapter", {"lora_name": "t.a-v1", "lora_path": str(files / "a")})
    assert twice.value.status == 400
    with pytest.raises(EngineError) as nowhere:
        engine.load("t.c-v1", files / "nowhere")
    assert nowhere.value.status == 404
    with pytest.raises(EngineDown, match="does not answer"):
        Engine("http://127.0.0.1:9").health()


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_tokens": 0},
        {"max_tokens": "many"},
        {"temperature": -1},
        {"top_p": 0},
        {"n": 0},
        {"n": 9},
        {"n": "two"},
        {"stop": ["", "a"]},
        {"messages": ["a"]},
        {"messages": []},
    ],
    ids=str,
)
def test_a_request_that_cannot_be_served_as_asked_is_refused(engine, wrong):
    body = {"model": "base", "messages": [{"role": "user", "content": "a"}]} | wrong
    with pytest.raises(EngineError) as refused:
        engine._ask("POST", "/v1/chat/completions", body)
    assert refused.value.status == 400


def test_several_answers_differ_by_their_seed_and_each_is_the_one_it_would_be_alone(engine):
    options = {"temperature": 1, "max_tokens": 8}
    message = [{"role": "user", "content": "kota nedir"}]
    answer = engine.chat("t.a-v1", message, n=3, seed=5, **options)
    texts = [choice["message"]["content"] for choice in answer["choices"]]
    assert [choice["index"] for choice in answer["choices"]] == [0, 1, 2]
    assert texts == [ask(engine, "t.a-v1", "kota nedir", seed=5 + index, **options) for index in range(3)]
    assert len(set(texts)) == 3
    single = engine.chat("t.a-v1", message, seed=5, **options)["usage"]
    assert answer["usage"]["prompt_tokens"] == single["prompt_tokens"]
    assert single["completion_tokens"] < answer["usage"]["completion_tokens"] <= 24


def test_a_stream_of_several_answers_says_which_is_which(engine):
    import json

    import httpx2

    message = [{"role": "user", "content": "kota nedir"}]
    options = {"temperature": 1, "max_tokens": 8, "n": 3, "seed": 5}
    body = {"model": "base", "messages": message, "stream": True, "stream_options": {"include_usage": True}} | options
    text = httpx2.post(engine.url + "/v1/chat/completions", json=body, timeout=60).text
    *chunks, last = [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: {")]
    said, ended = [""] * 3, []
    for chunk in chunks:
        (choice,) = chunk["choices"]
        said[choice["index"]] += choice["delta"].get("content", "")
        ended += [choice["index"]] if choice["finish_reason"] else []
    whole = engine.chat("base", message, **options)
    assert said == [choice["message"]["content"] for choice in whole["choices"]]
    assert sorted(ended) == [0, 1, 2]
    assert last["usage"] == whole["usage"]
    assert text.endswith("data: [DONE]\n\n")


def test_an_endless_seed_is_a_seed(engine):
    assert len({ask(engine, "base", "a", temperature=1, seed=2**64 - 1) for _ in range(2)}) == 1


def test_nobody_answers_in_the_name_of_an_adapter_that_left_meanwhile(files):
    from inference.engines.generation import Loader, Request, generate

    said: list[tuple[str, str | None, int]] = []
    loader = Loader(files / "base")
    loader.open()
    late = Request(loader.encode([{"role": "user", "content": "a"}]), "gone", 4, lambda *event: said.append(event))
    generate(loader, [late])
    loader.close()
    assert said == [("", "error", 0)]


def test_an_unloaded_adapter_is_gone_and_the_others_stay(files, engine):
    before = ask(engine, "t.a-v1", "kota nedir")
    engine.load("t.c-v1", files / "b")
    assert ask(engine, "t.c-v1", "kota nedir") == ask(engine, "t.b-v1", "kota nedir")
    engine.unload("t.c-v1")
    assert engine.models() == ["base", "t.a-v1", "t.b-v1"]
    with pytest.raises(EngineError):
        ask(engine, "t.c-v1", "kota nedir")
    assert ask(engine, "t.a-v1", "kota nedir") == before


def test_the_engine_starts_before_its_base_model(files, tmp_path):
    server, engine = serve(tmp_path / "base")
    time.sleep(0.7)
    with pytest.raises(EngineDown, match="waiting for base model"):
        engine.health()
    (files / "base").rename(tmp_path / "moved")
    (tmp_path / "moved").rename(tmp_path / "base")
    wait_until_ready(engine)
    first = ask(engine, "base", "a")
    engine.load("x", files / "a")
    assert ask(engine, "x", "kota nedir") != ask(engine, "base", "kota nedir")
    engine.unload("x")
    assert engine.models() == ["base"]
    assert ask(engine, "base", "a") == first
    server.should_exit = True
