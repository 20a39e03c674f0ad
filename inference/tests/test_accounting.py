"""What must hold whatever happens: limits are exact, money never overshoots, one admitted call is one ledger row."""

import asyncio
import contextlib
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import httpx2
import pytest
import redis
import redis.asyncio

from inference.gateway.admission import Counters, Unavailable
from inference.snapshots import load, seed
from inference.tests.conftest import HELLO
from tenants import epochs, limits, metering, writer
from tenants.models import UsageEvent

HOLD = (len(b'{"model": "demo-base", "messages": [{"role": "user", "content": "Merhaba"}], "max_tokens": 9}') + 64) + 36


@pytest.fixture
def counters(redis_url) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_url, decode_responses=True) as client:
        yield client


def month_of(counters, tenant):
    key = metering.month_key(str(tenant.pk), metering.month_of(datetime.now(UTC)))
    return {name: int(value) for name, value in counters.hgetall(key).items()}


def test_of_300_calls_at_once_50_a_minute_pass(serving, key, cast):
    limits.set_quota(cast.acme, 50, cast.operator)
    began = time.monotonic()
    answers = serving.crowd(key, 300)
    refilled = (time.monotonic() - began) * 50 / 60
    passed = answers.count(200)
    assert set(answers) == {200, 429}
    assert 50 <= passed <= 50 + refilled
    rows = serving.rows()
    assert len(rows) == passed == len(serving.engine.asked)
    assert {row.status for row in rows} == {"settled"}


def test_admission_lets_exactly_the_limit_through(key, cast, base, counters):
    event, now = an_event(cast, key), metering.Limits(cast.acme.epoch, 50, 10**9)
    seed(cast.acme)
    pipe = counters.pipeline(transaction=True)  # one instant for all of them in Valkey, some milliseconds in Redis
    for number in range(300):
        keys, args = metering.admit(event.ending("estimated", request_id=f"req_{number}"), now)
        pipe.eval(metering.ADMIT, len(keys), *keys, *args)
    verdicts = [metering.verdict(reply) for reply in pipe.execute()]
    assert [verdict.reason for verdict in verdicts] == [""] * 50 + ["rate_limit"] * 250
    assert all(1000 < verdict.retry_ms <= 1200 for verdict in verdicts[50:])


def test_fifty_calls_at_once_never_overshoot_the_budget(serving, key, cast, counters):
    budget = 5 * HOLD + 7
    limits.set_quota(cast.acme, 10_000, cast.operator)
    limits.set_budget(cast.acme, budget, cast.operator)
    serving.engine.pause = 0.05
    taken, stop = [], threading.Event()

    def watch():
        while not stop.is_set():
            taken.append(sum(month_of(counters, cast.acme).values()))

    watcher = threading.Thread(target=watch)
    watcher.start()
    answers = serving.crowd(key, 50, {"max_tokens": 9})
    stop.set()
    watcher.join()
    rows = serving.rows()
    assert set(answers) == {200, 402}
    assert 5 <= answers.count(200) == len(rows)
    assert max(taken) <= budget
    assert month_of(counters, cast.acme) == {"spent": sum(row.cost_nano for row in rows), "held": 0}


def test_admit_and_settle_may_be_sent_twice(key, cast, base, counters):
    seed(cast.acme)
    event = an_event(cast, key)
    for _ in range(2):
        assert run(counters, metering.ADMIT, metering.admit(event, metering.Limits(1, 1, 10**9)))[0] == "ok"
    done = event.ending("settled", cost_nano=40)
    assert [run(counters, metering.SETTLE, metering.settle(done)) for _ in range(2)] == [1, 0]
    assert month_of(counters, cast.acme) == {"spent": 40, "held": 0}
    assert counters.xlen(metering.STREAM) == 1


@pytest.mark.parametrize("held", [0, -5])
def test_a_hold_of_nothing_or_less_is_settled_like_any(key, cast, base, counters, held):
    seed(cast.acme)
    event = an_event(cast, key).ending("estimated", cost_nano=held)
    run(counters, metering.ADMIT, metering.admit(event, metering.Limits(1, 1, 10**9)))
    assert run(counters, metering.SETTLE, metering.settle(event)) == 1
    assert month_of(counters, cast.acme) == {"spent": held, "held": 0}
    assert counters.xlen(metering.STREAM) == 1


@pytest.mark.parametrize("row", ["?", "x {}", "5{}"])
def test_a_settlement_that_fails_leaves_the_hold(key, cast, base, counters, row):
    seed(cast.acme)
    event = an_event(cast, key)
    counters.hset(metering.HOLDS, event.request_id, row)
    with pytest.raises(redis.ResponseError, match="no amount"):
        run(counters, metering.SETTLE, metering.settle(event))
    assert counters.hget(metering.HOLDS, event.request_id) == row
    assert month_of(counters, cast.acme) == {"spent": 0}


