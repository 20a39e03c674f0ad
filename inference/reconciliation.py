"""The ledger against the engines: what each replica says it read and made, against what was booked for it.

An engine counts since its start, so both are added up from one reading to the next; a new start begins anew at nothing.
A reading is compared once every call that was admitted before it has ended and is booked, so calls under way are waited
for, not guessed. What cannot be known is allowed for and said, each reason with its own number:

- `begin`, `edges`: calls that were under way at the first or the last reading, or ended just before, and our own
  questions at that time: a part of their tokens;
- `left`: calls that ended before their time. Of a stream the ledger has what was sent, and the engine makes a few more
  tokens until it hears of it. Of a whole answer nobody knows how far it was, and its prompt is an estimate;
- `lost`: calls whose gateway died: nobody knows which engine had them, nor how far it was;
- `repeated`: of several answers to one prompt an engine reads the prompt for each, and the ledger has it once.

Anything beyond that and 0.1 % is an alarm: tokens that nobody paid for, or that nobody made.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from django.db.models import Max, Q, QuerySet, Sum
from django.utils import timezone

from inference import discrepancies, replicas
from inference.engines.client import Engine, EngineError
from inference.models import BaseModel, EngineReading, OwnTokens, Replica
from tenants import counters, metering
from tenants.models import LedgerHead, UsageEvent

log = logging.getLogger(__name__)
PROMPT, GENERATION = "vllm:prompt_tokens_total", "vllm:generation_tokens_total"
ANSWERS, ASKED = "vllm:request_params_n_sum", "vllm:request_params_n_count"
STARTED = "process_start_time_seconds"
THOUSANDTHS = 1  # of either sum that may differ
LAG = timedelta(seconds=1)  # within which an engine has counted what it said, and a question of ours is written down
ABORT_TOKENS = 64  # that an engine makes of a stream until it hears that its reader has gone, at most
FASTEST = 400  # tokens a second of one answer
BYTES_PER_TOKEN = 4  # by which a prompt is estimated (`gateway.call`); no token is shorter than a byte
MARGIN = 64  # tokens of a chat template around a prompt
LONGEST = timedelta(seconds=120)  # of a question of ours, which is written down when it is answered
RECENT = 10_000  # rows that are looked through for calls under way at a replica's first reading
LOOK_SECONDS = 5.0
KEPT = timedelta(days=30)

Pair = list[int]


def own(replica_name: str, prompt: int, generation: int) -> None:
    """Keeps what a question of ours, which no gateway counted, has just taken of a replica."""
    OwnTokens.objects.create(replica=replica_name, prompt_tokens=prompt, generation_tokens=generation)


def read() -> list[EngineReading]:
    """Reads what each replica says now; one that does not answer is left out. Raises redis.RedisError."""
    found = (_read(replica) for replica in Replica.objects.filter(state=Replica.State.WELL))
    return [reading for reading in found if reading]


def compare() -> list[EngineReading]:
    """Compares the readings that can be, oldest first; answers those. Raises redis.RedisError."""
    compared = []
    waiting = EngineReading.objects.filter(since=None).order_by("at", "pk")
    for reading in waiting:
        if not _is_ripe(reading.until):
            break
        _compare(reading)
        compared.append(reading)
    return compared


def forget() -> None:
    """Deletes what is older than a month; the newest readings carry the sums."""
    before = timezone.now() - KEPT
    OwnTokens.objects.filter(at__lt=before).delete()
    EngineReading.objects.filter(at__lt=before).exclude(since=None).delete()


def _read(replica: Replica) -> EngineReading | None:
    row = UsageEvent.objects.aggregate(newest=Max("pk"))["newest"] or 0
    at = _now()
    try:
        told = Engine(replica.url, LOOK_SECONDS, secret=replicas.secret(replica)).metrics()
    except EngineError as error:
        log.warning("%s does not say what it counted: %s", replica, error)
        return None
    if not {PROMPT, GENERATION, STARTED} <= told.keys():
        log.warning("%s does not count its tokens.", replica)
        return None
    return EngineReading.objects.create(
        replica=replica.name,
        started_at=datetime.fromtimestamp(told[STARTED], UTC),
        at=at,
        until=_now(),
        row=row,
        counted=[round(told[PROMPT]), round(told[GENERATION]), round(told.get(ANSWERS, 0) - told.get(ASKED, 0))],
    )


def _is_ripe(until: datetime) -> bool:
    """Whether every call that was admitted before has ended and is in the ledger."""
    client = counters.connect()
    for row in client.hvals(metering.HOLDS):
        try:
            at_us = metering.read_hold(str(row)).event.at_us
        except metering.UnreadableEvent:
            continue  # the ledger's writer buries it
        if _moment(at_us) < until:
            return False
    last = client.xrevrange(metering.STREAM, count=1)
    head = LedgerHead.objects.first()
    return not last or (head is not None and metering.place(head.position) >= metering.place(str(last[0][0])))


@dataclass
class Sums:
    """What the ledger says of one replica's calls between two readings."""

    booked: Pair = field(default_factory=lambda: [0, 0])
    left: Pair = field(default_factory=lambda: [0, 0])
    lost: Pair = field(default_factory=lambda: [0, 0])
    longest: int = 0


