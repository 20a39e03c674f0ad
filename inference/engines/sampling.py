"""The draw of the next token, row by row of a batch.

Sampling is the Gumbel-max trick on the logits of a row, which is an exact draw from softmax(logits / temperature) and
leaves greedy rows of the same batch untouched (Maddison et al. 2014, "A* sampling").
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import torch


class Wishes(Protocol):
    """How one answer is drawn. `logprobs` is how many alternatives of a token are told, None for not even its own."""

    temperature: float
    top_p: float
    seed: int | None
    logprobs: int | None
    repetition_penalty: float


class Sampler:
    """A logits processor that makes argmax a draw for the rows that sample, each with its own generator.

    `logs` has the log-probabilities of this step's tokens by row, where they are wanted: the model's own, before
    penalty, temperature and nucleus, as vLLM tells them (its logprobs_mode `raw_logprobs`).
    """

    def __init__(self, batch: Sequence[Wishes]) -> None:
        import torch

        self.batch = batch
        self.logs: dict[int, torch.Tensor] = {}
        self.generators = []
        for request in batch:
            generator = torch.Generator()
            if request.seed is None:
                generator.seed()
            else:
                generator.manual_seed(request.seed % 2**63)  # torch refuses more, the wire does not
            self.generators.append(generator)

    def __call__(self, ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        import torch

        for row, request in enumerate(self.batch):
            if request.logprobs is not None:
                self.logs[row] = scores[row].float().log_softmax(-1)
            if request.repetition_penalty != 1:
                penalize(scores[row], ids[row], request.repetition_penalty)
            if request.temperature <= 0:
                continue
            logits = nucleus(scores[row].float() / request.temperature, request.top_p)
            uniform = torch.rand(logits.shape, generator=self.generators[row]).clamp_min(1e-20).to(logits.device)
            scores[row] = logits - torch.log(-torch.log(uniform))
        return scores


def penalize(logits: torch.Tensor, ids: torch.Tensor, penalty: float) -> None:
    """Makes every token of prompt and answer less likely (Keskar et al. 2019, "CTRL"), in place."""
    import torch

    seen = logits[ids]
    logits[ids] = torch.where(seen < 0, seen * penalty, seen / penalty)


def nucleus(logits: torch.Tensor, top_p: float) -> torch.Tensor:
    """Keeps the smallest set of tokens whose probability reaches `top_p` (Holtzman et al. 2020)."""
    import torch

    if top_p >= 1:
        return logits
    ordered, order = logits.sort(descending=True)
    before = ordered.softmax(-1).cumsum(-1) - ordered.softmax(-1)
    return logits.index_fill(0, order[before >= top_p], -torch.inf)
