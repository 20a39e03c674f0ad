"""Entries of the usage stream, read: what the ledger writes of each, or why it cannot. Pure.

An entry holds a usage event, or what the proof read of the counters. This is the writer's hot path.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, fields
from datetime import UTC, date, datetime
from functools import lru_cache
from operator import gt, itemgetter
from typing import Any

import orjson

from tenants import metering

Row = dict[str, Any]  # a ledger row as its leaf is hashed

SIZES = {  # characters that the ledger's columns hold
    "request_id": 40,
    "tenant": 36,
    "key": 16,
    "status": 10,
    "model": 120,
    "served": 160,
    "adapter_digest": 64,
    "arm": 10,
    "end_user": 64,
    "request_digest": 64,
    "answer_digest": 64,
    "policy_digest": 64,
    "reason": 80,
    "base_digest": 64,
    "engine": 60,
    "engine_version": 60,
}
STATUSES = frozenset({"settled", "aborted", "blocked", "estimated"})
MOST_TOKENS, MOST_NANO = 2**31 - 1, 2**53 - 1
COUNTS = ("weight_bp", "input_tokens", "cached_tokens", "output_tokens", "latency_ms", "ttft_ms", "load_epoch")
# Columns that came after the first ledgers were signed: where they say nothing they are in no leaf, so that receipts of
# older rows still hold.
LATER = ("base_digest", "engine", "engine_version", "load_epoch")

_DEFAULTS = {field.name: field.default for field in fields(metering.Event) if field.default is not MISSING}
_NAMES = tuple(metering.FIELDS)
_KINDS = tuple(metering.FIELDS.values())
_values = itemgetter(*_NAMES)
_texts, _limits = itemgetter(*SIZES), tuple(SIZES.values())
_counts = itemgetter(*COUNTS)


@dataclass(slots=True)
class Entry:
    """One entry. `row` is what to book; without one, `wrong` says why there is none, or it is a proof.

    `late`: its cost is in no counter. `proof` is (nonce, JSON of what the counters were).
    """

    id: str
    row: Row | None = None
    late: bool = False
    wrong: str = ""
    proof: tuple[str, str] | None = None


def of(event: metering.Event) -> Entry:
    """An entry that is in no stream, for calls that were counted nowhere. Raises UnreadableEvent."""
    entry = read("", {"event": orjson.dumps(asdict(event)).decode(), "late": "1"})
    if entry.row is None:
        raise metering.UnreadableEvent(entry.wrong)
    return entry


def read(id_: str, told: Mapping[str, str]) -> Entry:
    """The entry `id_` of the stream with its fields; what cannot be booked has `wrong`."""
    if "proof" in told:
        return Entry(id_, proof=(told.get("nonce", ""), told["proof"]))
    try:
        return Entry(id_, _row(id_, told), "late" in told)
    except (ValueError, KeyError, TypeError, OverflowError) as error:
        return Entry(id_, wrong=f"not a usage event: {error!r}"[:300])


def leaf_bytes(row: Row) -> bytes:
    """The RFC 8785 bytes of a row, which is flat, with ASCII names and integers below 2^53: sorting is all it takes."""
    return orjson.dumps(signed(row), option=orjson.OPT_SORT_KEYS)


def signed(row: Row) -> Row:
    """The row as its leaf has it."""
    said = row.copy()
    for name in LATER:
        if not said.get(name):
            said.pop(name, None)
    return said


def moment(microseconds: int) -> str:
    """An instant as rows say it: UTC, with microseconds."""
    seconds, rest = divmod(microseconds, 1_000_000)
    return f"{_second(seconds)}.{rest:06d}Z"


def _row(id_: str, told: Mapping[str, str]) -> Row:
    row: Row = _DEFAULTS | orjson.loads(told["event"])
    if tuple(map(type, values := _values(row))) != _KINDS:
        name = next(n for n, value, kind in zip(_NAMES, values, _KINDS, strict=True) if type(value) is not kind)
        raise ValueError(f"{name} is of the wrong type")
    if len(row) != len(_NAMES):  # a newer gateway says more
        row = dict(zip(_NAMES, values, strict=True))
    _check(row)
    at_us = row.pop("at_us")
    row["occurred_at"] = moment(int(told.get("at", 0)) or at_us or int(id_.partition("-")[0] or 0) * 1_000)
    row["source"] = "gateway"
    return row


def _check(row: Row) -> None:
    """Raises ValueError for what no column would take."""
    texts, counts = _texts(row), _counts(row)
    if any(map(gt, map(len, texts), _limits)):
        raise ValueError(f"{next(n for n, most in SIZES.items() if len(row[n]) > most)} is too long")
    if row["status"] not in STATUSES:
        raise ValueError(f"{row['status']!r} is no status")
    if min(counts) < 0 or max(counts) > MOST_TOKENS:
        raise ValueError("a count is out of range")
    if not (0 <= row["cost_nano"] <= MOST_NANO and 0 <= row["price"] <= MOST_NANO):
        raise ValueError("an amount is out of range")
    if not row["request_id"] or "\0" in "".join(texts):
        raise ValueError("a text is empty or holds NUL")
    _day(row["day"])


@lru_cache(maxsize=64)
def _day(text: str) -> None:
    if date.fromisoformat(text).isoformat() != text:
        raise ValueError(f"{text!r} is no day")


@lru_cache(maxsize=4096)
def _second(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")
