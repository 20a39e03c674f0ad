"""The gateway's side of the counters: what is sent together, kept, sent again, and never taken for delivered."""

import asyncio
import contextlib
import inspect
import time
from dataclasses import dataclass, field
from typing import Any

import pytest
import redis.asyncio

from inference.gateway import admission, pipeline
from inference.gateway.admission import Counters
from inference.gateway.pipeline import Pipeline, Unavailable
from inference.gateway.snapshot import NEVER
from tenants import metering
from tenants.metering import Event, Terms

HERE, ELSEWHERE = "a" * 32, "b" * 32
MARK = f"{HERE}:1"


@dataclass
class Asked:
    """A call as admission sees it."""

    number: int = 1
    mark: str = MARK
    hold_nano: int = 5
    tokens: int = 10
    sent: tuple[int, int, int] = (0, 0, 0)
    stopped: str = ""
    event: Event = field(init=False)
    terms: Terms = field(init=False)

    def __post_init__(self) -> None:
        self.event = Event(f"req_{self.number}", "t", "k", "2026-11-25", "estimated", "m", "m")
        self.terms = Terms(self.mark, 1, NEVER, "2026-11-25", 10**9)

    def progress(self):
        return self.sent

    def stop(self, reason):
        self.stopped = reason


class Weak(Pipeline):
    """The first `failures` settlements do not reach Redis; `lose` ADMITs: before they reach it, or their answers."""

    failures, lose, trips = 0, "", 0

    def send(self, batch):
        self.trips += 1
        scripts = {command.script for command in batch}
        gone = redis.ConnectionError("gone")
        if metering.SETTLE in scripts and self.failures:
            self.failures -= 1
            return [command.fail(gone) for command in batch]
        if metering.ADMIT in scripts and self.lose == "before":
            return [command.fail(gone) for command in batch]
        if metering.ADMIT in scripts and self.lose == "answer":
            return super().send([self._unheard(command, gone) for command in batch])
        return super().send(batch)

    def _unheard(self, command, error):
        """The same one, whose reply reaches nobody."""
        heard = asyncio.get_running_loop().create_future()
        heard.add_done_callback(lambda done: (done.exception(), command.fail(error)))
        return pipeline.Command(self, command.script, command.words, heard)


@pytest.fixture
async def client(redis_url, monkeypatch):
    """A Redis that the ledger vouches for; pauses are short."""
    monkeypatch.setattr(admission, "TICK", 0.02)
    monkeypatch.setattr(admission, "LONGEST_PAUSE", 0.05)
    monkeypatch.setattr(admission, "SETTLE_PAUSES", (0.02, 0.02))
    async with redis.asyncio.Redis.from_url(redis_url, decode_responses=True) as client:
        await vouch(client)
        yield client


@pytest.fixture
async def counters(client, redis_url):
    counters = Counters(redis_url, nothing)
    counters._pipe = Weak(redis_url)
    counters.adopt(MARK, 0)
    yield counters
    with contextlib.suppress(Unavailable):
        await counters.close()


async def vouch(client, mark=MARK):
    sequence = await client.hget(metering.STATE, "sequence") or "0"
    await client.hdel(metering.STATE, "mark")
    left = await client.xrange(metering.STREAM)
    await client.xtrim(metering.STREAM, maxlen=0)
    keys, args = metering.rebuild(mark, int(sequence), int(sequence), [], [("t", 1)], [], False)
    assert await client.eval(metering.REBUILD, len(keys), *keys, *args) == 1
    return left


async def nothing(now_us, epochs):
    pass


async def stream(client: Any) -> list[tuple[Event, bool]]:
    """The events in the stream; whether each came late."""
    entries = await client.xrange(metering.STREAM)
    return [(metering.read_event(fields["event"]), "late" in fields) for _, fields in entries]


async def until(ready, seconds=3.0):
    deadline = time.monotonic() + seconds
    while True:
        answer = ready()
        if answer := await answer if inspect.isawaitable(answer) else answer:
            return answer
        assert time.monotonic() < deadline
        await asyncio.sleep(0.005)


async def settled(counters, call, cost=5):
    assert (await counters.admit(call)).reason == ""
    await counters.settle(call.event.ending("settled", cost_nano=cost))


async def test_what_is_asked_in_one_tick_travels_together(client, counters):
    await counters.admit(Asked(0))
    before = counters._pipe.trips
    verdicts = await asyncio.gather(*(counters.admit(Asked(number)) for number in range(1, 21)))
    assert {verdict.reason for verdict in verdicts} == {""}
    assert counters._pipe.trips == before + 1
    assert await client.hlen(metering.HOLDS) == 21


async def test_a_server_that_lost_its_scripts_gets_them_again_and_runs_each_step_once(client, counters):
    await counters.admit(Asked(0))
    await client.script_flush()
    await settled(counters, Asked(1))
    assert [(event.request_id, late) for event, late in await stream(client)] == [("req_1", False)]


