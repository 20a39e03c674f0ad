"""Preference pairs in JSONL: `{"prompt", "chosen", "rejected"}` and whatever else a row carries."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from training.dpo.config import Refusal

COLUMNS = ("prompt", "chosen", "rejected")


@dataclass(frozen=True)
class Pair:
    prompt: str
    chosen: str
    rejected: str

    @property
    def similar_length(self) -> bool:
        """The rejected answer is not more than 30 % shorter than the chosen one, so length alone does not decide."""
        return len(self.rejected) >= 0.7 * len(self.chosen)

    def conversation(self) -> dict[str, list[dict[str, str]]]:
        """The pair in TRL's conversational format, so that the base model's own chat template is applied."""
        return {
            "prompt": [{"role": "user", "content": self.prompt}],
            "chosen": [{"role": "assistant", "content": self.chosen}],
            "rejected": [{"role": "assistant", "content": self.rejected}],
        }


def read(path: str | Path) -> list[Pair]:
    """Every pair of a JSONL file. Raises `Refusal` with the line for a missing file, a bad row, or no row at all."""
    try:
        lines = Path(path).read_text(encoding="utf-8").split("\n")  # splitlines also splits inside a text (U+2028)
    except (FileNotFoundError, IsADirectoryError):
        raise Refusal(f"There is no dataset file {path}.") from None
    except UnicodeDecodeError:
        raise Refusal(f"{path} is not UTF-8 text.") from None
    pairs = [_parse(line, number, Path(path).name) for number, line in enumerate(lines, 1) if line.strip()]
    if not pairs:
        raise Refusal(f"{path} is empty: there is nothing to train on.")
    return pairs


def _parse(line: str, number: int, name: str) -> Pair:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise Refusal(f"{name}, line {number}: not JSON ({error}).") from None
    if not isinstance(row, dict):
        raise Refusal(f"{name}, line {number}: a row must be a JSON object.")
    if missing := [column for column in COLUMNS if column not in row]:
        raise Refusal(f"{name}, line {number}: missing columns: {', '.join(missing)}.")
    if bad := [column for column in COLUMNS if not isinstance(row[column], str) or not row[column].strip()]:
        raise Refusal(f"{name}, line {number}: {', '.join(bad)} must be text that is not empty.")
    if row["chosen"] == row["rejected"]:
        raise Refusal(f"{name}, line {number}: chosen and rejected are the same text.")
    return Pair(row["prompt"], row["chosen"], row["rejected"])
