"""Base against adapter on held-out pairs: `python -m training.dpo.evaluate CONFIG.json`, the config of the run.

Writes `output_dir`/evaluation.json: plain numbers (what is signed later), then `samples`. Every share comes with its
number of pairs and a Wilson 95 % interval (`_low`, `_high`). What the words mean:

- reward accuracy: pairs whose implicit reward (log pi_adapter(y|x) - log pi_base(y|x)) is strictly higher for the
  chosen answer (Rafailov et al. 2023, section 4);
- `_similar_length`: the same on the pairs whose rejected answer is not more than 30 % shorter. Good answers tend to be
  the long ones, and an adapter that only learned "longer" shows here;
- preference accuracy: pairs whose chosen answer has the higher mean log-probability per token, base and adapter alone;
- perplexity: of the chosen answers, per token;
- `pairs_left_out`: pairs whose prompt leaves no room for an answer; they count in none of the numbers.
"""

from __future__ import annotations

import argparse
import math
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training import metrics
from training.dpo import artifacts, bases, config, likelihood, pairs, program
from training.dpo.config import Config, Refusal
from training.dpo.likelihood import Likelihood

RESULT = "evaluation.json"


@dataclass(frozen=True)
class Scored:
    """One pair with the likelihoods of its two answers under both models."""

    pair: pairs.Pair
    base_chosen: Likelihood
    base_rejected: Likelihood
    adapter_chosen: Likelihood
    adapter_rejected: Likelihood

    @property
    def margin(self) -> float:
        """Implicit reward of the chosen answer less that of the rejected, in nats (before beta)."""
        chosen = self.adapter_chosen.total - self.base_chosen.total
        return chosen - (self.adapter_rejected.total - self.base_rejected.total)


def evaluate(settings: Config) -> None:
    """Measures and writes the result. Raises `Refusal`."""
    if not settings.heldout:
        raise Refusal("There are no held-out pairs to evaluate on: the configuration lacks heldout.")
    heldout = pairs.read(settings.heldout)
    bases.prepare(settings.base_model)
    artifacts.say("evaluate", 0, len(heldout))
    model, tokenizer = load(settings)
    kept = program.fitting(heldout, tokenizer, settings.max_length)  # as training does
    if not kept:
        raise Refusal(f"Every held-out prompt is longer than max_length ({settings.max_length} tokens).")
    numbers = summary(score(model, tokenizer, kept, settings), settings.beta)
    numbers["pairs_left_out"] = len(heldout) - len(kept)
    result = {**numbers, "samples": samples(model, tokenizer, kept, settings)}
    artifacts.write_json(settings.output / RESULT, result)
    artifacts.say("evaluate", len(kept), len(kept))


def load(settings: Config) -> tuple[Any, Any]:
    """The base with the run's adapter on it, and the tokenizer. Raises `Refusal`."""
    if not (settings.adapter / "adapter_config.json").is_file():
        raise Refusal(f"There is no adapter in {settings.adapter}; train it first.")
    model, tokenizer = bases.load(settings.base_model)
    from peft import PeftModel

    return PeftModel.from_pretrained(model, settings.adapter).eval(), tokenizer


def score(model: Any, tokenizer: Any, heldout: list[pairs.Pair], settings: Config) -> list[Scored]:
    answers = [(pair.prompt, text) for pair in heldout for text in (pair.chosen, pair.rejected)]
    distinct = list(dict.fromkeys(answers))  # an answer stands in several pairs

    def measured(half: int) -> dict[tuple[str, str], Likelihood]:
        def heard(done: int) -> None:
            artifacts.say("evaluate", (half * len(distinct) + done) * len(heldout) // (2 * len(distinct)), len(heldout))

        return dict(
            zip(distinct, likelihood.measure(model, tokenizer, distinct, settings.max_length, heard), strict=True)
        )

    adapter = measured(0)
    with model.disable_adapter():
        base = measured(1)
    return [_scored(pair, base, adapter) for pair in heldout]


def _scored(pair: pairs.Pair, base: dict[Any, Likelihood], adapter: dict[Any, Likelihood]) -> Scored:
    chosen, rejected = (pair.prompt, pair.chosen), (pair.prompt, pair.rejected)
    return Scored(pair, base[chosen], base[rejected], adapter[chosen], adapter[rejected])


def summary(scored: list[Scored], beta: float) -> dict[str, float | int]:
    """The numbers of an evaluation."""
    similar = [one for one in scored if one.pair.similar_length]
    base = [one.base_chosen.mean > one.base_rejected.mean for one in scored]
    adapter = [one.adapter_chosen.mean > one.adapter_rejected.mean for one in scored]
    return {
        "pairs": len(scored),
        "prompts": len({one.pair.prompt for one in scored}),
        **share("reward_accuracy", [one.margin > 0 for one in scored]),
        "reward_margin": beta * sum(one.margin for one in scored) / len(scored),
        "pairs_similar_length": len(similar),
        **share("reward_accuracy_similar_length", [one.margin > 0 for one in similar]),
        **share("preference_accuracy_base", base),
        **share("preference_accuracy_adapter", adapter),
        "perplexity_base": perplexity([one.base_chosen for one in scored]),
        "perplexity_adapter": perplexity([one.adapter_chosen for one in scored]),
    }


def share(name: str, held: list[bool]) -> dict[str, float]:
    """A share and its interval under `name`; nothing at all where there is nothing to count."""
    if not held:
        return {}
    low, high = metrics.wilson(sum(held), len(held))
    return {name: sum(held) / len(held), f"{name}_low": low, f"{name}_high": high}


def perplexity(likelihoods: list[Likelihood]) -> float:
    tokens = sum(one.tokens for one in likelihoods)
    try:
        return math.exp(-sum(one.total for one in likelihoods) / max(1, tokens))
    except OverflowError:
        return math.inf


def samples(model: Any, tokenizer: Any, heldout: list[pairs.Pair], settings: Config) -> list[dict[str, str]]:
    """The first few held-out prompts with the answers of base and adapter side by side."""
    chosen: dict[str, pairs.Pair] = {}
    for pair in heldout:
        chosen.setdefault(pair.prompt, pair)
    prompts = list(chosen)[: settings.samples]
    if not prompts:
        return []
    tuned = likelihood.answer(model, tokenizer, prompts, settings.sample_tokens)
    with model.disable_adapter():
        plain = likelihood.answer(model, tokenizer, prompts, settings.sample_tokens)
    rows = zip(prompts, plain, tuned, strict=True)
    return [{"prompt": p, "base": base, "adapter": ours, "chosen": chosen[p].chosen} for p, base, ours in rows]


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="training.dpo.evaluate", description="Base against adapter.")
    parser.add_argument("config", type=Path, metavar="CONFIG.json")
    options = parser.parse_args(argv)
    return artifacts.run(lambda: evaluate(config.read(options.config)))


if __name__ == "__main__":
    sys.exit(main())
