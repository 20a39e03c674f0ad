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
    "key.revoke": _("revoked an API key"),
    "adapter.register": _("registered an adapter"),
    "adapter.load": _("loaded an adapter"),
    "adapter.unload": _("unloaded an adapter"),
    "alias.create": _("created a model name"),
    "rollout.start": _("started a rollout"),
    "rollout.weight": _("changed a share"),
    "rollout.stop": _("rolled back"),
    "rollout.promote": _("promoted"),
    "policy.save": _("put a policy in force"),
    "tenant.create": _("created the tenant"),
    "tenant.change": _("changed the tenant"),
    "member.create": _("added a member"),
    "member.change": _("changed a role"),
    "member.delete": _("removed a member"),
    "quota.create": _("set a limit"),
    "quota.change": _("changed a limit"),
    "budget.create": _("set a budget"),
    "budget.change": _("changed a budget"),
}
