"""What review promises: blind, recorded sides, the newest decision counts, every decision can be taken back."""

from __future__ import annotations

import dataclasses

import pytest

from training import review
from training.models import Choice, Review


@pytest.fixture
def pair(run):
    return run.pairs.first()


def test_the_reviewer_sees_texts_and_nothing_else(pair, cast):
    asked = review.question(pair, cast.reviewer)
    assert {field.name for field in dataclasses.fields(asked)} == {"pair", "prompt", "left", "right", "left_is"}
    assert {asked.left, asked.right} == {pair.a.text, pair.b.text}
    assert asked.left == (pair.a if asked.left_is == "a" else pair.b).text


def test_sides_stay_on_a_reload_and_vary_over_pairs(run, cast):
    pairs = list(run.pairs.all())
    sides = [review.question(pair, cast.reviewer).left_is for pair in pairs]
    assert sides == [review.question(pair, cast.reviewer).left_is for pair in pairs]
    assert set(sides) == {"a", "b"}


def test_a_click_on_a_side_means_the_candidate_that_stood_there(run, cast):
    for pair in run.pairs.all():
        asked = review.question(pair, cast.reviewer)
        assert asked.choice("left") == asked.left_is
        assert {asked.choice("left"), asked.choice("right")} == {"a", "b"}
        assert asked.choice("tie") == "tie"


def test_a_decision_is_recorded_and_leaves_the_queue(pair, cast):
    waiting = review.queue(cast.acme).count()
    assert review.next_pair(cast.acme, cast.reviewer) == pair
    review.decide(pair, cast.reviewer, Choice.B, left="b", seconds=2.5)
    pair.refresh_from_db()
    assert (pair.decision, pair.chosen, pair.rejected) == (Choice.B, pair.b, pair.a)
    [stored] = pair.reviews.all()
    assert (stored.left, stored.seconds) == ("b", 2.5)
    assert review.queue(cast.acme).count() == waiting - 1
    assert review.next_pair(cast.acme, cast.reviewer) != pair


def test_the_same_decision_twice_is_one_review(pair, cast):
    first = review.decide(pair, cast.reviewer, Choice.A, left="a")
    assert review.decide(pair, cast.reviewer, Choice.A, left="a") == first
    assert Review.objects.count() == 1


def test_the_newest_decision_counts(pair, cast):
    review.decide(pair, cast.reviewer, Choice.A, left="a")
    review.decide(pair, cast.reviewer, Choice.TIE, left="a")
    pair.refresh_from_db()
    assert pair.decision == Choice.TIE
    review.decide(pair, cast.engineer, Choice.B, left="a")
    pair.refresh_from_db()
    assert pair.decision == Choice.B
    assert [one.choice for one in review.standing(pair)] == [Choice.TIE, Choice.B]


def test_undo_takes_back_the_reviewers_newest_decisions_one_by_one(run, cast):
    first, second = run.pairs.all()[:2]
    review.decide(first, cast.reviewer, Choice.A, left="a")
    review.decide(second, cast.reviewer, Choice.B, left="a")
    review.decide(second, cast.engineer, Choice.A, left="a")
    assert review.undo(cast.acme, cast.reviewer) == second
    second.refresh_from_db()
    assert second.decision == Choice.A  # the engineer's stands
    assert review.undo(cast.acme, cast.reviewer) == first
    first.refresh_from_db()
    assert (first.decision, first.decided_at) == ("", None)
    assert review.undo(cast.acme, cast.reviewer) is None
    assert Review.objects.count() == 5  # nothing was deleted


def test_a_strange_choice_is_refused(pair, cast):
    for choice, left in (("c", "a"), ("", "a"), ("a", "left")):
        with pytest.raises(review.NotAChoice):
            review.decide(pair, cast.reviewer, choice, left=left)
    assert not Review.objects.exists()


def test_a_skip_shows_another_pair_and_the_last_one_comes_back(run, cast):
    first = review.next_pair(cast.acme, cast.reviewer)
    second = review.next_pair(cast.acme, cast.reviewer, after=first)
    assert first
    assert second not in (None, first)
    for pair in run.pairs.exclude(pk=first.pk):
        review.decide(pair, cast.reviewer, Choice.TIE, left="a")
    assert review.next_pair(cast.acme, cast.reviewer, after=first) is None
    assert review.next_pair(cast.acme, cast.reviewer) == first


def test_the_queue_is_the_tenants_own(run, cast):
    assert review.queue(cast.globex).count() == 0
    assert review.undo(cast.globex, cast.reviewer) is None
