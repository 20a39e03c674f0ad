"""What each entry of the stream becomes: a row, a correction of an estimate, nothing, or a case for a person.

An event is one row however often it comes. Where the ledger books something else than the counters assumed, the
difference is kept for them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from tenants.ledger import booking
from tenants.ledger.entries import Entry, Row
from tenants.models import APIKey, Price, Tenant

DELTAS = ("input_tokens", "cached_tokens", "output_tokens", "cost_nano")

# Booked, and not yet in the counters: [entry, tenant, month, nano-dollars, why it is put aside for a person or ""].
Unconfirmed = list[list[Any]]


class Names:
    """Tenants, keys and prices that exist. None of them goes once a row names it: what was seen once is known."""

    def __init__(self) -> None:
        self.tenants: set[str] = set()
        self._keys: dict[str, str] = {}
        self._prices = {0}

    def learn(self, rows: Iterable[Row]) -> None:
        """Looks up what `rows` name and nobody has asked for yet."""
        named = {(row["tenant"], row["key"], row["price"]) for row in rows}
        if any(tenant not in self.tenants for tenant, _, _ in named):
            self.tenants = {str(pk) for pk in Tenant.objects.values_list("pk", flat=True)}
        if strange := {key for _, key, _ in named if key and key not in self._keys}:
            found = APIKey.objects.filter(pk__in=strange).values_list("pk", "tenant")
            self._keys.update((key, str(tenant)) for key, tenant in found)
        if new := {price for _, _, price in named} - self._prices:
            self._prices.update(Price.objects.filter(pk__in=new).values_list("pk", flat=True))

    def fault(self, row: Row) -> str:
        """Why `row` cannot be booked, or nothing."""
        if row["tenant"] not in self.tenants:
            return "no such tenant"
        if row["key"] and self._keys.get(row["key"]) != row["tenant"]:
            return "no such key of this tenant"
        return "" if row["price"] in self._prices else "no such price"


class Book:
    """What a batch of entries becomes: rows with the id of what they correct, and how far the counters are off."""

    def __init__(self, batch: Sequence[Entry], names: Names, every: bool) -> None:
        """`every` call is looked up in the ledger, or only the late ones."""
        self.rows: list[tuple[Row, int | None]] = []
        self.differences: dict[tuple[str, str], int] = {}
        self.unconfirmed: Unconfirmed = []
        events = [entry.row for entry in batch if entry.row is not None]
        names.learn(events)
        self._calls: dict[tuple[str, str], Call] = {}
        asked = [entry.row["request_id"] for entry in batch if entry.row and (every or entry.late)]
        for call in booking.known(asked) if asked else ():
            self._calls.setdefault(call[:2], Call()).know(*call[2:])
        for entry in batch:
            self._take(entry, names)

    def _take(self, entry: Entry, names: Names) -> None:
        row = entry.row
        if row is None:
            if entry.proof is None and entry.id:
                self.unconfirmed.append([entry.id, "", "", 0, entry.wrong])
            return
        counted = 0 if entry.late else row["cost_nano"]
        if why := entry.wrong or names.fault(row):
            self._differ(entry, row, -counted if row["tenant"] in names.tenants else 0, why)
            return
        call = self._calls.get((row["request_id"], row["tenant"]))
        if call is None:
            self._calls[row["request_id"], row["tenant"]] = Call(final=True)
            self.rows.append((row, None))
            booked = row["cost_nano"]
        elif call.final or row["status"] == "estimated":
            booked = 0
        else:
            call.final = True
            correction = call.correction(row)
            self.rows.append((correction, call.row_id))
            booked = correction["cost_nano"]
        if booked != counted:
            self._differ(entry, row, booked - counted)

    def _differ(self, entry: Entry, row: Row, nano: int, why: str = "") -> None:
        month = row["day"][:4] + row["day"][5:7]
        if entry.id:
            self.unconfirmed.append([entry.id, row["tenant"], month, nano, why])
        if nano:
            key = (row["tenant"], month)
            self.differences[key] = self.differences.get(key, 0) + nano


@dataclass(slots=True)
class Call:
    """What the ledger has of a call. `final`: its outcome is booked, by a row or by a correction."""

    row_id: int | None = None
    amounts: tuple[int, ...] = ()
    final: bool = False

    def know(self, source: str, status: str, row_id: int, *amounts: int) -> None:
        if source == "gateway":
            self.row_id, self.amounts = row_id, amounts
        self.final = self.final or status != "estimated"

    def correction(self, row: Row) -> Row:
        """The row that makes of the estimate what `row` says."""
        deltas = {name: row[name] - before for name, before in zip(DELTAS, self.amounts, strict=True)}
        what = {"source": "adjustment", "status": "adjustment", "reason": "settled_after_lapse"}
        return row | deltas | what
