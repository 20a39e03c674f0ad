"""What a preference run promises: nothing is made twice, every row names its source, the cap holds, it needs no key."""

from __future__ import annotations

import json
import time
from collections import Counter
from functools import partial

import pytest

from training import claude, datasets, generators, jobs, preferences, quotes, rlaif, tasks
from training.judges import claude as claude_judge
from training.models import Candidate, Choice, Job, PreferencePair, RlaifRun, Source, Verdict
from training.tests import messages_api
from training.tests.conftest import write_samples


@pytest.fixture(autouse=True)
def _no_engine(settings):
    settings.ENGINE_URL = "http://127.0.0.1:9"


WRITTEN = {"generators": ["written"], "judges": ["written", "rules"]}
CLAUDE = {"generators": ["claude"], "judges": ["claude", "rules"], "num_responses": 2}


def finish(run: RlaifRun) -> RlaifRun:
    jobs.run(run.job_id, tasks.execute)
    run.refresh_from_db()
    run.job.refresh_from_db()
    return run


def claude_says(request):
    """Answers, and verdicts that prefer the longer text, whatever the order."""
    if "format" not in request["output_config"]:
        return messages_api.text(f"{request['messages'][0]['content']} {request['system']}")
    shown = json.loads(request["messages"][0]["content"])
    winner = "first" if len(shown["first"]) >= len(shown["second"]) else "second"
    scores = {place: dict.fromkeys(claude_judge.ASPECTS, 5 if place == winner else 2) for place in ("first", "second")}
    return messages_api.text(json.dumps({**scores, "winner": winner, "reason": "Uzun."}))


def test_without_a_key_written_samples_make_judged_pairs(cast, dataset, samples):
    run = finish(rlaif.start(cast.acme, dataset, WRITTEN, cast.engineer))
    assert run.job.state == Job.State.DONE
    assert run.name == "rlaif-0001"
    assert run.candidates.count() == 48
    assert run.pairs.count() == 36
    assert set(run.candidates.values_list("source", "generator")) == {("written", "samples.jsonl")}
    proposals = Counter(run.pairs.values_list("proposal", flat=True))
    assert set(proposals) == {Choice.A, Choice.B}
    assert min(proposals.values()) > 8  # the better answer stands on both sides
    for pair in run.pairs.all():
        better = pair.a if pair.proposal == Choice.A else pair.b
        assert "Tam" in better.text or "kısa" in better.text
    assert run.summary["pairs"] == 36
    assert run.job.cost_nano == 0


def test_the_engine_down_is_noted_where_others_answer_and_fatal_where_it_is_alone(cast, dataset, samples):
    run = finish(rlaif.start(cast.acme, dataset, {**WRITTEN, "generators": ["written", "local"]}, cast.engineer))
    assert run.job.state == Job.State.DONE
    assert "127.0.0.1:9" in run.summary["notes"][0]
    alone = finish(rlaif.start(cast.acme, dataset, {**WRITTEN, "generators": ["local"]}, cast.engineer))
    assert alone.job.state == Job.State.FAILED
    assert "127.0.0.1:9" in alone.job.error
    assert alone.name == "rlaif-0002"


def test_claude_answers_and_judges_in_both_orders_and_every_cent_is_counted(cast, dataset, api):
    api.default = claude_says
    run = finish(rlaif.start(cast.acme, dataset, CLAUDE, cast.engineer))
    assert run.job.state == Job.State.DONE
    assert run.candidates.filter(source=Source.CLAUDE).count() == 24
    verdicts = Verdict.objects.filter(pair__run=run, source=Source.CLAUDE)
    assert Counter(verdicts.values_list("swapped", flat=True)) == {True: 12, False: 12}
    for pair in run.pairs.select_related("a", "b"):
        assert pair.proposal == (Choice.A if len(pair.a.text) >= len(pair.b.text) else Choice.B)
        assert {pair.score_a, pair.score_b} == {10, 2.5}
    calls = 24 + 24
    assert len(api.requests) == calls
    assert run.job.cost_nano == calls * quotes.cost(claude.MODEL, 40, 20)
    stored = sum(Candidate.objects.values_list("cost_nano", flat=True)) + sum(
        verdicts.values_list("cost_nano", flat=True)
    )
    assert stored == run.job.cost_nano


