"""What must hold whatever happens: limits are exact, money never overshoots, one admitted call is one ledger row."""

import contextlib
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import httpx2
import pytest
import redis
from django.db.models import F

from inference import snapshots
from inference.gateway import answering
from inference.tests.conftest import HELLO
from tenants import epochs, ledger, limits, metering
from tenants.ledger import chores, proof, writer
from tenants.models import Tenant, UsageEvent

pytestmark = pytest.mark.journey

BOUND = len(b'{"model": "demo-base", "messages": [{"role": "user", "content": "Merhaba"}], "max_tokens": 9}') + 64
HOLD = BOUND + 4 * 9
COST = 7 + 4 * 4
NINE = {"max_tokens": 9}


@pytest.fixture
def counters(redis_url) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_url, decode_responses=True) as client:
        yield client


def money(counters, tenant) -> dict[str, int]:
    """Spent and held of the tenant's months together."""
    months = [counters.hgetall(name) for name in counters.smembers(metering.MONTHS) if str(tenant.pk) in name]
    return {name: sum(int(month.get(name, 0)) for month in months) for name in ("spent", "held")}


def proved(serving) -> bool:
    """Rows, their sums and the counters say the same."""
    taken = proof.take()
    serving.book()
    found = proof.wait(taken)
    assert found.findings == []
    return found.holds


def test_of_300_calls_at_once_50_a_minute_pass(serving, key, cast):
    limits.set_quota(cast.acme, cast.operator, requests_per_minute=50)
    began = time.monotonic()
    answers = [answer.status for answer in serving.crowd(key, 300)]
    refilled = (time.monotonic() - began) * 50 / 60
    passed = answers.count(200)
    assert set(answers) == {200, 429}
    assert 50 <= passed <= 50 + refilled
    rows = serving.rows()
    assert len(rows) == passed == len(serving.engine.asked)
    assert {row.status for row in rows} == {"settled"}
    assert proved(serving)


def test_fifty_calls_at_once_never_overshoot_the_budget(serving, key, cast, counters):
    budget = 5 * HOLD + 7
    limits.set_quota(cast.acme, cast.operator, requests_per_minute=10_000)
    limits.set_budget(cast.acme, budget, cast.operator)
    serving.engine.pause = 0.05
    taken, stop = [], threading.Event()

    def watch():
        while not stop.is_set():
            taken.append(sum(money(counters, cast.acme).values()))

    watcher = threading.Thread(target=watch)
    watcher.start()
    answers = serving.crowd(key, 50, NINE)
    stop.set()
    watcher.join()
    rows = serving.rows()
    statuses = [answer.status for answer in answers]
    assert {answer.body["error"]["code"] for answer in answers if answer.status == 429} == {"insufficient_quota"}
    assert 5 <= statuses.count(200) == len(rows)
    assert max(taken) <= budget
    assert money(counters, cast.acme) == {"spent": sum(row.cost_nano for row in rows), "held": 0}


def test_a_change_of_limits_holds_from_the_next_call(serving, key, cast):
    assert serving.post(key).status_code == 200
    limits.set_budget(cast.acme, 0, cast.owner)
    assert serving.post(key).json()["error"]["code"] == "insufficient_quota"
    limits.set_budget(cast.acme, 10**9, cast.owner)
    assert serving.post(key).status_code == 200
    limits.set_quota(cast.acme, cast.owner, requests_per_minute=0)
    assert serving.post(key).json()["error"]["code"] == "rate_limit_exceeded"


def test_an_event_that_comes_twice_is_one_row(serving, key, cast, counters):
    serving.post(key)
    ((_, fields),) = counters.xrange(metering.STREAM)
    counters.xadd(metering.STREAM, {"event": fields["event"], "late": "1"})
    assert len(serving.rows()) == 1
    counters.xadd(metering.STREAM, {"event": fields["event"], "late": "1"})
    assert len(serving.rows()) == 1
    assert counters.xlen(metering.STREAM) == 0
    assert money(counters, cast.acme) == {"spent": COST, "held": 0}


