"""A tenant's guardrail policy: YAML in, checked rules out. Pure.

    version: 1
    rules:
      - id: pii              # names the rule in refusals, the ledger and reports
        validator: pii       # one of VALIDATORS
        action: redact       # what happens on a finding: block or redact
        kinds: [tckn, iban]  # further keys are the validator's own

A policy that cannot be understood to the last key is refused: a rule with a typing mistake would protect nobody.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from inference.guardrails import document, length, pii

DEFAULT = Path(__file__).with_name("default.yaml")
ACTIONS = ("block", "redact")


class PolicyError(ValueError):
    """Why a policy is refused; `line` counts from 1."""

    def __init__(self, line: int, reason: str) -> None:
        super().__init__(f"Line {line}: {reason}")
        self.line, self.reason = line, reason


class Validator(Protocol):
    """Looks at the texts of one request. Answers the texts as they may go on, and how often it found what."""

    def check(self, texts: list[str]) -> tuple[list[str], dict[str, int]]: ...


VALIDATORS: Mapping[str, Callable[[dict[str, Any]], Validator]] = {"pii": pii.build, "length": length.build}


@dataclass(frozen=True)
class Rule:
    id: str
    action: str
    validator: Validator


@dataclass(frozen=True)
class Policy:
    """`digest` is the SHA-256 of the text in UTF-8; every ledger row names it."""

    rules: tuple[Rule, ...]
    digest: str


def parse(text: str) -> Policy:
    """The policy in `text`; raises PolicyError with the line."""
    try:
        found = document.read(text)
    except document.Unreadable as error:
        raise PolicyError(error.line, error.reason) from error
    rules = _rules(found)
    return Policy(tuple(rules), hashlib.sha256(text.encode()).hexdigest())


def _rules(found: Any) -> list[Rule]:
    if not isinstance(found, document.Mapping) or set(found) != {"version", "rules"} or found["version"] != 1:
        raise PolicyError(1, "a policy has exactly two keys: version: 1 and rules.")
    if not isinstance(found["rules"], list):
        raise PolicyError(found.line, "rules is a list.")
    rules: list[Rule] = []
    for entry in found["rules"]:
        rule = _rule(entry, found.line)
        if any(rule.id == other.id for other in rules):
            raise PolicyError(entry.line, f"the id {rule.id} is used twice.")
        rules.append(rule)
    return rules


def _rule(entry: Any, line: int) -> Rule:
    if not isinstance(entry, document.Mapping):
        raise PolicyError(line, "each rule is a mapping with id, validator and action.")
    options = dict(entry)
    rule_id, name, action = (options.pop(key, None) for key in ("id", "validator", "action"))
    if not isinstance(rule_id, str) or not 0 < len(rule_id) <= 60:
        raise PolicyError(entry.line, "each rule needs an id of 1 to 60 characters.")
    if not isinstance(name, str) or name not in VALIDATORS:
        raise PolicyError(entry.line, f"validator is one of {', '.join(VALIDATORS)}, not {name!r}.")
    if action not in ACTIONS:
        raise PolicyError(entry.line, f"action is one of {', '.join(ACTIONS)}, not {action!r}.")
    if name == "length" and action == "redact":
        raise PolicyError(entry.line, "a length rule can only block.")
    try:
        return Rule(rule_id, action, VALIDATORS[name](options))
    except ValueError as error:
        raise PolicyError(entry.line, f"{rule_id}: {error}") from error
