"""What judges promise: they abstain when they cannot tell, and the order of the answers does not decide."""

from __future__ import annotations

import json

import pytest

from training import claude, pairing
from training.judges import ABSTAIN, Opinion, rules, settle, written
from training.judges import claude as claude_judge
from training.models import Choice, Source
from training.pairing import Contender
from training.samples import BadSamples, load
from training.tests import messages_api

PROMPT = "API anahtarım sızarsa ne yapmalıyım?"
GOOD = "API anahtarınızı hemen iptal edin, yenisini oluşturun ve kullanım kayıtlarını inceleyin."


def verdict(winner: str, first: int = 5, second: int = 2) -> str:
    scores = {place: dict.fromkeys(claude_judge.ASPECTS, n) for place, n in (("first", first), ("second", second))}
    return json.dumps({**scores, "winner": winner, "reason": "Daha yararlı."})


@pytest.mark.parametrize(
    ("answer", "defect"),
    [
        ("API ANAHTARINIZI HEMEN İPTAL EDİN VE YENİSİNİ OLUŞTURUN!", "all capitals"),
        ("Please revoke the API key and create a new one with the console.", "not Turkish"),
        ("Anahtarı iptal et.", "too short"),
        ("Bu konuda size yardımcı olamam, başka bir API anahtarı sorusu sorun.", "refuses"),
        ("API anahtarı API anahtarı API anahtarı API anahtarı API anahtarı.", "repeats itself"),
        ("Toplantıdan önce kısa bir gündem hazırlayıp katılımcılara gönderin.", "off topic"),
        (PROMPT, "copies the prompt"),
        ("API anahtarınızı iptal edip yenisini oluşturduktan sonra kayıtları", "unfinished"),
    ],
)
def test_each_rule_sees_its_defect_and_the_answer_loses(answer, defect):
    assert defect in rules.defects(PROMPT, answer)
    assert rules.defects(PROMPT, GOOD) == frozenset()
    assert rules.judge(PROMPT, GOOD, answer).choice == Choice.A
    assert rules.judge(PROMPT, answer, GOOD).choice == Choice.B


def test_rules_abstain_between_two_answers_without_defects():
    opinion = rules.judge(PROMPT, GOOD, "API anahtarını panelden kapatıp ekibinize haber verin.")
    assert opinion.choice == ABSTAIN
    assert opinion.score_a == opinion.score_b == 10


def test_rules_abstain_when_each_answer_has_a_defect_of_its_own():
    assert (
        rules.judge(PROMPT, "API ANAHTARINIZI İPTAL EDİN VE KAYITLARA BAKIN!", "Anahtarı iptal et.").choice == ABSTAIN
    )


def test_rules_fold_the_turkish_i():
    assert rules.fold("IŞIK İYİ") == "ışık iyi"


def test_written_verdicts_speak_only_of_written_answers(samples, prompts):
    loaded = load(samples)
    best, plain = f"{prompts[0]} Tam, doğru ve yararlı bir yanıt (1).", f"{prompts[0]} Biraz kısa bir yanıt (1)."
    opinion = written.judge(loaded, prompts[0], plain, best)
    assert (opinion.choice, opinion.score_a, opinion.score_b) == (Choice.B, 6, 9)
    assert opinion.source == Source.WRITTEN
    assert written.judge(loaded, prompts[0], plain, "başka bir yanıt").choice == ABSTAIN
    assert written.judge(loaded, prompts[1], plain, best).choice == ABSTAIN


def test_a_small_difference_of_written_scores_is_a_tie(tmp_path):
    row = {
        "prompt": "p",
        "answers": [{"text": "a", "score": 7.5, "reason": "."}, {"text": "b", "score": 9, "reason": "."}],
    }
    (tmp_path / "s.jsonl").write_text(json.dumps(row))
    assert written.judge(load(tmp_path / "s.jsonl"), "p", "a", "b").choice == Choice.TIE


def test_a_broken_sample_file_names_its_line(tmp_path):
    (tmp_path / "s.jsonl").write_text('{"prompt": "p", "answers": []}\n{"prompt": "q"}\n')
    with pytest.raises(BadSamples, match="2"):
        load(tmp_path / "s.jsonl")
    assert load(tmp_path / "missing.jsonl") == {}


