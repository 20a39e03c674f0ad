"""Written samples: answers that people wrote beforehand, each with a score and a reason. Pure.

They stand in for a model and a judge where there is no key. The rule: wherever one shows it is labelled
"hazır örnek / written sample"; it is never called a model's answer or a judge's verdict.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from django.utils.translation import gettext as _

from attestation import canonical
from training.problems import Problem

FILE = "samples.jsonl"  # how candidates and verdicts name where they come from


@dataclass(frozen=True)
class Sample:
    text: str
    score: float  # 0-10
    reason: str


Samples = dict[str, list[Sample]]  # by the digest of the prompt's text


class BadSamples(Problem):
    def __init__(self, path: Path, line: int, reason: str) -> None:
        self.path, self.line = path, line
        words = {"file": path.name, "line": line, "reason": reason}
        super().__init__(_("The sample file %(file)s is wrong in line %(line)d: %(reason)s") % words)


def load(path: Path) -> Samples:
    """The samples in a JSONL file of {"prompt", "answers": [{"text", "score", "reason"}]}; none when there is no file.

    Raises BadSamples for a row of another shape.
    """
    samples: Samples = {}
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return samples
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line)
            answers = [Sample(str(a["text"]), float(a["score"]), str(a["reason"])) for a in row["answers"]]
            samples[canonical.text_digest(row["prompt"].strip())] = answers
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise BadSamples(path, number, repr(error)) from None
    return samples


def for_prompt(samples: Samples, prompt: str) -> list[Sample]:
    return samples.get(canonical.text_digest(prompt), [])


def score_of(samples: Samples, prompt: str, text: str) -> Sample | None:
    """The sample with exactly this text, or None when the answer is not one of the written ones."""
    return next((sample for sample in for_prompt(samples, prompt) if sample.text == text), None)
