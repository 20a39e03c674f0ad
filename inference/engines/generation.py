"""Text generation of the embedded engine: one thread owns the model, and everything it does is a job in one queue.

Requests that wait together are generated together on a left-padded batch, each with its own adapter, temperature, seed
and length (`generate(adapter_names=[...])` is exact). Loading and unloading are jobs in the same queue, so that no
adapter changes under a request. What is drawn is `sampling`'s.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inference.engines.sampling import Sampler

if TYPE_CHECKING:
    import torch

logger = logging.getLogger(__name__)
BASE = "__base__"  # PEFT's name for "no adapter"
BATCH = 8  # requests generated together
GATHER = 0.004  # seconds to wait for companions
BROKEN = "\ufffd"  # what a half-decoded character looks like
MOST_PIECES = 4  # bytes of a character in UTF-8

Logged = list[tuple[str, float]]  # a token and its log-probability, then the likeliest of its alternatives


@dataclass
class Request:
    """One answer to make. `emit(text, finish_reason | None, tokens so far)` is called from the model's thread."""

    prompt: list[int]
    adapter: str | None  # None: the base model
    max_tokens: int
    emit: Callable[[str, str | None, int], None]
    temperature: float = 1.0
    top_p: float = 1.0
    seed: int | None = None
    repetition_penalty: float = 1.0
    stop: list[str] = field(default_factory=list)
    logprobs: int | None = None
    names_ids: bool = False  # tokens are told as `token_id:7`, not as text
    logs: list[Logged] = field(default_factory=list)  # of each of `tokens`, if wanted
    cancelled: bool = False
    tokens: list[int] = field(default_factory=list)
    sent: str = ""
    finished: bool = False


Job = Request | Callable[[], None] | None  # None ends the thread


class Loader:
    """The model, its tokenizer and its adapters; every method but `submit` and `call` runs in the model's thread."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.jobs: queue.Queue[Job] = queue.Queue()
        self.ahead: list[Job] = []  # taken from the queue while a batch was gathered, to be done next
        self.adapters: dict[str, str] = {}  # the caller's name -> PEFT's (a module name: no dots)
        self.loads = 0
        self.prompt_tokens = self.generation_tokens = 0  # read and made since the start
        self.submitted = self.ended = 0  # requests; each counted by one thread alone
        self.model: Any = None
        self.tokenizer: Any = None
        self.thread = threading.Thread(target=self._work, name="model", daemon=True)

    @property
    def ready(self) -> bool:
        return self.model is not None

    @property
    def context(self) -> int:
        """Tokens of prompt and answer together."""
        return int(self.model.config.max_position_embeddings)

    @property
    def penalty(self) -> float:
        """What the model's own files wish for repetition, where a request wishes nothing."""
        return float(getattr(self.model.generation_config, "repetition_penalty", None) or 1.0)

    def open(self) -> None:
        """Loads the base model; called before the thread starts."""
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer
        from transformers.utils import logging as transformers_logging

        transformers_logging.disable_progress_bar()
        path = str(self.path)
        self.tokenizer = AutoTokenizer.from_pretrained(path, padding_side="left")
        if self.tokenizer.pad_token_id is None:
            self.tokenizer.pad_token = self.tokenizer.eos_token
        self.model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()
        if torch.cuda.is_available():
            self.model = self.model.cuda()
        self.thread.start()

    def encode(self, messages: list[dict[str, Any]]) -> list[int]:
        text = self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    @property
    def vocabulary(self) -> int:
        return int(self.model.config.vocab_size)

    def tokens_of(self, text: str) -> list[int]:
        """Of a bare text, as the tokenizer begins and ends one."""
        return list(self.tokenizer(text)["input_ids"])

    @property
    def under_way(self) -> int:
        return self.submitted - self.ended

    def submit(self, request: Request) -> None:
        self.submitted += 1
        self.jobs.put(request)

    def call(self, verb: Callable[[], Any]) -> Future[Any]:
        """Runs `verb` in the model's thread, between batches."""
        future: Future[Any] = Future()

        def job() -> None:
            try:
                future.set_result(verb())
            except Exception as error:  # the waiting caller gets it, whatever it is
                future.set_exception(error)

        self.jobs.put(job)
        return future

    def close(self) -> None:
        self.jobs.put(None)

    def load(self, name: str, path: str) -> None:
        """Loads a LoRA adapter; raises ValueError for a name that is taken, OSError for a path without one."""
        from peft import PeftModel

        if name in self.adapters:
            raise ValueError(f"The lora adapter '{name}' has already been loaded.")
        self.loads += 1
        inner = f"a{self.loads}"
        if hasattr(self.model, "peft_config"):
            self.model.load_adapter(path, adapter_name=inner)
        else:
            self.model = PeftModel.from_pretrained(self.model, path, adapter_name=inner)
        self.model.eval()
        self.adapters[name] = inner

    def unload(self, name: str) -> None:
        """Raises KeyError for a name that is not loaded."""
        inner = self.adapters.pop(name)
        if self.adapters:
            self.model.set_adapter(next(iter(self.adapters.values())))
            self.model.delete_adapter(inner)
        else:
            self.model = self.model.unload()  # back to the bare base model

    def _work(self) -> None:
        while (job := self.ahead.pop() if self.ahead else self.jobs.get()) is not None:
            if isinstance(job, Request):
                generate(self, self._with_companions(job))
            else:
                job()

    def _with_companions(self, first: Request) -> list[Request]:
        """`first` and what else waits, up to the first job that is no request: that one is next."""
        batch = [first]
        while len(batch) < BATCH:
            try:
                job = self.jobs.get(timeout=GATHER)
            except queue.Empty:
                break
            if not isinstance(job, Request):
                self.ahead.append(job)
                break
            batch.append(job)
        return batch


