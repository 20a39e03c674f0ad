"""What the server says: short Turkish answers, and verdicts that fit the schema that was asked for.

Which judgement is asked is read from the schema (`winner`, `ranking` or `score` among its properties), else from the
JSON object of the last user turn; everything else is an answer. What an answer is worth is left to `truth`.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

import orjson

from training.loopback import limits, tokens, truth
from training.loopback.options import Options

ASPECTS = ("correct", "helpful", "language")  # where no schema names others
OPENINGS = ("Elbette.", "Tabii ki.", "Kısaca anlatayım.", "Sorunuz için teşekkürler.", "Şöyle yapabilirsiniz.")
SENTENCES = (
    "Önce hesabınıza giriş yapıp ayarlar sayfasını açın.",
    "İşlem genellikle birkaç dakika içinde tamamlanır.",
    "Değişikliği kaydettikten sonra sayfayı yenilemeniz yeterlidir.",
    "Sorun sürerse destek ekibimize sipariş numaranızla yazabilirsiniz.",
    "Bu adımları sırayla izlerseniz hiçbir veriniz kaybolmaz.",
    "İade süresi teslim tarihinden itibaren on dört gündür.",
    "Faturanızı e-posta kutunuzda ya da hesap sayfanızda bulabilirsiniz.",
    "Güncel ücretler için tarife sayfasına bakmanızı öneririm.",
)
REASONS = ("Daha eksiksiz ve açık.", "Soruya doğrudan yanıt veriyor.", "Dili daha doğal.", "Daha az hata içeriyor.")
UNREADABLE = "Bence ilk yanıt biraz daha iyi, ama ikisi de kabul edilebilir."
SHAPES = (("pairwise", {"winner"}, {"first", "second"}), ("listwise", {"ranking"}, {"answers"}),
          ("single", {"score"}, {"answer"}))  # fmt: skip


@dataclass(frozen=True)
class Question:
    """`kind`: answer, pairwise, listwise, single or json (another schema). `shown` is the last turn's JSON object."""

    kind: str
    system: str
    schema: dict[str, Any]
    shown: dict[str, Any]


def question(body: dict[str, Any]) -> Question:
    """What a checked request asks."""
    schema = ((body.get("output_config") or {}).get("format") or {}).get("schema") or {}
    shown = _object(_text(body["messages"][-1]["content"]))
    return Question(_kind(schema, shown), _text(body.get("system") or ""), schema, shown)


def _kind(schema: dict[str, Any], shown: dict[str, Any]) -> str:
    names = schema.get("properties") or {}
    for kind, asked, given in SHAPES:
        if "prompt" in shown and given <= shown.keys() and (asked <= names.keys() or not schema):
            return kind
    return "json" if schema else "answer"


def _text(content: str | list[dict[str, Any]]) -> str:
    return "\n".join(part["text"] for part in tokens.parts(content) if part.get("type") == "text")


def _object(text: str) -> dict[str, Any]:
    if not text.lstrip().startswith("{"):
        return {}
    try:
        value = orjson.loads(text.encode("utf-8", "replace"))
    except orjson.JSONDecodeError:
        return {}
    return value if isinstance(value, dict) else {}


def said(asked: Question, body: dict[str, Any], options: Options, die: random.Random) -> str:
    """The text of the reply. Verdicts use up `die`; an answer follows from seed, system prompt and conversation."""
    if asked.kind == "answer":
        return answer(options.seed, asked.system, "\0".join(_text(turn["content"]) for turn in body["messages"]))
    verdict = JUDGES[asked.kind](asked, options, die)
    return orjson.dumps(verdict).decode()


def answer(seed: int, system: str, conversation: str) -> str:
    """Two to six sentences and the mark that the truth is planted by."""
    die = limits.dice(seed, "answer", system, conversation)
    middle = die.sample(SENTENCES, die.randint(1, 5))
    return " ".join([die.choice(OPENINGS), *middle, f"({truth.mark(seed, system, conversation)})"])


def pairwise(asked: Question, options: Options, die: random.Random) -> dict[str, Any]:
    places = ("first", "second")
    u1, u2 = (truth.quality(options.seed, str(asked.shown[place])) for place in places)
    first = options.always_first or truth.first_wins(u1, u2, die)
    scores = {place: _aspects(asked.schema, place, u, die) for place, u in zip(places, (u1, u2), strict=True)}
    return {**scores, "winner": places[0] if first else places[1], "reason": die.choice(REASONS)}


def listwise(asked: Question, options: Options, die: random.Random) -> dict[str, Any]:
    answers = asked.shown["answers"]
    us = [truth.quality(options.seed, str(text)) for text in answers.values()]
    order = range(len(us)) if options.always_first else truth.ranking(us, die)
    labels = list(answers)
    verdict: dict[str, Any] = {"ranking": [labels[place] for place in order], "reason": die.choice(REASONS)}
    if "scores" in (asked.schema.get("properties") or {}):
        scores = _resolved(asked.schema, asked.schema["properties"]["scores"])
        named = {"properties": scores.get("properties") or {}, "$defs": asked.schema.get("$defs") or {}}
        verdict["scores"] = {label: _aspects(named, label, u, die) for label, u in zip(labels, us, strict=True)}
    return verdict


def single(asked: Question, options: Options, die: random.Random) -> dict[str, Any]:
    u = truth.quality(options.seed, str(asked.shown["answer"]))
    return {"score": 5 if options.always_first else truth.score(u, die), "reason": die.choice(REASONS)}


def _aspects(schema: dict[str, Any], place: str, u: float, die: random.Random) -> dict[str, int]:
    node = _resolved(schema, (schema.get("properties") or {}).get(place) or {})
    return {aspect: truth.score(u, die) for aspect in node.get("properties") or ASPECTS}


def _resolved(root: dict[str, Any], node: dict[str, Any]) -> dict[str, Any]:
    """`node`, or what its `$ref` names under `$defs`."""
    if "$ref" in node:
        found: dict[str, Any] = root["$defs"][node["$ref"].rpartition("/")[2]]
        return found
    return node


def filled(asked: Question, options: Options, die: random.Random) -> Any:
    """Something that fits any other schema."""
    return _fill(asked.schema, asked.schema, die)


def _fill(root: dict[str, Any], node: dict[str, Any], die: random.Random) -> Any:
    node = _resolved(root, node)
    if "const" in node:
        return node["const"]
    if "enum" in node:
        return die.choice(node["enum"])
    if choices := node.get("anyOf") or node.get("oneOf"):
        return _fill(root, choices[0], die)
    kind = node.get("type", "object")
    if kind == "object":
        return {name: _fill(root, child, die) for name, child in (node.get("properties") or {}).items()}
    if kind == "array":
        return [_fill(root, node.get("items") or {"type": "string"}, die) for _ in range(2)]
    simple = {"integer": die.randint(1, 5), "number": 0.5, "boolean": True, "null": None, "string": die.choice(REASONS)}
    return simple[kind if isinstance(kind, str) else kind[0]]


JUDGES = {"pairwise": pairwise, "listwise": listwise, "single": single, "json": filled}
