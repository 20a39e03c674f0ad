"""Runs a policy over all that a model reads of a request. Pure. A validator that fails blocks: an unchecked prompt goes
nowhere.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import orjson

from inference.guardrails.policy import Policy

Message = dict[str, Any]
Visit = Callable[[str], str]
# Keys of a message whose values a parsed request draws from a short list, or whose form it checks.
FIXED = frozenset(("role", "type", "id", "index", "tool_call_id"))


@dataclass(frozen=True)
class Finding:
    """What a rule found how often; never the text itself."""

    rule: str
    kind: str
    count: int


@dataclass(slots=True)  # one a call
class Outcome:
    """`messages` and `prompted` may go on to the engine; `rule` is the id of the rule that blocked, or empty."""

    allowed: bool
    messages: list[Message]
    rule: str = ""
    findings: list[Finding] = field(default_factory=list)
    prompted: dict[str, Any] = field(default_factory=dict)


def check_input(policy: Policy, messages: list[Message], prompted: dict[str, Any] | None = None) -> Outcome:
    """Applies the rules in order; a redaction is seen by the rules after it. What is given is left as it was.

    `messages` are those of a parsed request. `prompted` is any JSON that the model reads too, such as tools.
    """
    if not policy.rules:
        return Outcome(True, messages, prompted=prompted or {})
    findings: list[Finding] = []
    texts: list[str] = []

    def collect(text: str) -> str:
        texts.append(text)
        return text

    _walk(messages, prompted or {}, collect)
    for rule in policy.rules:
        try:
            checked, found = rule.validator.check(texts)
        except Exception:  # fail closed, whatever a validator stumbled over
            return Outcome(False, messages, rule.id, [*findings, Finding(rule.id, "validator_failed", 1)])
        findings += [Finding(rule.id, kind, count) for kind, count in found.items()]
        if found and rule.action == "block":
            return Outcome(False, messages, rule.id, findings)
        texts = checked
    remaining = iter(texts)
    messages, prompted = _walk(messages, prompted or {}, lambda text: next(remaining))
    return Outcome(True, messages, "", findings, prompted)


def _walk(messages: list[Message], prompted: dict[str, Any], visit: Visit) -> tuple[list[Message], dict[str, Any]]:
    """Both with every text as `visit` answers it, always in the same order."""
    return [_message(message, visit) for message in messages], {
        name: _json(value, visit) for name, value in prompted.items()
    }


def _message(value: Any, visit: Visit) -> Any:
    """A message or a part of one. Its keys are known words; only values are texts."""
    if isinstance(value, str):
        return visit(value)
    if isinstance(value, list):
        return [_message(item, visit) for item in value]
    if isinstance(value, dict):
        return {key: _field(key, item, visit) for key, item in value.items()}
    return value


def _field(key: str, value: Any, visit: Visit) -> Any:
    if key in FIXED:
        return value
    return _arguments(value, visit) if key == "arguments" and isinstance(value, str) else _message(value, visit)


def _arguments(text: str, visit: Visit) -> str:
    r"""Arguments of a tool call are JSON in a string: looked at unescaped, or the n of \n would hide what follows."""
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError:
        return visit(text)
    return orjson.dumps(_json(value, visit)).decode()


def _json(value: Any, visit: Visit) -> Any:
    """Any JSON: keys are texts too, numbers are looked at as they are written, and nothing weighs no character."""
    if isinstance(value, str):
        return visit(value)
    if isinstance(value, list):
        visit("[")
        return [_json(item, visit) for item in value]
    if isinstance(value, dict):
        visit("{")
        return {visit(key): _json(item, visit) for key, item in value.items()}
    written = str(value)
    seen = visit(written)
    return value if seen == written else seen
