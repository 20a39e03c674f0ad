"""Admit and settle: the two atomic steps of a call in Redis. Pure: key names, scripts, packing, replies.

Admit checks the epoch, the rate and the budget, and takes a money hold. The hold's row is the usage event as it
will read if nobody ever reports back: worst case, status `estimated`. Settle removes the hold, moves the cost
into the month's spend and appends the event to the usage stream. Whoever removes the hold writes the event;
nothing else does: so each admitted call ends as exactly one event. Both steps may be sent twice.

Rate: GCRA (ITU-T I.371) on the server's clock, burst of one minute's worth. Money: integer nano-dollars, exact in
Lua below 2^53. A month is a UTC month, `YYYYMM`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime
from typing import Any

import orjson

HOLDS = "ps:holds"  # hash: request id -> "<hold> <event JSON>"
LEASES = "ps:leases"  # sorted set: request id by the millisecond at which its gateway is taken for dead
STREAM = "ps:usage"
DEAD_STREAM = "ps:usage:dead"  # events that the ledger cannot read; kept for a person
GROUP = "ledger"
LEASE_MS = 60_000
MONTH_SECONDS = 70 * 86_400

# KEYS epoch rate month holds leases; ARGV epoch id requests/minute budget hold lease_ms event
ADMIT = """
if redis.call('HEXISTS', KEYS[4], ARGV[2]) == 1 then return {'ok', 0} end
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return {'stale', 0} end
local month = redis.call('HMGET', KEYS[3], 'spent', 'held')
if not month[1] then return {'unseeded', 0} end
local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]
local limit = tonumber(ARGV[3])
if limit <= 0 then return {'rate_limit', 60000} end
local interval = math.floor(60000000 / limit)
local arrival = math.max(tonumber(redis.call('GET', KEYS[2]) or now), now) + interval
local wait = arrival - now - 60000000
if wait > 0 then return {'rate_limit', math.ceil(wait / 1000)} end
if month[1] + (month[2] or 0) + ARGV[5] > tonumber(ARGV[4]) then return {'budget', 0} end
redis.call('SET', KEYS[2], string.format('%.0f', arrival), 'PX', 60000)
redis.call('HINCRBY', KEYS[3], 'held', ARGV[5])
redis.call('HSET', KEYS[4], ARGV[2], ARGV[5] .. ' ' .. ARGV[7])
redis.call('ZADD', KEYS[5], string.format('%.0f', now / 1000 + ARGV[6]), ARGV[2])
return {'ok', 0}
"""

# KEYS holds leases month stream; ARGV id cost event only_if_lapsed. 1: this call wrote the event; 0: somebody else.
# A script is not undone when it fails on the way, so what can fail comes before the first write.
SETTLE = """
local row = redis.call('HGET', KEYS[1], ARGV[1])
if not row then return 0 end
if ARGV[4] == '1' then
  local clock = redis.call('TIME')
  local lease = redis.call('ZSCORE', KEYS[2], ARGV[1])
  if lease and tonumber(lease) > clock[1] * 1000 + clock[2] / 1000 then return 0 end
