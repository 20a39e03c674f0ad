"""What an operator sees of the calls: Prometheus metrics and one line of JSON a call.

Names follow OpenTelemetry's conventions for generative AI where they have one (gen_ai.server.*: seconds, with the
boundaries the convention gives), written as Prometheus does. Labels are bounded: operations, served models, replicas,
states and codes; never a key, a tenant's text or an end user.
https://github.com/open-telemetry/semantic-conventions-genai
"""

from __future__ import annotations

import asyncio
import ipaddress
import os
import sys
import time
from bisect import bisect_left
from typing import Any, BinaryIO
from weakref import WeakSet

import orjson
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client import multiprocess as workers

from inference.gateway import reply
from inference.gateway.background import Background
from inference.gateway.reply import Scope
from inference.gateway.snapshot import Host
from tenants.metering import Event

DURATIONS = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
FIRST_TOKENS = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
PER_TOKEN = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5)
FORWARDED = (b"forwarded", b"x-forwarded-for", b"x-real-ip", b"via")  # what proxies say of themselves
FLUSH_SECONDS = 0.25  # that a line may wait
MOST_LINES = 20_000  # waiting; above, they are dropped and counted

CALL = ("gen_ai_operation_name", "gen_ai_request_model", "server_address")
registry = CollectorRegistry()


class Distribution(Histogram):
    """A histogram that takes many observations at once."""

    def add(self, counts: list[int], total: float) -> None:
        """How many fell into each bucket, and what all of them add up to."""
        self._sum.inc(total)
        for bucket, count in zip(self._buckets, counts, strict=True):
            if count:
                bucket.inc(count)


duration = Distribution(
    "gen_ai_server_request_duration_seconds",
    "From the admission of a call to its settlement.",
    (*CALL, "error_type"),
    buckets=DURATIONS,
    registry=registry,
)
first_token = Distribution(
    "gen_ai_server_time_to_first_token_seconds",
    "From the admission of a call to the first of its answer.",
    CALL,
    buckets=FIRST_TOKENS,
    registry=registry,
)
per_token = Distribution(
    "gen_ai_server_time_per_output_token_seconds",
    "Between the tokens of a streamed answer after its first.",
    CALL,
    buckets=PER_TOKEN,
    registry=registry,
)
tokens = Counter(
    "gen_ai_client_token_usage",
    "Tokens that the ledger was told of.",
    (*CALL, "gen_ai_token_type"),
    registry=registry,
)
calls = Counter("paramstack_gateway_calls", "Admitted calls by how they ended.", ("status",), registry=registry)
fallbacks = Counter(
    "paramstack_gateway_fallbacks",
    "Calls that went to the fallback of their alias, by what did not answer and what was asked instead.",
    ("gen_ai_request_model", "paramstack_fallback"),
    registry=registry,
)
refusals = Counter("paramstack_gateway_refusals", "Calls refused before admission.", ("code",), registry=registry)
in_flight = Gauge("paramstack_gateway_in_flight_requests", "Under way.", registry=registry, multiprocess_mode="livesum")
dropped = Counter("paramstack_gateway_dropped_log_lines", "Lines that nobody could take in time.", registry=registry)


class Sums:
    """What was observed since the registry was told: metrics of the library's lock and search at each call."""

    __slots__ = ("_bounds", "_counts", "_child", "_total")

    def __init__(self, child: Any, bounds: tuple[float, ...]) -> None:
        self._child, self._bounds = child, bounds
        self._counts, self._total = [0] * (len(bounds) + 1), 0.0

    def observe(self, value: float) -> None:
        self._counts[bisect_left(self._bounds, value)] += 1
        self._total += value

    def tell(self) -> None:
        counts, total = self._counts, self._total
        if any(counts):
            self._counts, self._total = [0] * len(counts), 0.0
            self._child.add(counts, total)


class Series:
    """The sums of one operation, model and replica."""

    def __init__(self, *labels: str) -> None:
        self._labels = labels
        self.durations: dict[str, Sums] = {}  # by error
        self.first_token = Sums(first_token.labels(*labels), FIRST_TOKENS)
        self.per_token = Sums(per_token.labels(*labels), PER_TOKEN)
        self._input, self._output = tokens.labels(*labels, "input"), tokens.labels(*labels, "output")
        self.inputs = self.outputs = 0

    def duration(self, error: str) -> Sums:
        found = self.durations.get(error)
        if found is None:
            found = self.durations[error] = Sums(duration.labels(*self._labels, error), DURATIONS)
        return found

    def tell(self) -> None:
        for sums in (self.first_token, self.per_token, *self.durations.values()):
            sums.tell()
        self._input.inc(self.inputs)
        self._output.inc(self.outputs)
        self.inputs = self.outputs = 0


