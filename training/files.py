"""`generate_preferences` without its terminal: a prompt file in, a preference file out, no database.

The rule: the output appears whole or not at all, and names for each row who wrote the answers and who judged them.
Row format: {"prompt", "chosen", "rejected", "chosen_score", "rejected_score", "generator", "judge"}.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from django.conf import settings
from django.utils.translation import gettext as _

from training import datasets, generators, pairing, preferences
from training.generators import Answer
from training.judges import Opinion, settle
from training.models import Choice
from training.preferences import WORKERS, Kit
from training.problems import Problem, writing

Pair = tuple[str, Answer, Answer]


class CannotRead(Problem):
    def __init__(self, path: Path, reason: str) -> None:
        self.path = path
        super().__init__(_("%(path)s cannot be read: %(reason)s.") % {"path": path, "reason": reason})


class CannotWrite(Problem):
    def __init__(self, path: Path, reason: str) -> None:
        self.path = path
        super().__init__(_("%(path)s cannot be written: %(reason)s.") % {"path": path, "reason": reason})


class NoAnswers(Problem):
    """Prompts for which nothing could answer; nothing was written."""

    def __init__(self, prompts: Sequence[str], reason: str) -> None:
        self.prompts = prompts
        words = {"count": len(prompts), "first": prompts[0][:60], "reason": reason}
        super().__init__(
            _("%(count)d prompts have no written sample (the first: “%(first)s”), and nothing else can answer them: "
              "%(reason)s Or set a key with `manage.py setup_api_key`, or leave them out with --generator written.")
            % words
        )  # fmt: skip


class NothingDecided(Problem):
    def __init__(self, pairs: int) -> None:
        self.pairs = pairs
        super().__init__(
            _("No judge could tell a better answer in any of %(pairs)d pairs, so there is nothing to write: "
              "ask for more answers (--num-responses) or another --judge.") % {"pairs": pairs}
        )  # fmt: skip


@dataclass
class Outcome:
    """What a run made: rows to write, and what it had to leave out."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    pairs: int = 0
    unanswered: int = 0  # prompts
    cost_nano: int = 0

    @property
    def undecided(self) -> int:
        return self.pairs - len(self.rows)


def read(path: Path, keep_good: bool) -> tuple[list[str], datasets.Parsed]:
    """The prompts of a file. Raises CannotRead and the Problems of `datasets`."""
    try:
        with path.open("rb") as file:
            parsed = datasets.read(file, path.name)
    except OSError as error:
        raise CannotRead(path, error.strerror or str(error)) from error
    return [row.text for row in datasets.check(parsed, keep_good)], parsed


def choose(generator: str | None, judge: str | None, num_responses: int, max_cost_nano: int | None) -> dict[str, Any]:
    """A checked configuration; what is not chosen is Claude with a key, else written samples and rule checks."""
    config: dict[str, Any] = {"num_responses": num_responses}
    if generator:
        config["generators"] = ["local" if generator == "engine" else generator]
    if judge or generator:
        keyless = ["written", "rules"]
        config["judges"] = [judge] if judge else ["claude", "rules"] if settings.ANTHROPIC_API_KEY else keyless
    if max_cost_nano is not None:
        config["max_cost_nano"] = max_cost_nano
    return preferences.check(config)


def make(prompts: Sequence[str], config: dict[str, Any], progress: Callable[[str, int, int], None]) -> Outcome:
    """Answers, pairs and verdicts for every prompt. Raises the Problems of `preferences`, NoAnswers, NothingDecided."""
    kit = Kit(config)
    outcome = Outcome()
    answers = _answers(kit, prompts, progress)
    pairs = [pair for prompt in prompts for pair in _pairs(kit, prompt, answers[prompt])]
    outcome.unanswered = sum(not answers[prompt] for prompt in prompts)
    outcome.pairs = len(pairs)
    opinions = _opinions(kit, pairs, progress)
    outcome.rows = [row for pair, said in zip(pairs, opinions, strict=True) if (row := _row(pair, said))]
    outcome.cost_nano = kit.purse.spent_nano
    if not outcome.rows:
        raise NothingDecided(len(pairs))
    return outcome


