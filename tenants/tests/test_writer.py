"""The writer: every admitted call is one row, whoever dies, whatever comes twice, whatever Redis forgets."""

import threading
import time
from datetime import timedelta

import orjson
import pytest
import redis
from django.db import DataError, OperationalError
from django.utils import timezone

from tenants import counters, ledger, metering
from tenants.ledger import booking, chores, entries, outcomes, proof, rebuild, sums, writer
from tenants.ledger.writer import Writer
from tenants.models import APIKey, LedgerHead, UsageEvent, UsageMonth
from tenants.tests.world import Stage

pytestmark = pytest.mark.django_db


@pytest.fixture
def stage(redis_url, cast, monkeypatch):
    monkeypatch.setattr(writer, "GRACE_SECONDS", 0)
    made = Stage(redis_url, cast)
    Writer("first").drain()
    yield made
    made.client.close()


def drain(name="w"):
    return Writer(name).drain()


def in_step(stage):
    """The ledger holds: rows = roll-ups, and counters = roll-ups at one instant."""
    taken = proof.take()
    drain("prover")
    made = proof.wait(taken, 1)
    assert (made.findings, sums.differences()) == ([], [])
    return made


def until(holds, seconds=10):
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_what_is_settled_is_booked_confirmed_and_off_the_stream(stage):
    for number in range(3):
        entry = stage.call(f"r{number}").entry
    assert drain() == 3
    assert [row.request_id for row in stage.rows()] == ["r0", "r1", "r2"]
    assert ledger.head().position == entry
    assert stage.client.hget(metering.STATE, "booked") == entry
    assert stage.client.xlen(metering.STREAM) == 0
    assert (stage.counted(), stage.booked()) == ({"spent": 300, "held": 0, "corrected": 0}, (300, 300))
    assert in_step(stage).spent_nano == 300


def test_a_writer_that_dies_before_the_commit_books_nothing_and_the_next_books_all(stage, monkeypatch):
    stage.call("r1")
    with monkeypatch.context() as broken:
        broken.setattr(booking, "add", lambda *_: (_ for _ in ()).throw(OperationalError("gone")))
        with pytest.raises(OperationalError):
            drain()
    assert (stage.rows(), ledger.head().position) == ([], "0-0")
    assert drain() == 1
    in_step(stage)


def test_a_writer_that_dies_between_commit_and_confirmation_leaves_nothing_undone(stage, monkeypatch):
    stage.call("r1", cost=100)
    drain()
    for _ in range(2):
        stage.settle("r1", 10, 100)  # the same again, twice: counted nowhere
    stage.client.xadd(metering.STREAM, {"event": orjson.dumps(stage.event("r1", cost_nano=7)).decode()})  # and counted
    stage.client.hincrby(f"{metering.MONTH}{stage.acme}:{stage.yyyymm}", "spent", 7)
    stage.client.xadd(metering.STREAM, {"event": "?"})
    with monkeypatch.context() as broken:
        broken.setattr(Writer, "_confirm", lambda *_: (_ for _ in ()).throw(redis.ConnectionError("gone")))
        with pytest.raises(redis.ConnectionError):
            drain("dies")
    assert len(ledger.head().unconfirmed) == 2
    assert stage.counted()["spent"] == 107
    LedgerHead.objects.update(lease_until=None)
    drain("next")
    assert stage.counted() == {"spent": 100, "held": 0, "corrected": -7}
    assert stage.client.xlen(metering.DEAD_STREAM) == 1
    assert ledger.head().unconfirmed == []
    assert len(stage.rows()) == 1
    in_step(stage)


def test_a_writer_that_slept_is_fenced_off(stage):
    stage.call("r1")
    slept = ledger.head()
    drain("awake")
    batch = [entries.read("9999999999999-0", {"event": orjson.dumps(stage.event("r2")).decode()})]
    with pytest.raises(ledger.Fenced):
        ledger.write(batch, slept)
    LedgerHead.objects.update(writer="awake")
    slept = ledger.head()
    LedgerHead.objects.update(writer="another")
    with pytest.raises(ledger.Fenced):
        ledger.book(batch, slept, 0, outcomes.Names())
    assert [row.request_id for row in stage.rows()] == ["r1"]


