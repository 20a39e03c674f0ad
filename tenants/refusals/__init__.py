"""Why was I refused? A decision read back, and the smallest change that would have admitted the call.

Each change is exact: with it the same call passes at the same instant, with one unit less it does not. Of refused
calls only counts are kept (`tally`).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any

from django.conf import settings
from django.db.models import Q
from django.utils.crypto import salted_hmac
from django.utils.translation import gettext as _

from tenants import decisions
from tenants.decisions import Decision, NotADecision
from tenants.metering import Refusal
from tenants.models import NANO, APIKey, Budget, Quota, Tenant
from tenants.refusals import wording
from tenants.refusals.tally import collect as collect

MOST = {name: Quota.MOST_PER_MINUTE if name.endswith("minute") else Quota.MOST_PER_SECOND for name in Quota.FIELDS}
MOST |= {"concurrent_calls": Quota.MOST_OPEN, "budget": 9_000_000 * NANO}
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Step:
    """One thing that admission looked at. `kind`: ok, bad, or empty for what it came to; `now`: what holds today."""

    kind: str
    text: str
    now: str = ""


@dataclass(frozen=True)
class Move:
    """One setting from `before` to `after`, in the unit of `name`: calls, tokens, nano-dollars, microseconds."""

    text: str
    name: str
    before: int | None = None
    after: int | None = None
    scope: str = ""


@dataclass(frozen=True)
class Change:
    """All of `moves` together would have admitted the call. `kind`: wait, lower, raise or allow."""

    kind: str
    moves: tuple[Move, ...]


@dataclass(frozen=True)
class Explanation:
    text: str  # the decision's own
    decision: Decision
    at: datetime
    key: str  # its name
    status: int  # of the HTTP answer
    title: str
    steps: tuple[Step, ...]
    changes: tuple[Change, ...]


def secret() -> bytes:
    """What decisions are signed with: derived from SECRET_KEY, so every process of an installation has the same."""
    return _secret(settings.SECRET_KEY)


@lru_cache(maxsize=2)
def _secret(key: str) -> bytes:
    return salted_hmac("tenants.decisions", "v1", secret=key, algorithm="sha256").digest()


def explain(tenant: Tenant, text: str) -> Explanation:
    """What `text` decided, in the active language. Raises NotADecision, also for a decision about another tenant."""
    decision = decisions.read(secret(), text.strip())
    if decision.tenant != str(tenant.pk):
        raise NotADecision
    key = APIKey.objects.filter(tenant=tenant, pk=decision.key).first()
    name, at = key.name if key else decision.key, EPOCH + timedelta(microseconds=decision.at_us)
    if decision.code == "model_not_allowed":
        status, steps, changes = 403, _model_steps(decision, key, name), [_allow(decision, name)]
    else:
        status, steps, changes = 429, _limit_steps(tenant, decision, name), _changes(decision, name)
    return Explanation(text.strip(), decision, at, name, status, _title(decision), tuple(steps), tuple(changes))


def _title(decision: Decision) -> str:
    kind = decision.limit_name.partition("_")[0] if decision.code == "rate_limit_exceeded" else decision.code
    return str(wording.TITLES[kind])


def _limit_steps(tenant: Tenant, decision: Decision, key: str) -> list[Step]:
    steps = [Step("ok", _("The key %(key)s was valid.") % {"key": key})]
    today, refused = _limits(tenant, decision.key), _refusals(decision)
    for each in refused:
        told = wording.STEPS[each.scope, each.limit_name] % _words(each, key)
        steps.append(Step("bad", told, _now(each, today.get((each.scope, each.limit_name)))))
    steps.append(Step("ok", _("Every other limit of the tenant and the key had room, or is not set.")))
    if all(each.limit_name != "budget" for each in refused):
        steps.append(Step("ok", _("The month's budget had room for the call.")))
    return [*steps, _outcome()]


def _model_steps(decision: Decision, key: APIKey | None, name: str) -> list[Step]:
    if key is None:
        now = _("The key no longer exists.")
    elif not key.allowed_models or decision.model in key.allowed_models:
        now = _("The key may call it now.")
    else:
        now = _("The key still may not call it.")
    words = {"key": name, "model": decision.model}
    return [
        Step("ok", _("The key %(key)s was valid.") % words),
        Step("bad", _("The key %(key)s is limited to certain models, and %(model)s is none of them.") % words, now),
        _outcome(),
    ]


def _outcome() -> Step:
    return Step("", _("The call did not reach a model. It used up nothing and costs nothing."))


def _refusals(decision: Decision) -> tuple[Refusal, ...]:
    """All limits that refused, the decisive one first. One that came alone knows its own bound."""
    d = decision
    alone = Refusal(d.scope, d.limit_name, d.limit, d.value, d.need, d.wait_us, d.value + d.need)
    first = [each for each in d.refusals if (each.scope, each.limit_name) == (d.scope, d.limit_name)]
    return (*(first or [alone]), *(each for each in d.refusals if each not in first))


def _limits(tenant: Tenant, key_id: str) -> dict[tuple[str, str], int | None]:
    """The limits that hold today."""
    rows = Quota.objects.filter(Q(key=None) | Q(key=key_id), tenant=tenant)
    quotas = {quota.key_id: quota for quota in rows}
    found: dict[tuple[str, str], int | None] = {}
    for scope, owner in (("tenant", None), ("key", key_id)):
        for name in Quota.FIELDS:
            found[scope, name] = getattr(quotas.get(owner), name, None)
    found["tenant", "budget"] = Budget.objects.filter(tenant=tenant).values_list("monthly_nano", flat=True).first() or 0
    return found


def _now(refusal: Refusal, limit: int | None) -> str:
    if limit is None:
        return _("Today there is no such limit.")
    words = {"now": wording.amount(refusal.limit_name, limit)}
    if limit == refusal.limit:
        return _("The limit is the same today.")
    if limit >= refusal.enough >= 0:
        return _("Today the limit is %(now)s, enough for the same call at that instant.") % words
    return _("Today the limit is %(now)s, still too little for the same call at that instant.") % words


def _changes(decision: Decision, key: str) -> list[Change]:
    """What would have admitted the call, each alone: waiting, asking for less, a higher limit."""
    refused = _refusals(decision)
    return [change for change in (_wait(refused), _lower(decision, refused), _raise(refused, key)) if change]


def _wait(refused: tuple[Refusal, ...]) -> Change | None:
    if any(each.wait_us < 0 for each in refused):
        return None
    if any(each.limit_name == "concurrent_calls" for each in refused):
        return Change("wait", (Move(_("Send it once one of the open calls has ended."), "wait"),))
    longest = max(each.wait_us for each in refused)
    text = _("Send it %(seconds)s s later.") % {"seconds": wording.seconds(longest)}
    return Change("wait", (Move(text, "wait", 0, longest),))


def _lower(decision: Decision, refused: tuple[Refusal, ...]) -> Change | None:
    """Fewer tokens, where tokens are all that was too much. What a limit has left is its limit less what is in use."""
    if any(not each.limit_name.startswith("tokens") for each in refused):
        return None
    left = min(each.limit - each.value for each in refused)
    asked = decision.answers * decision.max_tokens
    shorter = (left - (decision.tokens - asked)) // max(decision.answers, 1)
    if asked and shorter >= 1:
        words = {"before": wording.number(decision.max_tokens), "after": wording.number(shorter)}
        text = _("Lower max_tokens from %(before)s to at most %(after)s.") % words
        return Change("lower", (Move(text, "max_tokens", decision.max_tokens, shorter),))
    if left < 1:
        return None
    words = {"before": wording.number(decision.tokens), "after": wording.number(left)}
    text = _("Ask for at most %(after)s tokens, input and answer together, instead of %(before)s.") % words
    return Change("lower", (Move(text, "tokens", decision.tokens, left),))


def _raise(refused: tuple[Refusal, ...], key: str) -> Change | None:
    if any(not 0 <= each.enough <= MOST[each.limit_name] for each in refused):
        return None
    moves = []
    for each in refused:
        text = wording.RAISES[each.scope, each.limit_name] % _words(each, key)
        moves.append(Move(text, each.limit_name, each.limit, each.enough, each.scope))
    return Change("raise", tuple(moves))


def _allow(decision: Decision, key: str) -> Change:
    text = _("Allow the model %(model)s on the key %(key)s.") % {"model": decision.model, "key": key}
    return Change("allow", (Move(text, "allowed_models", scope="key"),))


def _words(refusal: Refusal, key: str) -> dict[str, Any]:
    names = ("limit", "value", "need", "enough")
    words = {name: wording.amount(refusal.limit_name, getattr(refusal, name)) for name in names}
    return words | {"key": key, "missing": wording.amount(refusal.limit_name, refusal.enough - refusal.limit)}
