"""Text completions of the embedded engine, for real: transformers' own tokens, in one batch with chats of adapters."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import pytest

from inference.engines import generation, known
from inference.engines.client import Engine, EngineError
from inference.tests.test_engine import QUESTIONS, ask, engine, files

pytestmark = pytest.mark.training
__all__ = ["engine", "files"]  # fixtures
MODELS = {"base": None, "t.a-v1": "a", "t.b-v1": "b"}


def complete(engine: Engine, prompt: Any, model: str = "base", **options: Any) -> dict[str, Any]:
    asked = {"model": model, "prompt": prompt, "temperature": 0, "max_tokens": 12} | options
    answer: dict[str, Any] = engine._ask("POST", "/v1/completions", asked)
    return answer


def texts(answer: dict[str, Any]) -> list[str]:
    return [choice["text"] for choice in answer["choices"]]


def streamed(engine: Engine, prompt: Any, **options: Any) -> list[dict[str, Any]]:
    """The events of a stream without its last word."""
    asked = {"model": "t.a-v1", "prompt": prompt, "temperature": 0, "max_tokens": 12, "stream": True} | options
    told = httpx2.post(engine.url + "/v1/completions", json=asked, timeout=60).text
    assert told.endswith("data: [DONE]\n\n")
    return [json.loads(line[6:]) for line in told.splitlines() if line.startswith("data: {")]


class Alone:
    """Greedy ids, text and log-probabilities by transformers and PEFT, without the engine."""

    def __init__(self, files: Path, adapter: str | None) -> None:
        from peft import PeftModel
        from transformers import AutoModelForCausalLM, AutoTokenizer

        base = str(files / "base")
        self.tokenizer: Any = AutoTokenizer.from_pretrained(base)
        model = AutoModelForCausalLM.from_pretrained(base)
        self.model: Any = (PeftModel.from_pretrained(model, str(files / adapter)) if adapter else model).eval()

    def __call__(self, text: str, tokens: int = 12) -> tuple[list[int], str, list[Any]]:
        import torch

        ids = self.tokenizer(text, return_tensors="pt")
        wishes = {"do_sample": False, "output_logits": True, "return_dict_in_generate": True}
        with torch.inference_mode():
            made = self.model.generate(**ids, max_new_tokens=tokens, **wishes)
        fresh = made.sequences[0, ids["input_ids"].shape[1] :].tolist()
        logs = [step[0].log_softmax(-1) for step in made.logits]
        return fresh, str(self.tokenizer.decode(fresh, skip_special_tokens=True)), logs


@pytest.fixture(scope="module")
def alone(files) -> dict[str, Alone]:
    return {model: Alone(files, adapter) for model, adapter in MODELS.items()}


def test_completions_and_chats_of_all_adapters_in_one_batch_answer_as_each_alone(engine, alone, monkeypatch):
    batches: list[set[tuple[Any, bool]]] = []
    plain = generation._generate

    def seen(loader: Any, batch: list[generation.Request]) -> None:
        colon = loader.tokens_of(":")[-1]  # with it the template ends a chat
        batches.append({(request.adapter, request.prompt[-1] == colon) for request in batch})
        plain(loader, batch)

    monkeypatch.setattr(generation, "_generate", seen)
    wanted = [(model, text) for text in QUESTIONS for model in MODELS]
    chats = [ask(engine, *pair) for pair in wanted]
    batches.clear()
    with ThreadPoolExecutor(24) as pool:
        completions = [pool.submit(complete, engine, text, model) for model, text in wanted]
        beside = [pool.submit(ask, engine, *pair) for pair in wanted]
        assert [texts(one.result())[0] for one in completions] == [alone[model](text)[1] for model, text in wanted]
        assert [one.result() for one in beside] == chats
    assert any(len({adapter for adapter, _ in batch}) > 1 and len({chat for _, chat in batch}) > 1 for batch in batches)


def test_each_prompt_has_its_answers_in_order_and_is_counted_once(engine, alone):
    answer = complete(engine, QUESTIONS[:3], "t.a-v1")
    assert texts(answer) == [alone["t.a-v1"](text)[1] for text in QUESTIONS[:3]]
    assert [choice["index"] for choice in answer["choices"]] == [0, 1, 2]
    assert (answer["object"], answer["id"][:5]) == ("text_completion", "cmpl-")
    read = sum(len(alone["base"].tokenizer(text)["input_ids"]) for text in QUESTIONS[:3])
    made = sum(len(alone["t.a-v1"](text)[0]) for text in QUESTIONS[:3])
    usage = {"prompt_tokens": read, "completion_tokens": made, "total_tokens": read + made}
    assert answer["usage"] == usage
    drawn = complete(engine, QUESTIONS[:2], temperature=1, seed=5, n=2)
    assert [choice["index"] for choice in drawn["choices"]] == [0, 1, 2, 3]
    each = [texts(complete(engine, text, temperature=1, seed=5, n=2)) for text in QUESTIONS[:2]]
    assert texts(drawn) == [text for pair in each for text in pair]
    assert drawn["usage"]["prompt_tokens"] == sum(len(alone["base"].tokenizer(t)["input_ids"]) for t in QUESTIONS[:2])


def test_log_probabilities_are_the_model_s_own(engine, alone):
    """Before temperature: those of a draw are the same distribution's as those of a greedy answer."""
    ids, _, logs = alone["t.b-v1"](QUESTIONS[0])
    decode = alone["base"].tokenizer.decode
    told = complete(engine, QUESTIONS[0], "t.b-v1", logprobs=3)["choices"][0]["logprobs"]
    pieces = [decode([one]) for one in ids]
    told_whole = [token for token, piece in zip(told["tokens"], pieces, strict=True) if "\ufffd" not in piece]
    assert told_whole == [piece for piece in pieces if "\ufffd" not in piece] != []
    assert told["token_logprobs"] == pytest.approx(
        [float(log[one]) for log, one in zip(logs, ids, strict=True)], abs=1e-4
    )
    for step, top in zip(logs, told["top_logprobs"], strict=True):
        best = step.topk(3)
        # By text, as vLLM tells them: pieces of a character all look alike, so they are left out here.
        wanted = zip(map(decode, best.indices.tolist()), best.values.tolist(), strict=True)
        for text, value in wanted:
            assert "\ufffd" in text or top[text] == pytest.approx(value, abs=1e-4)
        assert 0 < len(top) <= 3
    lengths = [len(token) for token in told["tokens"]]
    assert told["text_offset"] == [sum(lengths[:at]) for at in range(len(lengths))]
    hot = complete(engine, QUESTIONS[0], "t.b-v1", logprobs=0, temperature=5, seed=3, max_tokens=1)["choices"][0]
    (token,), (value,) = hot["logprobs"]["tokens"], hot["logprobs"]["token_logprobs"]
    assert hot["logprobs"]["top_logprobs"] == [{token: value}]
    assert min(abs(value - one) for one in logs[0].tolist()) < 1e-4