def test_a_killed_gateways_calls_are_booked_at_what_was_sent(serving, key, cast, counters):
    serving.engine.tokens, serving.engine.pause = ["a"] * 500, 0.02
    cast.acme.refresh_from_db()
    arguments = [key, str(cast.acme.pk), str(cast.acme.epoch), ledger.mark(), serving.redis_url]
    arguments.append(f"http://127.0.0.1:{serving.engine_port}")
    command = [sys.executable, "-m", "inference.tests.lone_gateway", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        port = int(process.stdout.readline())
        caller = threading.Thread(target=call_and_be_cut_off, args=(port, key))
        caller.start()
        wait_for(lambda: serving.engine.asked)
        time.sleep(0.8)  # more than twice the lease: it was renewed
        assert serving.rows() == []
        assert counters.hlen(metering.HOLDS) == 1
        process.kill()
        caller.join()
    wait_for(lambda: chores.close_lapsed(counters, ledger.mark()))
    (row,) = serving.rows()
    assert (row.status, row.reason) == ("estimated", "gateway_lost")
    assert 10 < row.output_tokens <= serving.engine.written
    assert row.cost_nano == row.input_tokens + 4 * row.output_tokens
    assert money(counters, cast.acme) == {"spent": row.cost_nano, "held": 0}


def test_a_call_that_ends_after_its_hold_has_lapsed_is_corrected(serving, key, cast, counters, monkeypatch):
    monkeypatch.setattr(metering, "LEASE_MS", 50)
    serving.engine.pause = 0.6
    call = in_the_background(serving, key)
    wait_for(lambda: serving.engine.asked)
    time.sleep(0.1)
    assert chores.close_lapsed(counters, ledger.mark()) == 1
    assert [row.status for row in serving.rows()] == ["estimated"]
    assert call() == 200
    estimated, correction = serving.rows()
    assert (estimated.cost_nano, estimated.output_tokens) == (0, 0)
    assert (correction.source, correction.corrects) == ("adjustment", estimated)
    assert (correction.request_id, correction.cost_nano) == (estimated.request_id, COST)
    assert money(counters, cast.acme) == {"spent": COST, "held": 0}
    assert proved(serving)


def test_an_emptied_redis_admits_nobody_until_it_is_rebuilt_and_no_answer_loses_its_row(serving, key, cast, counters):
    assert serving.post(key).status_code == 200
    serving.engine.pause = 0.8
    calls = [in_the_background(serving, key) for _ in range(4)]
    wait_for(lambda: len(serving.engine.asked) == 5)
    counters.flushdb()
    counters.script_flush()
    refused = serving.post(key)
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "counters_unavailable")
    assert int(refused.headers["retry-after"]) > 0
    assert [call() for call in calls] == [200] * 4
    assert serving.post(key).status_code == 503
    serving.engine.pause = 0
    serving.book()
    time.sleep(0.25)
    limits.set_quota(cast.acme, cast.operator, requests_per_minute=None)  # rates count as used up after a loss
    assert serving.post(key).status_code == 200
    time.sleep(1.2)  # the gateway looks once a second, and sends everything again
    rows = serving.rows()
    assert len({row.request_id for row in rows}) == len(rows) == 6
    assert {(row.status, row.cost_nano) for row in rows} == {("settled", COST)}
    assert money(counters, cast.acme) == {"spent": 6 * COST, "held": 0}
    assert proved(serving)


def test_a_redis_that_was_cut_back_is_found_out_and_the_lost_events_come_again(serving, key, cast, counters):
    assert serving.post(key).status_code == 200
    kept = saved(serving)
    assert [serving.post(key).status_code for _ in range(3)] == [200] * 3
    restore(serving, kept)
    assert counters.xlen(metering.STREAM) == 1
    assert serving.post(key).status_code == 503
    limits.set_quota(cast.acme, cast.operator, requests_per_minute=None)
    serving.book()
    time.sleep(1.2)
    rows = serving.rows()
    assert len({row.request_id for row in rows}) == len(rows) == 4
    assert serving.post(key).status_code == 200
    assert len(serving.rows()) == 5
    assert money(counters, cast.acme) == {"spent": 5 * COST, "held": 0}
    assert proved(serving)


