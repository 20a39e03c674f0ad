"""What the gateway knows of a key's tenant: one epoch's limits, routes, prices and policy. Pure and immutable.

The loader builds it from the database in a thread; admission compares its epoch, so that a stale one admits nothing.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from inference.guardrails.policy import Policy
from tenants import keytext, metering

BASIS = 10_000  # weights are in 1/10,000


@dataclass(frozen=True, slots=True)
class Target:
    """One thing that can answer: the engine's name of it, its digest ("" for a base model), its price."""

    served: str
    adapter_digest: str
    input_nano_per_mtok: int
    output_nano_per_mtok: int

    def cost(self, input_tokens: int, output_tokens: int) -> int:
        """Nano-dollars."""
        return metering.cost(input_tokens, output_tokens, self.input_nano_per_mtok, self.output_nano_per_mtok)


@dataclass(frozen=True, slots=True)
class Choice:
    """`weight_bp` is the probability with which this arm was chosen, in 1/10,000."""

    target: Target
    arm: str = ""
    weight_bp: int = 0


@dataclass(frozen=True, slots=True)
class Route:
    """A model name a key may call. An alias splits by weight; anything else has a champion only and no arm.

    `unpriced` names the model that the price book lacks: such a route exists, and answers nobody.
    """

    name: str
    champion: Target | None
    challenger: Target | None = None
    challenger_bp: int = 0
    salt: str = ""
    is_alias: bool = False
    unpriced: str = ""

    def choose(self, caller: str) -> Choice | None:
        """The arm for `caller`, the same one as long as salt and weight stay; None if it has no price."""
        if not self.champion:
            return None
        if not self.is_alias:
            return Choice(self.champion)
        if self.challenger and bucket(self.salt, caller) < self.challenger_bp:
            return Choice(self.challenger, "challenger", self.challenger_bp)
        return Choice(self.champion, "champion", BASIS - (self.challenger_bp if self.challenger else 0))


def bucket(salt: str, caller: str) -> int:
    """Where a caller stands in 0..9,999: growing a weight keeps everyone who already had the challenger."""
    digest = hashlib.sha256(f"{salt}:{caller}".encode()).digest()
    return int.from_bytes(digest[:8]) % BASIS


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything about one key of one tenant that a call needs, as of `limits.epoch`."""

    key_id: str
    key_salt: str
    key_digest: str
    key_expires_at: datetime | None
    tenant: str  # UUID
    limits: metering.Limits
    policy: Policy
    routes: Mapping[str, Route]
    default_max_tokens: int
    max_tokens: int

    def opens_with(self, secret: str) -> bool:
        """Whether `secret` is this key's and the key has not expired."""
        expired = self.key_expires_at is not None and self.key_expires_at <= datetime.now(UTC)
        return keytext.matches(self.key_salt, self.key_digest, secret) and not expired


Loader = Callable[[str], Snapshot | None]


class Cache:
    """Snapshots by key id. Unknown and revoked keys are not kept; `fresh` joins a load that is under way.

    A change is seen by its epoch; the age limit is for what changes by itself, such as a price that becomes valid.
    """

    CAPACITY = 20_000
    SECONDS = 60.0

    def __init__(self, load: Loader) -> None:
        self._load = load
        self._known: dict[str, tuple[float, Snapshot]] = {}
        self._loading: dict[str, asyncio.Task[Snapshot | None]] = {}

    async def get(self, key_id: str) -> Snapshot | None:
        loaded_at, snapshot = self._known.get(key_id) or (0.0, None)
        if snapshot and time.monotonic() - loaded_at < self.SECONDS:
            return snapshot
        return await self.fresh(key_id)

    async def fresh(self, key_id: str) -> Snapshot | None:
        """Read from the database, whatever is known; raises what the loader raises."""
        task = self._loading.get(key_id)
        if task is None:
            task = self._loading[key_id] = asyncio.create_task(self._read(key_id))
            task.add_done_callback(lambda _: self._loading.pop(key_id))
        return await asyncio.shield(task)

    async def _read(self, key_id: str) -> Snapshot | None:
        self._known.pop(key_id, None)
        snapshot = await asyncio.to_thread(self._load, key_id)
        if snapshot:
            while len(self._known) >= self.CAPACITY:
                self._known.pop(next(iter(self._known)))
            self._known[key_id] = time.monotonic(), snapshot
        return snapshot
