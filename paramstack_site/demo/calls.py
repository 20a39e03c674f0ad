"""The last stages: a tenant developer's calls by the official `openai` client, the ledger, a receipt."""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from django.conf import settings

from attestation import keyring, receipts
from paramstack_site.demo import people
from paramstack_site.demo.stages import Scene, StageFailed, wait_for
from tenants import ledger
from tenants.models import UsageEvent
from training.models import Prompt

if TYPE_CHECKING:
    import openai
    from openai.types import CompletionUsage

CALLS = 24
MOST = 120  # calls made at the most until both arms have answered; all on one arm by chance: 0.9^120 < 1e-5
AT_ONCE = 4
MAX_TOKENS = 48


@dataclass
class Answer:
    """What the caller saw; the ledger must say the same."""

    request_id: str
    arm: str
    text: str
    input_tokens: int
    output_tokens: int


def call(scene: Scene) -> str:
    """Plain and streaming calls with the tenant's key, each for another end user, until both arms have answered."""
    import openai

    address = f"http://{settings.HOST}:{settings.PORT}/v1"
    client = openai.OpenAI(base_url=address, api_key=scene.kept.api_keys["acme"], max_retries=2, timeout=60)
    prompts = list(Prompt.objects.filter(dataset__tenant=scene.tenant).order_by("number")[:MOST])

    def ask(number: int) -> Answer:
        way = stream if number % 2 else plain
        return way(client, prompts[number].text, f"demo-user-{number}")

    answers: list[Answer] = []
    with ThreadPoolExecutor(AT_ONCE) as pool:
        while len(answers) < CALLS or (len(answers) < len(prompts) and len({one.arm for one in answers}) < 2):
            answers += pool.map(ask, range(len(answers), min(len(answers) + AT_ONCE, len(prompts))))
            scene.progress(len(answers), max(CALLS, len(answers)), "")
    check_ledger(scene, answers)
    rows = UsageEvent.objects.filter(request_id__in=[one.request_id for one in answers])
    arms = {arm: rows.filter(arm=arm).count() for arm in ("champion", "challenger")}
    cost = sum(row.cost_nano for row in rows)
    tokens = sum(row.input_tokens + row.output_tokens for row in rows)
    scene.figures["calls"] = len(answers)
    return (
        f"{len(answers)} calls: champion {arms['champion']}, challenger {arms['challenger']}; "
        f"{tokens} tokens, ${cost / 1e9:.6f} in the ledger, equal to what the client saw"
    )


def plain(client: openai.OpenAI, text: str, user: str) -> Answer:
    raw = client.chat.completions.with_raw_response.create(
        model=people.ALIAS, messages=[{"role": "user", "content": text}], max_tokens=MAX_TOKENS, user=user
    )
    completion = raw.parse()
    return answer(raw, completion.choices[0].message.content or "", completion.usage)


def stream(client: openai.OpenAI, text: str, user: str) -> Answer:
    raw = client.chat.completions.with_raw_response.create(
        model=people.ALIAS,
        messages=[{"role": "user", "content": text}],
        max_tokens=MAX_TOKENS,
        user=user,
        stream=True,
        stream_options={"include_usage": True},
    )
    parts: list[str] = []
    usage = None
    for chunk in raw.parse():
        parts += [choice.delta.content or "" for choice in chunk.choices]
        usage = chunk.usage or usage
    return answer(raw, "".join(parts), usage)


def answer(raw: Any, text: str, usage: CompletionUsage | None) -> Answer:
    """With the request's id and the arm, which the gateway says in headers."""
    if usage is None:
        raise StageFailed("An answer came without its usage. The engine's log in var/log says more.")
    headers = raw.headers
    tokens = (usage.prompt_tokens, usage.completion_tokens)
    return Answer(headers["x-request-id"], headers["x-paramstack-arm"], text, *tokens)


def check_ledger(scene: Scene, answers: list[Answer]) -> None:
    """Every call is one row with the tokens and the digest of the text that the caller saw."""
    ids = [one.request_id for one in answers]
    wait_for(
        lambda: UsageEvent.objects.filter(tenant=scene.tenant, request_id__in=ids).count() == len(ids),
        "the ledger writer to book the calls",
    )
    for answer in answers:
        row = UsageEvent.objects.get(request_id=answer.request_id)
        seen = (answer.input_tokens, answer.output_tokens, hashlib.sha256(answer.text.encode()).hexdigest())
        booked = (row.input_tokens, row.output_tokens, row.answer_digest)
        if seen != booked:
            raise StageFailed(f"The ledger row of {answer.request_id} says {booked}; the client saw {seen}.")
    scene.figures["request_id"] = ids[-1]


def verify_receipt(scene: Scene) -> str:
    request_id = scene.figures["request_id"]
    receipt = ledger.receipt(scene.tenant, request_id)
    receipts.verify(receipt, keyring.public_keys())
    return f"receipt of {request_id} verified: its row, the path to the signed batch root, the signature"
