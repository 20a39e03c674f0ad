"""What the body of a request to the embedded engine may say, checked; what it may not is refused in vLLM's words."""

from __future__ import annotations

import math
from typing import Any

import orjson
from starlette.requests import Request as HTTPRequest

from inference.engines.answers import Refused

MOST_PROMPTS = 64  # of one request, as the gateway lets through
MOST_LOGPROBS = 20  # alternatives of a token


def bad(message: str) -> Refused:
    return Refused(400, "BadRequestError", message)


async def read(http: HTTPRequest) -> dict[str, Any]:
    try:
        body = orjson.loads(await http.body())
    except orjson.JSONDecodeError as error:
        raise bad(f"The body is not JSON: {error}.") from error
    if not isinstance(body, dict):
        raise bad("The body must be a JSON object.")
    return body


def text_of(body: dict[str, Any], name: str) -> str:
    if not isinstance(body.get(name), str) or not body[name]:
        raise bad(f"'{name}' must be a text.")
    return str(body[name])


def number(body: dict[str, Any], name: str, default: float, low: float = -math.inf, high: float = math.inf) -> float:
    value = body.get(name)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise bad(f"'{name}' must be a number.")
    if not low <= value <= high:
        raise bad(f"'{name}' must lie between {low:g} and {high:g}; it is {value}.")
    return value


def stops(body: dict[str, Any]) -> list[str]:
    stop = body.get("stop") or []
    found = [stop] if isinstance(stop, str) else stop
    if not isinstance(found, list) or not all(isinstance(text, str) and text for text in found):
        raise bad("'stop' must be a text or a list of texts.")
    return found


def messages(body: dict[str, Any]) -> list[dict[str, str]]:
    """Role and text of each message; text parts are joined."""
    given = body.get("messages")
    if not isinstance(given, list) or not given or not all(isinstance(one, dict) for one in given):
        raise bad("'messages' must be a list with at least one message.")
    return [{"role": str(message.get("role", "user")), "content": _content(message)} for message in given]


def _content(message: dict[str, Any]) -> str:
    content = message.get("content") or ""
    if isinstance(content, list):
        return "".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
    return str(content)


def prompts(body: dict[str, Any], vocabulary: int) -> list[str | list[int]]:
    """What is to be completed: texts, or tokens by their ids, of which there are so many."""
    if body.get("echo"):
        raise bad("'echo' is not supported by this engine.")
    given = body.get("prompt")
    found: list[Any] = given if isinstance(given, list) and not _are_ids(given, vocabulary) else [given]
    if not 0 < len(found) <= MOST_PROMPTS or not all(
        one and (isinstance(one, str) or _are_ids(one, vocabulary)) for one in found
    ):
        raise bad(f"'prompt' must be a text, the ids of tokens, or a list of 1 to {MOST_PROMPTS} of either.")
    return found


def _are_ids(given: Any, vocabulary: int) -> bool:
    return isinstance(given, list) and all(type(one) is int and 0 <= one < vocabulary for one in given) and bool(given)


def chat_logprobs(body: dict[str, Any]) -> int | None:
    """How many alternatives of each token are wanted; None for no log-probabilities at all."""
    most = int(number(body, "top_logprobs", 0, 0, MOST_LOGPROBS))
    if most and not body.get("logprobs"):
        raise bad("'top_logprobs' needs 'logprobs' to be true.")
    return most if body.get("logprobs") else None


def logprobs(body: dict[str, Any]) -> int | None:
    """The same of a completion, which has one field for both."""
    return None if body.get("logprobs") is None else int(number(body, "logprobs", 0, 0, MOST_LOGPROBS))
