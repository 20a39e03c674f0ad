"""distilabel's side of the bench: prompts in, judged preference pairs out, against an OpenAI-compatible endpoint.

It runs in distilabel's environment, not in ours: `python distilabel_pairs.py --prompts F --output F --cache DIR
--base-url URL`. Two answers to a prompt, from two system prompts, judged in both orders: four calls a pair, as ours.
A pair whose orders differ, or of which something is missing, is written without a winner. With `--resume` what an
earlier run left in the cache is used; without it the pipeline starts from nothing. After kill -9 distilabel 1.5.3 did
not come back from its cache in any of three tries, parallel or in a chain: it waits for ever (argilla-io/distilabel
issue 1065) or fails on a torn file (`KeyError: 'type_info'`). So whoever resumes sets a time limit, and starts from
nothing afterwards.
"""

import argparse
import json
import logging
from pathlib import Path
from typing import Any

from distilabel.models.llms import OpenAILLM
from distilabel.pipeline import Pipeline
from distilabel.steps import GroupColumns, LoadDataFromDicts
from distilabel.steps.tasks import Task, TextGeneration

PRINCIPLES = ("Kısa ve açık yanıtla.", "Ayrıntılı ve adım adım yanıtla.")
RUBRIC = (
    'You get a JSON object with "prompt", "first" and "second". Say which answer is better, as a JSON object with '
    '"winner" ("first" or "second") and "reason".'
)


class Verdict(Task):
    """One look at a pair. `swapped` shows the second answer first; `winner` speaks of the answers as generated."""

    swapped: bool = False

    @property
    def inputs(self) -> list[str]:
        return ["instruction", "answers"]

    @property
    def outputs(self) -> list[str]:
        return ["winner", "model_name"]

    def format_input(self, input: dict[str, Any]) -> list[dict[str, str]]:
        first, second = reversed(input["answers"]) if self.swapped else input["answers"]
        question = {"prompt": input["instruction"], "first": first or "", "second": second or ""}
        return [
            {"role": "system", "content": RUBRIC},
            {"role": "user", "content": json.dumps(question, ensure_ascii=False)},
        ]

    def format_output(self, output: str | None, input: dict[str, Any] | None = None) -> dict[str, Any]:
        """Raises ValueError or TypeError for what is no verdict; distilabel keeps the row then, with None."""
        place = ("first", "second").index(json.loads(output)["winner"])
        return {"winner": 1 - place if self.swapped else place}


def pipeline(prompts: list[str], told: argparse.Namespace) -> Pipeline:
    def model() -> OpenAILLM:
        parameters = {"max_new_tokens": 600}
        return OpenAILLM(
            model=told.model, base_url=told.base_url, api_key="sk-bench", generation_kwargs=parameters,
            max_retries=told.retries,
        )  # fmt: skip

    size = {"input_batch_size": told.batch}
    with Pipeline(name="pairs", cache_dir=told.cache) as made:
        rows = LoadDataFromDicts(name="prompts", data=[{"instruction": one} for one in prompts], batch_size=told.batch)
        answers = [
            TextGeneration(name=f"answer-{n}", llm=model(), system_prompt=principle, **size)
            for n, principle in enumerate(PRINCIPLES)
        ]
        joined = GroupColumns(name="answers", columns=["generation"], output_columns=["answers"], **size)
        judges = [Verdict(name=f"verdict-{n}", llm=model(), swapped=bool(n), **size) for n in range(2)]
        ends = GroupColumns(name="winners", columns=["winner"], output_columns=["winners"], **size)
        rows >> answers >> joined >> judges >> ends
    return made


def pair(row: dict[str, Any]) -> dict[str, Any]:
    """A line of the output; `winner` is 0, 1 or null."""
    winners = set(row["winners"])
    known = len(winners) == 1 and None not in winners and all(row["answers"])
    return {"prompt": row["instruction"], "answers": row["answers"], "winner": winners.pop() if known else None}


def main() -> None:
    parser = argparse.ArgumentParser()
    for name in ("prompts", "output", "cache"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--base-url", required=True)
    parser.add_argument("--model", default="claude-haiku-5-5")
    parser.add_argument("--batch", type=int, default=50)
    parser.add_argument("--retries", type=int, default=6)
    parser.add_argument("--resume", action="store_true")
    told = parser.parse_args()
    logging.getLogger("httpx").setLevel(logging.WARNING)
    prompts = [json.loads(line)["prompt"] for line in told.prompts.read_text().splitlines() if line.strip()]
    found = pipeline(prompts, told).run(use_cache=told.resume)
    pairs = [pair(row) for row in found["default"]["train"]]
    told.output.write_text("".join(json.dumps(one, ensure_ascii=False) + "\n" for one in pairs))
    print(json.dumps({"pairs": len(pairs), "decided": sum(one["winner"] is not None for one in pairs)}))


if __name__ == "__main__":
    main()
