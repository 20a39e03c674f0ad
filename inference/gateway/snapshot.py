"""What the gateway knows of a tenant, as of one epoch: keys, limits, routes, prices, policy. Pure and immutable.

The loader builds it from the database in a thread; admission compares its epoch, so that a stale one admits nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from inference.guardrails.policy import Policy
from tenants import keytext, metering

BASIS = 10_000  # weights are in 1/10,000
NEVER = 2**53  # microseconds since 1970: the year 2255


@dataclass(frozen=True, slots=True)
class Host:
    """A replica of the engine: its address and what opens it. `load` counts the loads of the adapter on it."""

    name: str
    url: str
    secret: str = field(default="", repr=False)
    version: str = ""
    load: int = 0


@dataclass(frozen=True, slots=True)
class Target:
    """One thing that can answer: the engine's name of it, its digest ("" for a base model), a version of its price,
    the replicas that serve it.

    Prices are nano-dollars per million tokens; `context_tokens` bounds prompt and answer together, 0 if not known.
    """

    served: str
    adapter_digest: str
    input_nano_per_mtok: int
    output_nano_per_mtok: int
    cached_nano_per_mtok: int
    price: int = 0
    context_tokens: int = 0
    base: str = ""
    base_digest: str = ""
    hosts: tuple[Host, ...] = ()

    def has_room(self, max_tokens: int | None) -> bool:
        """Whether an answer of so many tokens fits into the context at all."""
        return not self.context_tokens or (max_tokens or 0) <= self.context_tokens

    def cost(self, input_tokens: int, output_tokens: int, cached_tokens: int = 0) -> int:
        """Nano-dollars; the cached tokens are among the input's."""
        return metering.cost(
            input_tokens,
            output_tokens,
            self.input_nano_per_mtok,
            self.output_nano_per_mtok,
            cached_tokens,
            self.cached_nano_per_mtok,
        )

    def longest_answer(self, default: int, prompt: int) -> int:
        """How many tokens an answer may have whose caller named no number: what the context leaves of `default`.

        `prompt` is a bound in bytes, several times what most prompts are: where it leaves next to nothing, a quarter of
        the context is granted, and the engine says whether that fits.
        """
        if not self.context_tokens:
            return default
        room = self.context_tokens - prompt
        return min(default, room if room >= 64 else max(16, self.context_tokens // 4))


@dataclass(slots=True)  # one a call
class Choice:
    """`weight_bp` is the probability with which this arm was chosen, in 1/10,000; `fallback` answers if nobody does."""

    target: Target
    arm: str = ""
    weight_bp: int = 0
    fallback: Target | None = None


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
    created: int = 0  # seconds since 1970
    fallback: Target | None = None

    def choose(self, caller: str) -> Choice | None:
        """The arm for `caller`, the same one as long as salt and weight stay; None if it has no price."""
        if not self.champion:
            return None
        if not self.is_alias:
            return Choice(self.champion)
        if self.challenger and bucket(self.salt, caller) < self.challenger_bp:
            return Choice(self.challenger, "challenger", self.challenger_bp, self.fallback)
        share = BASIS - (self.challenger_bp if self.challenger else 0)
        return Choice(self.champion, "champion", share, self.fallback)


def bucket(salt: str, caller: str) -> int:
    """Where a caller stands in 0..9,999: growing a weight keeps everyone who already had the challenger."""
    digest = hashlib.sha256(f"{salt}:{caller}".encode()).digest()
    return int.from_bytes(digest[:8]) % BASIS


@dataclass(frozen=True, slots=True)
class Key:
    """A key with the inference scope. `ended` is empty while it is live, else revoked, expired or suspended.

    `terms` are what its calls are admitted by. `ends_us` is its expiry or the end of a rotation's grace, by Redis's
    clock. No `allowed_models` means all of them.
    """

    id: str
    salt: str
    digest: str
    terms: metering.Terms
    allowed_models: frozenset[str] = frozenset()
    default_max_tokens: int = 1024
    ends_us: int = NEVER
    ended: str = ""

    def opens_with(self, secret: str) -> bool:
        """Whether `secret` is this key's, in constant time. Whether the key is still good is another question."""
        return keytext.matches(self.salt, self.digest, secret)

    def allows(self, model: str) -> bool:
        return not self.allowed_models or model in self.allowed_models


@dataclass(frozen=True, slots=True)
class TenantSnapshot:
    """Everything about one tenant that a call needs. `mark` and `sequence` are those of the ledger's head."""

    tenant: str  # UUID
    epoch: int
    mark: str
    sequence: int
    policy: Policy
    routes: Mapping[str, Route]
    keys: Mapping[str, Key]
    extras: frozenset[str] = frozenset()  # of the engine's own fields, those that are open to this tenant
    keeps_answers: bool = False  # for calls that are sent again under one Idempotency-Key


Loader = Callable[[str], TenantSnapshot | None]
