"""The ledger against the engines' own counters: exact where it can be, allowed for where not, an alarm beyond that."""

from __future__ import annotations

import threading
import time
from datetime import UTC, datetime, timedelta

import pytest
from django.core import mail
from django.core.management import CommandError, call_command

from inference import discrepancies, reconciliation, tasks
from inference.models import BaseModel, EngineReading, OwnTokens, Replica
from tenants import metering
from tenants.models import UsageEvent, User

pytestmark = pytest.mark.django_db(transaction=True)
CALL = (7, 4)  # tokens of a call to the engine of these tests


class Counting:
    """What the engine of these tests says it counted."""

    def __init__(self, engine) -> None:
        self.engine, self.prompt, self.made, self.more = engine, 1000, 500, 0
        self.started = time.time() - 3600
        self.say()

    def say(self) -> None:
        self.engine.figures = {
            reconciliation.PROMPT: self.prompt,
            reconciliation.GENERATION: self.made,
            reconciliation.STARTED: self.started,
            reconciliation.ANSWERS: 10 + self.more,
            reconciliation.ASKED: 10,
        }

    def count(self, prompt: int, made: int, more: int = 0) -> None:
        self.prompt, self.made, self.more = self.prompt + prompt, self.made + made, self.more + more
        self.say()

    def restart(self) -> None:
        self.prompt = self.made = self.more = 0
        self.started = time.time()
        self.say()


@pytest.fixture
def counting(engine, monkeypatch) -> Counting:
    monkeypatch.setattr(reconciliation, "LAG", timedelta(milliseconds=1))
    monkeypatch.setattr(reconciliation, "LONGEST", timedelta(0))
    return Counting(engine)


def measure(serving) -> EngineReading:
    """A reading, compared."""
    serving.book()
    time.sleep(0.01)
    (reading,) = reconciliation.read()
    assert reading.pk in [one.pk for one in reconciliation.compare()]
    reading.refresh_from_db()
    return reading


def call(serving, key, counting, times=1, **body) -> None:
    for _ in range(times):
        assert serving.post(key, body).status_code == 200
        counting.count(*CALL)


def test_what_was_booked_is_what_was_counted(serving, key, counting):
    call(serving, key, counting, 3)
    first = measure(serving)
    assert (first.holds, first.difference, first.booked) == (True, [0, 0], [0, 0])  # from here on
    for times in (5, 2):
        call(serving, key, counting, times)
        reading = measure(serving)
    assert (reading.holds, reading.difference) == (True, [0, 0])
    assert (reading.booked, reading.allowance, reading.since) == ([49, 28], [0, 0], first.at)


@pytest.mark.parametrize(("prompt", "made"), [(50, 0), (0, 50), (-7, -4)])
def test_a_difference_is_an_alarm_and_operators_hear_of_it_once(
    serving, key, counting, cast, mailoutbox, caplog, prompt, made
):
    User.objects.filter(pk=cast.operator.pk).update(email="operator@firma.example", language="en")
    measure(serving)
    call(serving, key, counting, 3)
    counting.count(prompt, made)  # past the gateway; or a call that the engine never had
    reading = measure(serving)
    assert (reading.holds, reading.difference) == (False, [prompt, made])
    assert "engine does not agree with the ledger: since" in caplog.text
    for _ in range(2):
        tasks.reconcile_engines()
        measure(serving)
    (told,) = mail.outbox
    assert (told.to, told.subject) == (["operator@firma.example"], "engine and the ledger do not agree")
    assert f"difference {prompt:+d}" in told.body
    assert f"ledger {21 if prompt else 12}" in told.body


def test_a_thousandth_is_let_pass_and_more_is_not(serving, key, counting):
    measure(serving)
    reading = EngineReading(counted=[1_000_000, 10_000, 0], base=[0, 0, 0], own=[0, 0], booked=[999_000, 10_000])
    assert reconciliation._holds(reading)
    reading.booked = [998_999, 10_000]
    assert not reconciliation._holds(reading)
    reading.allowed = {"left": [1, 0]}
    assert reconciliation._holds(reading)
    reading.booked = [1_000_000, 10_011]
    assert not reconciliation._holds(reading)  # the ledger has more


def test_our_own_questions_are_not_the_callers(serving, key, counting):
    measure(serving)
    counting.count(30, 12)
    reconciliation.own("engine", 30, 12)
    reconciliation.own("another", 1000, 1000)
    call(serving, key, counting)
    reading = measure(serving)
    assert (reading.holds, reading.difference, reading.own) == (True, [0, 0], [30, 12])
    assert measure(serving).own == [30, 12]  # once


def test_a_start_begins_anew_at_nothing(serving, key, counting):
    measure(serving)
    call(serving, key, counting, 2)
    measure(serving)
    call(serving, key, counting)  # its count is lost with the process
    serving.book()
    time.sleep(0.05)
    counting.restart()
    call(serving, key, counting, 4)
    reading = measure(serving)
    assert (reading.holds, reading.difference, reading.booked) == (True, [0, 0], [28, 16])
    assert (reading.base, reading.since) == ([0, 0, 0], reading.started_at)
    call(serving, key, counting)
    assert measure(serving).booked == [35, 20]