class Telemetry:
    """`lines` is where calls are written, one JSON object each; without it nowhere. `under_way` is for whoever answers
    requests to count up and down. The registry is told of all that four times a second, and before it is read.
    """

    def __init__(self, lines: BinaryIO | None = None, log: bool = False) -> None:
        self._lines = lines or (sys.stderr.buffer if log else None)
        self._waiting: list[bytes] = []
        self._series: dict[tuple[str, str, str], Series] = {}
        self._ended = dict.fromkeys(("settled", "aborted", "blocked"), 0)
        self.under_way = self._told_under_way = 0
        self._flushing = Background(self._flush, lambda: FLUSH_SECONDS)
        _all.add(self)

    def start(self) -> None:
        self._flushing.start()

    async def close(self) -> None:
        await self._flushing.close()
        self.tell()
        self._write()

    def ended(self, operation: str, event: Event, host: Host | None) -> None:
        """A call was settled, as `event` says."""
        place = operation, event.served, host.name if host else ""
        series = self._series.get(place)
        if series is None:
            series = self._series[place] = Series(*place)
        self._ended[event.status] += 1
        seconds, ttft_ms, outputs = event.latency_ms / 1000, event.ttft_ms, event.output_tokens
        series.duration("guardrail_blocked" if event.status == "blocked" else event.reason).observe(seconds)
        if ttft_ms:
            series.first_token.observe(ttft_ms / 1000)
            if outputs > 1 and event.latency_ms > ttft_ms:
                series.per_token.observe((seconds - ttft_ms / 1000) / (outputs - 1))
        series.inputs += event.input_tokens
        series.outputs += outputs
        if self._lines:
            self._say(event, operation, place[2])

    def tell(self) -> None:
        """Tells the registry what happened since the last time."""
        for status, count in self._ended.items():
            calls.labels(status).inc(count)
            self._ended[status] = 0
        in_flight.inc(self.under_way - self._told_under_way)
        self._told_under_way = self.under_way
        for series in self._series.values():
            series.tell()

    def fell_back(self, served: str, fallback: str) -> None:
        """No engine answered for `served`."""
        fallbacks.labels(served, fallback).inc()

    def refused(self, code: str) -> None:
        """A call that was not admitted; codes are our own words."""
        refusals.labels(code).inc()

    def _say(self, event: Event, operation: str, host: str) -> None:
        if len(self._waiting) >= MOST_LINES:
            return dropped.inc()
        line = {
            "at": time.time(),
            "event": "call",
            "operation": operation,
            "request_id": event.request_id,
            "tenant": event.tenant,
            "key": event.key,
            "model": event.model,
            "served": event.served,
            "arm": event.arm,
            "engine": host,
            "status": event.status,
            "reason": event.reason,
            "input_tokens": event.input_tokens,
            "output_tokens": event.output_tokens,
            "cost_nano": event.cost_nano,
            "latency_ms": event.latency_ms,
            "ttft_ms": event.ttft_ms,
        }
        self._waiting.append(orjson.dumps(line))
        return None

    async def _flush(self) -> None:
        self.tell()
        if self._waiting:
            await asyncio.to_thread(self._write)  # whoever reads the log may be slow

    def _write(self) -> None:
        lines, self._waiting = self._waiting, []
        if lines and self._lines:
            try:
                self._lines.write(b"\n".join(lines) + b"\n")
                self._lines.flush()
            except (OSError, ValueError):  # nobody reads any more
                dropped.inc(len(lines))


def is_inside(scope: Scope) -> bool:
    """Whether a request comes from this machine or its private network, and through no proxy: behind one everybody
    would. A Unix socket has no address and is inside.
    """
    if any(name in FORWARDED for name, _ in scope["headers"]):
        return False
    try:
        ip = ipaddress.ip_address(reply.address(scope) or "127.0.0.1")
    except ValueError:
        return False
    return ip.is_loopback or ip.is_private


_all: WeakSet[Telemetry] = WeakSet()


def exposition() -> tuple[bytes, str]:
    """The metrics of this process, or of all workers of this server, in Prometheus's text format, and its type."""
    for one in _all:
        one.tell()
    return generate_latest(_source()), CONTENT_TYPE_LATEST


def _source() -> CollectorRegistry:
    if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
        return registry
    of_all = CollectorRegistry()
    workers.MultiProcessCollector(of_all)  # type: ignore[no-untyped-call]  # the library's, without types
    return of_all
