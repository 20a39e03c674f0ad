"""How prompts become judged pairs: the one way that both the console's runs and `generate_preferences` go. No database.

A `Kit` holds what a run may use: samples, a Claude client, the engine, a purse. What answers at once (written samples,
rule checks) is answered at once; what takes time or money comes as calls, made by `gather` in a few threads while the
caller's heart beats.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

from django.conf import settings
from django.utils import translation
from django.utils.translation import gettext as _

from inference import serving
from inference.engines import client as engines
from training import claude, generators, judges, quotes, samples
from training.generators import Answer
from training.judges import Opinion, rules, written
from training.judges import claude as claude_judge
from training.models import Source
from training.pairing import Contender
from training.problems import Problem, listed

if TYPE_CHECKING:
    import anthropic

GENERATORS = ("claude", "local", "written")
JUDGES = ("claude", "written", "rules")
WORKERS = {"claude": 6, "local": 2}
BEAT = 3.0  # seconds
DEFAULTS: dict[str, Any] = {
    "generators": [],
    "judges": [],
    "num_responses": 4,
    "local_prompts": 16,  # beside other generators the local one answers only so many prompts: the CPU engine is slow
    "local_model": "",  # empty: the base model the engine serves
    "generator_model": claude.MODEL,
    "judge_model": claude.MODEL,
    "max_cost_nano": 2 * quotes.NANO,
    "seed": 7,
}
LISTS = {"generators": GENERATORS, "judges": JUDGES}
NUMBERS = {"num_responses": (2, 8), "local_prompts": (0, 10_000), "max_cost_nano": (0, 2**53), "seed": (0, 2**53)}
TEXTS = ("local_model", "generator_model", "judge_model")
Key = TypeVar("Key")
Result = TypeVar("Result")


class BadConfig(Problem):
    """A run's configuration is not possible; `field` names what is wrong."""

    def __init__(self, field: str, sentence: str) -> None:
        self.field = field
        super().__init__(sentence)


def default_config() -> dict[str, Any]:
    """Claude where a key is set; else written samples, the local model and rule checks."""
    with_key = bool(settings.ANTHROPIC_API_KEY)
    who: dict[str, Any] = {"generators": ["claude"], "judges": ["claude", "rules"]}
    without: dict[str, Any] = {"generators": ["written", "local"], "judges": ["written", "rules"]}
    return {**DEFAULTS, **(who if with_key else without)}


def check(config: dict[str, Any]) -> dict[str, Any]:
    """`config` over the defaults. Raises BadConfig, and WrongKeyKind when Claude is asked for without a usable key."""
    if unknown := sorted(set(config) - set(DEFAULTS)):
        raise BadConfig(unknown[0], _("Unknown setting: %(name)s.") % {"name": listed(unknown)})
    full = {**default_config(), **config}
    for name, known in LISTS.items():
        _check_list(name, full[name], known)
    for name, (low, high) in NUMBERS.items():
        if type(full[name]) is not int or not low <= full[name] <= high:
            words = {"name": name, "low": str(low), "high": str(high)}
            raise BadConfig(name, _("%(name)s must be a whole number from %(low)s to %(high)s.") % words)
    for name in TEXTS:
        if not isinstance(full[name], str) or not full[name].isprintable():
            raise BadConfig(name, _("%(name)s must be text.") % {"name": name})
    if "claude" in {*full["generators"], *full["judges"]}:
        claude.client()
    return full


def _check_list(name: str, given: Any, known: tuple[str, ...]) -> None:
    items = given if isinstance(given, list) else [given]
    if given is not items or not items or any(item not in known for item in items):
        words = {"name": name, "known": listed(known), "given": listed(items)}
        raise BadConfig(name, _("%(name)s must be some of %(known)s; given: %(given)s.") % words)


