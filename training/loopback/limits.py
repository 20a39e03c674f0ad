"""Limits as the API keeps them: buckets that refill continuously, headers that say what is left, dice for faults."""

from __future__ import annotations

import hashlib
import math
import random
import time
from dataclasses import dataclass, field

from training.loopback import wire
from training.loopback.options import Options


@dataclass
class Bucket:
    """Holds up to `size` and refills by `rate` a second. May go below zero: what was used is known afterwards."""

    rate: float
    size: float
    level: float = field(init=False)
    filled_at: float = field(init=False)

    def __post_init__(self) -> None:
        self.level, self.filled_at = self.size, time.monotonic()

    def refill(self) -> float:
        now = time.monotonic()
        self.level = min(self.size, self.level + (now - self.filled_at) * self.rate)
        self.filled_at = now
        return self.level

    def wait(self, amount: float) -> float:
        """Seconds until `amount` is there."""
        return max(0.0, (amount - self.refill()) / self.rate)

    def headers(self, name: str) -> dict[str, str]:
        """The limit a minute, what is left at this moment, when the bucket is full again."""
        left = self.refill()
        full = time.time() + (self.size - left) / self.rate
        start = f"anthropic-ratelimit-{name}"
        reset = wire.instant(math.ceil(full)).replace(".000000", "")
        return {
            f"{start}-limit": str(round(self.rate * 60)),
            f"{start}-remaining": str(max(0, math.floor(left))),
            f"{start}-reset": reset,
        }


class Gate:
    """All limits of the server. Cached reads do not count to the input limit."""

    def __init__(self, options: Options) -> None:
        minute = {"input-tokens": options.input_tokens_per_minute, "output-tokens": options.output_tokens_per_minute}
        self.buckets = {name: Bucket(limit / 60, limit) for name, limit in minute.items() if limit}
        if options.calls_per_second:
            self.buckets["requests"] = Bucket(options.calls_per_second, max(1, options.burst))

    def admit(self) -> None:
        """Takes one call. Raises Refused 429 with the seconds to wait, whole as the API's are."""
        waits = {name: bucket.wait(1) for name, bucket in self.buckets.items()}
        name = max(waits, key=lambda one: waits[one], default="")
        if name and waits[name]:
            rate = round(self.buckets[name].rate * 60)
            message = f"This request would exceed your organization's rate limit of {rate} {name} per minute."
            raise too_many(message, max(1, math.ceil(waits[name])))
        if "requests" in self.buckets:
            self.buckets["requests"].level -= 1

    def use(self, input_tokens: int, output_tokens: int) -> None:
        for name, amount in (("input-tokens", input_tokens), ("output-tokens", output_tokens)):
            if name in self.buckets:
                self.buckets[name].level -= amount

    def headers(self) -> dict[str, str]:
        return {key: value for name, bucket in self.buckets.items() for key, value in bucket.headers(name).items()}


def too_many(message: str, wait_s: int) -> wire.Refused:
    return wire.Refused(429, "rate_limit_error", message, wait_s=wait_s)


def dice(seed: int, *words: object) -> random.Random:
    """Randomness that follows from `words`, whatever else the server does at the time."""
    digest = hashlib.sha256("\0".join(map(str, (seed, *words))).encode("utf-8", "surrogatepass")).digest()
    return random.Random(digest)


def fault(options: Options, die: random.Random) -> None:
    """Raises what the dice say. Each share is of all calls, whatever the other shares are."""
    drawn = die.random()
    for share, refused in (
        (options.rate_limited, too_many("Number of requests has exceeded your rate limit.", 1)),
        (options.overloaded, wire.Refused(529, "overloaded_error", "Overloaded")),
        (options.server_error, wire.Refused(500, "api_error", "Internal server error")),
    ):
        if drawn < share:
            raise refused
        drawn -= share