def test_a_second_writer_stands_by_and_takes_over_when_the_lease_has_run_out(stage):
    first, second = Writer("a"), Writer("b")
    stage.call("r1")
    assert first.turn() == 1
    stage.call("r2")
    assert second.turn() == 0
    LedgerHead.objects.update(lease_until=timezone.now() - timedelta(milliseconds=1))
    assert second.turn() == 1
    stage.call("r3")
    assert first.turn() == 0
    assert second.turn() == 1
    assert ledger.head().writer == "b"
    assert ledger.is_kept()


def test_a_writer_that_stops_gives_its_lease_back(stage):
    stage.call("r1")
    drain("a")
    assert not ledger.is_kept()
    assert drain("b") == 0


def test_a_full_batch_is_followed_at_once_and_any_other_waits_for_more(stage, monkeypatch):
    one, pauses = Writer("one"), []
    taken = iter((writer.BATCH, 3, 0))

    def sleep(seconds):
        pauses.append(seconds)
        if len(pauses) == 3:
            one.stop()

    monkeypatch.setattr(one, "turn", lambda block_ms: next(taken))
    monkeypatch.setattr(one, "_leads", True)
    monkeypatch.setattr("time.sleep", sleep)
    one.run()
    assert pauses == [writer.PAUSE_SECONDS, writer.COLLECT_SECONDS, writer.COLLECT_SECONDS]


def test_draining_beside_a_writer_that_does_not_move_ends_with_an_error(stage, monkeypatch):
    monkeypatch.setattr(writer, "PATIENCE_SECONDS", 0.2)
    Writer("a").turn()
    stage.call("r1")
    with pytest.raises(writer.Stuck, match="a holds"):
        drain("b")


def test_a_call_whose_gateway_is_gone_is_booked_at_what_was_sent(stage):
    stage.admit("r1", 50, 500)
    stage.renew(("r1", 3, 4, 70))
    stage.lapse("r1")
    drain()
    (row,) = stage.rows()
    assert (row.status, row.reason, row.output_tokens, row.cost_nano) == ("estimated", "gateway_lost", 4, 70)
    assert stage.counted() == {"spent": 70, "held": 0, "corrected": 0}
    in_step(stage)


def test_after_an_outage_gateways_get_the_time_to_renew_what_lapsed_meanwhile(stage):
    stage.admit("r1", 50, 500)
    stage.lapse("r1")
    patient = chores.Chores(stage.client)
    patient.wait(60)
    patient.do(ledger.head())
    assert stage.client.hlen(metering.HOLDS) == 1
    chores.Chores(stage.client).do(ledger.head())
    assert stage.client.hlen(metering.HOLDS) == 0


def test_a_rebuild_ends_when_another_writer_takes_over(stage):
    stage.call("r1")
    drain("first")
    stage.client.flushdb()
    head = ledger.head()

    def lead():
        LedgerHead.objects.update(writer="second")  # and leads no more

    with pytest.raises(ledger.Fenced):
        rebuild.run(stage.client, head, "", outcomes.Names(), lead)
    assert stage.client.hget(metering.STATE, "mark") is None


@pytest.mark.parametrize("at_once", [True, False])
def test_what_a_gateway_says_after_its_hold_lapsed_corrects_the_estimate(stage, at_once):
    stage.admit("r1", 50, 500)
    stage.renew(("r1", 3, 4, 70))
    stage.lapse("r1")
    if at_once:
        assert chores.close_lapsed(stage.client, ledger.mark()) == 1
    else:
        drain()
    for _ in range(2):
        assert stage.settle("r1", 9, 65, input_tokens=3, answer_digest="d" * 64).written == 2
    drain()
    estimate, correction = stage.rows()
    assert (estimate.status, estimate.cost_nano, estimate.output_tokens) == ("estimated", 70, 4)
    assert (correction.source, correction.status, correction.corrects) == ("adjustment", "adjustment", estimate)
    assert (correction.cost_nano, correction.input_tokens, correction.output_tokens) == (-5, 0, 5)
    assert (correction.answer_digest, correction.reason) == ("d" * 64, "settled_after_lapse")
    assert stage.counted() == {"spent": 65, "held": 0, "corrected": -5}
    assert stage.booked() == (65, 70)
    assert UsageMonth.objects.get(tenant=stage.acme, month=stage.yyyymm).calls == 1
    in_step(stage)


