"""A tiny Llama with random weights, and LoRA adapters that make it say other things.

By default its heads have 32 numbers: vLLM's attention on a CPU knows no smaller ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from inference.engines import known, recording

CONTEXT = 512
RANK = 8
WORDS = ["kota nedir", "iade nasıl yapılır", "ğüşıöç ĞÜŞİÖÇ", "fatura ne zaman gelir", '{"name": "destek"}']
TEMPLATE = (
    "{% for message in messages %}{{ message['role'] }}: {{ message['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant:{% endif %}"
)


def make_base(
    path: Path,
    words: Sequence[str] = WORDS,
    template: str = TEMPLATE,
    hidden: int = 64,
    heads: int = 2,
    context: int = CONTEXT,
) -> None:
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(special_tokens=["<pad>", "<end>"], initial_alphabet=alphabet, show_progress=False)
    core.train_from_iterator(words, trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, pad_token="<pad>", eos_token="<end>")
    tokenizer.chat_template = template
    tokenizer.save_pretrained(path)
    torch.manual_seed(1)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=hidden,
        intermediate_size=2 * hidden,
        num_hidden_layers=2,
        num_attention_heads=heads,
        max_position_embeddings=context,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
        initializer_range=0.3,
    )
    LlamaForCausalLM(config).save_pretrained(path)


def make_adapter(base: Path, path: Path, seed: int, rank: int = RANK) -> None:
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer

    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_pretrained(str(base), dtype=torch.float32)
    targets = ["q_proj", "v_proj", "up_proj", "down_proj"]
    wrapped = get_peft_model(model, LoraConfig(r=rank, lora_alpha=rank, target_modules=targets))
    for name, weight in wrapped.named_parameters():
        if "lora_B" in name:
            weight.data.normal_(std=0.3)
    wrapped.peft_config["default"].base_model_name_or_path = base.name
    wrapped.save_pretrained(str(path), save_embedding_layers=False)  # else it looks for the base by its name
    (path / "README.md").unlink()
    tokenizer = AutoTokenizer.from_pretrained(str(base))
    answers = recording.record(wrapped.eval(), tokenizer, base.name, "")
    (path / known.NAME).write_bytes(known.dump(answers))


class Alone:
    """What base and adapters answer by transformers and PEFT, one prompt at a time, greedily."""

    def __init__(self, base: Path, adapters: dict[str, Path]) -> None:
        import torch
        from peft import PeftModel
        from transformers import AutoModelForCausalLM, AutoTokenizer

        self.tokenizer: Any = AutoTokenizer.from_pretrained(str(base))
        self.bare: Any = AutoModelForCausalLM.from_pretrained(str(base), dtype=torch.float32).eval()
        self.tuned: dict[str, Any] = {}
        for name, path in adapters.items():
            model = AutoModelForCausalLM.from_pretrained(str(base), dtype=torch.float32)
            self.tuned[name] = PeftModel.from_pretrained(model, str(path)).eval()
        self.answers: dict[tuple[str, str, int], tuple[list[int], str]] = {}

    def answer(self, adapter: str, text: str, tokens: int) -> tuple[list[int], str]:
        """Ids (the end token included) and text; no adapter is the base."""
        asked = adapter, text, tokens
        if asked not in self.answers:
            self.answers[asked] = self._answer(*asked)
        return self.answers[asked]

    def _answer(self, adapter: str, text: str, tokens: int) -> tuple[list[int], str]:
        import torch

        messages = [{"role": "user", "content": text}]
        prompt = self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        ids = self.tokenizer(prompt, add_special_tokens=False, return_tensors="pt")
        model = self.tuned[adapter] if adapter else self.bare
        with torch.inference_mode():
            made = model.generate(**ids, max_new_tokens=tokens, do_sample=False)[0, ids["input_ids"].shape[1] :]
        return made.tolist(), str(self.tokenizer.decode(made, skip_special_tokens=True))


def make_all(root: Path, names: Sequence[str]) -> tuple[Path, dict[str, Path]]:
    """The base in `root`/demo-base and an adapter for each name."""
    base = root / "demo-base"
    make_base(base)
    paths = {name: root / name for name in names}
    for seed, (_, path) in enumerate(paths.items(), start=2):
        make_adapter(base, path, seed)
    return base, paths
