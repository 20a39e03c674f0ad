"""Runs a policy over a request's messages. Pure. A validator that fails blocks: an unchecked prompt goes nowhere."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from inference.guardrails.policy import Policy

Message = dict[str, Any]


@dataclass(frozen=True)
class Finding:
    """What a rule found how often; never the text itself."""

    rule: str
    kind: str
    count: int


@dataclass(frozen=True)
class Outcome:
    """`messages` are what may go on to the engine; `rule` is the id of the rule that blocked, or empty."""

    allowed: bool
    messages: list[Message]
    rule: str = ""
    findings: list[Finding] = field(default_factory=list)


def check_input(policy: Policy, messages: list[Message]) -> Outcome:
    """Applies the rules in order; a redaction is seen by the rules after it. `messages` is left as it was."""
    findings: list[Finding] = []
    texts = list(_texts(messages))
    for rule in policy.rules:
        try:
            checked, found = rule.validator.check(texts)
        except Exception:  # fail closed, whatever a validator stumbled over
            return Outcome(False, messages, rule.id, [*findings, Finding(rule.id, "validator_failed", 1)])
        findings += [Finding(rule.id, kind, count) for kind, count in found.items()]
        if found and rule.action == "block":
            return Outcome(False, messages, rule.id, findings)
        texts = checked
    return Outcome(True, _with_texts(messages, iter(texts)), "", findings)


def _texts(messages: list[Message]) -> Iterator[str]:
    for message in messages:
        content = message.get("content")
        if isinstance(content, str):
            yield content
        elif isinstance(content, list):
            yield from (part["text"] for part in content)


def _with_texts(messages: list[Message], texts: Iterator[str]) -> list[Message]:
    result = []
    for message in messages:
        content = message.get("content")
        if isinstance(content, str):
            content = next(texts)
        elif isinstance(content, list):
            content = [part | {"text": next(texts)} for part in content]
        result.append(message | {"content": content})
    return result
