"""Prompt length: all texts of one request together, in Unicode code points. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Length:
    max_characters: int

    def check(self, texts: list[str]) -> tuple[list[str], dict[str, int]]:
        total = sum(map(len, texts))
        return texts, {"characters": total} if total > self.max_characters else {}


def build(options: dict[str, Any]) -> Length:
    """From the rule's own keys: `max_characters`, a positive integer. Raises ValueError."""
    limit = options.get("max_characters")
    if set(options) != {"max_characters"} or type(limit) is not int or limit <= 0:
        raise ValueError("a length rule has one more key, max_characters, a positive integer.")
    return Length(limit)
