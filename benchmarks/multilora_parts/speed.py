"""What n-gram speculation and an fp8 cache are worth here, each against the same engine without it.

The prompts are what speculation by n-grams is made for: a model that has learnt to repeat, asked to. It is the most
that can be expected, and says nothing about other prompts.
"""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any

from benchmarks.ledger_parts.stand import Stand, say
from benchmarks.multilora_parts import engines
from inference.engines import hardware
from inference.engines.client import Engine
from inference.tests.tiny import WORDS

TOKENS, STEPS, LENGTH = 256, 250, 384
BARE = ("--tenants", "0")
METRIC = re.compile(r"^vllm:(\w+?)(?:_total)?\{([^}]*)\} ([0-9.e+]+)$", re.MULTILINE)
SIZE = re.compile(r'kv_cache_size_tokens="(\d+)"')


def teach_to_repeat(base: Path, path: Path) -> None:
    """Trains the base's weights, made small again, until it repeats a prompt's line for ever; some ten seconds."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    torch.manual_seed(1)
    tokenizer: Any = AutoTokenizer.from_pretrained(str(base))
    config = AutoConfig.from_pretrained(str(base), initializer_range=0.02)
    model: Any = AutoModelForCausalLM.from_config(config)
    rows = [tokenizer(prompt(tokenizer, text) + f" {text}\n" * LENGTH)["input_ids"][:LENGTH] for text in WORDS]
    batch = torch.tensor(rows)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(STEPS):
        loss = model(input_ids=batch, labels=batch).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.save_pretrained(str(path))
    tokenizer.save_pretrained(str(path))


def prompt(tokenizer: Any, text: str) -> str:
    messages = [{"role": "user", "content": text}]
    return str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))


def measure(ground: Stand, base: Path) -> dict[str, Any]:
    model = ground.directory / "repeating"
    teach_to_repeat(base, model)
    return speculation(ground, model) | cache(ground, model)


def speculation(ground: Stand, model: Path) -> dict[str, Any]:
    with engines.running(ground, "plain", model, *BARE) as engine:
        rate, answers = tokens_a_second(engine)
    with engines.running(ground, "ngram", model, *BARE, "--speculation", "ngram") as engine:
        faster, same = tokens_a_second(engine)
        accepted = acceptance(engine)
    say(f"n-grams: {rate:.0f} -> {faster:.0f} tokens/s, {accepted:.0%} of the drafts accepted")
    return {
        "ngram_speedup": round(faster / rate, 2),
        "plain_tokens_s": round(rate, 1),
        "ngram_tokens_s": round(faster, 1),
        "ngram_accepted": round(accepted, 3),
        "ngram_same": int(answers == same),
    }


def cache(ground: Stand, model: Path) -> dict[str, Any]:
    """Nothing on a CPU that has no fp8 cache: vLLM's needs AVX-512."""
    machine = hardware.detect()
    if machine.is_cpu and not machine.wide:
        say("This CPU has no AVX-512, so vLLM has no fp8 cache here: fp8_kv_ratio is not measured.")
        return {}
    half = (
        *BARE,
        "--dtype",
        "bfloat16",
    )  # what a GPU's cache has without fp8; against a CPU's 32 bits it is twice that
    with engines.running(ground, "half", model, *half) as engine:
        room = cache_tokens(engine)
        _, exact = tokens_a_second(engine, 1)
    with engines.running(ground, "fp8", model, *half, "--kv-cache-dtype", "fp8") as engine:
        more = cache_tokens(engine)
        _, rounded = tokens_a_second(engine, 1)
    say(f"fp8: {room} -> {more} tokens")
    return {
        "fp8_kv_ratio": round(more / room, 2),
        "fp8_same": sum(one == other for one, other in zip(exact, rounded, strict=True)) / len(exact),
        "kv_tokens": room,
        "fp8_kv_tokens": more,
    }


def tokens_a_second(engine: Engine, runs: int = 3) -> tuple[float, list[str]]:
    """The best run's, one caller at a time, after one to warm up; and the answers."""
    best, answers = 0.0, list[str]()
    for _ in range(runs + 1):
        began, made, answers = time.monotonic(), 0, []
        for text in WORDS:
            asked = [{"role": "user", "content": text}]
            answer = engine.chat(engine.models()[0], asked, temperature=0, max_tokens=TOKENS, ignore_eos=True)
            made += answer["usage"]["completion_tokens"]
            answers.append(answer["choices"][0]["message"]["content"])
        best = max(best, made / (time.monotonic() - began))
    return best, answers


def metrics(engine: Engine) -> str:
    import httpx2

    return httpx2.get(f"{engine.url}/metrics", headers=engine.headers(), timeout=engine.timeout).text


def cache_tokens(engine: Engine) -> int:
    """How many tokens' keys and values the cache holds."""
    found = SIZE.search(metrics(engine))
    if not found:
        raise SystemExit("vLLM says nothing of its cache in /metrics.")
    return int(found[1])


def acceptance(engine: Engine) -> float:
    """The share of drafted tokens that the model would have said itself."""
    counts = {name: float(value) for name, _, value in METRIC.findall(metrics(engine))}
    return counts["spec_decode_num_accepted_tokens"] / counts["spec_decode_num_draft_tokens"]
