"""What callers saw against the ledger's rows. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass

from benchmarks.ledger_parts import cast
from tenants import metering

GATEWAY = "gateway"  # the source of a row that is a call; any other source corrects one


@dataclass(frozen=True, slots=True)
class Told:
    """`delivered`: the answer came whole and said so many tokens; `left`: a stream of which the end was not seen."""

    end: str
    request_id: str
    key: str
    inputs: int
    outputs: int


@dataclass(frozen=True, slots=True)
class Row:
    request_id: str
    source: str
    status: str
    key: str
    inputs: int
    outputs: int
    cost_nano: int


def read(lines: Iterable[str]) -> list[Told]:
    """As `callers` writes them; a last line that was cut off is none."""
    fields = [line.rstrip("\n").split("\t") for line in lines if line.endswith("\n")]
    return [Told(end, request_id, key, int(ins), int(outs)) for end, request_id, key, ins, outs in fields]


def mismatches(told: Iterable[Told], rows: Iterable[Row], pending: Collection[str] = ()) -> list[str]:
    """One sentence for everything that does not hold.

    An answer that was delivered has one settled row; with its corrections it says the key, the tokens and the cost by
    the price book that the caller was told. A stream that was left has one row, or is `pending`: its hold has not
    lapsed. No call has two rows, no two answers one id.
    """
    by_call: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        by_call[row.request_id].append(row)
    found = [f"{id_}: {count} rows" for id_, all_ in by_call.items() if (count := _calls(all_)) > 1]
    seen: set[str] = set()
    for one in told:
        if one.request_id in seen:
            found.append(f"{one.request_id}: two answers have this id")
        seen.add(one.request_id)
        found += _wrong(one, by_call.get(one.request_id, []), pending)
    return found


def _calls(rows: Iterable[Row]) -> int:
    return sum(row.source == GATEWAY for row in rows)


def _wrong(told: Told, rows: list[Row], pending: Collection[str]) -> Iterator[str]:
    call = next((row for row in rows if row.source == GATEWAY), None)
    if call is None:
        if told.end == "delivered" or told.request_id not in pending:
            yield f"{told.request_id}: {told.end}, no row"
    elif told.end == "delivered":
        if call.status != "settled":
            yield f"{told.request_id}: delivered, but {call.status}"
        if call.key != told.key:
            yield f"{told.request_id}: the row is of the key {call.key}, the call was of {told.key}"
        cost = metering.cost(told.inputs, told.outputs, cast.INPUT, cast.OUTPUT)
        says = sum(row.inputs for row in rows), sum(row.outputs for row in rows), sum(row.cost_nano for row in rows)
        if says != (told.inputs, told.outputs, cost):
            yield f"{told.request_id}: the ledger says {says}, the caller saw {(told.inputs, told.outputs, cost)}"