@pytest.mark.parametrize("failures", [0, 1, 3])
async def test_a_caller_who_is_cut_off_while_being_admitted_pays_nothing(client, counters, failures):
    counters._pipe.failures = failures
    counters.start()
    asking = asyncio.ensure_future(counters.admit(Asked()))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    await until(lambda: counters._pipe.failures == 0)
    await counters.close()
    assert await client.hgetall(metering.HOLDS) == {}
    assert await client.hmget(f"{metering.MONTH}t:202611", "spent", "held") == ["0", "0"]
    ((event, late),) = await stream(client)
    assert (event.status, event.reason, event.cost_nano, late) == ("aborted", "client_disconnected", 0, False)


async def test_a_hold_whose_answer_was_lost_is_released(client, counters):
    counters._pipe.lose, counters._pipe.failures = "answer", 2
    with pytest.raises(Unavailable):
        await counters.admit(Asked())
    counters._pipe.lose = ""
    await counters.close()
    assert await client.hgetall(metering.HOLDS) == {}
    ((event, late),) = await stream(client)
    assert (event.status, event.reason, late) == ("aborted", "counters_unavailable", False)


async def test_a_call_that_never_reached_redis_leaves_no_event(client, counters):
    counters._pipe.lose = "before"
    with pytest.raises(Unavailable):
        await counters.admit(Asked())
    await counters.close()
    assert await stream(client) == []


async def test_what_could_not_be_delivered_is_sent_until_it_is(client, counters):
    counters.start()
    counters._pipe.failures = 12
    began = time.monotonic()
    await settled(counters, Asked())
    assert time.monotonic() - began < 1  # the answer does not wait for it
    assert await stream(client) == []
    await until(lambda: counters._pipe.failures == 0)
    await until(lambda: counters._kept["req_1"].place)
    ((event, late),) = await stream(client)
    assert (event.status, event.cost_nano, late) == ("settled", 5, False)


async def test_an_event_is_kept_until_it_is_booked(client, counters):
    counters.start()
    await settled(counters, Asked(1))
    await settled(counters, Asked(2))
    (first, _), (second, _) = await client.xrange(metering.STREAM)
    await asyncio.sleep(0.1)
    assert set(counters._kept) == {"req_1", "req_2"}
    await client.hset(metering.STATE, "booked", first)
    await until(lambda: set(counters._kept) == {"req_2"})
    await client.hset(metering.STATE, "booked", second)
    await until(lambda: not counters._kept)


async def test_a_call_whose_hold_is_gone_ends_and_one_that_can_be_held_again_goes_on(client, counters):
    one, other = Asked(1), Asked(2)
    for call in (one, other):
        assert (await counters.admit(call)).reason == ""
    await client.hdel(metering.HOLDS, "req_1")  # as if it had lapsed while this gateway was cut off
    await counters._renew()
    assert (one.stopped, other.stopped) == ("hold_lost", "")
    await client.flushdb()
    await counters._renew()
    assert other.stopped == ""
    assert await client.hexists(metering.HOLDS, "req_2")


async def test_a_gateway_that_bears_too_much_in_mind_admits_nobody(client, counters, monkeypatch):
    monkeypatch.setattr(admission, "MOST_KEPT", 2)
    await settled(counters, Asked(1))
    assert (await counters.admit(Asked(2))).reason == ""
    assert (await counters.admit(Asked(3))).reason == "backlog"
    assert await client.hlen(metering.HOLDS) == 1
    assert set(counters._kept) == {"req_1"}


async def test_when_the_counters_were_rebuilt_all_that_is_not_booked_goes_again(client, counters):
    counters.start()
    await settled(counters, Asked(1))
    assert (await counters.admit(Asked(2))).reason == ""
    ((entry, _),) = await vouch(client, f"{HERE}:2")
    ((event, late),) = await until(lambda: stream(client))
    assert (event.request_id, event.cost_nano, late) == ("req_1", 5, True)
    assert await until(lambda: counters._kept["req_1"].place) > metering.place(entry)
    await counters.settle(Asked(2).event.ending("settled", cost_nano=5))
    assert [late for _, late in await stream(client)] == [True, False]  # the hold that survived is settled


async def test_an_emptied_redis_gets_events_and_holds_back_before_it_is_rebuilt(client, counters):
    counters.start()
    await settled(counters, Asked(1))
    assert (await counters.admit(Asked(2))).reason == ""
    hold = metering.read_hold(await client.hget(metering.HOLDS, "req_2"))
    await client.flushdb()
    await until(lambda: client.hlen(metering.HOLDS))
    assert await client.hget(metering.STATE, "mark") is None
    assert [(event.request_id, late) for event, late in await until(lambda: stream(client))] == [("req_1", True)]
    again = metering.read_hold(await client.hget(metering.HOLDS, "req_2"))
    assert (again.nano, again.tokens, again.event) == (hold.nano, hold.tokens, hold.event)
    assert await client.zscore(metering.LEASES, "req_2")
    await vouch(client, f"{HERE}:2")
    await counters.settle(Asked(2).event.ending("settled", cost_nano=5))
    assert not await client.hlen(metering.HOLDS)


