"""The console's vocabulary: what statuses, states, stages, audit actions and subjects are called.

Rule: a status has one icon, one colour and one word everywhere.
"""

from __future__ import annotations

from typing import Any

from django.utils.translation import gettext_lazy as _
from django.utils.translation import pgettext_lazy

# kind -> icon, classes, word. The word may be made more exact; icon and colour may not change.
STATUS: dict[str, tuple[str, str, Any]] = {
    "draft": ("circle-dashed", "undecided wait", _("Draft")),
    "undecided": ("circle-dashed", "undecided wait", _("Undecided")),
    "queued": ("clock", "queued wait", _("Queued")),
    "running": ("loader-circle", "running", _("Running")),
    "you": ("circle-user-round", "you", _("Waiting for you")),
    "paused": ("circle-pause", "wait", _("Paused")),
    "done": ("circle-check", "done", _("Done")),
    "pass": ("circle-check", "pass", _("Passed")),
    "live": ("circle-dot", "live", pgettext_lazy("status", "Live")),
    "warn": ("triangle-alert", "warn", _("Warning")),
    "failed": ("octagon-x", "failed", _("Failed")),
    "refused": ("octagon-x", "refused", _("Refused")),
    "cancelled": ("ban", "cancelled wait", _("Cancelled")),
    "rolled": ("undo-2", "rolled", _("Rolled back")),
    "unknown": ("circle-question-mark", "wait", _("Unknown")),
    "proven": ("lock", "proven", _("Established")),
    "unproven": ("lock-open", "unproven", _("Not established")),
}
# States of the models, in the same vocabulary.
STATES: dict[str, tuple[str, Any]] = {
    "registered": ("draft", _("Registered")),
    "loaded": ("live", _("Loaded")),
    "retired": ("cancelled", _("Retired")),
    "fetching": ("queued", _("Fetching")),
    "loading": ("running", _("Loading")),
    "probing": ("running", _("Probing")),
    "eligible": ("live", _("Answering")),
    "leaving": ("paused", _("Leaving")),
    "rolled_back": ("rolled", _("Rolled back")),
    "promoted": ("done", _("Promoted")),
    "settled": ("done", pgettext_lazy("ledger", "Settled")),
    "aborted": ("warn", _("Aborted")),
    "blocked": ("refused", _("Blocked")),
    "estimated": ("warn", _("Estimated")),
    "active": ("live", pgettext_lazy("tenant or key", "Active")),
    "suspended": ("paused", _("Suspended")),
    "closed": ("cancelled", _("Closed")),
}
# Who answered for a model name.
ARMS: dict[str, Any] = {"champion": _("champion"), "challenger": _("challenger"), "fallback": _("fallback")}
# What a job does right now, as its row says it.
STAGES: dict[str, Any] = {
    "answers": _("making answers"),
    "verdicts": _("judging"),
    "verify": _("verifying"),
    "load": _("loading the model"),
    "train": _("training"),
    "pretrain": _("pre-training"),
    "evaluate": _("evaluating"),
    "publish": _("signing and publishing"),
}
# The kinds of thing that audit entries name: `alias destek`.
SUBJECTS: dict[str, Any] = {"alias": _("model name"), "key": _("API key"), "policy": _("policy")}
# What the audit log's actions are called.
ACTIONS: dict[str, Any] = {
    "key.create": _("created an API key"),
    "key.change": _("changed an API key"),
    "key.rotate": _("replaced an API key"),
    "key.revoke": _("revoked an API key"),
    "adapter.register": _("registered an adapter"),
    "adapter.load": _("loaded an adapter"),
    "adapter.unload": _("unloaded an adapter"),
    "alias.create": _("created a model name"),
    "alias.fallback": _("set a fallback"),
    "rollout.start": _("started a rollout"),
    "rollout.weight": _("changed a share"),
    "rollout.stop": _("rolled back"),
    "rollout.promote": _("promoted"),
    "policy.save": _("put a policy in force"),
    "tenant.create": _("created the tenant"),
    "tenant.change": _("changed the tenant"),
    "invitation.create": _("invited somebody"),
    "invitation.accept": _("accepted an invitation"),
    "invitation.withdraw": _("withdrew an invitation"),
    "member.create": _("added a member"),
    "member.change": _("changed a role"),
    "member.delete": _("removed a member"),
    "quota.set": _("set limits"),
    "budget.set": _("set the budget"),
    "webhook.set": _("set the webhook"),
    "webhook.remove": _("removed the webhook"),
}
# The facts that an audit entry's before and after name.
FACTS: dict[str, Any] = {
    "name": _("name"),
    "scopes": _("rights"),
    "allowed_models": _("models"),
    "default_max_tokens": _("tokens of an answer by default"),
    "expires_at": _("expires"),
    "revoked_at": _("ends"),
    "successor": _("replaced by"),
    "requests_per_second": _("requests per second"),
    "requests_per_minute": _("requests per minute"),
    "tokens_per_second": _("tokens per second"),
    "tokens_per_minute": _("tokens per minute"),
    "concurrent_calls": _("concurrent calls"),
    "monthly_nano": _("a month"),
    "role": _("role"),
    "user": _("person"),
    "status": _("status"),
    "state": _("state"),
    "slug": _("address"),
    "time_zone": _("time zone"),
    "url": _("address"),
    "digest": _("digest"),
    "base": _("base model"),
    "fallback": _("fallback"),
    "weight_bp": _("share"),
}
