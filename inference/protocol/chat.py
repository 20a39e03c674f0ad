"""Chat completions: https://platform.openai.com/docs/api-reference/chat. Pure."""

from __future__ import annotations

import re
from typing import Any

import orjson

from inference.protocol import fields
from inference.protocol.refusal import invalid
from inference.protocol.request import Operation, Request

ROLES = frozenset(("system", "developer", "user", "assistant", "tool"))
FORWARDED = (fields.SAMPLING | fields.OPEN | fields.OPENABLE) | {
    "top_logprobs",
    "response_format",
    "tools",
    "tool_choice",
    "parallel_tool_calls",
    "reasoning_effort",
}
UNDERSTOOD = fields.COMMON | FORWARDED | {"messages", "max_tokens", "max_completion_tokens", "modalities"}
MESSAGE_KEYS = frozenset(("role", "content", "name", "tool_calls", "tool_call_id", "reasoning_content", "refusal"))
CALL_ID = re.compile(r"[A-Za-z0-9_.:-]{1,64}")  # guardrails leave ids alone, so nothing else may be in one


def content_of(message: Any) -> str:
    """The text of an answer's message or of a stream's delta."""
    content = message.get("content") if isinstance(message, dict) else None
    return content if isinstance(content, str) else ""


def _text(choice: Any) -> str:
    return content_of(choice["message"])


def _delta(choice: Any) -> tuple[str, bool]:
    delta = choice.get("delta") or {}
    if text := content_of(delta):
        return text, True
    return "", bool(delta.get("tool_calls") or delta.get("reasoning_content"))


PROMPTED = ("tools", "tool_choice", "response_format", "structured_outputs", "chat_template_kwargs")
CHAT = Operation("/v1/chat/completions", "chat", PROMPTED, _text, _delta)


def parse(body: bytes) -> Request:
    """Reads a chat completion request; raises Refusal 400 that names the place."""
    data = fields.read_json(body)
    fields.check_names(data, UNDERSTOOD)
    if data.get("modalities") not in (None, ["text"]):
        raise invalid("modalities", 'modalities can only be ["text"] here.')
    return Request(
        operation=CHAT,
        messages=_messages(data.get("messages")),
        max_tokens=fields.max_tokens(data, "max_completion_tokens", "max_tokens"),
        **fields.common(data, body, FORWARDED),
    )


def _messages(messages: Any) -> list[dict[str, Any]]:
    if not isinstance(messages, list) or not messages:
        raise invalid("messages", "messages must be a list with at least one message.")
    return [_message(message, f"messages[{place}]") for place, message in enumerate(messages)]


def _message(message: Any, place: str) -> dict[str, Any]:
    """The message without its nulls: clients send answers back with every key that a library knows."""
    role = message.get("role") if isinstance(message, dict) else None
    if not isinstance(role, str) or role not in ROLES:
        raise invalid(place, f"{place} needs a role: {', '.join(sorted(ROLES))}.")
    kept = {name: value for name, value in message.items() if value is not None or name == "content"}
    for name, value in kept.items():
        if name not in MESSAGE_KEYS:
            raise invalid(f"{place}.{name[:80]}", f"{place}.{name[:80]} is not supported here. Remove it.")
        if name == "content" and not _is_text(value):
            raise invalid(f"{place}.content", f"{place}.content must be text or text parts.")
        if name == "tool_call_id" and not _is_id(value):
            raise invalid(f"{place}.{name}", f"{place}.{name} must be 1 to 64 ASCII letters, digits or any of _.:-")
        if name in ("name", "reasoning_content", "refusal") and not isinstance(value, str):
            raise invalid(f"{place}.{name}", f"{place}.{name} must be text.")
    if "tool_calls" in kept:
        _check_tool_calls(kept["tool_calls"], f"{place}.tool_calls")
    return kept


def _check_tool_calls(calls: Any, place: str) -> None:
    if not isinstance(calls, list) or not all(_is_tool_call(call) for call in calls):
        raise invalid(place, f"{place} must be a list of {{id, type: function, function: {{name, arguments}}}}.")
    for call in calls:
        try:
            arguments = orjson.loads(call["function"]["arguments"])
        except orjson.JSONDecodeError:  # a model wrote it; it goes back as the text that it is
            continue
        fields.check_depth(arguments, place)


def _is_tool_call(call: Any) -> bool:
    if not isinstance(call, dict) or call.keys() - {"index"} != {"id", "type", "function"}:
        return False
    function = call["function"]
    return (
        _is_id(call["id"])
        and call["type"] == "function"
        and type(call.get("index", 0)) is int
        and isinstance(function, dict)
        and function.keys() == {"name", "arguments"}
        and all(isinstance(value, str) for value in function.values())
    )


def _is_id(value: Any) -> bool:
    return isinstance(value, str) and CALL_ID.fullmatch(value) is not None


def _is_text(content: Any) -> bool:
    if isinstance(content, list):
        return all(
            isinstance(part, dict)
            and part.keys() == {"type", "text"}
            and part["type"] == "text"
            and isinstance(part["text"], str)
            for part in content
        )
    return content is None or isinstance(content, str)