def test_an_agent_gets_ids_for_ids(engine, alone):
    """As vLLM answers its question for known answers."""
    ids, _, logs = alone["t.a-v1"](QUESTIONS[0])
    prompt = alone["base"].tokenizer(QUESTIONS[0])["input_ids"]
    told, values = engine.greedy("t.a-v1", prompt, 12)
    assert told == ids
    assert values == pytest.approx([float(log[one]) for log, one in zip(logs, ids, strict=True)], abs=1e-4)
    assert texts(complete(engine, [prompt, prompt])) == [alone["base"](QUESTIONS[0])[1]] * 2
    assert "peft" in engine.version()


def test_a_chat_has_them_too(engine):
    message = [{"role": "user", "content": QUESTIONS[0]}]
    told = engine.chat("t.a-v1", message, temperature=0, max_tokens=6, logprobs=True, top_logprobs=2)["choices"][0]
    content = told["logprobs"]["content"]
    assert len(content) == 6
    for one in content:
        assert one["top_logprobs"][0] == {name: one[name] for name in ("token", "logprob", "bytes")}  # greedy
        assert len(one["top_logprobs"]) == 2
        assert one["logprob"] >= one["top_logprobs"][1]["logprob"]
    assert engine.chat("t.a-v1", message, temperature=0, max_tokens=6)["choices"][0]["logprobs"] is None


def test_a_stream_says_the_same_and_counts_as_it_goes(engine):
    options: dict[str, Any] = {"logprobs": 2, "stream_options": {"include_usage": True, "continuous_usage_stats": True}}
    *events, last = streamed(engine, QUESTIONS[:2], **options)
    whole = complete(engine, QUESTIONS[:2], "t.a-v1", logprobs=2)
    assert (last["choices"], last["usage"]) == ([], whole["usage"])
    for index, choice in enumerate(whole["choices"]):
        mine = [event for event in events if event["choices"][0]["index"] == index]
        parts = [event["choices"][0] for event in mine]
        assert "".join(part["text"] for part in parts) == choice["text"]
        for name in ("tokens", "token_logprobs", "text_offset"):
            joined = [one for part in parts for one in part["logprobs"][name]]
            assert joined == choice["logprobs"][name]
        assert [part["finish_reason"] for part in parts] == [None] * (len(parts) - 1) + [choice["finish_reason"]]
        made = [event["usage"]["completion_tokens"] for event in mine]
        assert made == sorted(made)
        assert made[-1] == len(choice["logprobs"]["tokens"])
    assert all("usage" not in event for event in streamed(engine, "a")[:-1])


