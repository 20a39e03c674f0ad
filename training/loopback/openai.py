"""The OpenAI form of the same world: chat completions and models, with the same limits, faults and bill.

A request is translated to the Messages form, answered there, and the message translated back. Sampling parameters and
what else clients send is taken and has no effect; more than one choice and streams are refused.
"""

from __future__ import annotations

from typing import Any

from training.loopback import catalogue, wire

MOST_TOKENS = 4_096  # where the caller names no limit
STOPS = {"end_turn": "stop", "max_tokens": "length", "refusal": "content_filter"}
KINDS = {401: "invalid_request_error", 402: "insufficient_quota", 404: "invalid_request_error", 429: "rate_limit_error",
         500: "server_error", 529: "server_error"}  # fmt: skip
CODES = {401: "invalid_api_key", 404: "model_not_found", 429: "rate_limit_exceeded", 529: "overloaded"}


def messages_body(body: dict[str, Any]) -> dict[str, Any]:
    """The Messages request that asks the same. Raises Refused."""
    if body.get("stream") or body.get("n", 1) not in (1, None):
        raise wire.invalid("This server answers one choice, not streamed.")
    turns = body.get("messages")
    if not isinstance(turns, list) or not all(isinstance(turn, dict) and "content" in turn for turn in turns):
        raise wire.invalid("messages: Input should be a list of messages")
    system = [turn["content"] for turn in turns if turn.get("role") in ("system", "developer")]
    asked: dict[str, Any] = {
        "model": body.get("model"),
        "max_tokens": body.get("max_completion_tokens") or body.get("max_tokens") or MOST_TOKENS,
        "messages": [
            {"role": turn.get("role"), "content": turn["content"]}
            for turn in turns
            if turn.get("role") not in ("system", "developer")
        ],
        "thinking": {"type": "disabled"},
    }
    if system:
        asked["system"] = "\n".join(map(str, system))
    form = body.get("response_format") or {}
    if form.get("type") == "json_schema":
        schema = (form.get("json_schema") or {}).get("schema")
        asked["output_config"] = {"format": {"type": "json_schema", "schema": schema}}
    return asked


def completion(message: dict[str, Any]) -> dict[str, Any]:
    """`chat.completion` of a message."""
    text = "".join(part["text"] for part in message["content"] if part["type"] == "text")
    refused = message["stop_reason"] == "refusal"
    usage = message["usage"]
    sent = usage["input_tokens"] + usage["cache_creation_input_tokens"] + usage["cache_read_input_tokens"]
    return {
        "id": f"chatcmpl-{message['id']}",
        "object": "chat.completion",
        "created": 0,
        "model": message["model"],
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": None if refused else text, "refusal": None},
                "logprobs": None,
                "finish_reason": STOPS[message["stop_reason"]],
            }
        ],
        "usage": {
            "prompt_tokens": sent,
            "completion_tokens": usage["output_tokens"],
            "total_tokens": sent + usage["output_tokens"],
            "prompt_tokens_details": {"cached_tokens": usage["cache_read_input_tokens"]},
        },
    }


def models() -> dict[str, Any]:
    found = [
        {"id": model.id, "object": "model", "created": 0, "owned_by": "loopback"} for model in catalogue.MODELS.values()
    ]
    return {"object": "list", "data": found}


def error_reply(refused: wire.Refused, headers: dict[str, str]) -> wire.Reply:
    """The error as OpenAI-compatible servers send it; an overload is 503 there."""
    poor = "credit balance" in refused.message or refused.code
    kind = "insufficient_quota" if poor else KINDS.get(refused.status, "invalid_request_error")
    code = "insufficient_quota" if poor else CODES.get(refused.status)
    status = {529: 503, 402: 429}.get(refused.status, 429 if poor else refused.status)
    found = {**headers, **({"retry-after": str(refused.wait_s)} if refused.wait_s else {})}
    error = {"message": refused.message, "type": kind, "param": None, "code": code}
    return wire.json_reply({"error": error}, found, status)
