"""One admitted call: guard, forward, meter. It ends in exactly one settlement, whatever happens on the way."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Awaitable, Callable
from typing import Any

import orjson

from inference import protocol
from inference.gateway import connection, upstream
from inference.gateway.snapshot import Choice, Host, Key, Target, TenantSnapshot
from inference.guardrails import engine
from inference.protocol import Refusal, Request
from tenants import metering

Settle = Callable[[metering.Event], Awaitable[None]]
Emit = Callable[[bytes], Awaitable[None]]
NOBODY = Host("", "")  # no engine was asked
FALLBACK = "fallback"  # the arm of what answered in the place of the one that was drawn
BYTES_PER_TOKEN = 4  # for a prompt whose count the engine did not report


def new_id() -> str:
    return f"req_{os.urandom(12).hex()}"


class Meter:
    """What the answers turned out to be; usage as the engine reports it, else counted."""

    __slots__ = ("answers", "begun", "deltas", "first", "most", "parts", "started", "usage")

    def __init__(self, answers: int, most: int = protocol.MOST_REPORTED) -> None:
        """For so many answers, which together have `most` tokens at most."""
        self.started, self.first, self.most = time.monotonic(), 0.0, most
        self.answers = [hashlib.sha256() for _ in range(answers)]
        self.deltas, self.begun = 0, False
        self.usage: tuple[int, int, int] | None = None
        self.parts: dict[int, tuple[int, int, int]] = {}

    def saw(self, text: str, index: Any, tokens: int = 1) -> None:
        """`index` says of which answer `text` is a part; raises LookupError for one that nobody asked for."""
        if type(index) is not int or not 0 <= index < len(self.answers):
            raise LookupError(f"the engine gave an answer number {index!r}")
        self.first = self.first or time.monotonic()
        self.deltas += tokens
        self.answers[index].update(text.encode())

    def report(self, *usages: Any) -> None:
        """Takes the last of these reports that can be believed, if there is one."""
        for usage in reversed(usages):
            if found := protocol.usage_of(usage):
                self.usage = found
                return

    def report_part(self, usage: Any, index: int, n: int) -> None:
        """Of one of several answers under way, `n` to each prompt; an engine counts its tokens and its prompt's."""
        if told := protocol.usage_of(usage):
            self.parts[index] = told
            prompts = {at // n: (inputs, cached) for at, (inputs, _, cached) in self.parts.items()}
            inputs, cached = map(sum, zip(*prompts.values(), strict=True))
            self.usage = inputs, sum(outputs for _, outputs, _ in self.parts.values()), cached

    def tokens(self, size: int) -> tuple[int, int, int]:
        """(input, output, cached input). A call that ended before anything was produced counts nothing, but for one
        whose client left an engine at work: its prompt was read.
        """
        if self.usage:
            return self.usage
        if not self.deltas and not self.begun:
            return 0, 0, 0
        return -(-size // BYTES_PER_TOKEN), min(self.deltas, self.most), 0

    @property
    def digest(self) -> str:
        """Of the answer's text; of several answers the SHA-256 of their digests, in their order. Empty for none."""
        if not self.first:
            return ""
        digests = [answer.hexdigest() for answer in self.answers]
        return digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()

    def milliseconds(self, until: float = 0.0) -> int:
        return round(((until or time.monotonic()) - self.started) * 1000)


def _usable(choice: Choice, request: Request) -> Target | None:
    """The fallback, where another model's answer is one at all: embeddings of two models have nothing in common."""
    fallback = choice.fallback
    if not fallback or fallback.served == choice.target.served or not request.operation.answers:
        return None
    return fallback if fallback.has_room(request.max_tokens) else None


class Call(upstream.Caller):
    """A request on its way. `event` becomes its ledger row; `hold_nano` and `tokens` are the most it can take.

    Period and prices are those of the admission, whatever changes later. `current` is the newest snapshot by which the
    caller was still good.
    """

    def __init__(self, request_id: str, snapshot: TenantSnapshot, key: Key, request: Request, choice: Choice) -> None:
        target, self.fallback = choice.target, _usable(choice, request)
        self.current, self.key, self.request, self.target = snapshot, key, request, target
        self.policy, self.terms = snapshot.policy, key.terms
        answers, self.max_tokens = request.answers, self._longest(target)
        self.tokens, self.hold_nano = self._most(target, answers * self.max_tokens)
        if self.fallback:
            most = self._most(self.fallback, answers * self._longest(self.fallback))
            self.tokens, self.hold_nano = map(max, (self.tokens, self.hold_nano), most)
        self.meter = Meter(answers, answers * self.max_tokens)
        # The caller sees the model it asked for, and an id that is the ledger's.
        self._names = {"id": request_id, "model": request.model}
        self.host: Host | None = None
        self.at_us = 0
        self.stopped, self.left, self.settled = "", False, False
        self.event = metering.Event(
            request_id=request_id,
            tenant=snapshot.tenant,
            key=key.id,
            day=key.terms.day,
            status="estimated",
            model=request.model,
            served=target.served,
            adapter_digest=target.adapter_digest,
            arm=choice.arm,
            weight_bp=choice.weight_bp,
            price=target.price,
            end_user=request.end_user,
            request_digest=request.digest,
            policy_digest=snapshot.policy.digest,
            base_digest=target.base_digest,
        )

    def _longest(self, target: Target) -> int:
        """Tokens of one answer by `target`, at most."""
        request = self.request
        return request.max_tokens or target.longest_answer(self.key.default_max_tokens, request.input_bound)

    def _most(self, target: Target, answers: int) -> tuple[int, int]:
        """Tokens and nano-dollars that `target` can take, `answers` of them its answers'; from a cache or not."""
        bound = self.request.input_bound
        return bound + answers, max(target.cost(bound, answers), target.cost(bound, answers, bound))

    def fall_back(self) -> bool:
        """From now on the fallback is what answers, and what the ledger is told of; False if there is none."""
        target, begun = self.fallback, self.meter.started
        if not target or self.over:
            return False
        self.target, self.fallback, self.host = target, None, None
        self.max_tokens = self._longest(target)
        self.meter = Meter(self.request.answers, self.request.answers * self.max_tokens)
        self.meter.started = begun
        answers = {"served": target.served, "adapter_digest": target.adapter_digest, "base_digest": target.base_digest}
        self.event = self.event.ending("estimated", arm=FALLBACK, price=target.price, **answers)
        return True

    def headers(self) -> dict[str, str]:
        found = {}
        if arm := self.event.arm:
            found["x-paramstack-arm"] = arm
        if digest := self.event.adapter_digest:
            found["x-paramstack-adapter"] = digest
        return found

    def guard(self) -> bytes:
        """The body for the engine, redacted; raises Refusal when the policy blocks."""
        outcome = engine.check_input(self.policy, self.request.messages, self.request.prompted)
        if not outcome.allowed:
            message = f"The guardrail rule {outcome.rule} refused this prompt. Nothing was charged."
            raise Blocked(outcome.rule, message)
        return self.request.payload(
            self.target.served, outcome.messages, self.max_tokens, outcome.prompted, self.event.tenant
        )

    async def plain(self, response: upstream.Response) -> bytes:
        """The whole answer as the caller gets it; raises EngineUnavailable."""
        served = self.target.served
        try:
            data = orjson.loads(await response.read())
            operation = self.request.operation
            for choice in data["choices"] if operation.answers else ():
                text = operation.text(choice)
                self.meter.saw(text, choice.get("index", 0), len(text.encode()))
            self.meter.report(data.get("usage"))
        except upstream.BROKEN as error:
            raise upstream.EngineUnavailable(served, type(error).__name__) from error
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise upstream.EngineUnavailable(served, "the engine's answer cannot be read") from error
        return orjson.dumps(data | self._names)

    async def relay(self, response: upstream.Response, emit: Emit) -> None:
        """Passes the stream's events on as they come; raises what a broken engine raises, and one that was hung up."""
        events = protocol.EventReader()
        while not events.done and (data := await response.next()):
            if self.over:
                raise connection.Broken("hung up")
            if frames := self._frames(events.feed(data)):
                await emit(frames)
        if not events.done:
            raise connection.Broken("the engine's last word is missing")

    def _frames(self, events: list[bytes]) -> bytes:
        """The events of one read as the caller gets them, without what is none of its business."""
        names = self._names["id"], self._names["model"]
        delta, saw, several = self.request.operation.delta, self.meter.saw, len(self.meter.answers) > 1
        parts: list[bytes] = []
        texts: list[str] = []  # of the only answer, which are hashed together
        reports: list[Any] = []
        try:
            for event in events:
                chunk = orjson.loads(event)
                if "error" in chunk:
                    raise upstream.EngineUnavailable(self.target.served, "the engine broke the stream off")
                usage, choices = chunk.pop("usage", None), chunk.get("choices")
                if usage and several:
                    self._report_several(usage, choices)
                elif usage:
                    reports.append(usage)
                for choice in choices or ():
                    text, is_token = delta(choice)
                    index = choice.get("index", 0) if is_token else None
                    if index == 0 and type(index) is int and not several:
                        texts.append(text)
                    elif is_token:
                        saw(text, index)
                if usage and not choices and self.request.include_usage:
                    chunk["usage"] = usage
                elif not choices:
                    continue
                chunk["id"], chunk["model"] = names
                parts += (b"data: ", orjson.dumps(chunk), b"\n\n")
        finally:
            if texts:
                saw("".join(texts), 0, len(texts))
            self.meter.report(*reports)
        return b"".join(parts)

    def _report_several(self, usage: Any, choices: Any) -> None:
        """Of several answers under way: of one of them with its piece, of all of them without."""
        if choices:
            self.meter.report_part(usage, choices[0].get("index", 0), self.request.n)
        else:
            self.meter.report(usage)

    def stop(self, reason: str) -> None:
        """Ends it from outside; wakes a read that waits for the engine, and tells the engine to stop."""
        self.stopped, self.over = reason, True
        self._hang_up()

    def leave(self) -> None:
        """Its client has gone."""
        self.left = self.over = True
        self._hang_up()

    def _hang_up(self) -> None:
        if self.connection:
            self.meter.begun = True
            self.connection.close()

    def progress(self) -> tuple[int, int, int]:
        """Input tokens, output tokens and nano-dollars so far."""
        inputs, outputs, cached = self.meter.tokens(self.request.size)
        return inputs, outputs, self.target.cost(inputs, outputs, cached)

    async def settle(self, settle: Settle, status: str, reason: str = "", free: bool = False) -> None:
        """Ends the call with what was produced; `free` books no tokens and no cost. Only the first time counts."""
        if self.settled:
            return
        self.settled = True
        meter = self.meter
        inputs, outputs, cached = (0, 0, 0) if free else meter.tokens(self.request.size)
        host = self.host or NOBODY
        event = self.event.ending(
            status,
            at_us=self.at_us,
            reason=reason[:80],
            input_tokens=inputs,
            cached_tokens=cached,
            output_tokens=outputs,
            cost_nano=self.target.cost(inputs, outputs, cached),
            answer_digest=meter.digest,
            latency_ms=meter.milliseconds(),
            ttft_ms=meter.milliseconds(meter.first) if meter.first else 0,
            engine=host.name,
            engine_version=host.version,
            load_epoch=host.load,
        )
        await settle(event)  # if the server cancels us now, it is sent again: `Counters` keeps it


class Blocked(Refusal):
    """A guardrail rule refused the prompt."""

    def __init__(self, rule: str, message: str) -> None:
        super().__init__(400, "guardrail_blocked", message)
        self.rule = rule