def test_a_stop_text_and_a_seed_do_what_they_do_in_a_chat(engine):
    text = texts(complete(engine, "kota nedir"))[0]
    cut = text[3:5]
    stopped = complete(engine, "kota nedir", stop=[cut])["choices"][0]
    assert (stopped["text"], stopped["finish_reason"]) == (text[: text.find(cut)], "stop")
    draws = [texts(complete(engine, "kota nedir", temperature=1.5, seed=seed))[0] for seed in (5, 5, 6, 7)]
    assert draws[0] == draws[1]
    assert len(set(draws)) > 1


def test_who_names_no_length_gets_sixteen_tokens(engine):
    answer = complete(engine, "kota nedir", max_tokens=None)
    assert answer["usage"]["completion_tokens"] <= 16
    assert answer["choices"][0]["finish_reason"] in ("length", "stop")


@pytest.mark.parametrize(
    "wrong",
    [
        {"prompt": None},
        {"prompt": ""},
        {"prompt": []},
        {"prompt": [1, -1]},
        {"prompt": [1, 10**9]},
        {"prompt": [[1], [True]]},
        {"prompt": ["a"] * 65},
        {"echo": True},
        {"logprobs": 21},
        {"logprobs": -1},
        {"max_tokens": 0},
        {"max_tokens": 1000},
        {"n": 9},
        {"stop": [""]},
    ],
    ids=str,
)
def test_what_it_cannot_do_it_refuses(engine, wrong):
    with pytest.raises(EngineError) as refused:
        complete(engine, **({"prompt": "a"} | wrong))
    assert refused.value.status == 400
    with pytest.raises(EngineError) as unknown:
        complete(engine, "a", "nobody")
    assert unknown.value.status == 404


def test_top_logprobs_without_logprobs_are_refused(engine):
    with pytest.raises(EngineError, match="top_logprobs") as refused:
        engine.chat("base", [{"role": "user", "content": "a"}], top_logprobs=2)
    assert refused.value.status == 400


def test_it_says_that_it_has_no_embeddings(engine):
    with pytest.raises(EngineError, match="no embeddings") as refused:
        engine._ask("POST", "/v1/embeddings", {"model": "base", "input": "a"})
    assert refused.value.status == 400


def test_what_nobody_waits_for_any_more_is_not_begun(files):
    loader = generation.Loader(files / "base")
    loader.open()
    gone = generation.Request(loader.tokens_of("a"), None, 4, lambda *event: None, cancelled=True)
    generation.generate(loader, [gone])
    loader.close()
    assert (gone.tokens, loader.prompt_tokens, loader.generation_tokens) == ([], 0, 0)


def known_of(files: Path, name: str) -> known.Known:
    return known.parse((files / name / known.NAME).read_bytes())


def answers(engine: Engine, model: str, asked: known.Known) -> list[tuple[list[int], list[float]]]:
    return [engine.greedy(model, case.prompt, len(case.tokens)) for case in asked.cases]


@pytest.mark.parametrize("name", ["a", "b"])
def test_an_adapter_gives_its_known_answers_and_no_other_does(engine, files, name):
    other = "b" if name == "a" else "a"
    recorded = known_of(files, name)
    assert recorded.base == "base"
    known.check(recorded, answers(engine, f"t.{name}-v1", recorded))
    for model in (f"t.{other}-v1", "base"):
        with pytest.raises(known.WrongAnswer):
            known.check(recorded, answers(engine, model, recorded))


def test_the_metrics_say_what_is_under_way(engine):
    assert engine.metrics()["vllm:num_requests_running"] == 0
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(complete, engine, "kota", "base", max_tokens=60, n=8)
        seen = set()
        while not asked.done():
            seen.add(engine.metrics()["vllm:num_requests_running"])
    assert 8 in seen
    assert engine.metrics()["vllm:num_requests_running"] == 0


def test_a_penalty_is_the_model_s_own_wish_or_the_request_s(engine, files):
    """As transformers' own: the model's files wish for none, so without a wish there is none."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(str(files / "base"))
    model: Any = AutoModelForCausalLM.from_pretrained(str(files / "base"))
    ids = tokenizer("iade nasıl yapılır", return_tensors="pt")

    def alone(penalty: float) -> str:
        made = model.generate(**ids, max_new_tokens=24, do_sample=False, repetition_penalty=penalty)
        return str(tokenizer.decode(made[0, ids["input_ids"].shape[1] :], skip_special_tokens=True))

    told = {penalty: alone(penalty) for penalty in (1.0, 1.3, 0.6)}
    assert len(set(told.values())) == 3
    asked = [complete(engine, "iade nasıl yapılır", max_tokens=24)]
    asked += [complete(engine, "iade nasıl yapılır", max_tokens=24, repetition_penalty=one) for one in (1.3, 0.6)]
    assert [texts(answer) for answer in asked] == [[told[one]] for one in (1.0, 1.3, 0.6)]
