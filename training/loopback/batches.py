"""Message Batches: half price, answered together after a delay, results in any order.

The rule: a batch is processed when it is looked at after its time, so nothing runs beside the calls. As in the API, the
counts stay 0 until everything has ended, limits on calls do not apply, and a list does not show custom ids.
"""

from __future__ import annotations

import re
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import orjson

from training.loopback import asking, bill, catalogue, limits, wire
from training.loopback.engine import Engine

MOST = 100_000  # requests
MOST_BYTES = 256 * 1024 * 1024
LIFE = 24 * 3_600.0  # seconds until what is not done expires
CUSTOM_ID = re.compile(r"[a-zA-Z0-9_-]{1,64}")
ENDS = ("succeeded", "errored", "canceled", "expired")


@dataclass
class Batch:
    """Times are Unix times; `due` is when it will have been processed."""

    id: str
    requests: list[dict[str, Any]]
    created: float
    due: float
    cancelled: float = 0.0
    ended: float = 0.0
    results: list[dict[str, Any]] = field(default_factory=list)

    @property
    def status(self) -> str:
        return "ended" if self.ended else "canceling" if self.cancelled else "in_progress"

    def described(self, address: str) -> dict[str, Any]:
        """`MessageBatch` of the API; `address` is where the caller reaches the server."""
        counts = Counter(line["result"]["type"] for line in self.results)
        waiting = 0 if self.ended else len(self.requests)
        return {
            "id": self.id,
            "type": "message_batch",
            "processing_status": self.status,
            "request_counts": {"processing": waiting, **{end: counts[end] for end in ENDS}},
            "created_at": wire.instant(self.created),
            "expires_at": wire.instant(self.created + LIFE),
            "ended_at": wire.instant(self.ended) if self.ended else None,
            "cancel_initiated_at": wire.instant(self.cancelled) if self.cancelled else None,
            "archived_at": None,
            "results_url": f"{address}/v1/messages/batches/{self.id}/results" if self.ended else None,
        }


class Batches:
    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.kept: dict[str, Batch] = {}

    def create(self, body: dict[str, Any]) -> Batch:
        """Takes a batch. What is wrong with the params of one request shows in its result only. Raises Refused."""
        requests = _checked(body.get("requests"))
        self.engine.gate.admit()
        self.engine.affordable()
        now = time.time()
        batch = Batch(wire.new_id("msgbatch"), requests, now, now + self.engine.options.batch_delay_s)
        self.kept[batch.id] = batch
        return batch

    def find(self, name: str) -> Batch:
        """A batch as it is now. Raises Refused."""
        self.settle()
        if name not in self.kept:
            raise wire.missing(f"Message Batch {name} not found")
        return self.kept[name]

    def page(self, query: dict[str, str], address: str) -> dict[str, Any]:
        self.settle()
        return catalogue.page([one.described(address) for one in reversed(self.kept.values())], query)

    def cancel(self, name: str) -> Batch:
        """The next look finds it ended. Raises Refused when it already has."""
        batch = self.find(name)
        if batch.ended:
            raise wire.invalid(f"Batch {name} has already ended and cannot be canceled.")
        batch.cancelled = batch.cancelled or time.time()
        return batch

    def delete(self, name: str) -> dict[str, Any]:
        if not self.find(name).ended:
            raise wire.invalid(f"Batch {name} is still in progress: cancel it first.")
        del self.kept[name]
        return {"id": name, "type": "message_batch_deleted"}

    def results(self, name: str) -> bytes:
        """JSONL, in an order of its own. Raises Refused."""
        batch = self.find(name)
        if not batch.ended:
            raise wire.missing(f"Batch {name} has no results yet: it is {batch.status}.")
        shuffled = limits.dice(self.engine.options.seed, "order", len(batch.results))
        return b"".join(shuffled.sample([orjson.dumps(line) + b"\n" for line in batch.results], len(batch.results)))

    def settle(self) -> None:
        """Processes what is due."""
        now = time.time()
        for batch in self.kept.values():
            if not batch.ended and (batch.cancelled or batch.due <= now):
                batch.results = [
                    {"custom_id": one["custom_id"], "result": self._result(batch, one)} for one in batch.requests
                ]
                batch.ended = time.time()

    def _result(self, batch: Batch, request: dict[str, Any]) -> dict[str, Any]:
        if batch.cancelled:
            return {"type": "canceled"}
        fingerprint = bill.fingerprint(request["params"])
        die = self.engine.dice(fingerprint)
        if die.random() < self.engine.options.batch_expired:
            return {"type": "expired"}
        try:
            message = self._message(batch, request, fingerprint, die.random() < self.engine.options.server_error)
        except wire.Refused as refused:
            return {"type": "errored", "error": wire.error_body(refused, None)}
        return {"type": "succeeded", "message": message}

    def _message(self, batch: Batch, request: dict[str, Any], fingerprint: str, fails: bool) -> dict[str, Any]:
        body, engine = request["params"], self.engine
        model = asking.check(body, engine.options)
        engine.affordable()
        if fails:
            raise wire.Refused(500, "api_error", "Internal server error")
        message, usage = engine.message(body, model, fingerprint, tier="batch")
        engine.charge(body, model, usage, fingerprint, message["id"], batch.id, request["custom_id"])
        return message


def _checked(requests: Any) -> list[dict[str, Any]]:
    """Raises Refused unless this is a list of requests with params and custom ids of their own."""
    if not isinstance(requests, list) or not 1 <= len(requests) <= MOST:
        raise wire.invalid(f"requests: Input should be a list of 1 to {MOST} requests")
    names: set[str] = set()
    for number, one in enumerate(requests):
        if not isinstance(one, dict) or not isinstance(one.get("params"), dict):
            raise wire.invalid(f"requests.{number}.params: Field required")
        name = one.get("custom_id")
        if not isinstance(name, str) or not CUSTOM_ID.fullmatch(name):
            raise wire.invalid(f"requests.{number}.custom_id: String should match pattern '^[a-zA-Z0-9_-]{{1,64}}$'")
        if name in names:
            raise wire.invalid(f"requests.{number}.custom_id: {name} is not unique in the batch")
        names.add(name)
    return requests
