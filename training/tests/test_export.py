"""What a frozen export promises: no prompt on both sides, signed, whole or absent."""

from __future__ import annotations

import errno
import json
from pathlib import Path

import pytest
from django.core.management import call_command

from attestation import keyring, statements, verify
from attestation.signing import VerificationError
from training import export, review
from training.models import Choice, Export
from training.problems import DiskFull


@pytest.fixture
def artifacts(settings, tmp_path):
    settings.ARTIFACTS = tmp_path / "artifacts"
    return settings.ARTIFACTS


@pytest.fixture
def decided(run, cast, artifacts):
    """Every pair decided as proposed."""
    for pair in run.pairs.all():
        review.decide(pair, cast.reviewer, pair.proposal, left="a")
    return run


def rows(frozen: Export, side: str) -> list[dict]:
    return [json.loads(line) for line in (frozen.directory / f"{side}.jsonl").read_text().splitlines()]


def test_sides_share_no_prompt_and_hold_every_decided_pair(decided, cast):
    frozen = export.freeze(decided, cast.engineer)
    train, heldout = rows(frozen, "train"), rows(frozen, "heldout")
    assert (len(train), len(heldout)) == (frozen.train_pairs, frozen.heldout_pairs) == (16, 8)
    assert not {row["prompt"] for row in train} & {row["prompt"] for row in heldout}


def test_a_row_says_what_was_chosen_who_wrote_it_and_who_judged(decided, cast):
    frozen = export.freeze(decided, cast.engineer)
    for row in rows(frozen, "train") + rows(frozen, "heldout"):
        assert row["chosen"].startswith("iyi")
        assert not row["rejected"].startswith("iyi")
        assert {row["chosen_score"], row["rejected_score"]} == {5, 6}
        assert row["chosen_generator"] == "written:samples.jsonl"
        assert row["agrees_with_judge"] is True


def test_ties_bad_and_waiting_pairs_are_left_out(decided, cast):
    first, second, third = decided.pairs.all()[:3]
    review.decide(first, cast.reviewer, Choice.TIE, left="a")
    review.decide(second, cast.reviewer, Choice.BAD, left="a")
    decided.pairs.filter(pk=third.pk).update(decision="", decided_at=None)
    frozen = export.freeze(decided, cast.engineer)
    assert frozen.train_pairs + frozen.heldout_pairs == 24 - 3


def test_the_split_follows_the_seed_and_not_the_moment(decided, cast):
    one, two = export.freeze(decided, cast.engineer), export.freeze(decided, cast.engineer)
    other = export.freeze(decided, cast.engineer, seed=8)
    assert rows(one, "heldout") == rows(two, "heldout")
    assert one.digest == two.digest
    assert rows(one, "heldout") != rows(other, "heldout")


def test_it_is_signed_and_a_changed_row_is_found(decided, cast):
    frozen = export.freeze(decided, cast.engineer)
    signed = verify.directory(frozen.directory, frozen.statement.envelope, keyring.public_keys(), statements.EXPORT)
    assert signed["subject"][0]["digest"]["sha256"] == frozen.digest
    call_command("verify", frozen.directory / "manifest.json")
    path = frozen.directory / "train.jsonl"
    path.write_text(path.read_text().replace("iyi 1", "kötü 1"))
    with pytest.raises(VerificationError, match=r"train\.jsonl"):
        verify.directory(frozen.directory, frozen.statement.envelope, keyring.public_keys())


def test_the_manifest_counts_and_hashes_what_lies_beside_it(decided, cast):
    frozen = export.freeze(decided, cast.engineer)
    manifest = json.loads((frozen.directory / "manifest.json").read_text())
    assert manifest["pairs"] == {"train": 16, "heldout": 8}
    assert manifest["prompts"] == {"train": 8, "heldout": 4}
    assert manifest["dataset"]["digest"] == decided.dataset.digest
    assert manifest["settings"] == {"seed": 7, "heldout_share": 0.3}


def test_too_few_pairs_are_refused(run, cast, artifacts):
    for pair in run.pairs.all()[:9]:
        review.decide(pair, cast.reviewer, Choice.A, left="a")
    with pytest.raises(export.TooFew, match="9"):
        export.freeze(run, cast.engineer)
    assert not Export.objects.exists()
    assert not list(artifacts.rglob("*"))


def test_pairs_of_one_prompt_cannot_be_split(decided, cast):
    one_prompt = decided.dataset.prompts.first()
    decided.pairs.update(prompt=one_prompt)
    with pytest.raises(export.OneSided):
        export.freeze(decided, cast.engineer)


def test_a_full_disk_leaves_nothing_behind(decided, cast, artifacts, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(DiskFull):
        export.freeze(decided, cast.engineer)
    assert not Export.objects.exists()
    assert [path for path in artifacts.rglob("*") if path.is_file()] == []