def test_a_judge_that_follows_the_order_makes_ties(cast, dataset, api):
    def first_wins(request):
        if "format" not in request["output_config"]:
            return claude_says(request)
        scores = {place: dict.fromkeys(claude_judge.ASPECTS, 3) for place in ("first", "second")}
        return messages_api.text(json.dumps({**scores, "winner": "first", "reason": "İlk."}))

    api.default = first_wins
    run = finish(rlaif.start(cast.acme, dataset, CLAUDE, cast.engineer))
    assert set(run.pairs.values_list("proposal", flat=True)) == {Choice.TIE}


def test_what_was_paid_is_not_paid_again_after_a_failure(cast, dataset, api):
    answers = iter(range(1_000))

    def credit_ends(request):
        return claude_says(request) if next(answers) < 10 else messages_api.LOW_CREDIT

    api.default = credit_ends
    run = finish(rlaif.start(cast.acme, dataset, CLAUDE, cast.engineer))
    assert run.job.state == Job.State.FAILED
    kept, spent = run.candidates.count(), run.job.cost_nano
    assert kept == 10
    assert spent > 0
    api.default = claude_says
    asked = len(api.requests)
    jobs.retry(run.job)
    finish(run)
    assert run.job.state == Job.State.DONE
    assert len(api.requests) - asked == (24 - kept) + 24
    assert run.job.cost_nano == 48 * quotes.cost(claude.MODEL, 40, 20)


def test_a_second_try_asks_for_the_very_answer_that_failed(cast, dataset, api):
    failing = (dataset.prompts.first().text, generators.STYLES[0])

    def one_fails_late(request):
        if (request["messages"][0]["content"], request["system"]) != failing:
            return claude_says(request)
        time.sleep(0.5)  # its neighbour on the same prompt is kept by then
        return messages_api.LOW_CREDIT

    api.default = one_fails_late
    run = finish(rlaif.start(cast.acme, dataset, CLAUDE, cast.engineer))
    assert run.job.state == Job.State.FAILED
    api.default = claude_says
    jobs.retry(run.job)
    finish(run)
    assert run.candidates.values("prompt", "text").distinct().count() == 24
    assert run.pairs.count() == 12


def test_a_second_run_of_the_same_message_changes_nothing(cast, dataset, samples):
    run = finish(rlaif.start(cast.acme, dataset, WRITTEN, cast.engineer))
    before = (run.candidates.count(), run.pairs.count(), Verdict.objects.count())
    Job.objects.filter(pk=run.job_id).update(state=Job.State.QUEUED)
    finish(run)
    assert run.job.state == Job.State.DONE
    assert (run.candidates.count(), run.pairs.count(), Verdict.objects.count()) == before


def test_the_cap_is_never_passed(cast, dataset, api):
    api.default = claude_says
    cap = quotes.cost(claude.MODEL, 600, 600) * 3
    run = finish(rlaif.start(cast.acme, dataset, {**CLAUDE, "max_cost_nano": cap}, cast.engineer))
    assert run.job.state == Job.State.FAILED
    assert "$" in run.job.error
    assert run.job.cost_nano <= cap


def test_calls_in_the_air_at_the_cap_are_kept_and_counted(cast, dataset, api):
    def slowly(request):
        time.sleep(0.5)  # the call that passes the cap is refused while the others are in the air
        return claude_says(request)

    api.default = slowly
    cap = quotes.cost(claude.MODEL, 600, 600) * 3
    run = finish(rlaif.start(cast.acme, dataset, {**CLAUDE, "max_cost_nano": cap}, cast.engineer))
    assert "$" in run.job.error
    assert 0 < run.candidates.count() == len(api.requests)
    assert run.job.cost_nano == len(api.requests) * quotes.cost(claude.MODEL, 40, 20)


def test_calls_in_the_air_at_a_cancel_are_kept_and_no_more_are_made():
    made = []

    def call(n):
        made.append(n)
        time.sleep(0.1 * (n + 1))
        return n

    def cancel():
        raise jobs.Cancelled

    got: list[int] = []
    with pytest.raises(jobs.Cancelled):
        got.extend(n for _key, n in preferences.gather([(n, partial(call, n)) for n in range(9)], 3, cancel))
    assert sorted(got) == sorted(made) == [0, 1, 2]


