"""Records an adapter's known answers (`known`) from the model that was trained: transformers and PEFT, no Django.

The prompts are ours and the same for everybody: what is signed and copied to engines holds no customer's text.
"""

from __future__ import annotations

from typing import Any

from inference.engines.known import Case, Known

PROMPTS = (
    "Merhaba, siparişim nerede?",
    "İade koşulları nelerdir?",
    "How do I reset my password?",
    "Kısa bir özür mesajı yaz.",
)
TOKENS = 12  # of each answer


def record(model: Any, tokenizer: Any, base: str, base_digest: str) -> Known:
    """The greedy answers of `model`, a PEFT model with one active adapter; most exact where it computes in float32."""
    return Known(base, base_digest, tuple(_case(model, tokenizer, prompt) for prompt in PROMPTS))


def _case(model: Any, tokenizer: Any, prompt: str) -> Case:
    import torch

    asked = [{"role": "user", "content": prompt}]
    text = tokenizer.apply_chat_template(asked, tokenize=False, add_generation_prompt=True)
    ids = tokenizer(text, add_special_tokens=False, return_tensors="pt")["input_ids"].to(model.device)
    with torch.inference_mode():
        # What the model's own files wish for sampling is left aside, as it is when an engine is asked.
        whole = model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=TOKENS,
            do_sample=False,
            repetition_penalty=1.0,
            pad_token_id=tokenizer.pad_token_id,
        )
        start = ids.shape[1]
        tokens = whole[0, start:]
        with_it = _logprobs(model, whole, start)
        with model.disable_adapter():
            without = _logprobs(model, whole, start)
    best = with_it.topk(2, dim=-1).values
    at = torch.arange(len(tokens), device=tokens.device)
    return Case(
        tuple(ids[0].tolist()),
        tuple(tokens.tolist()),
        tuple(with_it[at, tokens].tolist()),
        tuple(without[at, tokens].tolist()),
        tuple((best[:, 0] - best[:, 1]).tolist()),
    )


def _logprobs(model: Any, whole: Any, start: int) -> Any:
    """Of every token of the vocabulary, at each place of the answer."""
    return model(input_ids=whole).logits[0, start - 1 : -1].float().log_softmax(-1)