def generate(loader: Loader, batch: list[Request]) -> None:
    """Makes the answers of a batch; whatever fails ends its requests with finish reason `error`.

    A request whose adapter was unloaded while it waited fails too: never does another model answer in its name.
    """
    wanted = [request for request in batch if not request.cancelled]
    there = [request for request in wanted if request.adapter is None or request.adapter in loader.adapters]
    try:
        if there:
            _generate(loader, there)
    except Exception:  # one bad batch must not end the thread that serves everybody
        logger.exception("generation failed")
    for request in batch:
        if not request.finished:
            request.finished = True
            request.emit("", "error", len(request.tokens))
    loader.ended += len(batch)


def _generate(loader: Loader, batch: list[Request]) -> None:
    import torch
    from transformers import LogitsProcessorList, StoppingCriteriaList

    padded = loader.tokenizer.pad({"input_ids": [request.prompt for request in batch]}, return_tensors="pt")
    sampler = Sampler(batch)
    options: dict[str, Any] = {}
    if loader.adapters:
        options["adapter_names"] = [loader.adapters[r.adapter] if r.adapter else BASE for r in batch]
    with torch.inference_mode():
        loader.model.generate(
            **{name: tensor.to(loader.model.device) for name, tensor in padded.items()},
            max_new_tokens=max(request.max_tokens for request in batch),
            do_sample=False,
            repetition_penalty=1.0,  # each row has its own
            logits_processor=LogitsProcessorList([sampler]),
            stopping_criteria=StoppingCriteriaList([Progress(loader, batch, sampler)]),
            **options,
        )


class Progress:
    """A stopping criterion that also hands out the text of each row as it grows."""

    def __init__(self, loader: Loader, batch: list[Request], sampler: Sampler) -> None:
        self.loader, self.batch, self.sampler = loader, batch, sampler

    def __call__(self, ids: torch.Tensor, scores: Any, **options: Any) -> torch.Tensor:
        import torch

        for row, token in enumerate(ids[:, -1].tolist()):
            request = self.batch[row]
            if not request.finished:
                if request.logprobs is not None:
                    request.logs.append(self._logged(self.sampler.logs[row], request, token))
                self._advance(request, token)
        return torch.tensor([request.finished for request in self.batch], device=ids.device)

    def _logged(self, logs: torch.Tensor, request: Request, token: int) -> Logged:
        likeliest = logs.topk(request.logprobs).indices.tolist() if request.logprobs else []
        named = [token, *(one for one in likeliest if one != token)]
        if request.names_ids:
            return [(f"token_id:{one}", float(logs[one])) for one in named]
        return [(self._piece(request.tokens[-MOST_PIECES:], one), float(logs[one])) for one in named]

    def _piece(self, before: list[int], token: int) -> str:
        """What `token` says after `before`. As vLLM tells it, a piece of a character says nothing, and the one that
        completes it says all of it.
        """
        decode = self.loader.tokenizer.decode
        text = str(decode([token]))
        for count in range(1, len(before) + 1) if text.endswith(BROKEN) else ():
            context = before[-count:]
            whole = str(decode([*context, token]))
            if not whole.endswith(BROKEN):
                while context and decode([context[-1]]).endswith(BROKEN):
                    context.pop()
                return whole[len(decode(context)) :] if context else whole
        return "" if text.endswith(BROKEN) else text

    def _advance(self, request: Request, token: int) -> None:
        if not request.tokens:
            self.loader.prompt_tokens += len(request.prompt)
        self.loader.generation_tokens += 1
        request.tokens.append(token)
        ended = token == self.loader.tokenizer.eos_token_id
        text = self.loader.tokenizer.decode(request.tokens[:-1] if ended else request.tokens)
        cut = min((at for stop in request.stop if (at := text.find(stop)) >= 0), default=None)
        reason = "stop" if ended or cut is not None else "length" if len(request.tokens) >= request.max_tokens else None
        if request.cancelled:
            reason = reason or "abort"
        text = text if cut is None else text[:cut]
        if reason is None:
            text = text.rstrip(BROKEN)
            held = max((len(stop) for stop in request.stop), default=1) - 1  # a stop string may be half there
            text = text[: max(len(request.sent), len(text) - held)]
        fresh, request.sent = text[len(request.sent) :], text
        request.finished = reason is not None
        if fresh or reason:
            request.emit(fresh, reason, len(request.tokens))
