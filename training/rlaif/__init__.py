"""A preference run: prompts -> candidates -> pairs -> verdicts -> proposals, as one resumable job.

The rule: what is stored is never made, and so never paid for, again; every write happens under the job's claim.
How an answer or a verdict is made is `preferences`' business.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from django.db import transaction
from django.db.models import Count
from django.utils.translation import gettext as _

from tenants.models import Tenant, User
from training import generators, jobs, pairing, preferences
from training.judges import Opinion, settle
from training.models import Candidate, Job, PreferencePair, Prompt, PromptDataset, RlaifRun, Source, Verdict
from training.naming import next_name
from training.preferences import Kit, default_config
from training.problems import Problem

__all__ = ["default_config", "execute", "start"]

Place = tuple[Prompt, int]  # a prompt, and the number that its answer has among the prompt's candidates
Call = tuple[Place, Callable[[], generators.Answer]]
BATCH = 1_000  # rows in one INSERT


class NoPairs(Problem):
    """Nobody answered any prompt twice, so there is nothing to compare."""

    def __init__(self, run: RlaifRun, notes: list[str]) -> None:
        words = {"generators": ", ".join(run.config["generators"]), "notes": " ".join(notes)}
        super().__init__(
            _("No two answers to any prompt came from %(generators)s, so there is nothing to compare. %(notes)s")
            % words
        )


@transaction.atomic
def start(tenant: Tenant, dataset: PromptDataset, config: dict[str, Any], user: User | None) -> RlaifRun:
    """Queues a run over `dataset`. Raises BadConfig, or WrongKeyKind when Claude is asked for without a usable key."""
    config = preferences.check(config)
    name = next_name(tenant, RlaifRun, "rlaif")
    job = jobs.enqueue(tenant, Job.Kind.RLAIF, user, total=dataset.prompts.count())
    return RlaifRun.objects.create(tenant=tenant, name=name, dataset=dataset, job=job, config=config)


def execute(run: RlaifRun, claim: jobs.Claim) -> None:
    """Does what is left of `run`. Raises the Problems of `preferences`, jobs.Cancelled and jobs.Lost."""
    kit = Kit(run.config, spent_nano=claim.job.cost_nano)
    prompts = list(run.dataset.prompts.all())
    notes = _answer(run, claim, kit, prompts)
    _pair(run, claim, kit)
    if not run.pairs.exists():
        raise NoPairs(run, notes)
    _judge(run, claim, kit)
    _propose(run, claim)
    with claim.guard():
        run.summary = {**summary(run), "notes": notes}
        run.save(update_fields=["summary"])


def summary(run: RlaifRun) -> dict[str, Any]:
    """Counts by source: candidates, verdicts by choice (empty: abstained), proposals, pairs."""
    verdicts: dict[str, dict[str, int]] = defaultdict(dict)
    for source, choice, n in _counts(Verdict.objects.filter(pair__run=run), "source", "choice"):
        verdicts[source][choice or "abstained"] = n
    return {
        "candidates": dict(_counts(run.candidates.all(), "source")),
        "pairs": run.pairs.count(),
        "proposals": {choice or "none": n for choice, n in _counts(run.pairs.all(), "proposal")},
        "verdicts": dict(verdicts),
    }


def _counts(rows: Any, *fields: str) -> list[tuple[Any, ...]]:
    return list(rows.order_by().values_list(*fields).annotate(Count("pk")))


def _answer(run: RlaifRun, claim: jobs.Claim, kit: Kit, prompts: list[Prompt]) -> list[str]:
    """Stores the candidates that are missing; returns notes on what had to be left out."""
    written = run.candidates.filter(source=Source.WRITTEN)
    answered = set(written.values_list("prompt_id", flat=True))
    _store_written(run, claim, kit, [prompt for prompt in prompts if prompt.pk not in answered])
    before = Counter(written.values_list("prompt_id", flat=True))
    taken = set(run.candidates.values_list("prompt_id", "number"))
    _collect(run, claim, "claude", kit, _claude_calls(kit, prompts, before, taken))
    try:
        _collect(run, claim, "local", kit, _local_calls(kit, prompts, before, taken))
    except generators.EngineDown as down:
        if kit.config["generators"] == ["local"]:
            raise
        claim.log(str(down))
        return [str(down)]
    return []


def _store_written(run: RlaifRun, claim: jobs.Claim, kit: Kit, prompts: list[Prompt]) -> None:
    rows = [
        _candidate(run, prompt, number, answer)
        for prompt in prompts
        for number, answer in enumerate(kit.written_answers(prompt.text), 1)
    ]
    with claim.guard():
        Candidate.objects.bulk_create(rows, batch_size=BATCH)


def _claude_calls(kit: Kit, prompts: list[Prompt], before: Counter[int], taken: set[Any]) -> list[Call]:
    return list(_missing(prompts, _wanted_of_claude(kit), before, taken, kit.ask_claude))


def _wanted_of_claude(kit: Kit) -> int:
    return int(kit.config["num_responses"]) if kit.uses("claude") else 0


def _local_calls(kit: Kit, prompts: list[Prompt], before: Counter[int], taken: set[Any]) -> list[Call]:
    alone = kit.config["generators"] == ["local"]
    asked = prompts if alone else prompts[: kit.config["local_prompts"]]
    after = Counter({prompt.pk: before[prompt.pk] + _wanted_of_claude(kit) for prompt in asked})
    calls = list(_missing(asked, kit.local_count if kit.uses("local") else 0, after, taken, kit.ask_local))
    if calls:
        kit.local_model  # noqa: B018  (asks the engine once, here, and not in every thread)
    return calls


def _missing(
    prompts: list[Prompt],
    wanted: int,
    before: Counter[int],
    taken: set[Any],
    ask: Callable[[str, int], generators.Answer],
) -> Iterator[Call]:
    """What is left to ask. An answer's place is known before it is asked for, so that a second try asks for the very
    answers that failed, and not for one that is there already."""
    for prompt in prompts:
        for number in range(wanted):
            place = before[prompt.pk] + number + 1
            if (prompt.pk, place) not in taken:
                yield (prompt, place), partial(ask, prompt.text, number)


def _collect(run: RlaifRun, claim: jobs.Claim, source: str, kit: Kit, calls: list[Call]) -> None:
    claim.step(stage="answers", done=0, total=len(calls))
    answers = preferences.gather(calls, preferences.WORKERS[source], claim.step)
    for done, ((prompt, place), answer) in enumerate(answers, 1):
        with claim.guard():
            if answer.text:
                _candidate(run, prompt, place, answer).save()
            claim.beat(done=done, cost_nano=kit.purse.spent_nano)


def _candidate(run: RlaifRun, prompt: Prompt, number: int, answer: generators.Answer) -> Candidate:
    return Candidate(
        run=run,
        prompt=prompt,
        number=number,
        text=answer.text,
        source=answer.source,
        generator=answer.generator,
        input_tokens=answer.input_tokens,
        output_tokens=answer.output_tokens,
        cost_nano=answer.cost_nano,
    )


def _pair(run: RlaifRun, claim: jobs.Claim, kit: Kit) -> None:
    if run.pairs.exists():
        return
    groups: dict[int, list[Candidate]] = defaultdict(list)
    for candidate in run.candidates.select_related("prompt").order_by("prompt__number", "number"):
        groups[candidate.prompt_id].append(candidate)
    rows = [pair for group in groups.values() for pair in _pairs_of(run, kit, group)]
    with claim.guard():
        PreferencePair.objects.bulk_create(rows, batch_size=BATCH)


def _pairs_of(run: RlaifRun, kit: Kit, group: list[Candidate]) -> Iterator[PreferencePair]:
    prompt = group[0].prompt
    contenders = [kit.contender(prompt.text, one.text, one.source) for one in group]
    for a, b in pairing.choose(prompt.text, contenders):
        yield PreferencePair(tenant_id=run.tenant_id, run=run, prompt=prompt, a=group[a], b=group[b])


def _judge(run: RlaifRun, claim: jobs.Claim, kit: Kit) -> None:
    pairs = list(run.pairs.select_related("prompt", "a", "b"))
    judged = set(Verdict.objects.filter(pair__run=run).values_list("pair_id", "source", "swapped"))
    claim.step(stage="verdicts", done=0, total=len(pairs))
    at_once = [
        _verdict(pair, opinion)
        for pair in pairs
        for opinion in kit.judge_at_once(pair.prompt.text, pair.a.text, pair.b.text)
        if (pair.pk, opinion.source, False) not in judged
    ]
    with claim.guard():
        Verdict.objects.bulk_create(at_once, batch_size=BATCH)
    if "claude" in kit.config["judges"]:
        _judge_by_claude(claim, kit, pairs, judged)
    claim.step(done=len(pairs), total=len(pairs))


def _judge_by_claude(claim: jobs.Claim, kit: Kit, pairs: list[PreferencePair], judged: set[Any]) -> None:
    calls = [
        (pair, partial(kit.judge_by_claude, pair.prompt.text, pair.a.text, pair.b.text, swapped))
        for pair in pairs
        for swapped in (False, True)
        if (pair.pk, Source.CLAUDE, swapped) not in judged
    ]
    claim.step(done=0, total=len(calls))
    results = preferences.gather(calls, preferences.WORKERS["claude"], claim.step)
    for done, (pair, opinion) in enumerate(results, 1):
        with claim.guard():
            _verdict(pair, opinion).save()
            claim.beat(done=done, cost_nano=kit.purse.spent_nano)


def _verdict(pair: PreferencePair, opinion: Opinion) -> Verdict:
    return Verdict(
        pair=pair,
        source=opinion.source,
        judge=opinion.judge,
        choice=opinion.choice,
        score_a=opinion.score_a,
        score_b=opinion.score_b,
        swapped=opinion.swapped,
        rationale=opinion.rationale,
        cost_nano=opinion.cost_nano,
    )


def _propose(run: RlaifRun, claim: jobs.Claim) -> None:
    pairs = list(run.pairs.prefetch_related("verdicts"))
    for pair in pairs:
        proposal = settle(_opinion(verdict) for verdict in pair.verdicts.all())
        pair.proposal, pair.score_a, pair.score_b = proposal.choice, proposal.score_a, proposal.score_b
    with claim.guard():
        PreferencePair.objects.bulk_update(pairs, ["proposal", "score_a", "score_b"], batch_size=200)


def _opinion(verdict: Verdict) -> Opinion:
    return Opinion(verdict.source, verdict.judge, verdict.choice, verdict.score_a, verdict.score_b, verdict.swapped)