def test_a_reading_waits_for_the_calls_of_before(serving, key, counting):
    measure(serving)
    serving.engine.pause = 0.8
    calling = threading.Thread(target=call, args=(serving, key, counting))
    calling.start()
    time.sleep(0.3)
    (reading,) = reconciliation.read()
    assert reconciliation.compare() == []
    calling.join()
    assert reconciliation.compare() == []  # it is not booked yet
    serving.book()
    (compared,) = reconciliation.compare()
    assert (compared.pk, compared.holds) == (reading.pk, True)
    assert compared.difference == [-7, -4]  # the engine had not counted it
    assert compared.allowed == {"edges": [7, 4]}
    assert measure(serving).difference == [0, 0]


def test_who_leaves_a_stream_is_allowed_for_and_said(serving, key, counting):
    measure(serving)
    serving.engine.pause, serving.engine.counts, serving.engine.tokens = 0.03, True, ["a"] * 100
    for number, _ in enumerate(serving.stream(key)):
        if number == 5:
            break
    while not serving.rows():
        time.sleep(0.02)
    (row,) = serving.rows()
    counting.count(row.input_tokens, row.output_tokens + 20)
    reading = measure(serving)
    assert (reading.holds, reading.difference) == (True, [0, 20])
    assert reading.allowed == {"left": [0, reconciliation.ABORT_TOKENS]}
    counting.count(0, 100)
    assert measure(serving).holds is False


def test_several_answers_read_their_prompt_again(serving, key, counting):
    measure(serving)
    assert serving.post(key, {"n": 3}).status_code == 200
    counting.count(21, 12, more=2)
    reading = measure(serving)
    assert (reading.holds, reading.difference, reading.allowed) == (True, [14, 0], {"repeated": [14, 0]})


def test_a_call_whose_gateway_died_is_allowed_for_until_its_outcome_is_known(serving, key, counting, cast):
    BaseModel.objects.update(context_tokens=100)
    measure(serving)
    call(serving, key, counting)
    serving.book()
    (row,) = UsageEvent.objects.all()
    facts = {"status": "estimated", "engine": "", "input_tokens": 2, "output_tokens": 1}
    UsageEvent.objects.filter(pk=row.pk).update(**facts)
    lost = measure(serving)
    assert (lost.holds, lost.difference, lost.allowed) == (True, list(CALL), {"lost": [100, 100]})
    EngineReading.objects.filter(pk=lost.pk).delete()
    event = metering.Event(
        row.request_id, str(cast.acme.pk), row.key_id or "", row.day.isoformat(), "settled", "demo-base", "demo-base",
        at_us=int(row.occurred_at.timestamp() * 1_000_000), input_tokens=7, output_tokens=4, engine="engine",
    )  # fmt: skip
    from tenants import counters

    counters.run(counters.connect(), metering.SETTLE, metering.settle(event, serving.gateway._counters._mark))
    known = measure(serving)
    assert (known.holds, known.difference, known.booked, known.allowed) == (True, [0, 0], list(CALL), {})


def test_an_engine_that_does_not_say_is_left_out(serving, counting):
    serving.engine.figures = {}
    assert reconciliation.read() == []
    Replica.objects.update(url="http://127.0.0.1:9")
    assert reconciliation.read() == []


def test_the_command_says_both_sums_and_fails_where_they_differ(serving, key, counting, capsys):
    measure(serving)
    call(serving, key, counting, 2)
    serving.book()
    call_command("reconcile_engines")
    assert "engine agrees, since" in capsys.readouterr().out
    counting.count(0, 9)
    with pytest.raises(CommandError, match="do not agree"):
        call_command("reconcile_engines")
    told = capsys.readouterr().out
    assert "engine DIFFERS" in told
    assert "generated: engine 17, ledger 8, our own 0, difference +9, allowed for 0" in told
    Replica.objects.all().delete()
    with pytest.raises(CommandError, match="No engine says"):
        call_command("reconcile_engines")


def test_prometheus_sees_it_too(serving, key, counting):
    measure(serving)
    call(serving, key, counting)
    counting.count(9, -4)
    measure(serving)
    told = discrepancies.exposition().decode().splitlines()
    place = 'server_address="engine"'
    assert f'paramstack_reconciliation_difference_tokens{{gen_ai_token_type="input",{place}}} 9.0' in told
    assert f'paramstack_reconciliation_difference_tokens{{gen_ai_token_type="output",{place}}} -4.0' in told
    assert f'paramstack_reconciliation_allowed_tokens{{gen_ai_token_type="input",{place}}} 0.0' in told
    assert f"paramstack_reconciliation_holds{{{place}}} 0.0" in told


def test_what_is_old_is_forgotten_and_the_newest_stays(serving, counting):
    measure(serving)
    old = datetime(2026, 1, 1, tzinfo=UTC)
    OwnTokens.objects.create(replica="engine", at=old, prompt_tokens=1, generation_tokens=1)
    kept = EngineReading.objects.get()
    EngineReading.objects.create(
        replica="engine", started_at=old, at=old, until=old, row=0, counted=[0, 0, 0], since=old, base=[0, 0, 0]
    )
    reconciliation.forget()
    assert list(EngineReading.objects.all()) == [kept]
    assert not OwnTokens.objects.exists()
