"""`manage.py generate_preferences`: prompts in one file, judged preference pairs in another. Needs no database."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.utils.translation import gettext as _

from training import claude, datasets, files, quotes
from training.models import Source
from training.problems import Problem


class Command(BaseCommand):
    help = "Answer the prompts of a JSONL or CSV file several times, judge the answers, write preference pairs."
    requires_system_checks = []

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--prompts", type=Path, required=True, metavar="F", help="JSONL or CSV with `prompt`")
        parser.add_argument("--output", type=Path, required=True, metavar="F", help="JSONL to write")
        parser.add_argument("--num-responses", type=int, default=4, metavar="N", help="answers to a prompt, 2 to 8")
        parser.add_argument("--generator", choices=["claude", "written", "engine"], help="who answers")
        parser.add_argument("--judge", choices=["claude", "rules", "written"], help="who judges")
        parser.add_argument("--keep-good", action="store_true", help="leave out bad rows instead of refusing the file")
        parser.add_argument("--max-cost", type=dollars, metavar="USD", help="stop before Claude costs more (default 2)")

    def handle(self, *args: Any, prompts: Path, output: Path, **options: Any) -> None:
        try:
            self.work(prompts, output, options)
        except datasets.Malformed as problem:
            self.name_bad_rows(problem.parsed)
            raise CommandError(str(problem)) from problem
        except Problem as problem:
            raise CommandError(str(problem)) from problem

    def work(self, prompts: Path, output: Path, options: dict[str, Any]) -> None:
        texts, parsed = files.read(prompts, options["keep_good"])
        self.name_bad_rows(parsed)
        config = files.choose(options["generator"], options["judge"], options["num_responses"], options["max_cost"])
        files.probe(output)
        self.say_who(config, texts)
        outcome = files.make(texts, config, self.show)
        files.write(output, outcome.rows)
        self.sum_up(output, outcome)

    def name_bad_rows(self, parsed: datasets.Parsed) -> None:
        for error in parsed.errors:
            self.stderr.write(f"{parsed.name}, {error}")
        for duplicate in parsed.duplicates:
            words = {"name": parsed.name, "line": duplicate.line, "first": duplicate.first}
            self.stderr.write(_("%(name)s, line %(line)d repeats line %(first)d and is left out") % words)

    def say_who(self, config: dict[str, Any], texts: list[str]) -> None:
        generators, judges = (
            " + ".join(str(Source(name).label) for name in config[kind]) for kind in ("generators", "judges")
        )
        words = {"generators": generators, "judges": judges}
        self.stderr.write(_("Answers: %(generators)s. Judges: %(judges)s.") % words)
        if "written" in config["generators"]:
            self.stderr.write(
                _("No model answers where a written sample (hazır örnek) exists; no judge model is asked: "
                  "written verdicts and rule checks are.")
            )  # fmt: skip
        quote = quotes.quote(texts, config)
        if quote.calls:
            likely, most = (f"{nano / quotes.NANO:.4f}" for nano in (quote.likely_nano, quote.most_nano))
            words = {"calls": str(quote.calls), "likely": likely, "most": most}
            self.stderr.write(_("%(calls)s calls to Claude: about $%(likely)s, at most $%(most)s.") % words)
            self.stderr.write(str(claude.TERMS))

    def show(self, what: str, done: int, total: int) -> None:
        if done % max(1, total // 10) == 0 or done == total:
            self.stderr.write(f"{what} {done}/{total}")

    def sum_up(self, output: Path, outcome: files.Outcome) -> None:
        words = {"rows": len(outcome.rows), "output": output, "cost": f"{outcome.cost_nano / quotes.NANO:.4f}",
                 "undecided": outcome.undecided, "unanswered": outcome.unanswered}  # fmt: skip
        self.stdout.write(
            _("%(rows)d preference pairs in %(output)s; left out: %(undecided)d pairs without a winner, "
              "%(unanswered)d prompts without answers; cost $%(cost)s.") % words
        )  # fmt: skip


def dollars(text: str) -> int:
    """Nano-dollars of an amount in dollars."""
    try:
        nano = round(float(text) * quotes.NANO)
    except (ValueError, OverflowError):
        nano = -1
    if nano < 0:
        raise argparse.ArgumentTypeError(_("not an amount in dollars: %(text)s") % {"text": text})
    return nano
