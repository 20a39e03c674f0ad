"""One call from its request to its message: limits, money, faults, what is said, the bill. Both wire forms use it.

The rule: a call is on the bill the moment it is taken, whether or not its answer arrives, as the provider's is. What
follows from dice follows from the seed, the request and how often that very request came before.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, replace
from random import Random
from typing import Any

from training.loopback import asking, bill, limits, tokens, wire, world
from training.loopback.bill import Bill, Line
from training.loopback.catalogue import Model
from training.loopback.options import Options

THOUGHT = "Önce soruyu anlamalıyım."
CUT_TOKENS = 8  # where an unreadable verdict is cut
SPEND = {
    "enforced": ("enforced_spend_limit_reached", "You have reached the monthly usage threshold of your API tier.", 0),
    "contract": ("contract_spend_limit_reached", "Your organization has reached the spend limit of its contract.", 0),
    "ramp": ("ramp_limit_exceeded", "Your usage grew faster than your ramp limit allows.", 2),
}
LOW_CREDIT = (
    "Your credit balance is too low to access the Anthropic API. Please go to Plans & Billing to upgrade or purchase "
    "credits."
)


@dataclass(frozen=True)
class Outcome:
    """`cut`: the connection is to end within the answer."""

    message: dict[str, Any]
    cut: bool = False


class Engine:
    def __init__(self, options: Options) -> None:
        self.bill = Bill()
        self.cache = tokens.Cache()
        self.set(options)

    def set(self, options: Options) -> None:
        """Other limits and faults from now on; bill and cache stay."""
        self.options = options
        self.gate = limits.Gate(options)

    async def call(self, body: dict[str, Any], fingerprint: str, request_id: str) -> Outcome:
        """One live call. Raises Refused; what is refused costs nothing."""
        model = asking.check(body, self.options)
        die = self.dice(fingerprint)
        self.gate.admit()
        self.affordable()
        limits.fault(self.options, die)
        wait_ms = self.options.latency_ms + (self.options.slow_ms if die.random() < self.options.slow else 0)
        cut = die.random() < self.options.cut
        message, usage = self.message(body, model, fingerprint, wait_ms / 1000)
        self.charge(body, model, usage, fingerprint, request_id)
        self.gate.use(usage.total_input - usage.read, usage.output)
        if wait_ms:
            await asyncio.sleep(wait_ms / 1000)
        return Outcome(message, cut)

    def dice(self, fingerprint: str) -> Random:
        """Faults of this request, this time."""
        self.bill.seen[fingerprint] += 1
        return limits.dice(self.options.seed, "fault", fingerprint, self.bill.seen[fingerprint])

    def affordable(self) -> None:
        """Raises Refused when the credit is used up, or a spend limit is set."""
        if self.options.spend_limit:
            code, message, wait_s = SPEND[self.options.spend_limit]
            raise wire.Refused(429, "rate_limit_error", message, code, wait_s)
        credit = self.options.credit_nano
        if credit is not None and self.bill.total_nano >= credit:
            status = self.options.credit_status
            raise wire.Refused(status, "billing_error" if status == 402 else "invalid_request_error", LOW_CREDIT)

    def message(
        self, body: dict[str, Any], model: Model, fingerprint: str, wait_s: float = 0.0, tier: str = "standard"
    ) -> tuple[dict[str, Any], tokens.Usage]:
        """The `Message` that answers a checked request, and what it uses. It can be read from the cache in `wait_s`."""
        now, least = time.time(), self.options.cache_minimum.get(model.id, model.least)
        sent = self.cache.take(model.id, tokens.blocks(body), least, now, now + wait_s)
        die = self.draw(fingerprint)
        content: list[dict[str, Any]] = []
        stop, details = "refusal", None
        if die.random() < self.options.refused:
            details = _refusal()
        else:
            content, stop = _content(*self.spoken(body, die), _thinks(body))
        thought, output = _counts(content)
        usage = replace(sent, output=output)
        return _message(model, content, stop, details, _usage(usage, thought, tier)), usage

    def draw(self, fingerprint: str) -> Random:
        """What is said to this request: another draw each time that it is paid for, where votes are to be fresh."""
        number = self.bill.billed[fingerprint] if self.options.fresh_votes else 0
        return limits.dice(self.options.seed, "said", fingerprint, number)

    def spoken(self, body: dict[str, Any], die: Random) -> tuple[str, int]:
        """The words, and after how many tokens they are cut (of a verdict that is to be unreadable, early)."""
        asked, most = world.question(body), int(body["max_tokens"])
        bad = asked.kind != "answer" and die.random() < self.options.unreadable
        if bad and die.random() < 0.5:
            return world.UNREADABLE, most
        return world.said(asked, body, self.options, die), min(most, CUT_TOKENS) if bad else most

    def charge(
        self, body: dict[str, Any], model: Model, usage: tokens.Usage, fingerprint: str, request_id: str,
        batch_id: str = "", custom_id: str = "",
    ) -> None:  # fmt: skip
        cost = bill.cost(model, usage, batch=bool(batch_id))
        kind = world.question(body).kind
        self.bill.add(Line(request_id, fingerprint, kind, model.id, cost, time.time(), usage, batch_id, custom_id))


def _thinks(body: dict[str, Any]) -> bool:
    return (body.get("thinking") or {}).get("type") != "disabled"


def _content(text: str, most: int, thinks: bool) -> tuple[list[dict[str, Any]], str]:
    """A thinking block first, as current models send it, and the text; both together are `most` tokens at most."""
    content: list[dict[str, Any]] = []
    if thinks:
        thought = _shortened(THOUGHT, most)
        content.append({"type": "thinking", "thinking": thought, "signature": "bG9vcGJhY2s="})
        most -= tokens.count(thought)
    words = _shortened(text, most)
    if words:
        content.append({"type": "text", "text": words, "citations": None})
    return content, "end_turn" if words == text else "max_tokens"


def _shortened(text: str, most: int) -> str:
    """As much of `text` as `most` tokens hold."""
    return text.encode()[: 3 * most].decode(errors="ignore")


def _counts(content: list[dict[str, Any]]) -> tuple[int, int]:
    """Tokens of thinking, and of all output: one even where nothing is said."""
    thought = sum(tokens.count(part["thinking"]) for part in content if part["type"] == "thinking")
    said = sum(tokens.count(part["text"]) for part in content if part["type"] == "text")
    return thought, max(1, thought + said)


def _refusal() -> dict[str, Any]:
    words = "This request was declined by the loopback server's dice."
    return {"type": "refusal", "category": "general_harms", "explanation": words}


def _message(
    model: Model, content: list[dict[str, Any]], stop: str, details: dict[str, Any] | None, usage: dict[str, Any]
) -> dict[str, Any]:
    return {
        "id": wire.new_id("msg"),
        "type": "message",
        "role": "assistant",
        "model": model.id,
        "content": content,
        "stop_reason": stop,
        "stop_sequence": None,
        "stop_details": details,
        "usage": usage,
    }


def _usage(usage: tokens.Usage, thought: int, tier: str) -> dict[str, Any]:
    return {
        "input_tokens": usage.input,
        "output_tokens": usage.output,
        "cache_creation_input_tokens": usage.write_5m + usage.write_1h,
        "cache_read_input_tokens": usage.read,
        "cache_creation": {
            "ephemeral_5m_input_tokens": usage.write_5m,
            "ephemeral_1h_input_tokens": usage.write_1h,
        },
        "output_tokens_details": {"thinking_tokens": thought},
        "service_tier": tier,
    }