def test_a_redis_that_lost_everything_knows_the_spend_again(serving, key, cast, counters):
    assert serving.post(key).status_code == 200
    serving.book()
    counters.flushdb()
    serving.book()
    limits.set_budget(cast.acme, COST + HOLD, cast.owner)
    limits.set_quota(cast.acme, cast.operator, requests_per_minute=None)
    assert serving.post(key, NINE).status_code == 200
    assert serving.post(key, NINE).json()["error"]["code"] == "insufficient_quota"
    assert money(counters, cast.acme)["spent"] == 2 * COST


def test_with_the_ledger_far_behind_nobody_is_admitted(serving, key, monkeypatch):
    monkeypatch.setattr(metering, "LONGEST_STREAM", 2)
    assert [serving.post(key).status_code for _ in range(2)] == [200, 200]
    refused = serving.post(key)
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "ledger_behind")
    assert len(serving.rows()) == 2
    assert serving.post(key).status_code == 200


def test_a_day_that_ends_is_seen_by_the_next_call(serving, key, cast, monkeypatch):
    """The gateway's own clock is asked nothing: the terms end, Redis says so, the next reading has the next day."""
    monkeypatch.setattr(answering, "PAUSES", (0.0, 0.0))
    read = snapshots._now_us
    monkeypatch.setattr(snapshots, "_now_us", lambda: read() - int(timedelta(days=1).total_seconds() * 1e6))
    assert serving.post(key).json()["error"]["code"] == "settings_changing"  # terms of yesterday admit nobody
    monkeypatch.setattr(snapshots, "_now_us", read)
    assert serving.post(key).status_code == 200


def test_a_change_whose_word_comes_late_to_redis_refuses_nobody(serving, key, cast):
    """Its commit and its word are two moments; on a busy machine there is time for many readings between them."""
    Tenant.objects.filter(pk=cast.acme.pk).update(epoch=F("epoch") + 1)
    epoch = Tenant.objects.get(pk=cast.acme.pk).epoch
    word = threading.Timer(0.3, epochs.publish, [[(str(cast.acme.pk), epoch)]])
    word.start()
    assert serving.post(key).status_code == 200
    word.join()


def test_an_epoch_is_never_lowered(serving, key, cast, counters):
    epochs.publish([(str(cast.acme.pk), 70)])
    epochs.publish([(str(cast.acme.pk), 3)])
    assert counters.hget(metering.EPOCHS, str(cast.acme.pk)) == "70"


def test_the_writers_loop_books_and_ends_when_it_is_told(serving, key):
    """In a thread; the process form is `manage.py ledger_writer`."""
    running = writer.Writer("thread")
    thread = threading.Thread(target=running.run)
    thread.start()
    serving.post(key)
    wait_for(UsageEvent.objects.exists)
    running.stop()
    thread.join(5)
    assert not thread.is_alive()


def saved(serving) -> dict[bytes, bytes]:
    with redis.Redis.from_url(serving.redis_url) as client:
        return {name: client.dump(name) for name in client.keys("ps:*")}


def restore(serving, kept: dict[bytes, bytes]) -> None:
    with redis.Redis.from_url(serving.redis_url) as client:
        client.flushdb()
        for name, value in kept.items():
            client.restore(name, 0, value)


def in_the_background(serving, key) -> Any:
    """A call that runs; calling the answer waits for its status."""
    found: list[int] = []
    thread = threading.Thread(target=lambda: found.append(serving.post(key).status_code))
    thread.start()

    def status() -> int:
        thread.join(20)
        return found[0]

    return status


def call_and_be_cut_off(port, key):
    with contextlib.suppress(httpx2.TransportError):
        headers = {"authorization": f"Bearer {key}"}
        url = f"http://127.0.0.1:{port}/v1/chat/completions"
        httpx2.post(url, json=HELLO | {"stream": True}, headers=headers, timeout=20)


def wait_for(ready, seconds=10):
    deadline = time.monotonic() + seconds
    while not (answer := ready()):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return answer
