"""Engines: who they are, which adapters live on them, what they counted."""

from __future__ import annotations

from django.db import models
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from inference.models.adapters import Adapter, BaseModel


class Replica(models.Model):
    """An engine that answers, as the agent beside it last saw it."""

    class State(models.TextChoices):
        AWAY = "away", _("Not reachable")  # it does not run, or has no model yet
        WELL = "well", _("Running")
        STRANGE = "strange", _("Another model")  # what it serves is no base model that was entered

    name = models.CharField(max_length=60, unique=True)  # in every ledger row that it answers
    url = models.CharField(max_length=200)
    secret = models.BinaryField(default=b"")  # what opens it since its last start, sealed; empty: nothing is asked for
    base = models.ForeignKey(BaseModel, on_delete=models.PROTECT, related_name="replicas", null=True)
    version = models.CharField(max_length=60, blank=True)
    start = models.CharField(max_length=64, blank=True)  # tells one start of the engine from another
    state = models.CharField(max_length=10, choices=State, default=State.AWAY)
    loads = models.PositiveIntegerField(default=0)  # of adapters so far: the last one's `load_epoch`
    draining = models.BooleanField(default=False)  # new calls go elsewhere, if they can, while adapters are loaded
    running = models.PositiveIntegerField(default=0)  # calls in the engine, when it was last looked at
    waiting = models.PositiveIntegerField(default=0)
    note = models.CharField(max_length=300, blank=True)
    agent = models.CharField(max_length=120, blank=True)  # who looks after it
    seen_at = models.DateTimeField(null=True)  # by the agent; an old one: nobody looks after it

    class Meta:
        ordering = ["name"]

    def __str__(self) -> str:
        return self.name


class Residence(models.Model):
    """An adapter's life on one replica. It answers calls there while it is eligible and at no other time.

    What is wanted is `Adapter.state`: a loaded adapter is to live on every replica of its base model.
    """

    class State(models.TextChoices):
        FETCHING = "fetching", _("Fetching")  # or waiting for its turn
        LOADING = "loading", _("Loading")
        PROBING = "probing", _("Probing")
        ELIGIBLE = "eligible", _("Answering")
        LEAVING = "leaving", _("Leaving")  # no new calls; those under way are waited for
        FAILED = "failed", _("Failed")  # until it is unloaded and loaded again, or the engine starts anew

    class Why(models.TextChoices):
        LOST = "lost", _("The engine has lost it.")
        STORE = "store", _("The store of artefacts does not give it out; it is asked again.")
        FILES = "files", _("Its files are not those that were signed.")
        RECORD = "record", _("Its known answers are missing or cannot be read: train and publish it again.")
        UNPROVED = "unproved", _("It does not answer as it did when it was trained.")
        REFUSED = "refused", _("The engine refuses it.")
        ENGINE = "engine", _("The engine did not take it; it is asked again.")
        STUCK = "stuck", _("The engine says it is unloaded, and still serves it.")

    replica = models.ForeignKey(Replica, on_delete=models.CASCADE, related_name="residences")
    adapter = models.ForeignKey(Adapter, on_delete=models.CASCADE, related_name="residences")
    state = models.CharField(max_length=10, choices=State, default=State.FETCHING)
    load_epoch = models.PositiveIntegerField(default=0)  # the number of its load among all loads of the replica
    start = models.CharField(max_length=64, blank=True)  # of the engine that loaded it
    why = models.CharField(max_length=10, choices=Why, blank=True)  # of a state that is not what was wanted
    note = models.CharField(max_length=300, blank=True)  # what was said then, in English
    changed_at = models.DateTimeField(auto_now=True)
    probed_at = models.DateTimeField(null=True)  # when its known answers were last right

    class Meta:
        constraints = [models.UniqueConstraint(fields=["replica", "adapter"], name="one_residence")]
        ordering = ["replica", "adapter"]

    def __str__(self) -> str:
        return f"{self.adapter} on {self.replica}: {self.state}"


class OwnTokens(models.Model):
    """What one of our own questions took of a replica, past the gateway: a known answer, a job that asks an engine."""

    replica = models.CharField(max_length=60)
    at = models.DateTimeField(default=timezone.now)
    prompt_tokens = models.PositiveIntegerField()
    generation_tokens = models.PositiveIntegerField()

    class Meta:
        indexes = [models.Index(fields=["replica", "at"], name="own_tokens_of_a_replica")]

    def __str__(self) -> str:
        return f"{self.replica} {self.at}: {self.prompt_tokens} + {self.generation_tokens}"


class EngineReading(models.Model):
    """What a replica had counted at an instant since its start; once it is compared, what the ledger booked of that.

    Lists are [prompt tokens, generated tokens]; `counted` and `base` have a third: answers beyond a prompt's first.
    Both sides are added up from `since` on, where the engine had counted `base`; it is empty until that is done.
    """

    replica = models.CharField(max_length=60)
    started_at = models.DateTimeField()  # of the engine, by its own clock
    at = models.DateTimeField()  # by Redis's clock, before the engine was asked
    until = models.DateTimeField()  # and after
    row = models.BigIntegerField()  # the newest ledger row before
    counted = models.JSONField()
    since = models.DateTimeField(null=True)
    base = models.JSONField(default=list)
    booked = models.JSONField(default=list)
    own = models.JSONField(default=list)  # our own questions
    allowed = models.JSONField(default=dict)  # why either side may be off by so many tokens: name -> pair
    longest = models.PositiveIntegerField(default=0)  # prompt among the calls
    holds = models.BooleanField(null=True)
    told_at = models.DateTimeField(null=True)  # when operators were told that it does not

    class Meta:
        indexes = [models.Index(fields=["replica", "-at"], name="newest_of_a_replica")]
        ordering = ["-at", "-pk"]

    def __str__(self) -> str:
        return f"{self.replica} {self.at:%Y-%m-%d %H:%M:%S}"

    @property
    def difference(self) -> list[int]:
        """What the engine counted since, less what was booked and what was our own."""
        sides = zip(self.counted[:2], self.base[:2], self.booked, self.own, strict=True)
        return [counted - base - booked - own for counted, base, booked, own in sides]

    @property
    def allowance(self) -> list[int]:
        return [sum(pair[side] for pair in self.allowed.values()) for side in (0, 1)]
