"""The OpenAI wire format: what a chat request may say, how errors look, how streams are framed. Pure.

https://platform.openai.com/docs/api-reference/chat. What is not understood is refused, so that nothing reaches the
engine uncounted: an unknown field could ask for work that no hold covers.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import orjson

MAX_BODY = 1 << 20  # bytes
MOST_TOKENS = 1_000_000  # of one answer, whatever the model
MOST_REPORTED = 100_000_000  # tokens an engine may say it counted
MOST_ANSWERS = 8  # of one call (`n`)
END_USER = 64  # characters of the caller's name of its user that the ledger keeps
ROLES = frozenset({"system", "developer", "user", "assistant", "tool"})
# Passed on as they are. `user`, `metadata` and `store` stay here: the engine needs no name of a person.
FORWARDED = frozenset(
    ("temperature", "top_p", "top_k", "min_p", "stop", "seed", "presence_penalty", "frequency_penalty")
    + ("repetition_penalty", "logit_bias", "logprobs", "top_logprobs", "response_format")
    + ("tools", "tool_choice", "parallel_tool_calls")
)
PROMPTED = ("tools", "tool_choice", "response_format")  # of these, what the model gets to read
MESSAGE_KEYS = frozenset(("role", "content", "name", "tool_calls", "tool_call_id", "reasoning_content", "refusal"))
CALL_ID = re.compile(r"[A-Za-z0-9_.:-]{1,64}")  # guardrails leave ids alone, so nothing else may be in one
UNDERSTOOD = FORWARDED.union(
    ("model", "messages", "stream", "stream_options", "max_tokens", "max_completion_tokens", "n"),
    ("user", "metadata", "store"),
)
DONE = b"data: [DONE]\n\n"


class Refusal(Exception):
    """A call that ends with an error: HTTP status, stable code, a sentence that says what to do.

    `wait_us` is when it may be sent again, -1 if waiting does not help, 0 if nothing is known; `decision` is the token
    that explains it (`tenants.decisions`).
    """

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        param: str | None = None,
        retry_after: int = 0,
        *,
        wait_us: int = 0,
        decision: str = "",
    ) -> None:
        super().__init__(message)
        self.status, self.code, self.message, self.param = status, code, message, param
        self.wait_us, self.decision = wait_us or retry_after * 1_000_000, decision
        self.also: dict[str, str] = {}  # headers that any answer to this call would carry

    def body(self, request_id: str) -> dict[str, Any]:
        kind = KINDS.get(self.status, "invalid_request_error" if self.status < 500 else "server_error")
        if self.code == "insufficient_quota":
            kind = self.code
        error = {"message": self.message, "type": kind, "param": self.param, "code": self.code}
        told = {"request_id": request_id} | ({"decision_id": self.decision} if self.decision else {})
        return {"error": error | told}

    def headers(self) -> dict[str, str]:
        """What client libraries go by: RFC 9110's Retry-After and OpenAI's own two."""
        found = self.also | ({"x-paramstack-decision": self.decision} if self.decision else {})
        if self.wait_us < 0:
            found["x-should-retry"] = "false"
        elif self.wait_us:
            found["retry-after"] = str(-(-self.wait_us // 1_000_000))
            found["retry-after-ms"] = str(-(-self.wait_us // 1000))
        return found


KINDS = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """A request that was understood. `digest` is the SHA-256 of the body's bytes, `size` their number; `n` answers."""

    model: str
    messages: list[dict[str, Any]]
    stream: bool
    include_usage: bool
    max_tokens: int | None
    n: int
    user: str
    options: dict[str, Any]
    digest: str
    size: int

    @property
    def input_bound(self) -> int:
        """More tokens than the prompt can have: no token is shorter than a byte, and JSON outweighs chat templates."""
        return self.size + 64

    @property
    def end_user(self) -> str:
        """`user` as the ledger keeps it: a long or unprintable name as its SHA-256."""
        if len(self.user) <= END_USER and self.user.isprintable():
            return self.user
        return hashlib.sha256(self.user.encode()).hexdigest()

    @property
    def prompted(self) -> dict[str, Any]:
        """What the model reads besides the messages."""
        return {name: self.options[name] for name in PROMPTED if name in self.options}

    def payload(
        self, served: str, messages: list[dict[str, Any]], max_tokens: int, prompted: dict[str, Any] | None = None
    ) -> bytes:
        """The body for the engine; `prompted` takes the place of the options of those names. A stream always reports
        its usage, whether or not the caller asked.
        """
        body = self.options | (prompted or {})
        body |= {"model": served, "messages": messages, "max_tokens": max_tokens, "stream": self.stream}
        if self.n > 1:
            body["n"] = self.n
        if self.stream:
            body["stream_options"] = {"include_usage": True, "continuous_usage_stats": True}
        return orjson.dumps(body)


