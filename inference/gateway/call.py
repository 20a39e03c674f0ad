"""One admitted call: guard, forward, meter. It ends in exactly one settlement, whatever happens on the way."""

from __future__ import annotations

import asyncio
import hashlib
import secrets
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import aiohttp
import orjson

from inference import protocol
from inference.gateway import upstream
from inference.gateway.snapshot import Choice, Snapshot
from inference.guardrails import engine
from inference.protocol import ChatRequest, Refusal
from tenants import metering

Settle = Callable[[metering.Event], Awaitable[bool]]
Emit = Callable[[bytes], Awaitable[None]]
BYTES_PER_TOKEN = 4  # for a prompt whose count the engine did not report


def new_id() -> str:
    return f"req_{secrets.token_hex(12)}"


@dataclass(slots=True)
class Meter:
    """What the answer turned out to be; usage as the engine reports it, else counted."""

    started: float = field(default_factory=time.monotonic)
    first: float | None = None
    answer: Any = field(default_factory=hashlib.sha256)
    deltas: int = 0
    usage: dict[str, Any] | None = None

    def saw(self, text: str) -> None:
        self.first = self.first or time.monotonic()
        self.deltas += 1
        self.answer.update(text.encode())

    def tokens(self, size: int) -> tuple[int, int]:
        """(input, output). A call that ended before anything was produced counts nothing."""
        if self.usage:
            return int(self.usage.get("prompt_tokens") or 0), int(self.usage.get("completion_tokens") or 0)
        return (-(-size // BYTES_PER_TOKEN), self.deltas) if self.deltas else (0, 0)

    def milliseconds(self, until: float | None = None) -> int:
        return round(((until or time.monotonic()) - self.started) * 1000)


class Call:
    """A request on its way. `hold` is the event of the worst case, which admission holds the money for."""

    def __init__(self, request_id: str, snapshot: Snapshot, request: ChatRequest, choice: Choice) -> None:
        self.snapshot, self.request, self.choice = snapshot, request, choice
        self.meter = Meter()
        self.max_tokens = min(request.max_tokens or snapshot.default_max_tokens, snapshot.max_tokens)
        self.hold = self._worst_case(request_id)
        self.settled = False

    def _worst_case(self, request_id: str) -> metering.Event:
        target, now = self.choice.target, datetime.now(UTC)
        return metering.Event(
            request_id=request_id,
            tenant=self.snapshot.tenant,
            key=self.snapshot.key_id,
            occurred_at=now.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            month=metering.month_of(now),
            status="estimated",
            reason="gateway_lost",
            model=self.request.model,
            served=target.served,
            adapter_digest=target.adapter_digest,
            arm=self.choice.arm,
            weight_bp=self.choice.weight_bp,
            input_tokens=self.request.input_bound,
            output_tokens=self.max_tokens,
            cost_nano=target.cost(self.request.input_bound, self.max_tokens),
            request_digest=self.request.digest,
            policy_digest=self.snapshot.policy.digest,
        )

    def headers(self) -> dict[str, str]:
        arm, digest = self.choice.arm, self.choice.target.adapter_digest
        return {name: value for name, value in (("x-paramstack-arm", arm), ("x-paramstack-adapter", digest)) if value}

    def guard(self) -> bytes:
        """The body for the engine, redacted; raises Refusal when the policy blocks."""
        outcome = engine.check_input(self.snapshot.policy, self.request.messages, self.request.prompted)
        if not outcome.allowed:
            message = f"The guardrail rule {outcome.rule} refused this prompt. Nothing was charged."
            raise Blocked(outcome.rule, message)
        return self.request.payload(self.choice.target.served, outcome.messages, self.max_tokens, outcome.prompted)

    async def plain(self, response: aiohttp.ClientResponse) -> bytes:
        """The whole answer as the caller gets it; raises EngineUnavailable."""
        served = self.choice.target.served
        try:
            data = orjson.loads(await response.read())
            text = protocol.content_of(data["choices"][0]["message"])
        except upstream.BROKEN as error:
            raise upstream.EngineUnavailable(served, type(error).__name__) from error
        except (ValueError, LookupError, TypeError) as error:
            raise upstream.EngineUnavailable(served, "the engine's answer cannot be read") from error
        self.meter.saw(text)
        self.meter.deltas = len(text.encode())
        self.meter.usage = data.get("usage")
        return orjson.dumps(data | self._names())

    async def relay(self, response: aiohttp.ClientResponse, emit: Emit) -> None:
        """Passes the stream's events on as they come; raises what a broken engine raises."""
        names = self._names()
        async for data in protocol.events(response.content.iter_any()):
            chunk = orjson.loads(data)
            if "error" in chunk:
                raise upstream.EngineUnavailable(self.choice.target.served, "the engine broke the stream off")
            usage = chunk.pop("usage", None)
            self.meter.usage = usage or self.meter.usage
            choices = chunk.get("choices")
            for choice in choices or ():
                self._observe(choice.get("delta") or {})
            if choices:
                await emit(protocol.frame(chunk | names))
            elif usage and self.request.include_usage:
                await emit(protocol.frame(chunk | names | {"usage": usage}))

    def _observe(self, delta: dict[str, Any]) -> None:
        text = protocol.content_of(delta)
        if text or delta.get("tool_calls") or delta.get("reasoning_content"):
            self.meter.saw(text)

    def _names(self) -> dict[str, str]:
        """The caller sees the model it asked for, and an id that is the ledger's."""
        return {"id": self.hold.request_id, "model": self.request.model}

    async def settle(self, settle: Settle, status: str, reason: str = "", free: bool = False) -> None:
        """Ends the call with what was produced; `free` books no tokens and no cost. Only the first time counts."""
        if self.settled:
            return
        self.settled = True
        meter = self.meter
        inputs, outputs = (0, 0) if free else meter.tokens(self.request.size)
        event = self.hold.ending(
            status,
            reason=reason[:80],
            input_tokens=inputs,
            output_tokens=outputs,
            cost_nano=self.choice.target.cost(inputs, outputs),
            answer_digest=meter.answer.hexdigest() if meter.first else "",
            latency_ms=meter.milliseconds(),
            ttft_ms=meter.milliseconds(meter.first) if meter.first else 0,
        )
        # A cancelled call still settles: the server may cancel us, not the ledger.
        await asyncio.shield(asyncio.ensure_future(settle(event)))


class Blocked(Refusal):
    """A guardrail rule refused the prompt."""

    def __init__(self, rule: str, message: str) -> None:
        super().__init__(400, "guardrail_blocked", message)
        self.rule = rule
