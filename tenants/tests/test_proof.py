"""The proof holds under load, and names whatever was tampered with: a row, a roll-up, a counter."""

import json
import threading

import orjson
import pytest
from django.core.management import CommandError, call_command

from tenants import ledger, metering, tasks
from tenants.ledger import comparison, proof, writer
from tenants.ledger.writer import Writer
from tenants.models import LedgerProof, UsageDay, UsageEndUser, UsageEvent, UsageMonth
from tenants.tests.world import Stage

BIG = 2**53 - 1
NAMELESS = (
    '{"at": "1", "months": {"a": ["0", "0", "0"]}, "holds": {}, "open": {}, "calls": {}, "count": "0", "unread": "0"}'
)


@pytest.fixture
def stage(redis_url, cast, monkeypatch):
    monkeypatch.setattr(writer, "GRACE_SECONDS", 0)
    made = Stage(redis_url, cast)
    Writer("first").drain()
    yield made
    made.client.close()


@pytest.fixture
def kept(stage, monkeypatch):
    """The ledger's writer runs."""
    monkeypatch.setattr(writer, "PAUSE_SECONDS", 0.001)
    running = Writer("kept")
    thread = threading.Thread(target=running.run)
    thread.start()
    yield stage
    running.stop()
    thread.join(10)
    assert not thread.is_alive()


def proved(stage):
    """The proof of now, made by a writer that passes by."""
    taken = proof.take()
    Writer("passes").drain()
    return proof.wait(taken, 1)


def found(made):
    return [(each["what"], each["of"], each["month"], each["ledger"], each["counter"]) for each in made.findings]


@pytest.mark.django_db(transaction=True)
def test_it_holds_at_any_moment_under_load(kept):
    stage, stop = kept, threading.Event()
    stage.mark = mark = ledger.mark()

    def work(name):
        for number in range(10_000):
            if stop.is_set():
                return
            event = stage.event(f"{name}-{number}", "estimated", end_user=name)
            terms = metering.Terms(mark, 1, 2**52, event.day, 10**15)
            assert metering.verdict(stage.run(metering.ADMIT, metering.admit(event, terms, 500, 10))).reason == ""
            if number % 5:
                stage.settle(f"{name}-{number}", 3, 100 + number, end_user=name)
                if number % 7 == 0:
                    stage.settle(f"{name}-{number}", 3, 100 + number, end_user=name)

    callers = [threading.Thread(target=work, args=(f"c{n}",)) for n in range(3)]
    for caller in callers:
        caller.start()
    try:
        made = []
        for _ in range(6):
            made.append(proof.prove(20))
            assert proof.differences() == []
    finally:
        stop.set()
        for caller in callers:
            caller.join()
    assert [each.findings for each in made] == [[]] * 6
    assert made[0].spent_nano < made[-1].spent_nano
    assert made[-1].open_calls > 0
    assert made[-1].held_nano == 500 * made[-1].open_calls
    assert proof.latest() == made[-1]


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("field", "by", "expected"),
    [
        ("spent", 5, ("spent", "100", "105")),
        ("corrected", 5, ("spent", "100", "95")),
        ("held", 1, ("held", "40", "41")),
    ],
)
def test_a_tampered_counter_is_named_with_both_numbers(stage, field, by, expected):
    stage.call("r1", cost=100)
    stage.admit("r2", hold=40)
    assert proved(stage).holds
    stage.client.hincrby(f"{metering.MONTH}{stage.acme}:{stage.yyyymm}", field, by)
    made = proved(stage)
    what, booked, counted = expected
    assert not made.holds
    assert found(made) == [(what, stage.acme, stage.yyyymm, booked, counted)]


@pytest.mark.django_db
def test_a_leaked_slot_a_lost_hold_and_an_unreadable_one_are_named(stage):
    stage.admit("r1", hold=40)
    stage.admit("r2", hold=60)
    stage.client.hincrby(metering.OPEN, stage.key, 1)
    assert found(proved(stage)) == [("open", stage.key, "", "2", "3")]
    stage.client.hincrby(metering.OPEN, stage.key, -1)
    stage.client.hdel(metering.HOLDS, "r2")
    stage.client.hset(metering.HOLDS, "r3", "nonsense")
    assert set(found(proved(stage))) == {
        ("held", stage.acme, stage.yyyymm, "40", "100"),
        ("open", stage.acme, "", "1", "2"),
        ("open", stage.key, "", "1", "2"),
        ("unread", "", "", "0", "1"),
    }


@pytest.mark.django_db
def test_a_month_that_the_counters_forgot_is_named(stage):
    stage.call("r1", cost=100)
    name = f"{metering.MONTH}{stage.acme}:{stage.yyyymm}"
    stage.client.delete(name)
    stage.client.srem(metering.MONTHS, name)
    assert found(proved(stage)) == [("spent", stage.acme, stage.yyyymm, "100", "0")]


@pytest.mark.django_db
def test_numbers_near_2_to_the_53_are_compared_exactly(stage):
    stage.admit("r1", hold=BIG - 1, budget=BIG)
    stage.settle("r1", cost=BIG - 1)
    stage.admit("r2", hold=1, budget=BIG)
    made = proved(stage)
    assert (made.findings, made.spent_nano, made.held_nano) == ([], BIG - 1, 1)
    stage.client.hincrby(f"{metering.MONTH}{stage.acme}:{stage.yyyymm}", "spent", 1)
    assert found(proved(stage)) == [("spent", stage.acme, stage.yyyymm, str(BIG - 1), str(BIG))]