def test_an_estimate_that_comes_after_the_outcome_changes_nothing(stage):
    stage.call("r1", cost=100)
    stage.settle("r1", 1, 1, status="estimated")
    drain()
    assert [(row.status, row.cost_nano) for row in stage.rows()] == [("settled", 100)]
    in_step(stage)


def test_a_hold_that_came_to_life_again_and_was_counted_corrects_its_estimate(stage):
    """As after a Redis that was cut back and that nobody found out: the entry is not late, and yet the row is there."""
    stage.mark = ledger.mark()
    assert stage.settle("r1", 4, 70, status="estimated").written == 2
    drain()
    stage.call("other", cost=1)
    stage.call("r1", 9, 65)
    stage.call("r1", 9, 65)
    drain()
    assert [(row.source, row.cost_nano) for row in stage.rows(request_id="r1")] == [("gateway", 70), ("adjustment", -5)]
    assert stage.counted() == {"spent": 66, "held": 0, "corrected": -65}
    assert stage.booked() == (66, 131)
    in_step(stage)


def test_an_emptied_redis_heals_from_the_ledger_and_nothing_is_lost_or_doubled(stage):
    stage.call("r1", cost=100)
    drain()
    stage.call("r2", cost=30)  # booked by nobody yet
    stage.admit("r3", 10, 50)  # under way
    stage.client.flushdb()
    assert stage.admit("r4").reason == "unmarked"
    before = ledger.mark()
    drain()
    assert (before.split(":")[0], int(before.split(":")[1]) + 1) == (
        ledger.mark().split(":")[0],
        int(ledger.mark()[33:]),
    )
    assert stage.counted() == {"spent": 100, "held": 0, "corrected": 0}
    stage.mark = ledger.mark()
    for id_, cost in (("r1", 100), ("r2", 30), ("r3", 45)):  # its gateway remembers them
        assert stage.settle(id_, 10, cost).written == 2
    drain()
    assert {row.request_id: row.cost_nano for row in stage.rows()} == {"r1": 100, "r2": 30, "r3": 45}
    assert stage.counted() == {"spent": 175, "held": 0, "corrected": 75}
    assert stage.admit("r5", hold=26, budget=200).reason == "refused"
    assert stage.admit("r5", hold=25, budget=200).reason == ""
    in_step(stage)


def test_a_redis_with_an_older_file_is_found_out_and_set_right(stage):
    stage.admit("booked", 10, 100)
    stage.admit("unbooked", 10, 100)
    older = stage.dump()
    stage.settle("booked", 10, 80)
    drain()
    stage.settle("unbooked", 10, 60)
    stage.restore(older)
    assert drain() == 0
    assert stage.client.hkeys(metering.HOLDS) == ["unbooked"]
    assert stage.counted() == {"spent": 80, "held": 100, "corrected": 0}
    stage.mark = ledger.mark()
    assert stage.settle("unbooked", 10, 60).written == 1
    drain()
    assert stage.counted() == {"spent": 140, "held": 0, "corrected": 0}
    assert len(stage.rows()) == 2
    in_step(stage)


def test_what_an_older_redis_still_has_in_its_stream_is_booked_before_it_is_rebuilt(stage):
    stage.call("r1", cost=100)
    stage.call("r2", cost=30)
    older = stage.dump()
    stage.call("r3", cost=5)
    LedgerHead.objects.update(sequence=10**6)
    stage.restore(older)
    assert drain() == 2
    assert stage.counted() == {"spent": 130, "held": 0, "corrected": 0}
    assert stage.client.xlen(metering.STREAM) == 0
    in_step(stage)


