"""A request that was understood, of whichever kind, and what the engine gets of it. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import orjson

END_USER = 64  # characters of the caller's name of its user that the ledger keeps


@dataclass(frozen=True, slots=True)
class Operation:
    """A kind of request. `name` is OpenTelemetry's gen_ai.operation.name, `prompted` the options that the model reads.

    `text` is what a choice of a whole answer says, `delta` what one of a stream's chunk adds: the text, and whether
    it stands for a token at all.
    """

    path: str
    name: str
    prompted: tuple[str, ...]
    text: Callable[[Any], str]
    delta: Callable[[Any], tuple[str, bool]]
    answers: bool = True  # it produces tokens


@dataclass(slots=True, eq=False)
class Request:
    """`digest` is the SHA-256 of the body's bytes, `size` their number; `n` answers to each of `prompts` prompts.

    Nobody changes one; it is not `frozen` for the reason that `metering.Event` is not.
    """

    operation: Operation
    model: str
    options: dict[str, Any]
    digest: str
    size: int
    messages: list[dict[str, Any]] = field(default_factory=list)
    stream: bool = False
    include_usage: bool = False
    max_tokens: int | None = None
    n: int = 1
    prompts: int = 1
    user: str = ""
    extras: frozenset[str] = frozenset()  # of the options, those that an operator must have opened

    @property
    def input_bound(self) -> int:
        """More tokens than the prompt can have: no token is shorter than a byte, and JSON outweighs chat templates."""
        return self.size + 64 * self.prompts

    @property
    def answers(self) -> int:
        """How many answers come back."""
        return self.n * self.prompts if self.operation.answers else 0

    @property
    def end_user(self) -> str:
        """`user` as the ledger keeps it: a long or unprintable name as its SHA-256."""
        if len(self.user) <= END_USER and self.user.isprintable():
            return self.user
        return hashlib.sha256(self.user.encode()).hexdigest()

    @property
    def prompted(self) -> dict[str, Any]:
        """What the model reads besides the messages."""
        return {name: self.options[name] for name in self.operation.prompted if name in self.options}

    def payload(
        self,
        served: str,
        messages: list[dict[str, Any]],
        max_tokens: int,
        prompted: dict[str, Any] | None = None,
        salt: str = "",
    ) -> bytes:
        """The body for the engine; `prompted` takes the place of the options of those names, `salt` parts the prefix
        caches of tenants. A stream always reports its usage, whether or not the caller asked.
        """
        body = {**self.options, **(prompted or {}), "model": served}
        if messages:
            body["messages"] = messages
        if self.operation.answers:
            body["max_tokens"] = max_tokens
            body["stream"] = self.stream
            if salt:
                body["cache_salt"] = salt
        if self.n > 1:
            body["n"] = self.n
        if self.stream:
            body["stream_options"] = {"include_usage": True, "continuous_usage_stats": True}
        return orjson.dumps(body)
