"""Loading a base model and its tokenizer: a local directory or a Hugging Face id, for training and evaluation alike."""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path
from typing import Any

from training.dpo.config import Refusal

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # malloc.h


def prepare(base_model: str) -> None:
    """Sets what the heavy libraries read when they are imported; call it before the first of them."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # two threads on two busy cores ran ten times slower
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("TQDM_DISABLE", "1")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("HF_HUB_VERBOSITY", "critical")  # its retries are noise before our one sentence
    if _is_local(base_model):
        os.environ["HF_HUB_OFFLINE"] = "1"
    _keep_memory()


def load(base_model: str) -> tuple[Any, Any]:
    """(model, tokenizer), float32, in evaluation mode. Raises `Refusal` where there is no such usable model."""
    if _is_local(base_model) and not (Path(base_model) / "config.json").is_file():
        raise Refusal(f"There is no base model in {base_model}: a directory with config.json is needed.")
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        tokenizer = AutoTokenizer.from_pretrained(base_model, padding_side="left")
        model = AutoModelForCausalLM.from_pretrained(base_model, dtype=torch.float32)
    except (OSError, ValueError, KeyError) as error:
        raise Refusal(f"The base model {base_model} cannot be loaded: {_first_line(error)}") from error
    if tokenizer.chat_template is None:
        raise Refusal(f"The base model {base_model} has no chat template; use one made for conversations.")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return model.eval(), tokenizer


def _keep_memory() -> None:
    """Lets glibc keep what tensors free: giving it back and taking it again costs page faults (mallopt(3))."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, 32 << 20)
        mallopt(M_TRIM_THRESHOLD, 1 << 30)


def _is_local(base_model: str) -> bool:
    return Path(base_model).exists() or base_model.startswith((".", "/", "~"))


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".") + "." if lines else f"{type(error).__name__}."