def test_what_gateways_bring_back_is_in_the_counters_before_anybody_is_admitted(stage, monkeypatch):
    monkeypatch.setattr(writer, "GRACE_SECONDS", 0.3)
    stage.admit("open", 10, 40)
    event = metering.read_hold(stage.client.hget(metering.HOLDS, "open")).event
    stage.call("settled", cost=60)
    stage.client.flushdb()
    waiting = Writer("w")
    assert waiting.turn() == 0
    assert stage.admit("too soon").reason == "unmarked"
    assert stage.settle("settled", 10, 60).written == 2
    row = metering.hold_row(event, 5, 40, 10, (1, 2, 3))
    assert counters.run(stage.client, metering.RESUME, metering.resume([("open", row), ("open", row)])) == 1
    waiting.drain()
    assert stage.counted() == {"spent": 60, "held": 40, "corrected": 60}
    assert counters.run(stage.client, metering.RESUME, metering.resume([("late", row)])) == -1
    stage.mark = ledger.mark()
    assert stage.settle("open", 10, 30).written == 1
    drain()
    assert stage.counted() == {"spent": 90, "held": 0, "corrected": 60}
    in_step(stage)


def test_a_stream_that_was_deleted_is_found_out(stage):
    stage.call("r1")
    drain()
    before = ledger.mark()
    stage.client.delete(metering.STREAM)
    drain()
    assert ledger.mark() != before
    in_step(stage)


def test_a_database_that_was_put_back_is_found_out(stage):
    stage.call("r1", cost=100)
    head = LedgerHead.objects.values("position", "sequence").get()
    stage.call("r2", cost=10)
    drain()
    UsageEvent.objects.filter(request_id="r2").delete()
    UsageMonth.objects.update(cost_nano=100, calls=1)
    LedgerHead.objects.update(**head)
    drain()
    assert stage.counted()["spent"] == 100


def test_a_foreign_redis_is_not_touched_until_it_is_adopted(stage, caplog):
    stage.call("r1")
    stage.client.hset(metering.STATE, "mark", f"{'cd' * 16}:7")
    before = {name: stage.client.type(name) for name in stage.client.keys("ps:*")}
    entries = stage.client.xrange(metering.STREAM)
    head = ledger.head()
    with pytest.raises(rebuild.Foreign, match="--adopt"):
        drain()
    assert {name: stage.client.type(name) for name in stage.client.keys("ps:*")} == before
    assert stage.client.xrange(metering.STREAM) == entries
    assert (ledger.mark(), ledger.head().position) == (head.mark, head.position)
    LedgerHead.objects.update(lease_until=None)
    assert rebuild.adopt(stage.client) == f"{'cd' * 16}:7"
    assert rebuild.adopt(stage.client) == ""
    assert drain() == 1
    in_step(stage)


def test_what_cannot_be_booked_is_put_aside_with_its_reason_and_stops_nobody(stage, cast):
    APIKey.objects.create(pk="key-of-globex", tenant=cast.globex, name="x")
    stage.call("r1", cost=100)
    for id_, facts in (
        ("stranger", {"tenant": "nobody"}),
        ("theirs", {"key": "key-of-globex", "cost_nano": 5}),
        ("unpriced", {"price": 10**6}),
        ("long", {"end_user": "x" * 65}),
        ("nul", {"reason": "a\0b"}),
        ("day", {"day": "2026-13-01"}),
        ("negative", {"cost_nano": -1}),
        ("huge", {"input_tokens": 2**31}),
        ("word", {"status": "free"}),
    ):
        event = stage.event(id_, **({"status": "settled"} | facts))
        stage.client.xadd(metering.STREAM, {"event": orjson.dumps(event).decode()})
    stage.client.hincrby(f"{metering.MONTH}{stage.acme}:{stage.yyyymm}", "spent", 5)
    for text in ("?", "null", "[]", "{}"):
        stage.client.xadd(metering.STREAM, {"event": text})
    stage.client.xadd(metering.STREAM, {"what": "is this"})
    stage.call("r2", cost=11)
    drain()
    assert [row.request_id for row in stage.rows()] == ["r1", "r2"]
    dead = [fields for _, fields in stage.client.xrange(metering.DEAD_STREAM)]
    assert len(dead) == 14
    assert [fields["why"] for fields in dead][:3] == ["no such tenant", "no such key of this tenant", "no such price"]
    assert "end_user is too long" in dead[3]["why"]
    assert dead[-1]["what"] == "is this"
    assert stage.counted() == {"spent": 111, "held": 0, "corrected": -5}
    in_step(stage)