def test_a_refusal_makes_no_candidate_and_is_paid_for(cast, dataset, api):
    api.default = lambda request: messages_api.text("", stop_reason="refusal")
    run = finish(rlaif.start(cast.acme, dataset, CLAUDE, cast.engineer))
    assert run.candidates.count() == 0
    assert run.job.cost_nano == 24 * quotes.cost(claude.MODEL, 40, 20)


def test_cancelling_stops_the_calls_and_keeps_what_came(cast, dataset, api):
    api.default = claude_says
    run = rlaif.start(cast.acme, dataset, CLAUDE, cast.engineer)

    def execute(claim):
        beat = claim.beat

        def cancelled_at_the_fifth(**values):
            if values.get("done") == 5:
                Job.objects.filter(pk=run.job_id).update(cancel_requested=True)
            beat(**values)

        claim.beat = cancelled_at_the_fifth
        rlaif.execute(run, claim)

    jobs.run(run.job_id, execute)
    run.job.refresh_from_db()
    assert run.job.state == Job.State.CANCELLED
    assert 5 <= run.candidates.count() < 24


@pytest.mark.parametrize(
    ("config", "field"),
    [
        ({"generators": []}, "generators"),
        ({"judges": ["oracle"]}, "judges"),
        ({"num_responses": 1}, "num_responses"),
        ({"num_responses": True}, "num_responses"),
        ({"max_cost_nano": -1}, "max_cost_nano"),
        ({"temperature": 1}, "temperature"),
        ({"generators": 5}, "generators"),
        ({"generators": "written"}, "generators"),
        ({"generators": [["claude"]]}, "generators"),
        ({"judges": {"rules": 1}}, "judges"),
        ({"judges": ["\ud800"]}, "judges"),
        ({"seed": "7"}, "seed"),
        ({"seed": 1.5}, "seed"),
        ({"local_model": 3}, "local_model"),
        ({"generator_model": None}, "generator_model"),
        ({"judge_model": ["x"]}, "judge_model"),
        ({"judge_model": "\x00"}, "judge_model"),
    ],
)
def test_an_impossible_configuration_queues_nothing(cast, dataset, config, field):
    with pytest.raises(preferences.BadConfig) as caught:
        rlaif.start(cast.acme, dataset, config, cast.engineer)
    assert caught.value.field == field
    assert str(caught.value).encode()
    assert not Job.objects.exists()


def test_claude_without_a_key_queues_nothing(cast, dataset, settings):
    settings.ANTHROPIC_API_KEY = ""
    with pytest.raises(claude.WrongKeyKind):
        rlaif.start(cast.acme, dataset, CLAUDE, cast.engineer)
    assert not Job.objects.exists()


def test_the_default_follows_the_key(settings):
    settings.ANTHROPIC_API_KEY = ""
    assert rlaif.default_config()["generators"] == ["written", "local"]
    settings.ANTHROPIC_API_KEY = "sk-ant-api03-x"
    assert rlaif.default_config()["judges"] == ["claude", "rules"]


def test_the_shipped_prompts_without_a_key_take_seconds(cast, settings):
    with (settings.ROOT / "data" / "prompts.jsonl").open("rb") as file:
        dataset, _parsed = datasets.import_file(cast.acme, "destek", file, "prompts.jsonl", cast.engineer)
    began = time.monotonic()
    run = finish(rlaif.start(cast.acme, dataset, WRITTEN, cast.engineer))
    assert run.job.state == Job.State.DONE
    assert run.pairs.count() >= 3 * 64
    assert PreferencePair.objects.usable().count() == 0  # a judge proposes, a person decides
    assert time.monotonic() - began < 20


def test_samples_for_other_prompts_leave_the_run_without_candidates(cast, dataset, settings, tmp_path):
    settings.SAMPLES = write_samples(tmp_path / "other.jsonl", ["başka bir soru"])
    run = finish(rlaif.start(cast.acme, dataset, WRITTEN, cast.engineer))
    assert run.job.state == Job.State.FAILED
    assert run.job.error
