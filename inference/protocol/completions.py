"""Text completions: https://platform.openai.com/docs/api-reference/completions. Pure."""

from __future__ import annotations

from typing import Any

from inference.protocol import fields
from inference.protocol.refusal import invalid
from inference.protocol.request import Operation, Request

MOST_PROMPTS = 64  # of one call
FORWARDED = fields.SAMPLING | fields.OPEN | fields.OPENABLE | {"prompt", "echo", "response_format"}
UNDERSTOOD = fields.COMMON | FORWARDED | {"max_tokens"}


def _text(choice: Any) -> str:
    text = choice["text"]
    return text if isinstance(text, str) else ""


def _delta(choice: Any) -> tuple[str, bool]:
    text = choice.get("text")
    return (text, True) if isinstance(text, str) and text else ("", False)


PROMPTED = ("prompt", "response_format", "structured_outputs")
COMPLETION = Operation("/v1/completions", "text_completion", PROMPTED, _text, _delta)


def parse(body: bytes) -> Request:
    """Reads a text completion request; raises Refusal 400 that names the place."""
    data = fields.read_json(body)
    fields.check_names(data, UNDERSTOOD)
    return Request(
        operation=COMPLETION,
        max_tokens=fields.max_tokens(data, "max_tokens"),
        prompts=count(data, "prompt", MOST_PROMPTS),
        **fields.common(data, body, FORWARDED),
    )


def count(data: dict[str, Any], name: str, most: int) -> int:
    """How many texts `name` has. Token ids are refused: no guardrail can read them."""
    given = data.get(name)
    texts = given if isinstance(given, list) else [given]
    if not texts or not all(isinstance(text, str) for text in texts):
        raise invalid(name, f"{name} must be text or a list of texts; token ids are not supported here.")
    if len(texts) > most:
        raise invalid(name, f"{name} may have {most} texts at most.")
    return len(texts)