def parse_chat(body: bytes) -> ChatRequest:
    """Reads a chat completion request; raises Refusal 400 that names the place."""
    data = read_json(body)
    for name in data:
        if name not in UNDERSTOOD:
            raise _invalid(name, f"{name} is not supported here. Remove it from the request.")
        _check_depth(data[name], name)
    stream = _typed(data, "stream", bool, False)
    stream_options = _typed(data, "stream_options", dict, {})
    n = _typed(data, "n", int, 1)
    if not 1 <= n <= MOST_ANSWERS:
        raise _invalid("n", f"n, the number of answers, must be 1 to {MOST_ANSWERS}.")
    return ChatRequest(
        model=_typed(data, "model", str, ""),
        messages=_messages(data.get("messages")),
        stream=stream,
        include_usage=stream_options.get("include_usage") is True,
        max_tokens=_max_tokens(data),
        n=n,
        user=_typed(data, "user", str, ""),
        options={name: value for name, value in data.items() if name in FORWARDED and value is not None},
        digest=hashlib.sha256(body).hexdigest(),
        size=len(body),
    )


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


def content_of(message: Any) -> str:
    """The text of an answer's message or of a stream's delta."""
    content = message.get("content") if isinstance(message, dict) else None
    return content if isinstance(content, str) else ""


def usage_of(usage: Any) -> tuple[int, int, int] | None:
    """(input, output, cached input) tokens of an engine's report; None if it is none that can be believed."""
    if not isinstance(usage, dict):
        return None
    if type(usage.get("prompt_tokens")) is not int:
        return None  # a report without its counts would make an answer free
    details = usage.get("prompt_tokens_details")
    cached = details.get("cached_tokens") if isinstance(details, dict) else None
    found = (usage.get("prompt_tokens"), usage.get("completion_tokens"), cached)
    counts = [0 if count is None else count for count in found]
    if any(type(count) is not int or not 0 <= count <= MOST_REPORTED for count in counts):
        return None
    inputs, outputs, hit = counts
    return inputs, outputs, min(hit, inputs)


def frame(data: Any) -> bytes:
    """One server-sent event."""
    return b"data: " + orjson.dumps(data) + b"\n\n"


async def events(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The data of each server-sent event of a byte stream, whatever way the bytes were cut. Ends at [DONE]."""
    waiting = b""
    async for chunk in chunks:
        *lines, waiting = (waiting + chunk).split(b"\n")
        for line in lines:
            if line.startswith(b"data:"):
                data = line[5:].strip()
                if data == b"[DONE]":
                    return
                yield data


def _messages(messages: Any) -> list[dict[str, Any]]:
    if not isinstance(messages, list) or not messages:
        raise _invalid("messages", "messages must be a list with at least one message.")
    return [_message(message, f"messages[{place}]") for place, message in enumerate(messages)]


def _message(message: Any, place: str) -> dict[str, Any]:
    """The message without its nulls: clients send answers back with every key that a library knows."""
    role = message.get("role") if isinstance(message, dict) else None
    if not isinstance(role, str) or role not in ROLES:
        raise _invalid(place, f"{place} needs a role: {', '.join(sorted(ROLES))}.")
    kept = {name: value for name, value in message.items() if value is not None or name == "content"}
    for name, value in kept.items():
        if name not in MESSAGE_KEYS:
            raise _invalid(f"{place}.{name[:80]}", f"{place}.{name[:80]} is not supported here. Remove it.")
        if name == "content" and not _is_text(value):
            raise _invalid(f"{place}.content", f"{place}.content must be text or text parts.")
        if name == "tool_call_id" and not _is_id(value):
            raise _invalid(f"{place}.{name}", f"{place}.{name} must be 1 to 64 ASCII letters, digits or any of _.:-")
        if name in ("name", "reasoning_content", "refusal") and not isinstance(value, str):
            raise _invalid(f"{place}.{name}", f"{place}.{name} must be text.")
    _check_tool_calls(kept.get("tool_calls", []), f"{place}.tool_calls")
    return kept


def _check_tool_calls(calls: Any, place: str) -> None:
    if not isinstance(calls, list) or not all(_is_tool_call(call) for call in calls):
        raise _invalid(place, f"{place} must be a list of {{id, type: function, function: {{name, arguments}}}}.")
    for call in calls:
        try:
            arguments = orjson.loads(call["function"]["arguments"])
        except orjson.JSONDecodeError:  # a model wrote it; it goes back as the text that it is
            continue
        _check_depth(arguments, place)


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


def _check_depth(value: Any, place: str) -> None:
    """Refuses what can be read and not be written: orjson reads 1,024 levels and writes about 250."""
    try:
        orjson.dumps({place: value})
    except TypeError as error:
        raise _invalid(place, f"{place} is nested too deeply.") from error


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


def _max_tokens(data: dict[str, Any]) -> int | None:
    """The longest answer, by its older or its newer name. Two numbers are refused: the engine might take the other."""
    names = ("max_completion_tokens", "max_tokens")
    given: dict[str, int | None] = {name: _typed(data, name, int, None) for name in names}
    newer, older = given.values()
    for name, value in given.items():
        if value is not None and not 1 <= value <= MOST_TOKENS:
            raise _invalid(name, f"{name} must be 1 to {MOST_TOKENS}.")
    if newer is not None and older is not None and newer != older:
        raise _invalid("max_tokens", "max_tokens and max_completion_tokens differ. Send one of them.")
    return newer if newer is not None else older


def _typed(data: dict[str, Any], name: str, kind: type, default: Any) -> Any:
    value = data.get(name)
    if value is None:
        return default
    if type(value) is not kind:
        raise _invalid(name, f"{name} must be of type {kind.__name__}.")
    return value


def _invalid(param: str, message: str) -> Refusal:
    return Refusal(400, "invalid_request", message, param)