@pytest.mark.parametrize(("swapped", "choice", "scores"), [(False, Choice.A, (10, 2.5)), (True, Choice.B, (2.5, 10))])
def test_claude_speaks_of_a_and_b_in_either_order(api, swapped, choice, scores):
    api.script = [messages_api.text(verdict("first"))]
    opinion = claude_judge.judge(claude.client(), claude.MODEL, PROMPT, "birinci", "ikinci", swapped)
    assert (opinion.choice, (opinion.score_a, opinion.score_b), opinion.swapped) == (choice, scores, swapped)
    assert claude_judge.VERSION in opinion.judge
    [request] = api.requests
    shown = json.loads(request["messages"][0]["content"])
    assert shown["first"] == ("ikinci" if swapped else "birinci")
    assert request["output_config"]["format"]["schema"] == claude_judge.SCHEMA
    assert not {"temperature", "top_p", "top_k"} & set(request)


@pytest.mark.parametrize(
    ("said", "stop_reason"),
    [
        ("A kesinlikle daha iyi.", "end_turn"),
        ('{"winner": "first"', "max_tokens"),
        ("", "refusal"),
        (verdict("third"), "end_turn"),
        (verdict("first", first=9), "end_turn"),
        ('["first"]', "end_turn"),
    ],
)
def test_a_verdict_that_cannot_be_read_abstains_and_keeps_its_cost(api, said, stop_reason):
    api.script = [messages_api.text(said, stop_reason, input_tokens=1_000, output_tokens=200)]
    opinion = claude_judge.judge(claude.client(), claude.MODEL, PROMPT, "a", "b", swapped=False)
    assert opinion.choice == ABSTAIN
    assert opinion.cost_nano == 200_000  # 1,000 * $0.10/M + 200 * $0.50/M
    assert opinion.rationale.startswith(stop_reason)


def opinion(source: str, choice: str, swapped: bool = False, a: float | None = None, b: float | None = None) -> Opinion:
    return Opinion(source, source, choice, a, b, swapped)


def test_two_orders_that_agree_propose_and_two_that_differ_tie():
    agree = [opinion("claude", "a", a=8, b=4), opinion("claude", "a", True, 9, 3)]
    assert settle(agree).choice == Choice.A
    assert (settle(agree).score_a, settle(agree).score_b) == (8.5, 3.5)
    assert settle([opinion("claude", "a"), opinion("claude", "b", True)]).choice == Choice.TIE


def test_the_highest_judge_that_did_not_abstain_proposes():
    rules_say, written_say = opinion("rules", "a"), opinion("written", "b")
    assert settle([rules_say, written_say]).judge == "written"
    assert settle([rules_say, opinion("written", ABSTAIN)]).judge == "rules"
    assert settle([opinion("claude", "a"), opinion("claude", ABSTAIN, True), rules_say]).judge == "rules"
    assert settle([opinion("rules", ABSTAIN)]).choice == ABSTAIN
    assert settle([]).choice == ABSTAIN


def four(scores: tuple[float, ...] = (6, 0, 9, 3)) -> list[Contender]:
    return [Contender(f"yanıt {n}", "written", score) for n, score in enumerate(scores)]


def test_best_meets_second_and_worst_and_second_meets_third():
    assert {frozenset(pair) for pair in pairing.choose("p", four())} == {
        frozenset({2, 0}), frozenset({2, 1}), frozenset({0, 3})
    }  # fmt: skip


def test_a_local_answer_meets_one_plain_written_answer():
    pairs = pairing.choose("p", [*four(), Contender("yerel", "local")])
    assert len(pairs) == 4
    assert [set(pair) for pair in pairs if 4 in pair] == [{4, 0}]


def test_answers_without_scores_meet_their_neighbours():
    claude_answers = [Contender(f"yanıt {n}", "claude") for n in range(4)]
    assert {frozenset(pair) for pair in pairing.choose("p", claude_answers)} == {
        frozenset({0, 1}), frozenset({2, 3}), frozenset({0, 3})
    }  # fmt: skip


def test_equal_texts_never_meet():
    assert pairing.choose("p", [Contender("aynı", "claude"), Contender("aynı", "claude")]) == []
    assert pairing.choose("p", [Contender("tek", "claude")]) == []
    assert pairing.choose("p", []) == []


def test_sides_are_the_same_every_time_and_the_better_answer_stands_on_both():
    sides = [pairing.choose(f"soru {n}", four((9, 3)))[0] for n in range(200)]
    assert sides == [pairing.choose(f"soru {n}", four((9, 3)))[0] for n in range(200)]
    assert 70 < sides.count((0, 1)) < 130