def _compare(reading: EngineReading) -> None:
    """Adds to the reading before what came since then."""
    before = EngineReading.objects.filter(replica=reading.replica, at__lt=reading.at).exclude(since=None).first()
    goes_on = before is not None and _is_same_start(before, reading)
    allowed: dict[str, Pair] = {}
    if before is None:  # nothing is known of what was before
        reading.since, reading.base, reading.booked, reading.own = reading.at, reading.counted, [0, 0], [0, 0]
        allowed = {"begin": _edge(reading, reading.row - RECENT)}
    else:
        since = before.at if goes_on else reading.started_at
        sums = _sums(reading.replica, before.row, since, reading.at)
        own_ = _own(reading.replica, since, reading.at)
        if goes_on and before.since:
            reading.since, reading.base = before.since, before.base
            reading.booked, reading.own = _add(before.booked, sums.booked), _add(before.own, own_)
            kept = before.allowed
        else:
            reading.since, reading.base = reading.started_at, [0, 0, 0]
            reading.booked, reading.own, kept = sums.booked, own_, {}
        allowed = {
            "begin": kept.get("begin", [0, 0]),
            "left": _add(kept.get("left", [0, 0]), sums.left),
            "lost": _add(kept.get("lost", [0, 0]), sums.lost),
            "edges": _edge(reading, before.row),
        }
        reading.longest = max(sums.longest, before.longest if goes_on else 0)
        allowed["repeated"] = [(reading.counted[2] - reading.base[2]) * reading.longest, 0]
    reading.allowed = {name: pair for name, pair in allowed.items() if any(pair)}
    reading.holds = _holds(reading)
    if not reading.holds and goes_on and before and before.holds is False:
        reading.told_at = before.told_at
    reading.save()
    if not reading.holds:
        log.error("%s does not agree with the ledger: %s", reading.replica, discrepancies.sentence(reading))


def _holds(reading: EngineReading) -> bool:
    for side, (difference, allowed) in enumerate(zip(reading.difference, reading.allowance, strict=True)):
        counted = reading.counted[side] - reading.base[side]
        if (abs(difference) - allowed) * 1000 > THOUSANDTHS * counted:
            return False
    return True


def _is_same_start(before: EngineReading, reading: EngineReading) -> bool:
    grown = all(now >= then for now, then in zip(reading.counted, before.counted, strict=True))
    return grown and abs(reading.started_at - before.started_at) < LAG


def _sums(name: str, row: int, since: datetime, until: datetime) -> Sums:
    """Of calls admitted from `since` on and before `until`, all of them in rows after `row`."""
    rows = UsageEvent.objects.filter(pk__gt=row, occurred_at__gte=since, occurred_at__lt=until)
    mine = rows.filter(engine=name)
    sums = Sums(booked=_total(mine))
    # A correction names the engine; the estimate that it corrects could not.
    corrected = UsageEvent.objects.filter(pk__in=mine.filter(source="adjustment").values("corrects"), engine="")
    sums.booked = _add(sums.booked, _total(corrected))
    usage = mine.filter(source="gateway")
    sums.longest = usage.aggregate(most=Max("input_tokens"))["most"] or 0
    gone = usage.filter(status="aborted").filter(Q(input_tokens__gt=0) | Q(output_tokens__gt=0))
    for inputs, latency_ms, ttft_ms in gone.values_list("input_tokens", "latency_ms", "ttft_ms"):
        sums.left = _add(sums.left, _unseen(inputs, latency_ms, ttft_ms))
    estimates = set(rows.filter(engine="", status="estimated").values_list("request_id", flat=True))
    settled = UsageEvent.objects.filter(request_id__in=estimates, source="adjustment").values_list(
        "request_id", flat=True
    )
    most = BaseModel.objects.aggregate(most=Max("context_tokens"))["most"] or 0
    sums.lost = [len(estimates - set(settled)) * most] * 2
    return sums


def _unseen(inputs: int, latency_ms: int, ttft_ms: int) -> Pair:
    """By how much an engine may have read and made more or less than a call that was left is booked with."""
    if ttft_ms:  # a stream: its engine counted aloud
        return [0, ABORT_TOKENS]
    return [(BYTES_PER_TOKEN - 1) * inputs + MARGIN, ABORT_TOKENS + latency_ms * FASTEST // 1000]


def _edge(reading: EngineReading, row: int) -> Pair:
    """All tokens of the calls of its replica, in rows after `row`, that were under way at a reading, or had ended just
    before; and of our own questions that were.
    """
    rows = UsageEvent.objects.filter(pk__gt=row, engine=reading.replica, source="gateway")
    rows = rows.filter(occurred_at__lt=reading.until)
    found, ended = _own(reading.replica, reading.at - LAG, reading.until + LONGEST), reading.at - LAG
    longest = timedelta(milliseconds=rows.aggregate(most=Max("latency_ms"))["most"] or 0)
    rows = rows.filter(occurred_at__gt=ended - longest)
    for at, latency_ms, *tokens in rows.values_list("occurred_at", "latency_ms", "input_tokens", "output_tokens"):
        if at + timedelta(milliseconds=latency_ms) > ended:
            found = _add(found, tokens)
    return found


def _own(name: str, since: datetime, until: datetime) -> Pair:
    rows = OwnTokens.objects.filter(replica=name, at__gte=since, at__lt=until)
    sums = rows.aggregate(prompt=Sum("prompt_tokens"), generation=Sum("generation_tokens"))
    return [sums["prompt"] or 0, sums["generation"] or 0]


def _total(rows: QuerySet[UsageEvent]) -> Pair:
    sums = rows.order_by().aggregate(prompt=Sum("input_tokens"), generation=Sum("output_tokens"))
    return [sums["prompt"] or 0, sums["generation"] or 0]


def _add(one: Sequence[int], other: Sequence[int]) -> Pair:
    return [one[0] + other[0], one[1] + other[1]]


def _now() -> datetime:
    seconds, micros = counters.connect().time()
    return datetime.fromtimestamp(int(seconds), UTC) + timedelta(microseconds=int(micros))


def _moment(us: int) -> datetime:
    return datetime.fromtimestamp(us // 1_000_000, UTC) + timedelta(microseconds=us % 1_000_000)
