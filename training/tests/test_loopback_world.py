"""The planted truth: it can be read from a text, and the judges err as they are said to. No server is asked."""

from __future__ import annotations

import json
import math
import random
import statistics
import time
from typing import Any

import pytest

from training.judges import claude as judge
from training.loopback import engine, limits, truth, wire, world
from training.loopback.catalogue import MODELS
from training.loopback.options import Options

MODEL = MODELS["claude-haiku-5-5"]
RANKING: dict[str, Any] = {
    "type": "object",
    "properties": {"ranking": {"type": "array", "items": {"type": "string"}}, "reason": {"type": "string"}},
    "additionalProperties": False,
}
SCORE = {
    "type": "object",
    "properties": {"score": {"type": "integer", "enum": [1, 2, 3, 4, 5]}, "reason": {"type": "string"}},
    "additionalProperties": False,
}


def answers(number):
    return [world.answer(1, "sistem", f"soru {n}") for n in range(number)]


def asked(shown, schema, number=0, **options):
    """The text that a judge says, and its message."""
    made = engine.Engine(Options(**options))
    body = {
        "model": MODEL.id,
        "max_tokens": 500,
        "messages": [{"role": "user", "content": json.dumps({"prompt": f"istem {number}", **shown})}],
        "output_config": {"format": {"type": "json_schema", "schema": schema}},
        "thinking": {"type": "disabled"},
    }
    message, _usage = made.message(body, MODEL, f"f{number}")
    return message["content"][0]["text"], message


def test_an_answer_follows_from_seed_system_and_prompt_and_carries_its_truth():
    one, same, other = (world.answer(1, system, "soru") for system in ("a", "a", "b"))
    assert one == same != other
    assert truth.MARK.search(one)
    assert truth.quality(1, one) == truth.quality(1, f"  {one[10:]} ")  # the mark is what counts
    assert truth.quality(1, one) != truth.quality(2, one)


def test_truth_is_standard_normal():
    us = [truth.quality(1, text) for text in answers(3_000)]
    assert abs(statistics.mean(us)) < 0.06
    assert abs(statistics.stdev(us) - 1) < 0.05


def test_a_pairwise_judge_prefers_the_better_and_the_first_as_agreed():
    texts = answers(1_200)
    pairs = list(zip(texts[::2], texts[1::2], strict=True))
    expected = wins = 0.0
    for number, (first, second) in enumerate(pairs):
        text, _ = asked({"first": first, "second": second}, judge.SCHEMA, number)
        judge.read(text)
        wins += json.loads(text)["winner"] == "first"
        gap = truth.quality(1, first) - truth.quality(1, second)
        expected += 1 / (1 + math.exp(-(gap / 0.7 + 0.4)))
    assert abs(wins - expected) / len(pairs) < 0.05
    assert wins / len(pairs) > 0.52


def test_a_single_score_follows_the_truth():
    texts = answers(300)
    scores = [json.loads(asked({"answer": text}, SCORE, n)[0])["score"] for n, text in enumerate(texts)]
    assert set(scores) == {1, 2, 3, 4, 5}
    assert statistics.correlation(scores, [truth.quality(1, text) for text in texts]) > 0.7


def test_a_ranking_names_every_label_and_favours_the_first_place():
    texts = answers(1_200)
    tops = []
    for n in range(300):
        shown = {"answers": dict(zip("1234", texts[4 * n : 4 * n + 4], strict=True))}
        ranking = json.loads(asked(shown, RANKING, n)[0])["ranking"]
        assert sorted(ranking) == ["1", "2", "3", "4"]
        tops.append(ranking[0])
    assert tops.count("1") > 1.5 * tops.count("4")


def test_a_ranking_gives_scores_where_the_schema_asks_for_them():
    schema = {**RANKING, "properties": {**RANKING["properties"], "scores": {"$ref": "#/$defs/Scores"}}}
    aspects = {"type": "object", "properties": {"correct": {}, "helpful": {}}}
    schema["$defs"] = {
        "Scores": {"type": "object", "properties": {"1": {"$ref": "#/$defs/A"}, "2": aspects}},
        "A": aspects,
    }
    told = json.loads(asked({"answers": {"1": "iyi", "2": "kötü"}}, schema)[0])
    assert {label: sorted(scores) for label, scores in told["scores"].items()} == {
        "1": ["correct", "helpful"], "2": ["correct", "helpful"],
    }  # fmt: skip


def test_a_judge_that_always_says_first_does():
    shown = {"first": "kötü", "second": "iyi"}
    verdicts = [json.loads(asked(shown, judge.SCHEMA, n, always_first=True)[0])["winner"] for n in range(20)]
    assert set(verdicts) == {"first"}
    ranking = asked({"answers": {"1": "a", "2": "b"}}, RANKING, always_first=True)[0]
    assert json.loads(ranking)["ranking"] == ["1", "2"]


def test_unreadable_verdicts_are_no_json_or_cut():
    stops = {"end_turn": 0, "max_tokens": 0}
    for number in range(40):
        text, message = asked({"first": "a", "second": "b"}, judge.SCHEMA, number, unreadable=1.0)
        with pytest.raises(ValueError, match=r".+"):
            judge.read(text)
        stops[message["stop_reason"]] += 1
    assert min(stops.values()) > 8


def test_a_verdict_repeats_with_its_request_and_is_fresh_when_it_is_paid_for_again():
    made = engine.Engine(Options())
    draws = [made.draw("f").random() for _ in range(2)]
    made.bill.billed["f"] += 1
    assert draws[0] == draws[1] != made.draw("f").random()
    same = engine.Engine(Options(fresh_votes=False))
    first = same.draw("f").random()
    same.bill.billed["f"] += 1
    assert same.draw("f").random() == first


def test_any_other_schema_is_filled():
    schema = {
        "type": "object",
        "properties": {
            "colour": {"enum": ["red", "blue"]},
            "sizes": {"type": "array", "items": {"type": "integer"}},
            "inner": {"$ref": "#/$defs/Inner"},
            "either": {"anyOf": [{"type": "null"}, {"type": "string"}]},
            "fixed": {"const": 7},
        },
        "$defs": {"Inner": {"type": "object", "properties": {"yes": {"type": "boolean"}}}},
        "additionalProperties": False,
    }
    told = json.loads(asked({}, schema)[0])
    assert told["colour"] in ("red", "blue")
    assert all(type(size) is int for size in told["sizes"])
    assert (told["inner"], told["either"], told["fixed"]) == ({"yes": True}, None, 7)


def test_a_bucket_lets_its_burst_through_and_then_its_rate(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    gate = limits.Gate(Options(calls_per_second=10, burst=5))
    passed, refusals = 0, set()
    for tick in range(1_000):
        now[0] = tick / 100
        try:
            gate.admit()
            passed += 1
        except wire.Refused as refused:
            refusals.add((refused.status, refused.wait_s))
    assert 5 + 99 <= passed <= 5 + 100
    assert refusals == {(429, 1)}
    assert refusals == {(429, 1)}


def test_faults_are_as_frequent_as_told():
    options = Options(rate_limited=0.1, overloaded=0.2, server_error=0.3)
    found = {200: 0, 429: 0, 529: 0, 500: 0}
    die = random.Random(1)
    for _ in range(4_000):
        try:
            limits.fault(options, die)
            found[200] += 1
        except wire.Refused as refused:
            found[refused.status] += 1
    shares = {status: round(number / 4_000, 1) for status, number in found.items()}
    assert shares == {200: 0.4, 429: 0.1, 529: 0.2, 500: 0.3}