async def test_a_redis_that_counts_fewer_steps_than_were_seen_is_taken_out_of_service(client, counters):
    await settled(counters, Asked(1))
    await client.hset(metering.STATE, "sequence", 1)
    counters.start()
    await until(lambda: counters._lost)
    assert await client.hget(metering.STATE, "mark") is None


async def test_an_emptied_redis_says_nothing_of_what_it_had(client, counters):
    counters.start()
    await settled(counters, Asked(1))
    await client.flushdb()
    await client.hset(metering.STATE, "booked", "9999999999999-0")
    await asyncio.sleep(0.1)
    assert set(counters._kept) == {"req_1"}
    assert (await counters.admit(Asked(2))).reason == "unmarked"
    await client.delete(metering.STATE)
    await vouch(client, f"{HERE}:2")
    await until(lambda: counters._mark == f"{HERE}:2")
    assert [(event.request_id, late) for event, late in await until(lambda: stream(client))] == [("req_1", True)]


async def test_an_older_mark_is_not_believed_again(client, counters):
    counters.adopt(f"{HERE}:3", 7)
    counters.adopt(MARK, 9)
    counters.adopt("", 0)
    assert (counters._mark, counters._seen) == (f"{HERE}:3", 7)
    counters.adopt(f"{ELSEWHERE}:1", 0)  # the database is another one now
    assert counters._mark == f"{ELSEWHERE}:1"


async def test_another_installations_redis_is_given_nothing(client, counters):
    assert (await counters.admit(Asked(1))).reason == ""
    await client.delete(metering.STATE)
    await vouch(client, f"{ELSEWHERE}:1")
    counters.start()
    await counters.settle(Asked(1).event.ending("settled", cost_nano=5))
    assert await stream(client) == []
    assert counters._kept["req_1"].place is None
    assert counters._mark == MARK


async def test_a_redis_that_forgot_steps_admits_nobody(client, counters):
    for number in range(3):
        assert (await counters.admit(Asked(number))).reason == ""
    await client.hset(metering.STATE, "sequence", 2)
    assert (await counters.admit(Asked(9))).reason == "unmarked"
    assert await client.hget(metering.STATE, "mark") is None
    assert (await counters.admit(Asked(9))).reason == "unmarked"


async def test_a_redis_that_started_anew_gets_everything_again(client, counters):
    """It may have lost the end of its file, and be back where it was by what others did since."""
    await settled(counters, Asked(1))
    counters._server = "another start"
    counters.start()
    await until(lambda: counters._kept["req_1"].place and counters._server != "another start")
    assert [(event.request_id, late) for event, late in await stream(client)] == [("req_1", False), ("req_1", True)]


@pytest.mark.parametrize("finder", ["settlement", "look"])
async def test_a_redis_that_forgot_steps_loses_its_mark_though_nobody_asks_for_admission(client, counters, finder):
    assert (await counters.admit(Asked(1))).reason == ""
    assert (await counters.admit(Asked(2))).reason == ""
    await client.hset(metering.STATE, "sequence", 0)
    if finder == "look":
        counters.start()
        await until(lambda: counters._server)
    else:
        await counters.settle(Asked(1).event.ending("settled", cost_nano=5))
    assert await client.hget(metering.STATE, "mark") is None


async def test_open_calls_are_renewed_in_one_command_with_what_was_sent(client, redis_url, monkeypatch):
    monkeypatch.setattr(metering, "RENEW_SECONDS", 0.05)
    monkeypatch.setattr(metering, "LEASE_MS", 400)
    monkeypatch.setattr(admission, "CHUNK", 3)
    heard: list[tuple[int, dict[str, int]]] = []

    async def renewed(now_us, epochs):
        heard.append((now_us, dict(epochs)))

    counters = Counters(redis_url, renewed)
    counters.adopt(MARK, 0)
    counters.start()
    calls = [Asked(number, sent=(number, 2, 3)) for number in range(4)]
    for call in calls:
        await counters.admit(call)
    await asyncio.sleep(0.5)  # longer than the lease
    seconds, micros = await client.time()
    leases = dict(await client.zrange(metering.LEASES, 0, -1, withscores=True))
    assert len(leases) == 4
    assert min(leases.values()) > seconds * 1000 + micros / 1000
    holds = [metering.read_hold(row) for row in (await client.hgetall(metering.HOLDS)).values()]
    assert {(hold.event.input_tokens, hold.event.output_tokens, hold.event.cost_nano) for hold in holds} == {
        (number, 2, 3) for number in range(4)
    }
    assert abs(heard[-1][0] - seconds * 1_000_000) < 2_000_000
    assert heard[-1][1] == {"t": 1}
    await counters.settle(calls[0].event.ending("settled"))
    await asyncio.sleep(0.1)
    assert await client.zcard(metering.LEASES) == 3
    await counters.close()