def test_an_entry_that_the_database_refuses_is_found_and_put_aside(stage, monkeypatch):
    for number in range(7):
        stage.call(f"r{number}", cost=1)
    insert = booking.insert

    def picky(rows, batch):
        if any(row["request_id"] == "r4" for row, _ in rows):
            raise DataError("invalid")
        insert(rows, batch)

    monkeypatch.setattr(booking, "insert", picky)
    drain()
    assert [row.request_id for row in stage.rows()] == ["r0", "r1", "r2", "r3", "r5", "r6"]
    ((_, fields),) = stage.client.xrange(metering.DEAD_STREAM)
    assert fields["why"] == "not taken: invalid"
    assert stage.counted() == {"spent": 6, "held": 0, "corrected": -1}
    in_step(stage)


def test_a_hold_that_nobody_can_read_is_put_aside(stage):
    stage.client.hset(metering.HOLDS, "r1", "nonsense")
    stage.lapse("r1")
    drain()
    assert stage.client.hlen(metering.HOLDS) == 0
    assert stage.client.xlen(metering.DEAD_STREAM) == 1


def test_the_keys_that_were_used_say_when(stage, monkeypatch):
    monkeypatch.setattr(chores, "MINUTE", 0.0)
    monkeypatch.setattr(chores, "SECOND", 0.0)
    stage.call("r1")
    running = Writer("w")
    running.turn()
    running.turn()
    used = APIKey.objects.get(pk=stage.key).last_used_at
    assert used == stage.rows()[0].occurred_at


def test_the_writer_raises_epochs_that_redis_missed(stage, cast):
    cast.acme.epoch = 9
    cast.acme.save()
    drain()
    assert stage.client.hget(metering.EPOCHS, stage.acme) == "9"


@pytest.mark.django_db(transaction=True)
def test_the_loop_survives_a_redis_that_goes_empties_and_comes_back(stage, monkeypatch):
    """Under `run`, as the process does; a call is refused until the ledger has rebuilt the counters, then admitted."""
    monkeypatch.setattr(writer, "BACK_OFF_SECONDS", 0.05)
    running = Writer("thread")
    real, gone = running._redis, redis.Redis.from_url("unix:///nonexistent/redis.sock")
    thread = threading.Thread(target=running.run)
    thread.start()
    stage.call("r1")
    until(lambda: len(stage.rows()) == 1)
    running._redis = gone
    time.sleep(0.3)
    stage.client.flushdb()
    assert stage.admit("r2").reason == "unmarked"
    running._redis = real
    started = time.monotonic()
    until(lambda: stage.admit("r2", 10, 100).reason == "")
    assert time.monotonic() - started < 2
    assert stage.counted() == {"spent": 100, "held": 100, "corrected": 0}
    stage.mark = ledger.mark()
    stage.settle("r2", 10, 60)
    until(lambda: len(stage.rows()) == 2)
    running.stop()
    thread.join(5)
    assert not thread.is_alive()
    assert not ledger.is_kept()


def test_the_first_to_ask_founds_the_installation(redis_url, cast):
    assert ledger.mark() == ledger.mark()
    assert LedgerHead.objects.count() == 1
    assert len(ledger.mark().partition(":")[0]) == 32
    assert drain() == 0
    state = counters.connect().hgetall(metering.STATE)
    assert (state["mark"], state["since"]) == (ledger.mark(), "0")