def probe(path: Path) -> None:
    """Raises CannotWrite when `path` could not be written; asked before anything is paid for."""
    if path.is_dir():
        raise CannotWrite(path, _("it is a directory"))
    try:
        tempfile.TemporaryFile(dir=path.parent).close()
    except OSError as error:
        raise CannotWrite(path, error.strerror or str(error)) from error


def write(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """JSONL, whole or not at all. Raises DiskFull, CannotWrite."""
    draft = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with writing(path), draft.open("w", encoding="utf-8") as file:
            file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    except OSError as error:
        raise CannotWrite(path, error.strerror or str(error)) from error
    finally:
        draft.unlink(missing_ok=True)


def _answers(kit: Kit, prompts: Sequence[str], progress: Callable[[str, int, int], None]) -> dict[str, list[Answer]]:
    answers = {prompt: kit.written_answers(prompt) for prompt in prompts}
    if kit.uses("claude"):
        _collect(
            answers, [(p, partial(kit.ask_claude, p, n)) for p in prompts for n in _numbers(kit)], "claude", progress
        )
    missing = [prompt for prompt in prompts if not answers[prompt]]
    if kit.uses("local") and missing:
        try:
            kit.local_model  # noqa: B018  (asks the engine once, here, and not in every thread)
            calls = [(p, partial(kit.ask_local, p, n)) for p in missing for n in _numbers(kit)]
            _collect(answers, calls, "local", progress)
        except generators.EngineDown as down:
            raise (NoAnswers(missing, str(down)) if kit.uses("written") else down) from down
    return answers


def _numbers(kit: Kit) -> range:
    return range(kit.config["num_responses"])


def _collect(
    answers: dict[str, list[Answer]],
    calls: Sequence[tuple[str, Callable[[], Answer]]],
    source: str,
    progress: Callable[[str, int, int], None],
) -> None:
    for done, (prompt, answer) in enumerate(preferences.gather(calls, WORKERS[source]), 1):
        if answer.text:
            answers[prompt].append(answer)
        progress(_("answers"), done, len(calls))


def _pairs(kit: Kit, prompt: str, answers: list[Answer]) -> Iterator[Pair]:
    contenders = [kit.contender(prompt, answer.text, answer.source) for answer in answers]
    for a, b in pairing.choose(prompt, contenders):
        yield prompt, answers[a], answers[b]


def _opinions(kit: Kit, pairs: list[Pair], progress: Callable[[str, int, int], None]) -> list[list[Opinion]]:
    opinions = [kit.judge_at_once(prompt, a.text, b.text) for prompt, a, b in pairs]
    if "claude" not in kit.config["judges"]:
        return opinions
    calls = [
        (n, partial(kit.judge_by_claude, prompt, a.text, b.text, swapped))
        for n, (prompt, a, b) in enumerate(pairs)
        for swapped in (False, True)
    ]
    for done, (n, opinion) in enumerate(preferences.gather(calls, WORKERS["claude"]), 1):
        opinions[n].append(opinion)
        progress(_("verdicts"), done, len(calls))
    return opinions


def _row(pair: Pair, opinions: list[Opinion]) -> dict[str, Any] | None:
    """The row of a pair that has a winner, or None."""
    prompt, a, b = pair
    said = settle(opinions)
    if said.choice not in {Choice.A, Choice.B}:
        return None
    first = said.choice == Choice.A
    chosen, rejected = (a, b) if first else (b, a)
    scores = (said.score_a, said.score_b) if first else (said.score_b, said.score_a)
    return {
        "prompt": prompt,
        "chosen": chosen.text,
        "rejected": rejected.text,
        "chosen_score": scores[0],
        "rejected_score": scores[1],
        "generator": " / ".join(dict.fromkeys(named(answer) for answer in (chosen, rejected))),
        "judge": named_judge(said.judge, opinions),
    }


def named(answer: Answer) -> str:
    """Who wrote an answer: source and exact generator."""
    return f"{answer.source}:{answer.generator}"


def named_judge(judge: str, opinions: list[Opinion]) -> str:
    """Who judged: source and exact judge."""
    return next(f"{opinion.source}:{opinion.judge}" for opinion in opinions if opinion.judge == judge)