@pytest.mark.django_db
@pytest.mark.parametrize("column", ["cost_nano", "output_tokens", "input_tokens", "cached_tokens"])
def test_a_tampered_row_is_found_in_every_roll_up(stage, column):
    stage.call("r1", end_user="ada")
    stage.call("r2", end_user="ali")
    assert proved(stage).holds
    assert proof.differences() == []
    UsageEvent.objects.filter(request_id="r1").update(**{column: 999})
    told = proof.differences()
    assert [(each.table, each.what, each.rows - each.rolled > 0) for each in told] == [
        ("usageday", column, True),
        ("usagemonth", column, True),
        ("usageenduser", column, True),
    ]
    assert told[2].key == (stage.acme, stage.yyyymm, "ada")


@pytest.mark.django_db
@pytest.mark.parametrize("model", [UsageDay, UsageMonth, UsageEndUser])
def test_a_tampered_roll_up_is_named(stage, model):
    stage.call("r1", end_user="ada", cost=100)
    Writer("w").drain()
    model.objects.update(calls=5)
    (told,) = proof.differences()
    assert (told.table, told.key[0], told.what, told.rows, told.rolled) == (
        model._meta.model_name, stage.acme, "calls", 1, 5,
    )  # fmt: skip


@pytest.mark.django_db
def test_a_row_that_was_removed_and_a_roll_up_of_nothing_are_named(stage, cast):
    stage.call("r1", cost=100)
    Writer("w").drain()
    UsageEvent.objects.all().delete()
    UsageMonth.objects.create(tenant=cast.globex, month="202001", cost_nano=7)
    told = {(each.table, each.key[0], each.what, each.rows, each.rolled) for each in proof.differences()}
    assert ("usagemonth", stage.globex, "cost_nano", 0, 7) in told
    assert ("usageday", stage.acme, "cost_nano", 0, 100) in told


@pytest.mark.django_db(transaction=True)
def test_the_command_prints_each_tenant_and_that_it_holds(kept, capsys):
    kept.call("r1", cost=1_234_567_890_123)
    kept.admit("r2", hold=40)
    call_command("prove_ledger")
    told = capsys.readouterr().out
    line = next(line for line in told.splitlines() if line.startswith("acme"))
    assert line.split()[2:] == ["1", *["1,234.567890123"] * 3, "0.000000040", "1"]
    assert "The ledger holds" in told
    call_command("prove_ledger", "--json")
    facts = json.loads(capsys.readouterr().out)
    assert facts["holds"] is True
    assert facts["open_calls"] == 1
    assert facts["seconds"] < 30


@pytest.mark.django_db(transaction=True)
def test_the_command_fails_with_the_numbers_that_differ(kept, capsys):
    kept.call("r1", cost=100)
    proof.prove()
    UsageEvent.objects.update(cost_nano=90)
    kept.client.hincrby(f"{metering.MONTH}{kept.acme}:{kept.yyyymm}", "spent", 5)
    with pytest.raises(SystemExit) as ended:
        call_command("prove_ledger")
    assert ended.value.code == 1
    told = capsys.readouterr().out
    assert f"spent of {kept.acme} {kept.yyyymm}: counted 105, the ledger says 100" in told
    assert "cost_nano 100, its rows 90" in told
    assert tasks.prove_ledger() is False


@pytest.mark.django_db
def test_without_a_writer_or_a_redis_of_ours_there_is_no_proof(stage, settings):
    with pytest.raises(CommandError, match="Is it running"):
        call_command("prove_ledger", "--timeout", "0.1")
    stage.client.flushdb()
    with pytest.raises(CommandError, match="not vouched for"):
        call_command("prove_ledger")
    settings.REDIS_URL = "unix:///nonexistent/redis.sock"
    with pytest.raises(CommandError, match="No proof"):
        call_command("prove_ledger")
    assert tasks.prove_ledger() is False


@pytest.mark.django_db
@pytest.mark.parametrize("text", ["", "[]", "{}", '{"months": {"a:b": ["x", "0", "0"]}}', NAMELESS, '{"months": 5}'])
def test_a_reading_that_is_none_stops_nobody(stage, text):
    stage.client.xadd(metering.STREAM, {"proof": text, "nonce": "n"})
    stage.call("r1")
    assert Writer("w").drain() == 2
    assert not LedgerProof.objects.exists()


@pytest.mark.django_db
def test_a_reading_is_compared_once(stage):
    taken = proof.take()
    ((_, fields),) = stage.client.xrange(metering.STREAM)
    stage.client.xadd(metering.STREAM, fields)
    Writer("w").drain()
    assert LedgerProof.objects.get().nonce == taken.nonce


@pytest.mark.django_db
def test_old_months_are_not_asked_of_the_counters(stage, cast):
    UsageMonth.objects.create(tenant=cast.acme, month="202001", cost_nano=7)
    assert proved(stage).holds
    text = orjson.dumps({"months": {f"{stage.acme}:202001": ["6", "0", "0"]}, "holds": {}, "open": {}, "calls": {}})
    read = orjson.loads(text) | {"at": "1795600000000000", "count": "0", "unread": "0"}
    made = comparison.compare("n", orjson.dumps(read).decode(), "1-0")
    assert found(made) == [("spent", stage.acme, "202001", "7", "6")]
