"""Freezes decided pairs into a dataset on disk: split by prompt, hashed, signed, never changed afterwards.

The rule: no prompt is on both sides of the split, and the directory appears whole and signed or not at all.
Row format: {"prompt", "chosen", "rejected", "chosen_score", "rejected_score", ...} in JSONL, one file per side.
"""

from __future__ import annotations

import hashlib
import json
import math
import shutil
import uuid
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from django.conf import settings
from django.db import transaction
from django.utils.translation import gettext as _

from attestation import statements
from tenants.models import User
from training.judges import RANK
from training.models import Export, PreferencePair, RlaifRun
from training.problems import Problem, writing

LEAST = 10  # pairs
Row = dict[str, Any]


class TooFew(Problem):
    def __init__(self, pairs: int) -> None:
        self.pairs = pairs
        words = {"pairs": pairs, "least": LEAST}
        super().__init__(
            _("Only %(pairs)d pairs have a winner; freezing needs at least %(least)d: review more pairs.") % words
        )


class OneSided(Problem):
    """All pairs belong to one prompt (or the share leaves one side empty), so nothing can be held out."""

    def __init__(self) -> None:
        super().__init__(
            _("The pairs cannot be split into two sides that share no prompt: review pairs of more prompts.")
        )


def freeze(run: RlaifRun, user: User | None, seed: int = 7, heldout_share: float = 0.3) -> Export:
    """The usable decided pairs of `run` as a signed directory below ARTIFACTS/exports. Raises TooFew, OneSided,
    DiskFull."""
    rows = [_row(pair) for pair in _pairs(run)]
    if len(rows) < LEAST:
        raise TooFew(len(rows))
    train, heldout = split(rows, seed, heldout_share)
    if not train or not heldout:
        raise OneSided
    export_id = uuid.uuid4()
    final = Path(settings.ARTIFACTS) / "exports" / str(export_id)
    draft = final.with_name(f".{export_id}")
    try:
        with writing(final):
            _write(draft, run, train, heldout, {"seed": seed, "heldout_share": heldout_share})
            return _publish(run, user, export_id, draft, final, (len(train), len(heldout), seed))
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def split(rows: Sequence[Row], seed: int, heldout_share: float) -> tuple[list[Row], list[Row]]:
    """Train and held-out rows; whole prompts go to one side, by a hash of seed and prompt. Order is kept."""
    prompts = sorted({row["prompt"] for row in rows}, key=lambda prompt: _rank(prompt, seed))
    heldout = set(prompts[: math.ceil(heldout_share * len(prompts))])
    return [r for r in rows if r["prompt"] not in heldout], [r for r in rows if r["prompt"] in heldout]


def _rank(prompt: str, seed: int) -> bytes:
    return hashlib.sha256(f"{seed}:{prompt}".encode()).digest()


def _pairs(run: RlaifRun) -> list[PreferencePair]:
    usable = run.pairs.usable().select_related("prompt", "a", "b").prefetch_related("verdicts")
    pairs = usable.order_by("prompt__number", "a__number", "b__number")
    return [pair for pair in pairs if pair.chosen.text != pair.rejected.text]


def _row(pair: PreferencePair) -> Row:
    chosen_is_a = pair.chosen == pair.a
    scores = (pair.score_a, pair.score_b) if chosen_is_a else (pair.score_b, pair.score_a)
    said = {verdict.source: f"{verdict.source}:{verdict.judge}" for verdict in pair.verdicts.all() if verdict.choice}
    return {
        "prompt": pair.prompt.text,
        "chosen": pair.chosen.text,
        "rejected": pair.rejected.text,
        "chosen_score": scores[0],
        "rejected_score": scores[1],
        "pair": str(pair.pk),
        "chosen_generator": f"{pair.chosen.source}:{pair.chosen.generator}",
        "rejected_generator": f"{pair.rejected.source}:{pair.rejected.generator}",
        "judge": next((said[source] for source in RANK if source in said), ""),
        "agrees_with_judge": pair.proposal == pair.decision if pair.proposal else None,
    }


def _write(draft: Path, run: RlaifRun, train: list[Row], heldout: list[Row], how: Row) -> None:
    draft.mkdir(parents=True)
    for name, rows in (("train.jsonl", train), ("heldout.jsonl", heldout)):
        with (draft / name).open("w", encoding="utf-8") as file:
            file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    (draft / "manifest.json").write_text(
        json.dumps(_manifest(draft, run, train, heldout, how), ensure_ascii=False, indent=2) + "\n", encoding="utf-8"
    )


def _manifest(draft: Path, run: RlaifRun, train: list[Row], heldout: list[Row], how: Row) -> Row:
    counts = {"train": len(train), "heldout": len(heldout)}
    everything = [*train, *heldout]
    digests = {
        name: hashlib.sha256((draft / name).read_bytes()).hexdigest() for name in ("train.jsonl", "heldout.jsonl")
    }
    return {
        "run": run.name,
        "dataset": {"name": run.dataset.name, "version": run.dataset.version, "digest": run.dataset.digest},
        "pairs": counts,
        "prompts": {
            name: len({row["prompt"] for row in rows}) for name, rows in (("train", train), ("heldout", heldout))
        },
        "sha256": digests,
        "judges": dict(Counter(row["judge"] or "none" for row in everything)),
        "generators": dict(Counter(row[f"{side}_generator"] for row in everything for side in ("chosen", "rejected"))),
        "settings": how,
        "config": run.config,
    }


def _publish(
    run: RlaifRun, user: User | None, export_id: uuid.UUID, draft: Path, final: Path, counts: tuple[int, int, int]
) -> Export:
    train, heldout, seed = counts
    facts = {"run": run.name, "train_pairs": train, "heldout_pairs": heldout, "seed": seed,
             "frozen_by": user.username if user else ""}  # fmt: skip
    try:
        with transaction.atomic():
            name = f"{run.tenant.slug}/{run.name}"
            statement = statements.sign_directory(str(run.tenant_id), statements.EXPORT, name, draft, facts)
            export = Export.objects.create(
                id=export_id,
                tenant_id=run.tenant_id,
                run=run,
                digest=statement.subject_digest,
                path=f"exports/{export_id}",
                train_pairs=train,
                heldout_pairs=heldout,
                seed=seed,
                statement=statement,
            )
            draft.rename(final)
    except BaseException:
        shutil.rmtree(final, ignore_errors=True)
        raise
    return export
