"""One DPO run: `python -m training.dpo.program CONFIG.json`, a process of its own that knows no Django.

TRL's `DPOTrainer` (Rafailov et al. 2023, "Direct Preference Optimization") trains a LoRA adapter (Hu et al. 2021) with
PEFT. Progress goes to stdout as JSON lines, the curve to `output_dir`/metrics.jsonl while it grows, the adapter to
`output_dir`/adapter when it is whole. What a person can mend ends with one sentence on stderr and exit code 2.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inference.engines import known, recording
from training.dpo import artifacts, bases, config, likelihood, pairs
from training.dpo.config import Config, Refusal

if TYPE_CHECKING:
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer

METRICS = "metrics.jsonl"
EVERY_BATCH_REFERENCE = 16  # pairs per forward pass of the reference; needs no gradient memory


def train(settings: Config) -> None:
    """Trains and saves. Raises `Refusal`; whatever it raises, nothing half-written stays in `output_dir`."""
    chosen = pairs.read(settings.train)
    heldout = pairs.read(settings.heldout) if settings.heldout else []
    bases.prepare(settings.base_model)
    artifacts.say("load", 0, 1)
    model, tokenizer = bases.load(settings.base_model)
    chosen, heldout = (fitting(found, tokenizer, settings.max_length) for found in (chosen, heldout))
    if not chosen:
        raise Refusal(f"Every prompt is longer than max_length ({settings.max_length} tokens): nothing to train on.")
    with _clean(settings), tempfile.TemporaryDirectory() as scratch:
        trainer = build(settings, model, tokenizer, chosen, heldout, scratch)
        trainer.train()
        save(trainer, tokenizer, settings)
        steps = trainer.state.global_step
    artifacts.say("save", steps, steps)


def fitting(found: list[pairs.Pair], tokenizer: Any, max_length: int) -> list[pairs.Pair]:
    """The pairs whose prompt leaves room for an answer; says on stderr how many do not."""
    starts = [likelihood.encode(tokenizer, pair.prompt, pair.chosen, max_length)[1] for pair in found]
    kept = [pair for pair, start in zip(found, starts, strict=True) if start < max_length]
    if left := len(found) - len(kept):
        print(f"{left} of {len(found)} pairs are left out: their prompt is too long.", file=sys.stderr)
    return kept


def build(
    settings: Config, model: Any, tokenizer: Any, train: list[pairs.Pair], heldout: list[pairs.Pair], scratch: str
) -> DPOTrainer:
    """TRL's trainer, with the reference log-probabilities already computed."""
    from datasets import disable_progress_bars
    from peft import LoraConfig
    from peft.utils.error import NoMatchingPeftModuleError
    from transformers import PrinterCallback
    from trl import DPOTrainer

    from training.dpo.curve import Curve

    disable_progress_bars()
    artifacts.say("reference", 0, 1)
    lora = LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,
        lora_dropout=0.0,
        target_modules=settings.target_modules or "all-linear",
        task_type="CAUSAL_LM",
    )
    try:
        trainer = DPOTrainer(
            model,
            args=arguments(settings, model.num_parameters(), scratch, evaluate=bool(heldout)),
            train_dataset=dataset(train),
            eval_dataset=dataset(heldout) if heldout else None,
            processing_class=tokenizer,
            peft_config=lora,
            callbacks=[Curve(settings.output / METRICS)],
        )
    except NoMatchingPeftModuleError:
        names = ", ".join(settings.target_modules)
        raise Refusal(f"The base model {settings.base_model} has no layer named {names} (target_modules).") from None
    trainer.remove_callback(PrinterCallback)  # it prints Python dicts between our JSON lines
    return trainer


def dataset(found: list[pairs.Pair]) -> Dataset:
    """The pairs in TRL's conversational format, by length: passes in order pad little; training shuffles anyway."""
    from datasets import Dataset

    ordered = sorted(found, key=lambda pair: len(pair.prompt) + max(len(pair.chosen), len(pair.rejected)))
    return Dataset.from_list([pair.conversation() for pair in ordered])


def arguments(settings: Config, parameters: int, scratch: str, evaluate: bool) -> DPOConfig:
    """TRL's settings from ours. Checkpointing of gradients is off and the reference precomputed: 1.58x the speed."""
    import torch
    from trl import DPOConfig

    gpu = torch.cuda.is_available()
    return DPOConfig(
        output_dir=scratch,
        num_train_epochs=settings.epochs,
        beta=settings.beta,
        loss_type=[settings.loss_type],
        label_smoothing=settings.label_smoothing,
        learning_rate=settings.learning_rate or config.rate_for(parameters),
        lr_scheduler_type="cosine",
        warmup_steps=0.1,  # below 1: a share of all steps
        per_device_train_batch_size=settings.per_device_batch,
        per_device_eval_batch_size=EVERY_BATCH_REFERENCE,
        precompute_ref_batch_size=EVERY_BATCH_REFERENCE,
        gradient_accumulation_steps=settings.gradient_accumulation,
        max_length=settings.max_length,
        precompute_ref_log_probs=True,
        gradient_checkpointing=False,
        use_cpu=not gpu,
        bf16=gpu and torch.cuda.is_bf16_supported(),
        dataloader_pin_memory=gpu,
        eval_strategy="epoch" if evaluate else "no",
        logging_steps=settings.logging_steps,
        logging_first_step=True,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        seed=settings.seed,
        data_seed=settings.seed,
    )


def save(trainer: DPOTrainer, tokenizer: Any, settings: Config) -> None:
    """The adapter's two files and its known answers, whole or not at all; the base model goes by its name, never by a
    path.
    """
    model = trainer.accelerator.unwrap_model(trainer.model)
    model.peft_config["default"].base_model_name_or_path = settings.name
    with artifacts.whole(settings.adapter) as draft:
        model.save_pretrained(draft, save_embedding_layers=False)  # else PEFT looks for the base under its public name
        (draft / "README.md").unlink(missing_ok=True)  # PEFT's empty model card
        described = json.loads((draft / "adapter_config.json").read_text(encoding="utf-8"))
        described["target_modules"] = sorted(described["target_modules"])  # a set: its order changes with the process
        artifacts.write_json(draft / "adapter_config.json", described)
        answers = recording.record(model.eval(), tokenizer, settings.name, settings.base_digest)
        (draft / known.NAME).write_bytes(known.dump(answers))


@contextmanager
def _clean(settings: Config) -> Iterator[None]:
    """Makes `output_dir` and, if the block fails, takes away what this run wrote there."""
    existed = settings.output.is_dir()
    settings.output.mkdir(parents=True, exist_ok=True)
    (settings.output / METRICS).unlink(missing_ok=True)
    shutil.rmtree(settings.adapter, ignore_errors=True)  # of an earlier run: never beside the curve of this one
    try:
        yield
    except BaseException:
        (settings.output / METRICS).unlink(missing_ok=True)
        if not existed:
            shutil.rmtree(settings.output, ignore_errors=True)
        raise


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="training.dpo.program", description=__doc__)
    parser.add_argument("config", type=Path, metavar="CONFIG.json")
    options = parser.parse_args(argv)
    return artifacts.run(lambda: train(config.read(options.config)))


if __name__ == "__main__":
    sys.exit(main())
