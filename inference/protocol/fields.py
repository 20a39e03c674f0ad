"""Which fields a request may have and of what kind they are. Pure.

What is not understood is refused, so that nothing reaches the engine uncounted or unchecked: an unknown field could ask
for work that no hold covers, or show the model a text that no guardrail has read.
"""

from __future__ import annotations

import hashlib
from typing import Any

import orjson

from inference.protocol.refusal import Refusal, invalid

MAX_BODY = 1 << 20  # bytes
MOST_TOKENS = 1_000_000  # of one answer, whatever the model
MOST_ANSWERS = 8  # of one prompt (`n`)

SAMPLING = frozenset(
    ("temperature", "top_p", "stop", "seed", "presence_penalty", "frequency_penalty", "logit_bias", "logprobs")
)
# vLLM's own. The first three every tenant may use; the others an operator opens for a tenant.
OPEN = frozenset(("top_k", "min_p", "repetition_penalty"))
OPENABLE = frozenset(
    ("min_tokens", "ignore_eos", "stop_token_ids", "include_stop_str_in_output", "skip_special_tokens")
    + ("spaces_between_special_tokens", "bad_words", "allowed_token_ids", "length_penalty", "prompt_logprobs")
    + ("structured_outputs", "return_token_ids", "include_reasoning", "thinking_token_budget")
    + ("chat_template_kwargs", "add_generation_prompt", "continue_final_message", "truncate_prompt_tokens")
)
# These reach past the model that a key may call: another prompt, another tenant's cache, other people's place in the
# queue, code of the engine's.
NEVER = frozenset(
    ("chat_template", "cache_salt", "priority", "kv_transfer_params", "vllm_xargs")
    + ("logits_processors", "mm_processor_kwargs", "request_id", "documents", "prompt_embeds", "media_io_kwargs")
)
# Read, and kept from the engine: it needs no name of a person and no wish about OpenAI's own service.
KEPT_HERE = frozenset(
    ("user", "metadata", "store", "service_tier", "prompt_cache_key", "prompt_cache_retention", "safety_identifier")
    + ("verbosity",)
)
COMMON = frozenset(("model", "stream", "stream_options", "n")) | SAMPLING | OPEN | OPENABLE | KEPT_HERE


def read_json(body: bytes) -> dict[str, Any]:
    """The JSON object in `body`; raises Refusal 400 with the position of the first mistake."""
    try:
        data = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno} (character {error.pos})"
        raise Refusal(400, "invalid_json", f"The body is not valid JSON at {place}: {error.msg}.") from error
    if not isinstance(data, dict):
        raise Refusal(400, "invalid_json", "The body must be a JSON object.")
    return data


def check_names(data: dict[str, Any], understood: frozenset[str]) -> None:
    """Refuses fields that no request of this kind has, and values that cannot be written again."""
    for name, value in data.items():
        if name not in understood:
            if name in NEVER:
                raise invalid(name, f"{name} is never the caller's to set. Remove it from the request.")
            raise invalid(name[:80], f"{name[:80]} is not supported here. Remove it from the request.")
        if type(value) in (dict, list):
            check_depth(value, name)


def check_depth(value: Any, place: str) -> None:
    """Refuses what can be read and not be written: orjson reads 1,024 levels and writes about 250."""
    try:
        orjson.dumps({place: value})
    except TypeError as error:
        raise invalid(place, f"{place} is nested too deeply.") from error


def typed(data: dict[str, Any], name: str, kind: type, default: Any) -> Any:
    value = data.get(name)
    if value is None:
        return default
    if type(value) is not kind:
        raise invalid(name, f"{name} must be of type {KINDS[kind]}.")
    return value


KINDS = {str: "string", int: "integer", bool: "boolean", dict: "object", list: "array"}


def common(data: dict[str, Any], body: bytes, forwarded: frozenset[str]) -> dict[str, Any]:
    """What requests of every kind that a model answers in words are made of: arguments of `Request`."""
    options = typed(data, "stream_options", dict, {})
    return {
        "model": typed(data, "model", str, ""),
        "options": {name: value for name, value in data.items() if name in forwarded and value is not None},
        "digest": hashlib.sha256(body).hexdigest(),
        "size": len(body),
        "stream": typed(data, "stream", bool, False),
        "include_usage": options.get("include_usage") is True,
        "n": answers(data),
        "user": typed(data, "user", str, ""),
        "extras": OPENABLE.intersection(data),
    }


def answers(data: dict[str, Any]) -> int:
    """`n`, how many answers to one prompt."""
    n: int = typed(data, "n", int, 1)
    if not 1 <= n <= MOST_ANSWERS:
        raise invalid("n", f"n, the number of answers, must be 1 to {MOST_ANSWERS}.")
    return n


def max_tokens(data: dict[str, Any], *names: str) -> int | None:
    """The longest answer, by its older or its newer name. Two numbers are refused: the engine might take the other."""
    found: int | None = None
    for name in names:
        value = typed(data, name, int, None)
        if value is None:
            continue
        if not 1 <= value <= MOST_TOKENS:
            raise invalid(name, f"{name} must be 1 to {MOST_TOKENS}.")
        if found is not None and found != value:
            raise invalid(names[-1], f"{names[-1]} and {names[0]} differ. Send one of them.")
        found = value
    return found
