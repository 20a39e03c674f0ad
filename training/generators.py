"""Where candidate answers come from: Claude, the local engine, written samples. No database.

The rule: an answer names its source and its exact generator. Several answers to one prompt differ by instruction
(Claude 5.5 takes no temperature) or by seed (the local engine), never by being made worse on purpose.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from django.utils.translation import gettext as _

from inference.engines import client as engines
from training import claude
from training.models import Source
from training.problems import Problem
from training.samples import FILE, Samples, for_prompt

if TYPE_CHECKING:
    import anthropic

MAX_TOKENS = 600  # of a Claude answer, thinking included
LOCAL_TOKENS = 96
TEMPERATURE = 0.9
STYLES = (
    "Soruyu doğru, açık ve tam cümlelerle Türkçe yanıtla. En önemli bilgiyi başta ver.",
    "Soruyu Türkçe ve en çok iki cümleyle, gereksiz söz katmadan yanıtla.",
    "Soruyu Türkçe, uygulanabilir adımlarla ve kısa bir gerekçeyle yanıtla.",
    "Soruyu Türkçe, konuyu hiç bilmeyen birine küçük bir örnekle anlatır gibi yanıtla.",
)


class EngineDown(Problem):
    """The local engine did not answer; `address` is where it was looked for."""

    def __init__(self, address: str, reason: object) -> None:
        self.address = address
        self.reason = reason
        super().__init__(
            _("The engine at %(address)s does not answer: start it with `make up`.") % {"address": address}
        )


@dataclass(frozen=True)
class Answer:
    """One candidate text; `generator` is the exact model id or the sample file's name. An empty text is a refusal,
    kept only for its cost."""

    text: str
    source: str
    generator: str
    input_tokens: int = 0
    output_tokens: int = 0
    cost_nano: int = 0


def ask_claude(client: anthropic.Anthropic, model: str, prompt: str, number: int) -> Answer:
    """Claude's answer number `number` (0, 1, ...) to `prompt`. Raises the Problems of `claude`."""
    reply = claude.ask(client, model, STYLES[number % len(STYLES)], prompt, MAX_TOKENS)
    text = "" if reply.stop_reason in {"refusal", "max_tokens"} else reply.text
    return Answer(text, Source.CLAUDE, reply.model, reply.input_tokens, reply.output_tokens, reply.cost_nano)


def ask_local(engine: engines.Engine, model: str, prompt: str, seed: int) -> Answer:
    """The local engine's answer with `seed`. Raises EngineDown."""
    messages = [{"role": "user", "content": prompt}]
    try:
        body = engine.chat(model, messages, temperature=TEMPERATURE, seed=seed, max_tokens=LOCAL_TOKENS)
    except engines.EngineDown as error:
        raise EngineDown(engine.url, error) from error
    except engines.EngineError:  # of this prompt only: it is longer than the model's context, for one
        return Answer("", Source.LOCAL, model)
    usage: dict[str, Any] = body.get("usage") or {}
    text = str(body["choices"][0]["message"]["content"] or "").strip()
    return Answer(text, Source.LOCAL, model, usage.get("prompt_tokens", 0), usage.get("completion_tokens", 0))


def local_model(engine: engines.Engine) -> str:
    """The base model the engine serves: the first it lists. Raises EngineDown."""
    try:
        return engine.models()[0]
    except engines.EngineError as error:
        raise EngineDown(engine.url, error) from error
    except IndexError:
        raise EngineDown(engine.url, _("it has no model yet")) from None


def take_written(samples: Samples, prompt: str, count: int) -> list[Answer]:
    """At most `count` of the written answers: best and worst first, then the rest, in the file's order."""
    found = for_prompt(samples, prompt)
    ranked = sorted(range(len(found)), key=lambda i: -found[i].score)
    picked = sorted((ranked[:1] + ranked[:0:-1])[:count])
    return [Answer(found[i].text, Source.WRITTEN, FILE) for i in picked]
