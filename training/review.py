"""People decide preference pairs: blind, one after another, and may take a decision back.

The rule: the reviewer sees two texts and not who wrote them or what a judge said; which one stood on the left is
recorded. Reviews are only appended; the newest one decides the pair. Who may review is the caller's check.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from django.db import transaction
from django.utils import timezone
from django.utils.translation import gettext as _

from tenants.models import Tenant, User
from training.models import Choice, PreferencePair, PreferencePairQuerySet, Review
from training.problems import Problem


class NotAChoice(Problem):
    def __init__(self, choice: str) -> None:
        self.choice = choice
        super().__init__(_("“%(choice)s” is not a decision: choose A, B, equal or both bad.") % {"choice": choice})


@dataclass(frozen=True)
class Question:
    """What a reviewer may see of a pair: two texts. `left_is` says which candidate is on the left."""

    pair: PreferencePair
    prompt: str
    left: str
    right: str
    left_is: str  # "a" or "b"

    def choice(self, side: str) -> str:
        """The stored choice for a click on "left" or "right"; "tie" and "bad" stay as they are."""
        other = "b" if self.left_is == "a" else "a"
        return {"left": self.left_is, "right": other}.get(side, side)


def queue(tenant: Tenant) -> PreferencePairQuerySet:
    """Pairs that wait for a person, oldest first."""
    return PreferencePair.objects.filter(tenant=tenant).waiting().select_related("prompt", "a", "b")


def next_pair(tenant: Tenant, user: User, after: PreferencePair | None = None) -> PreferencePair | None:
    """The next waiting pair, or None when nothing waits. With `after`: the first one behind it (a skip)."""
    waiting = queue(tenant)
    if after is not None:
        behind = waiting.filter(created_at__gte=after.created_at).exclude(pk=after.pk).first()
        return behind or waiting.exclude(pk=after.pk).first()
    return waiting.first()


def question(pair: PreferencePair, user: User) -> Question:
    """The blind view of `pair` for `user`; sides differ between reviewers and stay the same on a reload."""
    left_is = "ab"[hashlib.sha256(f"{pair.pk}:{user.pk}".encode()).digest()[0] & 1]
    left, right = (pair.a, pair.b) if left_is == "a" else (pair.b, pair.a)
    return Question(pair, pair.prompt.text, left.text, right.text, left_is)


@transaction.atomic
def decide(pair: PreferencePair, user: User, choice: str, left: str, seconds: float | None = None) -> Review:
    """Records a decision. The same decision again changes nothing; another one by the same reviewer replaces it.

    `choice` is a Choice, `left` says which candidate stood on the left, `seconds` how long the reviewer looked.
    """
    if choice not in Choice.values or left not in {"a", "b"}:
        raise NotAChoice(choice)
    PreferencePair.objects.select_for_update().get(pk=pair.pk)
    standing = pair.reviews.filter(reviewer=user).last()
    if standing is not None and standing.choice == choice and pair.reviews.last() == standing:
        return standing
    review = Review.objects.create(pair=pair, reviewer=user, choice=choice, left=left, seconds=seconds)
    _settle(pair)
    return review


@transaction.atomic
def undo(tenant: Tenant, user: User) -> PreferencePair | None:
    """Takes back the reviewer's newest standing decision and returns its pair, or None when there is none."""
    for review in Review.objects.filter(pair__tenant=tenant, reviewer=user).exclude(choice="").order_by("-pk")[:50]:
        pair = PreferencePair.objects.select_for_update().get(pk=review.pair_id)
        if pair.reviews.filter(reviewer=user).last() == review:
            Review.objects.create(pair=pair, reviewer=user, choice="", left=review.left)
            _settle(pair)
            return pair
    return None


def standing(pair: PreferencePair) -> list[Review]:
    """Each reviewer's newest review that was not taken back, oldest first."""
    newest = {review.reviewer_id: review for review in pair.reviews.all()}
    return sorted((review for review in newest.values() if review.choice), key=lambda review: review.pk)


def _settle(pair: PreferencePair) -> None:
    reviews = standing(pair)
    pair.decision = reviews[-1].choice if reviews else ""
    pair.decided_at = timezone.now() if reviews else None
    pair.save(update_fields=["decision", "decided_at"])
