"""What serves: base models, adapters, aliases, rollouts, guardrail policies."""

from __future__ import annotations

import uuid

from django.db import models
from django.utils import timezone
from django.utils.translation import gettext_lazy as _


class BaseModel(models.Model):
    """A base model an operator entered: where it is, and the digest of its files."""

    name = models.CharField(max_length=120, unique=True)
    source = models.CharField(max_length=400)  # a local path or a Hugging Face id
    revision = models.CharField(max_length=64, blank=True)
    digest = models.CharField(max_length=64, blank=True)  # of the file manifest; empty for a hub id not fetched yet
    context_tokens = models.PositiveIntegerField(default=0)  # of prompt and answer together; 0: not known
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["name"]
        verbose_name = _("base model")
        verbose_name_plural = _("base models")

    def __str__(self) -> str:
        return self.name


class Adapter(models.Model):
    """A LoRA adapter with its evidence: no row without a signed statement over its files."""

    class State(models.TextChoices):
        REGISTERED = "registered", _("Registered")
        LOADED = "loaded", _("Loaded")
        RETIRED = "retired", _("Retired")

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    tenant = models.ForeignKey("tenants.Tenant", on_delete=models.PROTECT, related_name="adapters")
    name = models.SlugField(max_length=60)
    version = models.PositiveIntegerField()
    base = models.ForeignKey(BaseModel, on_delete=models.PROTECT, related_name="adapters")
    digest = models.CharField(
        max_length=64
    )  # of the file manifest: the statement's subject, and its place in the store
    rank = models.PositiveSmallIntegerField(default=0)  # 0: not known
    statement = models.ForeignKey("attestation.Statement", on_delete=models.PROTECT, related_name="+")
    metrics = models.JSONField(default=dict)  # of the evaluation that came with it
    state = models.CharField(max_length=10, choices=State, default=State.REGISTERED)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["tenant", "name", "version"], name="one_adapter_version")]
        ordering = ["-created_at"]

    def __str__(self) -> str:
        return f"{self.name}-v{self.version}"

    @property
    def engine_name(self) -> str:
        """The name under which the engine knows it: of one tenant and of one content, whatever is renamed."""
        return f"{self.tenant.slug}.{self.name}-v{self.version}-{self.digest[:8]}"


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
        RECORD = "record", _("Its known answers cannot be read.")
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


class Alias(models.Model):
    """A stable model name of a tenant: routes to a champion and, by weight, to a challenger; a base model or an adapter
    takes over the calls that no engine answers for either.
    """

    tenant = models.ForeignKey("tenants.Tenant", on_delete=models.CASCADE, related_name="aliases")
    name = models.SlugField(max_length=60)
    base = models.ForeignKey(BaseModel, on_delete=models.PROTECT, related_name="+")
    champion = models.ForeignKey(
        Adapter, on_delete=models.PROTECT, related_name="+", null=True, blank=True
    )  # null: the base model
    challenger = models.ForeignKey(Adapter, on_delete=models.PROTECT, related_name="+", null=True, blank=True)
    challenger_bp = models.PositiveIntegerField(default=0)  # weight in 1/10,000
    fallback_base = models.ForeignKey(BaseModel, on_delete=models.PROTECT, related_name="+", null=True, blank=True)
    fallback_adapter = models.ForeignKey(Adapter, on_delete=models.PROTECT, related_name="+", null=True, blank=True)
    salt = models.CharField(max_length=32, default="", blank=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["tenant", "name"], name="one_alias"),
            models.CheckConstraint(condition=models.Q(challenger_bp__lte=10_000), name="weight_is_a_share"),
            models.CheckConstraint(
                condition=models.Q(fallback_base__isnull=True) | models.Q(fallback_adapter__isnull=True),
                name="one_fallback",
            ),
        ]
        ordering = ["name"]
        verbose_name_plural = "aliases"

    def __str__(self) -> str:
        return self.name

    @property
    def fallback(self) -> BaseModel | Adapter | None:
        return self.fallback_adapter or self.fallback_base


class Rollout(models.Model):
    """A canary of one adapter behind one alias. One active rollout per alias."""

    class State(models.TextChoices):
        RUNNING = "running", _("Running")
        DONE = "done", _("Promoted")
        ROLLED_BACK = "rolled_back", _("Rolled back")

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    alias = models.ForeignKey(Alias, on_delete=models.CASCADE, related_name="rollouts")
    adapter = models.ForeignKey(Adapter, on_delete=models.PROTECT, related_name="rollouts")
    state = models.CharField(max_length=12, choices=State, default=State.RUNNING)
    weight_bp = models.PositiveIntegerField()
    created_at = models.DateTimeField(auto_now_add=True)
    ended_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["alias"], condition=models.Q(state="running"), name="one_active_rollout")
        ]
        ordering = ["-created_at"]

    def __str__(self) -> str:
        return f"{self.alias}: {self.adapter} {self.weight_bp / 100:g} %"


class RolloutEvent(models.Model):
    """The history of a rollout. Append-only."""

    rollout = models.ForeignKey(Rollout, on_delete=models.CASCADE, related_name="events")
    at = models.DateTimeField(auto_now_add=True)
    actor = models.ForeignKey("tenants.User", on_delete=models.PROTECT, related_name="+", null=True)
    state = models.CharField(max_length=12)
    weight_bp = models.PositiveIntegerField()
    note = models.CharField(max_length=200, blank=True)

    class Meta:
        ordering = ["at"]


class GuardrailPolicy(models.Model):
    """One version of a tenant's YAML policy; the newest valid version is in force."""

    tenant = models.ForeignKey("tenants.Tenant", on_delete=models.CASCADE, related_name="policies")
    version = models.PositiveIntegerField()
    text = models.TextField()
    digest = models.CharField(max_length=64)
    created_by = models.ForeignKey("tenants.User", on_delete=models.PROTECT, related_name="+", null=True)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["tenant", "version"], name="one_policy_version")]
        ordering = ["-version"]
        verbose_name_plural = "guardrail policies"

    def __str__(self) -> str:
        return f"v{self.version}"


class Feedback(models.Model):
    """What a caller thinks of one answer. The last word of a key on a call is the one that counts."""

    class Thumbs(models.TextChoices):
        UP = "up", _("Up")
        DOWN = "down", _("Down")

    tenant = models.ForeignKey("tenants.Tenant", on_delete=models.CASCADE, related_name="feedback")
    key = models.ForeignKey("tenants.APIKey", on_delete=models.PROTECT, related_name="+")
    request_id = models.CharField(max_length=40)  # of the usage row, which may be booked a second later
    score = models.PositiveSmallIntegerField(null=True)  # 1 to 5
    thumbs = models.CharField(max_length=4, choices=Thumbs, blank=True)
    comment = models.CharField(max_length=2000, blank=True)
    at = models.DateTimeField(auto_now=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["tenant", "request_id", "key"], name="one_feedback"),
            models.CheckConstraint(
                condition=models.Q(score__isnull=True) | models.Q(score__range=(1, 5)), name="score"
            ),
        ]
        ordering = ["-at"]
        verbose_name_plural = _("feedback")

    def __str__(self) -> str:
        return f"{self.request_id}: {self.score or self.thumbs}"


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