end
local held = tonumber(string.match(row, '^-?%d+ '))
if not held or not string.match(ARGV[2], '^-?%d+$') then return redis.error_reply('no amount in hold or event') end
redis.call('HDEL', KEYS[1], ARGV[1])
redis.call('ZREM', KEYS[2], ARGV[1])
redis.call('HINCRBY', KEYS[3], 'held', string.format('%.0f', 0 - held))
redis.call('HINCRBY', KEYS[3], 'spent', ARGV[2])
redis.call('XADD', KEYS[4], '*', 'event', ARGV[3])
return 1
"""

# KEYS holds leases dead; ARGV id. A lapsed hold that nobody can read, put aside for a person. 1: this call did.
BURY = """
local row = redis.call('HGET', KEYS[1], ARGV[1])
local lease = redis.call('ZSCORE', KEYS[2], ARGV[1])
local clock = redis.call('TIME')
if not row or (lease and tonumber(lease) > clock[1] * 1000 + clock[2] / 1000) then return 0 end
redis.call('XADD', KEYS[3], '*', 'request_id', ARGV[1], 'hold', row)
redis.call('HDEL', KEYS[1], ARGV[1])
redis.call('ZREM', KEYS[2], ARGV[1])
return 1
"""

# KEYS epoch; ARGV epoch. Never lowers: a loader that read an older row must not undo a change.
RAISE_EPOCH = """
local known = tonumber(redis.call('GET', KEYS[1]) or 0)
if tonumber(ARGV[1]) > known then redis.call('SET', KEYS[1], ARGV[1]) end
return 1
"""


@dataclass(frozen=True, slots=True)
class Event:
    """One usage event; the columns of the ledger. `month` is the UTC month whose budget the call was admitted to."""

    request_id: str
    tenant: str
    key: str
    occurred_at: str  # RFC 3339, UTC
    month: str
    status: str
    model: str
    served: str
    adapter_digest: str = ""
    arm: str = ""
    weight_bp: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cost_nano: int = 0
    request_digest: str = ""
    answer_digest: str = ""
    policy_digest: str = ""
    reason: str = ""
    latency_ms: int = 0
    ttft_ms: int = 0

    def ending(self, status: str, **facts: Any) -> Event:
        """The same call with its outcome."""
        return replace(self, status=status, **facts)


class UnreadableEvent(ValueError):
    """A stream entry that is no usage event."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What a tenant may use, as of one epoch."""

    epoch: int
    requests_per_minute: int
    budget_nano: int  # a month


@dataclass(frozen=True, slots=True)
class Verdict:
    """`reason` is empty when admitted, else stale, unseeded, rate_limit or budget."""

    reason: str
    retry_ms: int = 0


def admit(event: Event, limits: Limits) -> tuple[list[str], list[str | bytes]]:
    """(KEYS, ARGV) of ADMIT: holds `event.cost_nano`, the most that this call can cost."""
    keys = [epoch_key(event.tenant), rate_key(event.tenant), month_key(event.tenant, event.month), HOLDS, LEASES]
    numbers = [limits.requests_per_minute, limits.budget_nano, event.cost_nano, LEASE_MS]
    return keys, [str(limits.epoch), event.request_id, *map(str, numbers), orjson.dumps(event)]


def settle(event: Event, only_if_lapsed: bool = False) -> tuple[list[str], list[str | bytes]]:
    """(KEYS, ARGV) of SETTLE; `only_if_lapsed` leaves a hold alone whose gateway has renewed its lease."""
    keys = [HOLDS, LEASES, month_key(event.tenant, event.month), STREAM]
    return keys, [event.request_id, str(event.cost_nano), orjson.dumps(event), "1" if only_if_lapsed else "0"]


def bury(request_id: str) -> tuple[list[str], list[str | bytes]]:
    """(KEYS, ARGV) of BURY."""
    return [HOLDS, LEASES, DEAD_STREAM], [request_id]


def verdict(reply: list[Any]) -> Verdict:
    """The reply of ADMIT, read."""
    word = reply[0].decode() if isinstance(reply[0], bytes) else reply[0]
    return Verdict("" if word == "ok" else word, int(reply[1]))


def held_event(row: str) -> Event:
    """The event inside a hold's row, what the ledger gets if its gateway never reports back; raises UnreadableEvent."""
    amount, _, text = row.partition(" ")
    if not re.fullmatch(r"-?[0-9]+", amount):
        raise UnreadableEvent(f"not a hold's amount: {amount[:20]!r}")
    return read_event(text)


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
    return event


def cost(input_tokens: int, output_tokens: int, input_nano_per_mtok: int, output_nano_per_mtok: int) -> int:
    """Nano-dollars of one call at prices per million tokens; rounded half up, once."""
    total = input_tokens * input_nano_per_mtok + output_tokens * output_nano_per_mtok
    return (total + 500_000) // 1_000_000


def month_of(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y%m")


def epoch_key(tenant: str) -> str:
    return f"ps:epoch:{tenant}"


def rate_key(tenant: str) -> str:
    return f"ps:rate:{tenant}"


def month_key(tenant: str, month: str) -> str:
    return f"ps:month:{tenant}:{month}"  # hash: spent, held


FIELDS = {field.name: int if field.type == "int" else str for field in fields(Event)}
