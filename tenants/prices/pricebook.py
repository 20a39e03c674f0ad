"""A price book as a file: JSON, dollars per million tokens as exact decimal strings. Importing twice is once."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from django.db import transaction
from django.utils.dateparse import parse_datetime
from django.utils.translation import gettext as _

from tenants import money, prices
from tenants.models import Price, User
from tenants.problems import Refused

AMOUNTS = {
    "input": "input_nano_per_mtok",
    "output": "output_nano_per_mtok",
    "cached": "cached_nano_per_mtok",
    "batch_input": "batch_input_nano_per_mtok",
    "batch_output": "batch_output_nano_per_mtok",
}
REST = ("kind", "valid_from", "valid_until", "historical", "basis")


class BadFile(Refused):
    """The file cannot be read, or one of its lines is no price; the sentence names the line's number and model."""


@dataclass
class Outcome:
    """How many versions were made, changed and there already."""

    made: int = 0
    changed: int = 0
    same: int = 0
    models: set[str] = field(default_factory=set)


@transaction.atomic
def load(path: Path, actor: User | None = None) -> Outcome:
    """Brings the price book to what the file says, all of it or nothing; raises BadFile."""
    try:
        lines = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise BadFile(_("%(path)s is no price book: %(error)s") % {"path": path, "error": error}) from error
    if not isinstance(lines, list):
        raise BadFile(_("%(path)s is no price book: it is no list of prices.") % {"path": path})
    outcome = Outcome()
    for number, line in enumerate(lines, 1):
        try:
            _put(_read(line), actor, outcome)
        except Refused as error:
            model = line.get("model", "") if isinstance(line, dict) else ""
            words = {"path": path, "number": number, "model": model, "error": error}
            raise BadFile(_("%(path)s, price %(number)s (%(model)s): %(error)s") % words) from error
    return outcome


def _put(wanted: dict[str, Any], actor: User | None, outcome: Outcome) -> None:
    model, since = wanted["model"], wanted["valid_from"]
    outcome.models.add(model)
    found = Price.objects.filter(model=model, valid_from=since).first()
    if found is None:
        prices.set_(actor=actor, **wanted)
        outcome.made += 1
    elif _says(found, wanted):
        outcome.same += 1
    else:
        prices.change(found, actor, **wanted)
        outcome.changed += 1


def _says(price: Price, wanted: dict[str, Any]) -> bool:
    """A version that a later one has ended since still says what the file says."""
    open_ended = wanted["valid_until"] is None
    return all(getattr(price, name) == wanted[name] for name in wanted if name != "valid_until" or not open_ended)


def _read(line: Any) -> dict[str, Any]:
    if not isinstance(line, dict) or not {"model", "input", "output", "valid_from"} <= set(line):
        raise BadFile(_("A price names at least model, input, output and valid_from."))
    if unknown := set(line) - {"model", *AMOUNTS, *REST}:
        raise BadFile(_("A price has no %(names)s.") % {"names": ", ".join(sorted(unknown))})
    amounts = {name: None if line.get(word) is None else money.nano(line[word]) for word, name in AMOUNTS.items()}
    return {
        "model": str(line["model"]),
        "kind": line.get("kind", Price.Kind.LIST),
        "historical": bool(line.get("historical", False)),
        "basis": line.get("basis") or {},
        "valid_from": _moment(line["valid_from"]),
        "valid_until": _moment(line["valid_until"]) if line.get("valid_until") else None,
        **amounts,
    }


def _moment(text: Any) -> datetime:
    try:
        moment = parse_datetime(text)
    except (TypeError, ValueError):
        moment = None
    if moment is None or moment.tzinfo is None:
        raise BadFile(_("An instant is written as 2026-01-01T00:00:00Z."))
    return moment
