"""Why a call came to nothing, and whose to put right: the caller's side ("yours") or this installation's ("ours")."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from django.utils.translation import gettext_lazy as _

YOURS, OURS, UNKNOWN = "yours", "ours", "unknown"


@dataclass(frozen=True, slots=True)
class Cause:
    """`page` is the name of the route where it is put right, if there is one."""

    name: str
    side: str
    title: Any
    todo: Any
    page: str = ""


CAUSES = {
    cause.name: cause
    for cause in (
        Cause(
            "limits", YOURS, _("Your limits"),
            _("Wait as long as Retry-After says, spread the calls, or have the limit raised."), "limits",
        ),
        Cause(
            "budget", YOURS, _("The month's budget"),
            _("An owner raises the budget; otherwise the next month begins anew."), "limits",
        ),
        Cause(
            "guardrails", YOURS, _("Your guardrails"),
            _("A rule of your policy blocked the prompt. Change the prompt or the rule."), "policy",
        ),
        Cause(
            "requests", YOURS, _("The request itself"),
            _("The engine understood it and said no, often because the prompt is too long. Change the request."),
        ),
        Cause(
            "keys", YOURS, _("The key"),
            _("It was revoked, expired, narrowed or suspended while it was used. Use another key."), "settings",
        ),
        Cause(
            "callers", YOURS, _("The caller hung up"),
            _("The client left before the answer was there. Raise its timeout, stream, or ask for fewer tokens."),
        ),
        Cause(
            "engine", OURS, _("The engine"),
            _("It did not answer or broke off. Send the call again; if it stays so, tell the operator."),
        ),
        Cause(
            "gateway", OURS, _("The gateway"),
            _("It was stopped or died during the call. Send the call again."),
        ),
        Cause(
            "counters", OURS, _("The counters"),
            _("The gateway lost the hold of the call. Send the call again."),
        ),
        Cause("other", UNKNOWN, _("Another reason"), _("Look at the calls; each row says why.")),
    )
}  # fmt: skip
# Reasons of rows that did not settle. A blocked row's reason is the name of a rule.
REASONS: dict[str, tuple[str, Any]] = {
    "client_disconnected": ("callers", _("the caller left before the end")),
    "engine_refused": ("requests", _("the engine refused the request")),
    "key_revoked": ("keys", _("the key was revoked during the call")),
    "key_expired": ("keys", _("the key expired during the call")),
    "key_suspended": ("keys", _("the organisation was suspended during the call")),
    "model_not_allowed": ("keys", _("the key lost this model during the call")),
    "engine_unavailable": ("engine", _("no engine answered")),
    "engine_failed": ("engine", _("the engine broke its answer off")),
    "interrupted": ("gateway", _("the gateway was stopped")),
    "gateway_lost": ("gateway", _("the gateway died; booked at what was sent")),
    "hold_lost": ("counters", _("the gateway lost the hold")),
}


def of_row(status: str, reason: str) -> Cause:
    """The cause of a row that did not settle."""
    if status == "blocked":
        return CAUSES["guardrails"]
    return CAUSES[REASONS.get(reason, ("other", ""))[0]]


def of_limit(limit: str) -> Cause:
    """The cause of a refusal by `limit`, a name of `RefusalCount`."""
    return CAUSES["budget" if limit == "budget" else "limits"]


def words(reason: str) -> Any:
    """A row's reason in words; a rule's name, which is the tenant's own, stays as it is."""
    return REASONS[reason][1] if reason in REASONS else reason


def count(ends: dict[tuple[str, str], int], refused: dict[str, int]) -> list[tuple[Cause, int]]:
    """Calls that came to nothing by cause, in the order of CAUSES."""
    found = dict.fromkeys(CAUSES, 0)
    for (status, reason), n in ends.items():
        if status != "settled":
            found[of_row(status, reason).name] += n
    for limit, n in refused.items():
        found[of_limit(limit).name] += n
    return [(CAUSES[name], n) for name, n in found.items() if n]
