"""Rule checks: defects that need no model to be seen. They do not judge which of two good answers is better.

The rule: an answer wins only when it has a proper part of the other's defects; anything else is an abstention. The
score is the share of checks passed, times ten. Lower-casing follows Turkish ("I" -> "ı", "İ" -> "i").
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable

from training.judges import ABSTAIN, Opinion
from training.models import Choice, Source

VERSION = "rules-1"
TURKISH = set("çğıöşü")
TURKISH_WORDS = frozenset(
    re.findall(
        r"\w+",
        """ve bir bu için ile de da çok daha gibi ne olarak en mı mi mu mü olan var yok ama veya ya her sonra önce kadar
        nasıl neden ise size sizin bunu değil hem ki göre olur eder edin yapın""",
    )
)
ENGLISH_WORDS = frozenset(
    re.findall(
        r"\w+",
        """the and of to is in that it for you are with this be on as can your not from or an have please will do what
        how they there i""",
    )
)
REFUSALS = (
    "bilmiyorum", "bilemiyorum", "yardımcı olamam", "yardımcı olamıyorum", "yanıt veremem", "cevap veremem",
    "bilgim yok", "fikrim yok", "i cannot", "i can't", "i don't know", "as an ai",
)  # fmt: skip
STEM = 3  # letters that are compared: Turkish says the rest of a word with suffixes


def judge(prompt: str, a: str, b: str) -> Opinion:
    """Compares the defects of two answers."""
    in_a, in_b = defects(prompt, a), defects(prompt, b)
    choice = Choice.A if in_a < in_b else Choice.B if in_b < in_a else ABSTAIN
    rationale = f"A: {', '.join(sorted(in_a)) or 'ok'}; B: {', '.join(sorted(in_b)) or 'ok'}"
    return Opinion(Source.RULES, VERSION, choice, score(in_a), score(in_b), rationale=rationale)


def defects(prompt: str, answer: str) -> frozenset[str]:
    """The names of the checks that `answer` fails."""
    return frozenset(name for name, fails in CHECKS.items() if fails(prompt, answer))


def score(found: frozenset[str]) -> float:
    """The share of checks passed, from 0 to 10."""
    return round(10 * (1 - len(found) / len(CHECKS)), 2)


def fold(text: str) -> str:
    """Lower case the Turkish way."""
    return text.replace("I", "ı").replace("İ", "i").lower()


def words(text: str) -> list[str]:
    return re.findall(r"\w+", fold(text))


def _too_short(prompt: str, answer: str) -> bool:
    return len(words(answer)) < 4


def _repeats(prompt: str, answer: str) -> bool:
    said = words(answer)
    triples = Counter(zip(said, said[1:], said[2:], strict=False))
    most = max(triples.values(), default=0)
    one_word = max(Counter(said).values(), default=0) / max(1, len(said))
    return most >= 3 or bool(re.search(r"(\S)\1{5,}", answer)) or (len(said) >= 6 and one_word > 0.4)


def _not_turkish(prompt: str, answer: str) -> bool:
    said = words(answer)
    if len(said) < 3 or not _looks_turkish(prompt):
        return False
    turkish = sum(word in TURKISH_WORDS or bool(TURKISH & set(word)) for word in said)
    english = sum(word in ENGLISH_WORDS for word in re.findall(r"\w+", answer.lower()))
    return english > turkish


def _looks_turkish(prompt: str) -> bool:
    return any(word in TURKISH_WORDS or TURKISH & set(word) for word in words(prompt))


def _shouts(prompt: str, answer: str) -> bool:
    letters = [letter for letter in answer if letter.isalpha()]
    capitals = sum(letter.isupper() for letter in letters)
    return len(letters) >= 12 and capitals > 0.6 * len(letters)


def _off_topic(prompt: str, answer: str) -> bool:
    asked = {word[:STEM] for word in words(prompt) if len(word) >= STEM and word not in TURKISH_WORDS}
    return bool(asked) and not asked & {word[:STEM] for word in words(answer)}


def _refuses(prompt: str, answer: str) -> bool:
    folded = fold(answer)
    return any(phrase in folded for phrase in REFUSALS) or any(phrase in answer.lower() for phrase in REFUSALS)


def _copies(prompt: str, answer: str) -> bool:
    return words(answer) == words(prompt)


def _unfinished(prompt: str, answer: str) -> bool:
    return not answer.rstrip().endswith((".", "!", "?", "…", ":", ")", "”", '"', "`", "»"))


CHECKS: dict[str, Callable[[str, str], bool]] = {
    "too short": _too_short,
    "repeats itself": _repeats,
    "not Turkish": _not_turkish,
    "all capitals": _shouts,
    "off topic": _off_topic,
    "refuses": _refuses,
    "copies the prompt": _copies,
    "unfinished": _unfinished,
}