@dataclass
class Kit:
    """What one run works with. `config` is checked; `spent_nano` is what earlier attempts paid."""

    config: dict[str, Any]
    spent_nano: int = 0
    purse: quotes.Purse = field(init=False)

    def __post_init__(self) -> None:
        self.purse = quotes.Purse(self.config["max_cost_nano"], self.spent_nano)

    @cached_property
    def samples(self) -> samples.Samples:
        return samples.load(settings.SAMPLES)

    @cached_property
    def anthropic(self) -> anthropic.Anthropic:
        return claude.client()

    @cached_property
    def engine(self) -> engines.Engine:
        return serving.engine()

    @cached_property
    def local_model(self) -> str:
        return self.config["local_model"] or generators.local_model(self.engine)

    def uses(self, name: str) -> bool:
        return name in self.config["generators"]

    @property
    def local_count(self) -> int:
        """Local answers to one prompt: one beside other generators, all of them when it is alone."""
        return 1 if self.config["generators"] != ["local"] else self.config["num_responses"]

    def written_answers(self, prompt: str) -> list[Answer]:
        count = self.config["num_responses"] if self.uses("written") else 0
        return generators.take_written(self.samples, prompt, count)

    def contender(self, prompt: str, text: str, source: str) -> Contender:
        sample = samples.score_of(self.samples, prompt, text) if source == Source.WRITTEN else None
        return Contender(text, source, sample.score if sample else None)

    def ask_claude(self, prompt: str, number: int) -> Answer:
        """Claude's answer, paid from the purse. Raises CapReached and the Problems of `claude`."""
        model = self.config["generator_model"]
        with self.purse.hold(quotes.cost(model, 2 * len(prompt) + 500, generators.MAX_TOKENS)):
            answer = generators.ask_claude(self.anthropic, model, prompt, number)
            self.purse.pay(answer.cost_nano)
        return answer

    def ask_local(self, prompt: str, number: int) -> Answer:
        return generators.ask_local(self.engine, self.local_model, prompt, self.config["seed"] + number)

    def judge_at_once(self, prompt: str, a: str, b: str) -> list[Opinion]:
        """The opinions that cost nothing: written verdicts and rule checks, where the config has them."""
        opinions = []
        if "written" in self.config["judges"]:
            opinions.append(written.judge(self.samples, prompt, a, b))
        if "rules" in self.config["judges"]:
            opinions.append(rules.judge(prompt, a, b))
        return opinions

    def judge_by_claude(self, prompt: str, a: str, b: str, swapped: bool) -> Opinion:
        """Claude's opinion in one order, paid from the purse. Raises CapReached and the Problems of `claude`."""
        model = self.config["judge_model"]
        length = len(prompt) + len(a) + len(b)
        with self.purse.hold(quotes.cost(model, 2 * length + 2_000, claude_judge.MAX_TOKENS)):
            opinion = claude_judge.judge(self.anthropic, model, prompt, a, b, swapped)
            self.purse.pay(opinion.cost_nano)
        return opinion

    def opinions(self, prompt: str, a: str, b: str) -> list[Opinion]:
        """Every opinion the config asks for, one after another."""
        orders = (False, True) if "claude" in self.config["judges"] else ()
        return [self.judge_by_claude(prompt, a, b, s) for s in orders] + self.judge_at_once(prompt, a, b)


def settle(opinions: Iterable[Opinion]) -> judges.Proposal:
    return judges.settle(opinions)


def gather(
    calls: Iterable[tuple[Key, Callable[[], Result]]], workers: int, beat: Callable[[], None] = lambda: None
) -> Iterator[tuple[Key, Result]]:
    """Makes the calls in `workers` threads and yields what comes back, as it comes; `beat` is called every few seconds.

    The first call or beat that fails ends it: no call is made after that, but those in the air are waited for and
    yielded, because they are paid for; then the error is raised.
    """
    waiting = iter(calls)
    running: dict[Future[Result], Key] = {}
    errors: list[BaseException] = []
    pool = ThreadPoolExecutor(workers)
    try:
        while True:
            while not errors and len(running) < workers and (item := next(waiting, None)) is not None:
                running[pool.submit(_speaking, translation.get_language(), item[1])] = item[0]
            if not running:
                break
            done, _rest = wait(running, timeout=BEAT, return_when=FIRST_COMPLETED)
            try:
                beat()
            except Exception as error:
                errors.append(error)
            yield from _results({future: running.pop(future) for future in done}, errors)
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
    if errors:
        raise errors[0]


def _speaking(language: str | None, call: Callable[[], Result]) -> Result:
    """Django's active language belongs to a thread; a call's sentences follow the one that asked for it."""
    with translation.override(language):
        return call()


def _results(done: dict[Future[Result], Key], errors: list[BaseException]) -> Iterator[tuple[Key, Result]]:
    for future, key in done.items():
        if error := future.exception():
            errors.append(error)
        else:
            yield key, future.result()
