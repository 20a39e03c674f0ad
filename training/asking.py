"""One request to a model, and what came of it. Pure: whoever sends it is not this module's business.

The rule: everything that changes an answer is in the request, and so in its key; two requests with one key are one
request, and what is stored under a key is never asked, and so never paid for, again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

ANSWER, VERDICT = "answer", "verdict"  # purposes
CUT, REFUSED = "max_tokens", "refusal"  # stop reasons after which there is no usable text


@dataclass(frozen=True, slots=True)
class Ask:
    """A request to `model` of `provider` ("claude", or an endpoint's name).

    `place` tells requests apart that would be the same by their words: the number of an answer, the order and the vote
    of a verdict, and the run's seed, with which somebody asks for fresh ones.
    """

    purpose: str
    provider: str
    model: str
    system: str
    messages: Sequence[Mapping[str, Any]]
    max_tokens: int
    effort: str = "low"
    schema: Mapping[str, Any] | None = None
    place: tuple[str | int, ...] = ()

    def body(self) -> dict[str, Any]:
        """The parameters of the Messages API (https://platform.claude.com/docs/en/api/messages)."""
        config: dict[str, Any] = {"effort": self.effort}
        if self.schema is not None:
            config["format"] = {"type": "json_schema", "schema": self.schema}
        return {
            "model": self.model,
            "max_tokens": self.max_tokens,
            "system": self.system,
            "messages": list(self.messages),
            "output_config": config,
        }

    @property
    def digest(self) -> str:
        """SHA-256, hex, of the request's words."""
        return _sha256([self.provider, self.body()])

    @property
    def key(self) -> str:
        """SHA-256, hex, of all that tells this request from another."""
        return _sha256([self.purpose, self.provider, self.body(), list(self.place)])

    @property
    def bytes(self) -> int:
        """Of the request in UTF-8; no tokenizer makes more tokens of it."""
        return len(_canonical(self.body()))


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back, and was billed. `text` is empty where the model refused. `call` names it in the run's books."""

    text: str
    stop_reason: str = "end_turn"
    model: str = ""
    request_id: str = ""
    usage: Mapping[str, int] = field(default_factory=dict)
    cost_nano: int = 0
    call: str = ""
    api_version: str = ""

    @property
    def usable(self) -> bool:
        return bool(self.text) and self.stop_reason not in {CUT, REFUSED}


Asker = Callable[[Ask], Awaitable[Reply]]


def _canonical(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=True, sort_keys=True, separators=(",", ":")).encode()


def _sha256(value: Any) -> str:
    return hashlib.sha256(_canonical(value)).hexdigest()