def test_a_hold_that_nobody_can_read_is_put_aside_and_the_others_are_booked(serving, key, cast, counters, monkeypatch):
    seed(cast.acme)
    monkeypatch.setattr(metering, "LEASE_MS", 0)
    event = an_event(cast, key)
    run(counters, metering.ADMIT, metering.admit(event, metering.Limits(1, 1, 10**9)))
    good = counters.hget(metering.HOLDS, event.request_id)
    bad = {"a": "?", "b": "5 {}", "c": "x" + good, "d": good.replace('"cost_nano":100', '"cost_nano":"x"')}
    counters.hset(metering.HOLDS, mapping=bad)
    counters.zadd(metering.LEASES, dict.fromkeys(bad, 1))
    counters.hset(metering.HOLDS, "alive", "?")
    counters.zadd(metering.LEASES, {"alive": 2**53})
    assert [row.request_id for row in serving.rows()] == [event.request_id]
    assert counters.hgetall(metering.HOLDS) == {"alive": "?"}
    assert counters.zcard(metering.LEASES) == 1
    buried = [fields for _, fields in counters.xrange(metering.DEAD_STREAM)]
    assert {entry["request_id"]: entry["hold"] for entry in buried} == bad
    assert run(counters, metering.BURY, metering.bury("alive")) == 0


@pytest.mark.parametrize("failures", [0, 1, 3])
async def test_a_caller_who_is_cut_off_while_being_admitted_pays_nothing(redis_url, failures):
    event, month = a_foreign_event(), metering.month_key("t", "202611")
    async with redis.asyncio.Redis.from_url(redis_url, decode_responses=True) as client:
        await client.hset(month, mapping={"spent": 0})
        await client.set(metering.epoch_key("t"), 1)
        counters = FailingCounters(redis_url, failures)
        call = asyncio.ensure_future(counters.admit(event, metering.Limits(1, 5, 10**9)))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        await counters.close()
        assert await client.hgetall(metering.HOLDS) == {}
        assert await client.hgetall(month) == {"spent": "0", "held": "0"}
        entries: Any = await client.xrange(metering.STREAM)
        ((_, fields),) = entries
        told = metering.read_event(fields["event"])
        assert (told.status, told.cost_nano) == ("aborted", 0)


async def test_a_release_is_tried_again_until_redis_answers(redis_url):
    event, month = a_foreign_event(), metering.month_key("t", "202611")
    async with redis.asyncio.Redis.from_url(redis_url, decode_responses=True) as client:
        await client.hset(month, mapping={"spent": 0})
        await client.set(metering.epoch_key("t"), 1)
        counters = FailingCounters(redis_url, 2, lose_reply=True)
        with pytest.raises(Unavailable):
            await counters.admit(event, metering.Limits(1, 5, 10**9))
        await counters.close()
        assert await client.hgetall(month) == {"spent": "0", "held": "0"}
        assert await client.xlen(metering.STREAM) == 1


def test_an_event_that_comes_twice_is_one_row(serving, key, counters):
    serving.post(key)
    ((_, fields),) = counters.xrange(metering.STREAM)
    counters.xadd(metering.STREAM, fields)
    assert len(serving.rows()) == 1
    counters.xadd(metering.STREAM, fields)
    assert len(serving.rows()) == 1
    assert counters.xlen(metering.STREAM) == 0


def test_what_a_dead_writer_had_read_is_booked_by_the_next(serving, key, counters, monkeypatch):
    serving.book()
    serving.post(key)
    counters.xreadgroup(metering.GROUP, "dead", {metering.STREAM: ">"})
    assert serving.rows() == []
    monkeypatch.setattr(writer, "ORPHANED_MS", 0)
    assert len(serving.rows()) == 1


def test_an_event_that_cannot_be_booked_is_kept_and_stops_nobody(serving, key, counters):
    serving.book()
    serving.post(key)
    ((_, fields),) = counters.xrange(metering.STREAM)
    counters.xadd(metering.STREAM, {"event": fields["event"].replace('"model":', '"mod":')})
    counters.xadd(metering.STREAM, {"event": "?"})
    assert len(serving.rows()) == 1
    assert counters.xlen(metering.DEAD_STREAM) == 2
    assert counters.xpending(metering.STREAM, metering.GROUP)["pending"] == 0


