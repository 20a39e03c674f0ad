"""Build a small base model from text: a byte-level BPE tokenizer and a Llama, trained on this machine in a minute.

`python -m training.dpo.pretrain --corpus DIR --output DIR --seed N`. The corpus holds `*.jsonl` with `{"prompt",
"answer"}` (conversations) and `*.txt` with one paragraph a line. The result is an ordinary Hugging Face directory:
transformers, PEFT, TRL and vLLM load it like any other. Same corpus, seed and machine: same bytes.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from training.dpo import artifacts, bases
from training.dpo.config import Refusal

if TYPE_CHECKING:
    import torch

SPECIAL = ("<|pad|>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>")
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
IGNORED = -100  # the label transformers leaves out of the loss


@dataclass(frozen=True)
class Recipe:
    """Sizes are in tokens, layers and units; chosen to fit 45 s of one CPU core."""

    vocabulary: int = 3000
    hidden: int = 96
    layers: int = 3
    heads: int = 3  # of 32 units: the smallest that vLLM serves on a CPU
    context: int = 512
    epochs: int = 8  # of the conversations; the paragraphs join the first half
    batch_tokens: int = 768
    learning_rate: float = 1.5e-2  # of embeddings and norms
    matrix_rate: float = 3e-2  # of the hidden matrices


@dataclass(frozen=True)
class Corpus:
    chats: list[tuple[str, str]]
    paragraphs: list[str]

    @property
    def texts(self) -> list[str]:
        return [text for chat in self.chats for text in chat] + self.paragraphs


def read_corpus(directory: Path) -> Corpus:
    """Conversations and paragraphs of a directory, in the order of the file names. Raises `Refusal`."""
    if not directory.is_dir():
        raise Refusal(f"There is no corpus directory {directory}.")
    chats = [_chat(line, path.name, n) for path in sorted(directory.glob("*.jsonl")) for n, line in _lines(path)]
    paragraphs = [line.strip() for path in sorted(directory.glob("*.txt")) for _, line in _lines(path)]
    if not chats:
        raise Refusal(f"The corpus directory {directory} holds no conversations (*.jsonl).")
    return Corpus(chats, paragraphs)


def _lines(path: Path) -> list[tuple[int, str]]:
    return [(n, line) for n, line in enumerate(path.read_text(encoding="utf-8").split("\n"), 1) if line.strip()]


def _chat(line: str, name: str, number: int) -> tuple[str, str]:
    try:
        row = json.loads(line)
        return str(row["prompt"]), str(row["answer"])
    except (ValueError, KeyError, TypeError):
        raise Refusal(f"{name}, line {number}: a row must be JSON with prompt and answer.") from None


def build_tokenizer(texts: list[str], recipe: Recipe) -> Any:
    """A byte-level BPE tokenizer (no unknown token exists) with the chat template in it."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=recipe.vocabulary, special_tokens=list(SPECIAL), initial_alphabet=alphabet, show_progress=False
    )
    core.train_from_iterator(texts, trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token="<|pad|>",  # noqa: S106
        eos_token="<|end|>",  # noqa: S106
        additional_special_tokens=list(SPECIAL[1:4]),
        model_max_length=recipe.context,
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def build_model(tokenizer: Any, recipe: Recipe) -> Any:
    """A Llama with random weights of the recipe's size."""
    from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=recipe.hidden,
        intermediate_size=recipe.hidden * 3,
        num_hidden_layers=recipe.layers,
        num_attention_heads=recipe.heads,
        num_key_value_heads=recipe.heads,
        max_position_embeddings=recipe.context,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model = LlamaForCausalLM(config)
    model.generation_config = GenerationConfig(
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
        repetition_penalty=1.2,  # small models loop; every engine reads this file
    )
    return model


@dataclass(frozen=True)
class Rows:
    """Token ids; each row ends with the end token and fits the context."""

    chats: list[list[int]]
    paragraphs: list[list[int]]


def encode(corpus: Corpus, tokenizer: Any, recipe: Recipe) -> Rows:
    chats = [
        tokenizer.apply_chat_template(
            [{"role": "user", "content": prompt}, {"role": "assistant", "content": answer}], tokenize=False
        )
        for prompt, answer in corpus.chats
    ]
    paragraphs = [text + tokenizer.eos_token for text in corpus.paragraphs]

    def ids(texts: list[str]) -> list[list[int]]:
        return (
            [row[: recipe.context] for row in tokenizer(texts, add_special_tokens=False)["input_ids"]] if texts else []
        )

    return Rows(ids(chats), ids(paragraphs))


def plan(rows: Rows, recipe: Recipe, chance: random.Random) -> list[list[list[int]]]:
    """Every batch of the training, in order: first prose and conversations, then conversations alone."""
    passes = [rows.chats + (rows.paragraphs if n < recipe.epochs / 2 else []) for n in range(recipe.epochs)]
    return [batch for one in passes for batch in batches(one, recipe, chance)]


def batches(rows: list[list[int]], recipe: Recipe, chance: random.Random) -> list[list[list[int]]]:
    """Rows of similar length together (little padding), at most `batch_tokens` a batch, in random order."""
    ordered = sorted(rows, key=lambda row: len(row) + chance.random() * 12)
    made: list[list[list[int]]] = [[]]
    for row in ordered:
        if (len(made[-1]) + 1) * max(map(len, [*made[-1], row])) > recipe.batch_tokens and made[-1]:
            made.append([])
        made[-1].append(row)
    chance.shuffle(made)
    return made


def train(model: Any, work: list[list[list[int]]], recipe: Recipe) -> None:
    """Muon for the hidden matrices, AdamW for the rest; a warm-up, then a cosine to zero; progress as JSON lines."""
    import torch

    optimizers = build_optimizers(model, recipe)
    schedules = [torch.optim.lr_scheduler.LambdaLR(one, lambda step: _rate(step, len(work))) for one in optimizers]
    model.train()
    for number, batch in enumerate(work, 1):
        loss = model(**_tensors(batch)).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer, schedule in zip(optimizers, schedules, strict=True):
            optimizer.step()
            schedule.step()
        model.zero_grad()
        if number % 10 == 0 or number == len(work):
            artifacts.say("pretrain", number, len(work), loss=round(loss.item(), 4))
    model.eval()


def build_optimizers(model: Any, recipe: Recipe) -> list[torch.optim.Optimizer]:
    import torch

    from training.dpo.muon import Muon

    named = list(model.named_parameters())
    hidden = [p for name, p in named if p.ndim == 2 and "embed" not in name]
    rest = [p for name, p in named if p.ndim != 2 or "embed" in name]
    return [
        Muon(hidden, lr=recipe.matrix_rate),
        torch.optim.AdamW(rest, lr=recipe.learning_rate, weight_decay=0.01, betas=(0.9, 0.98)),
    ]


def _rate(step: int, total: int) -> float:
    warm = max(1, total // 25)
    return min((step + 1) / warm, 0.5 * (1 + math.cos(math.pi * step / total)) + 0.01)


def _tensors(batch: list[list[int]]) -> dict[str, torch.Tensor]:
    import torch

    width = max(map(len, batch))
    pad = [width - len(row) for row in batch]
    return {
        "input_ids": torch.tensor([row + [0] * n for row, n in zip(batch, pad, strict=True)]),
        "attention_mask": torch.tensor([[1] * len(row) + [0] * n for row, n in zip(batch, pad, strict=True)]),
        "labels": torch.tensor([row + [IGNORED] * n for row, n in zip(batch, pad, strict=True)]),
    }


def build(corpus: Path, output: Path, seed: int, recipe: Recipe | None = None) -> None:
    """Read, train, save. `output` appears whole or not at all; an older one is replaced. Raises `Refusal`."""
    recipe = recipe or Recipe()
    read = read_corpus(corpus)
    artifacts.say("pretrain", 0, 1)
    import torch

    torch.manual_seed(seed)
    tokenizer = build_tokenizer(read.texts, recipe)
    model = build_model(tokenizer, recipe)
    train(model, plan(encode(read, tokenizer, recipe), recipe, random.Random(seed)), recipe)
    with artifacts.whole(output) as draft:
        model.save_pretrained(draft)
        tokenizer.save_pretrained(draft)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="training.dpo.pretrain", description=__doc__)
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=7)
    options = parser.parse_args(argv)
    bases.prepare(str(options.output))
    return artifacts.run(lambda: build(options.corpus, options.output, options.seed))


if __name__ == "__main__":
    sys.exit(main())
