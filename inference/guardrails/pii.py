"""Personal data in Turkish text: identity number, IBAN, phone, e-mail, payment card. Pure.

A number counts only if its checksum holds, so that order numbers stay readable: TCKN by its two check digits,
IBAN by ISO 7064 mod 97-10, cards by Luhn (ISO/IEC 7812-1). Where a checksum decides, digits of any
script count as digits.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Check = Callable[[str], bool]


@dataclass(frozen=True)
class Kind:
    """What to look for; `valid` sees the match without separators. `[NAME]` takes its place."""

    name: str
    pattern: re.Pattern[str]
    valid: Check = lambda text: True


def tckn(digits: str) -> bool:
    """Whether 11 digits are a Turkish identity number (T.C. kimlik numarası)."""
    d = [int(digit) for digit in digits]
    if len(d) != 11 or d[0] == 0:
        return False
    return (7 * sum(d[0:9:2]) - sum(d[1:8:2])) % 10 == d[9] and sum(d[:10]) % 10 == d[10]


def iban(text: str) -> bool:
    """Whether `text`, without spaces, is a valid Turkish IBAN."""
    digits = "".join(str(int(digit)) for digit in text[2:])
    return len(digits) == 24 and int(f"{digits[2:]}2927{digits[:2]}") % 97 == 1  # T is 29, R is 27


def card(digits: str) -> bool:
    """Whether 13 to 19 digits can be a payment card: an issuer's first digit and a Luhn check digit."""
    total = 0
    for place, digit in enumerate(reversed(digits)):
        value = int(digit) * (2 if place % 2 else 1)
        total += value - 9 if value > 9 else value
    return total % 10 == 0 and int(digits[0]) in {2, 3, 4, 5, 6, 9}


# In this order: an IBAN holds digits that could pass for a card, a card some that could pass for a phone.
KINDS = (
    Kind("email", re.compile(r"(?<![\w.+%-])[\w.+%-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63}){1,8}")),
    Kind("iban", re.compile(r"(?<!\w)TR[ -]?\d{2}(?:[ -]?\d){22}(?!\d)", re.IGNORECASE), iban),
    Kind("card", re.compile(r"(?<![\d+])\d(?:[ -]?\d){12,18}(?!\d)"), card),
    Kind("tckn", re.compile(r"(?<![\d+])\d{3}[ -]?\d{3}[ -]?\d{3}[ -]?\d{2}(?!\d)"), tckn),
    Kind(
        "phone",  # mobile numbers with or without prefix, land lines with one
        re.compile(
            r"(?<![\d+])(?:(?:\+|00)?90[ .-]?|0[ .-]?)?\(?5\d{2}\)?[ .-]?\d{3}[ .-]?\d{2}[ .-]?\d{2}(?!\d)"
            r"|(?<![\d+])(?:(?:\+|00)90[ .-]?|0[ .-]?)\(?[2-4]\d{2}\)?[ .-]?\d{3}[ .-]?\d{2}[ .-]?\d{2}(?!\d)"
        ),
    ),
)
NAMES = tuple(kind.name for kind in KINDS)


@dataclass(frozen=True)
class Pii:
    kinds: tuple[Kind, ...]

    def check(self, texts: list[str]) -> tuple[list[str], dict[str, int]]:
        found: dict[str, int] = {}
        return [self._redact(text, found) for text in texts], found

    def _redact(self, text: str, found: dict[str, int]) -> str:
        for kind in self.kinds:
            text = kind.pattern.sub(lambda match, kind=kind: _placeholder(kind, match[0], found), text)  # type: ignore[misc]
        return text


def build(options: dict[str, Any]) -> Pii:
    """From the rule's own keys: `kinds`, some of NAMES (all when absent). Raises ValueError."""
    wanted = options.get("kinds", list(NAMES))
    understood = isinstance(wanted, list) and wanted and all(name in NAMES for name in wanted)
    if set(options) - {"kinds"} or not understood:
        raise ValueError(f"a pii rule has one more key, kinds, a list of some of {', '.join(NAMES)}.")
    return Pii(tuple(kind for kind in KINDS if kind.name in wanted))


def _placeholder(kind: Kind, match: str, found: dict[str, int]) -> str:
    if not kind.valid(re.sub(r"[ -]", "", match)):
        return match
    found[kind.name] = found.get(kind.name, 0) + 1
    return f"[{kind.name.upper()}]"
