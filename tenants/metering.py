"""Admit, renew, settle: the atomic steps of a call in Redis. Pure: key names, scripts, packing, replies.

Admit checks the mark, the epoch, every limit and the budget, and takes one hold: money, reserved tokens, concurrency
and the open call in one entry. Settle removes it, books the cost and appends the usage event. Whoever removes the hold
writes the event; nothing else does: so each admitted call ends as exactly one event. Every step may be sent twice.

Limits are GCRA (ITU-T I.371) on Redis's clock, which is the only clock, with a burst of one period's worth; they are
exact (`lua/admit.lua`). Tokens are reserved at admission and settled at the end. Money is integer nano-dollars, exact
in Lua below 2^53. A month is a calendar month in the tenant's time zone, `YYYYMM`, that of the admission.

The mark, `<installation>:<generation>`, is what a Redis carries whose counters the ledger vouches for; a Redis without
it, or one that counts fewer steps than somebody has seen, admits nobody until `writer.rebuild`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from struct import Struct
from typing import Any

import orjson

STATE = "ps:state"  # hash: mark, sequence (steps that changed something), since (us, of the rebuild), booked (an entry)
EPOCHS = "ps:epochs"  # hash: tenant -> epoch
HOLDS = "ps:holds"  # hash: request id -> "<sent>|<facts>|<token buckets>|<event JSON>", see lua/admit.lua
LEASES = "ps:leases"  # sorted set: request id by the millisecond at which its gateway is taken for dead
OPEN = "ps:open"  # hash: tenant or key -> calls under way; "<it>:levels" -> those of its buckets, see lua/admit.lua
MONTHS = "ps:months"  # set: names of the months' hashes
MONTH = "ps:month:"  # + tenant:YYYYMM, hash: spent, held, corrected (the part of spent that corrections moved)
REFUSED = "ps:refused:"  # + minute since 1970, hash: "<tenant> <key> <number of the limit>" -> how many calls
STREAM = "ps:usage"
DEAD_STREAM = "ps:usage:dead"  # events and holds that the ledger cannot read; kept for a person
NO_KEY = "-"  # in a hold: the tenant's own work, which no key sent
LEASE_MS = 30_000
RENEW_SECONDS = 10.0
LONGEST_STREAM = 100_000  # entries the ledger has not booked; above, nothing is admitted
MINUTE = 60_000_000  # microseconds

LIMITS = ("requests_per_second", "requests_per_minute", "tokens_per_second", "tokens_per_minute", "concurrent_calls")
# The numbers by which lua/admit.lua says which limit refused.
REFUSERS = dict(enumerate([*(("tenant", n) for n in LIMITS), *(("key", n) for n in LIMITS), ("tenant", "budget")], 1))


_KEYS = {name: value for name, value in globals().items() if isinstance(value, str) and value.startswith("ps:")}


def _script(name: str) -> str:
    """A script, which finds the names of keys above under their names here: as arguments they cost a part of it."""
    names, texts = ", ".join(_KEYS), ", ".join(f"'{text}'" for text in _KEYS.values())
    return f"local {names} = {texts}\n" + (Path(__file__).parent / "lua" / f"{name}.lua").read_text()


ADMIT, SETTLE, RENEW, BURY = map(_script, ("admit", "settle", "renew", "bury"))
CONFIRM, RAISE_EPOCHS, PROOF = map(_script, ("confirm", "epochs", "proof"))
REBUILD, UNMARK, RESUME, GAUGE = map(_script, ("rebuild", "unmark", "resume", "gauge"))

Packed = tuple[list[str], list[str | bytes]]  # KEYS, of which ours need none, and ARGV of a script
_TERMS = Struct("<13d")  # whole numbers below 2^53, which doubles hold exactly


@dataclass
class Event:
    """One usage event; the columns of the ledger. `day` is that of the admission in the tenant's time zone.

    `at_us` is the admission by Redis's clock, 0 while nobody knows it; `price` is the id of the price book's version.
    `engine` is the replica that answered, empty where none was asked; `load_epoch` which load of the adapter.
    Nobody changes one; `frozen` was some 5 % of a call, and with `slots` writing it was 3 %.
    """

    request_id: str
    tenant: str
    key: str
    day: str  # YYYY-MM-DD
    status: str
    model: str
    served: str
    at_us: int = 0
    adapter_digest: str = ""
    arm: str = ""
    weight_bp: int = 0
    price: int = 0
    end_user: str = ""
    input_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    cost_nano: int = 0
    request_digest: str = ""
    answer_digest: str = ""
    policy_digest: str = ""
    reason: str = ""
    latency_ms: int = 0
    ttft_ms: int = 0
    base_digest: str = ""
    engine: str = ""
    engine_version: str = ""
    load_epoch: int = 0

    def ending(self, status: str, **facts: Any) -> Event:
        """The same call with its outcome."""
        made = Event.__new__(Event)
        made.__dict__ = {**self.__dict__, "status": status, **facts}
        return made

    @property
    def month(self) -> str:
        """The month whose budget the call was admitted to, YYYYMM."""
        return self.day[:4] + self.day[5:7]


class UnreadableEvent(ValueError):
    """A stream entry that is no usage event, or a hold that is none."""


@dataclass(frozen=True, slots=True)
class Terms:
    """What a call is admitted by, as of one epoch. Limits stand in the order of LIMITS; None: no limit of that kind.

    `until_us`: from that instant on these terms are out of date (the day ends, a price changes, the key expires).
    """

    mark: str
    epoch: int
    until_us: int
    day: str
    budget_nano: int
    tenant_limits: Sequence[int | None] = (None,) * 5
    key_limits: Sequence[int | None] = (None,) * 5
    packed: bytes = field(init=False, repr=False, compare=False)  # as ADMIT takes them

    def __post_init__(self) -> None:
        limits = (-1 if limit is None else limit for limit in (*self.tenant_limits, *self.key_limits))
        packed = _TERMS.pack(self.epoch, self.until_us, self.budget_nano, *limits)
        object.__setattr__(self, "packed", packed)


@dataclass(slots=True)
class Window:
    """A limit as the caller sees it after its call: how much, how much is left, when all of it is back (us)."""

    limit: int
    remaining: int
    reset_us: int


@dataclass(frozen=True, slots=True)
class Refusal:
    """One limit that refused a call, as `Verdict`; `enough` is the smallest limit that would not have, -1 if none."""

    scope: str
    limit_name: str
    limit: int
    value: int
    need: int
    wait_us: int
    enough: int


@dataclass(slots=True)
class Verdict:
    """The reply of ADMIT. `reason`: empty when admitted, else unmarked, stale, backlog or refused.

    Refused: `scope` (tenant or key) and `limit_name` (of LIMITS, or budget) say by what, `limit`, `value` and `need`
    in its unit; `wait_us` is when it would pass, -1 if waiting does not help. `refusals` are all limits that refused.
    """

    reason: str
    at_us: int
    sequence: int
    requests: Window | None = None
    tokens: Window | None = None
    scope: str = ""
    limit_name: str = ""
    limit: int = 0
    value: int = 0
    need: int = 0
    wait_us: int = 0
    refusals: tuple[Refusal, ...] = ()


@dataclass(slots=True)
class Settlement:
    """The reply of SETTLE: `written` is 1 (the event of its hold), 2 (late: no hold was left), 0 (somebody else's)
    or -1 (another installation's Redis); `entry` is the event's place in the stream.
    """

    written: int
    entry: str
    sequence: int


@dataclass(frozen=True, slots=True)
class Hold:
    """A hold as it lies in Redis. `event` is what the ledger gets if its gateway never reports back: what was sent."""

    row: str
    nano: int
    tokens: int
    event: Event


def admit(event: Event, terms: Terms, hold_nano: int, tokens: int, seen: int = 0) -> Packed:
    """ADMIT for `event`, which must have cost nothing yet. `hold_nano` and `tokens` are the most that the call can
    take; `seen` is the highest sequence that the caller has met.
    """
    whose = event.tenant, event.key or NO_KEY, event.month
    args = [terms.mark, str(seen), event.request_id, str(hold_nano), str(tokens), *whose]
    return [], [*args, orjson.dumps(event), str(LONGEST_STREAM), str(LEASE_MS), terms.packed]


def settle(event: Event, mark: str, lapsed: str = "") -> Packed:
    """SETTLE. `lapsed` is the row of the hold to end only if it is still that and its lease has run out."""
    tokens = str(event.input_tokens + event.output_tokens)
    args: list[str | bytes] = [mark, event.request_id, str(event.cost_nano), tokens, orjson.dumps(event), lapsed]
    return [], args


def renew(sent: Iterable[tuple[str, int, int, int]]) -> Packed:
    """RENEW for calls as (request id, input tokens, output tokens, nano-dollars), so far."""
    args = [text for id_, *numbers in sent for text in (id_, " ".join(map(str, numbers)))]
    return [], [str(LEASE_MS), *args]


def resume(holds: Iterable[tuple[str, str]]) -> Packed:
    """RESUME for open calls as (request id, row of the hold)."""
    return [], [str(LEASE_MS), *(text for hold in holds for text in hold)]


def hold_row(event: Event, at_us: int, hold_nano: int, tokens: int, sent: tuple[int, int, int]) -> str:
    """A hold as ADMIT wrote it, for a Redis that has lost it; its buckets are unknown there, so no tokens come back."""
    facts = f"{hold_nano} {tokens} {at_us} {event.tenant} {event.key or NO_KEY} {event.month}"
    return f"{sent[0]} {sent[1]} {sent[2]}|{facts}|-;-;-;-|{orjson.dumps(event).decode()}"


def bury(request_id: str) -> Packed:
    return [], [request_id]


def confirm(mark: str, entry: str, differences: Iterable[tuple[str, str, str, int, str]]) -> Packed:
    """CONFIRM up to `entry`; differences are (entry, tenant, month, nano-dollars, why it is put aside or nothing)."""
    told = [
        text
        for e, tenant, month, nano, why in differences
        for text in (e, f"{MONTH}{tenant}:{month}" if tenant else "", str(nano), why)
    ]
    return [], [mark, entry, after(entry), *told]


def gauge(tenant: str, owner: str, month: str) -> Packed:
    """GAUGE of a tenant's key, or of the tenant itself if it is the `owner`."""
    return [], [tenant, owner, month]


def unmark(mark: str) -> Packed:
    return [], [mark]


def raise_epochs(pairs: Iterable[tuple[str, int]]) -> Packed:
    return [], [text for tenant, epoch in pairs for text in (tenant, str(epoch))]


def proof(mark: str, nonce: str) -> Packed:
    return [], [mark, nonce]


def rebuild(
    mark: str,
    expected: int,
    sequence: int,
    months: Sequence[tuple[str, str, int, int]],
    epochs: Sequence[tuple[str, int]],
    booked: Iterable[str],
    full: bool,
) -> Packed:
    """REBUILD: months are (tenant, YYYYMM, spent, corrected), `booked` the ids of holds whose call is in the ledger."""
    args = [mark, str(expected), str(sequence), str(LEASE_MS), str(len(months)), str(len(epochs)), "01"[full]]
    args += [text for tenant, month, *nanos in months for text in (f"{tenant}:{month}", *map(str, nanos))]
    args += [text for tenant, epoch in epochs for text in (tenant, str(epoch))]
    return [], [*args, *booked]


def verdict(reply: Sequence[Any]) -> Verdict:
    """The reply of ADMIT, read."""
    word, at_us, sequence, *numbers = reply
    word = word.decode() if isinstance(word, bytes) else word
    if word == "ok":
        return Verdict("", at_us, sequence, _window(*numbers[:3]), _window(*numbers[3:]))
    if word != "refused":
        return Verdict(word, at_us, sequence)
    (scope, name), (limit, value, need, wait_us) = REFUSERS[numbers[0]], numbers[1:5]
    windows = _window(*numbers[5:8]), _window(*numbers[8:11])
    refusals = tuple(_refusal(*numbers[at : at + 7]) for at in range(11, len(numbers), 7))
    return Verdict(word, at_us, sequence, *windows, scope, name, limit, value, need, wait_us, refusals)


def _window(limit: int, remaining: int, reset_us: int) -> Window | None:
    return Window(limit, remaining, reset_us) if limit >= 0 else None


def _refusal(number: int, limit: int, value: int, need: int, wait_us: int, used: int, drained_us: int) -> Refusal:
    """One of ADMIT's refusals. `used` is its bucket's level when it was last written, -1 if nobody knows it.

    With the limit L the bucket would have drained by L in each of `drained_us` and held L x period, so that the call
    passes if L >= need and L x (period + drained) >= used + need x period; one that counts as full was used to L x
    period.
    """
    scope, name = REFUSERS[number]
    if not name.startswith(("requests", "tokens")):
        return Refusal(scope, name, limit, value, need, wait_us, used + need)
    period = MINUTE if name.endswith("minute") else MINUTE // 60
    filled, room = (need * period, drained_us) if used < 0 else (used + need * period, period + drained_us)
    enough = max(need, -(-filled // room)) if room else -1
    return Refusal(scope, name, limit, value, need, wait_us, enough)


def settlement(reply: Sequence[Any]) -> Settlement:
    """The reply of SETTLE, read."""
    written, entry, sequence = reply
    return Settlement(written, entry.decode() if isinstance(entry, bytes) else entry, sequence)


HOLD = re.compile(r"(\d+) (\d+) (\d+)\|(\d+) (\d+) (\d+) (\S+) (\S+) (\d+)\|([^|]*)\|(.*)", re.ASCII | re.DOTALL)


def read_hold(row: str) -> Hold:
    """A hold's row; its event is `estimated` at what was sent before its gateway went. Raises UnreadableEvent."""
    match = HOLD.fullmatch(row)
    if not match:
        raise UnreadableEvent(f"not a hold: {row[:40]!r}")
    inputs, outputs, cost, nano, tokens, at_us = map(int, match.groups()[:6])
    facts = {"input_tokens": inputs, "output_tokens": outputs, "cost_nano": cost, "at_us": at_us}
    return Hold(row, nano, tokens, read_event(match[11]).ending("estimated", reason="gateway_lost", **facts))


def read_event(text: str | bytes) -> Event:
    """A usage event from its JSON, fields that an older gateway did not know by default; raises UnreadableEvent."""
    try:
        data = orjson.loads(text)
        event = Event(**{name: data[name] for name in FIELDS if name in data})
    except (ValueError, KeyError, TypeError) as error:
        raise UnreadableEvent(f"not a usage event: {error!r}") from error
    for name, kind in FIELDS.items():
        if type(getattr(event, name)) is not kind:
            raise UnreadableEvent(f"not a usage event: {name} is no {kind.__name__}")
    if not DAY.fullmatch(event.day):
        raise UnreadableEvent(f"not a usage event: {event.day!r} is no day")
    return event


def cost(
    input_tokens: int, output_tokens: int, input_price: int, output_price: int, cached: int = 0, cached_price: int = 0
) -> int:
    """Nano-dollars of one call at prices in nano-dollars per million tokens; rounded half up, once.

    `cached` of the input tokens cost `cached_price`.
    """
    total = (input_tokens - cached) * input_price + cached * cached_price + output_tokens * output_price
    return (total + 500_000) // 1_000_000


def after(entry: str) -> str:
    """The smallest stream id behind `entry`."""
    milliseconds, _, number = entry.partition("-")
    return f"{milliseconds}-{int(number) + 1}"


def place(entry: str) -> tuple[int, int]:
    """A stream id as numbers that compare."""
    milliseconds, _, number = entry.partition("-")
    return int(milliseconds), int(number)


DAY = re.compile(r"\d{4}-\d{2}-\d{2}", re.ASCII)
FIELDS = {one.name: int if one.type == "int" else str for one in fields(Event)}
