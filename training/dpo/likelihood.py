"""Log-probabilities of given answers, and greedy answers, of a model as it stands (adapter on or off)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

BATCH = 16


@dataclass(frozen=True)
class Likelihood:
    """Of one answer under one model: the sum of its tokens' log-probabilities, in nats, and their number."""

    total: float
    tokens: int

    @property
    def mean(self) -> float:
        return self.total / max(1, self.tokens)


def encode(tokenizer: Any, prompt: str, answer: str, max_length: int) -> tuple[list[int], int]:
    """(token ids, where the answer starts), as TRL cuts them: the answer starts where the two renderings part."""
    asked = [{"role": "user", "content": prompt}]
    head = _ids(tokenizer, asked, True)
    whole = _ids(tokenizer, [*asked, {"role": "assistant", "content": answer}], False)
    same = next((n for n, (a, b) in enumerate(zip(head, whole, strict=False)) if a != b), min(len(head), len(whole)))
    return whole[:max_length], same


def _ids(tokenizer: Any, messages: list[dict[str, str]], asks: bool) -> list[int]:
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=asks)
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def measure(
    model: Any,
    tokenizer: Any,
    answers: list[tuple[str, str]],
    max_length: int,
    heard: Callable[[int], None] = lambda done: None,
) -> list[Likelihood]:
    """One likelihood per (prompt, answer), in their order; `heard` gets the number that are done."""
    rows = [encode(tokenizer, prompt, answer, max_length) for prompt, answer in answers]
    order = sorted(range(len(rows)), key=lambda n: len(rows[n][0]))  # similar lengths share a batch
    found: dict[int, Likelihood] = {}
    for start in range(0, len(order), BATCH):
        batch = order[start : start + BATCH]
        found.update(zip(batch, _measure(model, [rows[n] for n in batch]), strict=True))
        heard(len(found))
    return [found[n] for n in range(len(rows))]


def _measure(model: Any, rows: list[tuple[list[int], int]]) -> list[Likelihood]:
    import torch

    width = max(len(ids) for ids, _ in rows)
    padded = [ids + [0] * (width - len(ids)) for ids, _ in rows]
    mask = [[1] * len(ids) + [0] * (width - len(ids)) for ids, _ in rows]
    at = model.device
    ids = torch.tensor(padded, device=at)
    with torch.inference_mode():
        logits = model(input_ids=ids, attention_mask=torch.tensor(mask, device=at)).logits[:, :-1].float()
        chosen = torch.gather(logits, 2, ids[:, 1:, None]).squeeze(2) - torch.logsumexp(logits, 2)
    # the log-probability of token t stands at position t - 1
    spans = [chosen[n, start - 1 : len(row) - 1] for n, (row, start) in enumerate(rows)]
    return [Likelihood(float(span.double().sum()), span.numel()) for span in spans]


def answer(model: Any, tokenizer: Any, prompts: list[str], max_tokens: int) -> list[str]:
    """The greedy answers to the prompts."""
    import torch

    texts = [
        tokenizer.apply_chat_template([{"role": "user", "content": p}], tokenize=False, add_generation_prompt=True)
        for p in prompts
    ]
    batch = tokenizer(texts, return_tensors="pt", padding=True, add_special_tokens=False)
    batch.pop("token_type_ids", None)
    with torch.inference_mode():
        made = model.generate(**batch.to(model.device), max_new_tokens=max_tokens, do_sample=False)
    fresh = made[:, batch["input_ids"].shape[1] :]
    return [text.strip() for text in tokenizer.batch_decode(fresh, skip_special_tokens=True)]