def test_a_killed_gateways_calls_are_booked_as_estimated(serving, key, cast, counters):
    serving.engine.pause = 5
    seed(cast.acme)
    arguments = [key, str(cast.acme.pk), str(cast.acme.epoch), serving.redis_url]
    arguments.append(f"http://127.0.0.1:{serving.engine_port}")
    command = [sys.executable, "-m", "inference.tests.lone_gateway", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        port = int(process.stdout.readline())
        caller = threading.Thread(target=call_and_be_cut_off, args=(port, key))
        caller.start()
        wait_for(lambda: serving.engine.asked)
        time.sleep(0.6)  # twice the lease: it was renewed
        assert serving.rows() == []
        assert counters.hlen(metering.HOLDS) == 1
        process.kill()
        caller.join()
    wait_for(lambda: writer.close_lapsed(counters))
    (row,) = serving.rows()
    assert (row.status, row.reason, row.output_tokens) == ("estimated", "gateway_lost", 256)
    assert row.cost_nano == row.input_tokens + 4 * 256
    assert month_of(counters, cast.acme) == {"spent": row.cost_nano, "held": 0}


def test_a_change_of_limits_holds_from_the_next_call(serving, key, cast):
    assert serving.post(key).status_code == 200
    limits.set_budget(cast.acme, 0, cast.owner)
    assert serving.post(key).status_code == 402
    limits.set_budget(cast.acme, 10**9, cast.owner)
    assert serving.post(key).status_code == 200
    limits.set_quota(cast.acme, 0, cast.owner)
    assert serving.post(key).status_code == 429


def test_a_redis_that_lost_everything_heals_from_the_ledger(serving, key, cast, counters):
    assert serving.post(key).status_code == 200
    (row,) = serving.rows()
    counters.flushall()
    counters.script_flush()
    limits.set_budget(cast.acme, row.cost_nano + HOLD, cast.owner)
    assert serving.post(key, {"max_tokens": 9}).status_code == 200
    assert serving.post(key, {"max_tokens": 9}).status_code == 402
    assert month_of(counters, cast.acme)["spent"] == 2 * row.cost_nano


def test_an_epoch_is_never_lowered_and_the_writer_raises_it(serving, key, cast, counters):
    name = metering.epoch_key(str(cast.acme.pk))
    epochs.publish([(str(cast.acme.pk), 7)])
    epochs.publish([(str(cast.acme.pk), 3)])
    assert counters.get(name) == "7"
    cast.acme.epoch = 9
    cast.acme.save()
    serving.book()
    assert counters.get(name) == "9"


def test_the_writer_process_books_and_ends_on_sigterm(serving, key):
    """Its loop in a thread; the process form is `manage.py ledger_writer`."""
    running = writer.Writer("thread")
    thread = threading.Thread(target=running.run)
    thread.start()
    serving.post(key)
    wait_for(UsageEvent.objects.exists)
    running.stop()
    thread.join(5)
    assert not thread.is_alive()


class FailingCounters(Counters):
    """The first `failures` settlements do not reach Redis; with `lose_reply` the admission's answer is lost."""

    def __init__(self, url, failures, lose_reply=False):
        super().__init__(url)
        self.failures, self.lose_reply = failures, lose_reply

    async def _execute(self, batch):
        if batch[0].script == metering.SETTLE and self.failures:
            self.failures -= 1
            raise redis.ConnectionError("gone")
        replies = await super()._execute(batch)
        if batch[0].script == metering.ADMIT and self.lose_reply:
            raise redis.ConnectionError("gone")
        return replies


def a_foreign_event():
    moment = "2026-11-25T00:00:00.000Z"
    return metering.Event("req_1", "t", "k", moment, "202611", "estimated", "m", "m", cost_nano=5)


def an_event(cast, key):
    snapshot = load(key.split("_")[2])
    assert snapshot
    return metering.Event(
        request_id="req_1",
        tenant=str(cast.acme.pk),
        key=snapshot.key_id,
        occurred_at="2026-11-25T00:00:00.000Z",
        month=metering.month_of(datetime.now(UTC)),
        status="estimated",
        model="demo-base",
        served="demo-base",
        cost_nano=100,
    )


def run(counters, script, packed):
    keys, args = packed
    return counters.eval(script, len(keys), *keys, *args)


def call_and_be_cut_off(port, key):
    with contextlib.suppress(httpx2.TransportError):
        headers = {"authorization": f"Bearer {key}"}
        httpx2.post(f"http://127.0.0.1:{port}/v1/chat/completions", json=HELLO, headers=headers, timeout=20)


def wait_for(ready, seconds=10):
    deadline = time.monotonic() + seconds
    while not (answer := ready()):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return answer
