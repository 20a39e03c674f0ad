"""The registry of adapters: nothing enters, and nothing is loaded, without a valid signature over its files.

Their files go into the store of artefacts at registration. Verification happens twice on purpose: then, and again when
an engine's agent copies them to its host (`agent`).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from django.db import transaction
from django.db.models import Max, Q

from attestation import keyring, statements
from attestation import verify as verification
from attestation.models import Statement
from attestation.signing import VerificationError, gettext_noop
from inference import artifacts
from inference.engines import lora
from inference.models import Adapter, Alias, BaseModel
from tenants import audit, epochs
from tenants.models import Tenant, User


class UnknownBaseModel(LookupError):
    def __init__(self, name: str) -> None:
        super().__init__(f"There is no base model {name}. An operator enters it first.")
        self.name = name


class AdapterInUse(Exception):
    """An alias routes to it; unloading it would break calls."""

    def __init__(self, adapter: Adapter, aliases: list[str]) -> None:
        super().__init__(f"{adapter} answers for {', '.join(aliases)}. Route the alias elsewhere first.")
        self.adapter, self.aliases = adapter, aliases


def base_model(name: str) -> BaseModel:
    """The base model of that name; raises UnknownBaseModel."""
    base = BaseModel.objects.filter(name=name).first()
    if base is None:
        raise UnknownBaseModel(name)
    return base


def enter_base(
    name: str, source: str, digest: str = "", actor: User | None = None, context_tokens: int | None = None
) -> BaseModel:
    """Enters a base model, or corrects where it is; every tenant's keys may call it from the next call on.

    `context_tokens` bounds prompt and answer together; by default it is read from the model's files, if they are here.
    """
    context = _context_of(source) if context_tokens is None else context_tokens
    facts = {"source": source, "digest": digest} | ({"context_tokens": context} if context else {})
    with transaction.atomic():
        base, created = BaseModel.objects.update_or_create(name=name, defaults=facts)
        action = "base.enter" if created else "base.change"
        audit.record(actor, action, name, None, {"digest": digest, "context_tokens": base.context_tokens})
        epochs.raise_all()
    return base


def _context_of(source: str) -> int:
    """What the config.json of a model in a local directory says; 0 if it says nothing, or is not here."""
    try:
        config = json.loads((Path(source) / "config.json").read_bytes())
        context = (config.get("text_config") or config).get("max_position_embeddings")
    except (OSError, ValueError, AttributeError):
        return 0
    return context if type(context) is int and 0 < context < 2**31 else 0


def register(
    tenant: Tenant,
    name: str,
    base: BaseModel,
    path: Path | str,
    statement: Statement,
    metrics: dict[str, Any] | None = None,
) -> Adapter:
    """Enters the next version of `name`, once `statement` (this tenant's) holds for the files in `path`.

    Keeps the files in the store. Raises attestation.signing.VerificationError, engines.lora.Unsound or OSError, and
    then there is no row.
    """
    if statement.scope != str(tenant.pk):
        raise VerificationError("scope", gettext_noop("The statement was made for another tenant."))
    signed = _directory(path, statement)
    facts = lora.check(path, base.name, base.digest)
    artifacts.store().put(path, signed["predicate"]["files"], statement.subject_digest)
    with transaction.atomic():
        Tenant.objects.select_for_update().get(pk=tenant.pk)  # one version at a time
        newest = Adapter.objects.filter(tenant=tenant, name=name).aggregate(newest=Max("version"))["newest"] or 0
        adapter = Adapter.objects.create(
            tenant=tenant,
            name=name,
            version=newest + 1,
            base=base,
            digest=statement.subject_digest,
            rank=facts.rank,
            statement=statement,
            metrics=metrics or {},
        )
        audit.record(None, "adapter.register", str(adapter), None, {"digest": adapter.digest}, tenant)
    return adapter


def statement(adapter: Adapter) -> dict[str, Any]:
    """The in-toto statement that was signed about the adapter; raises VerificationError if it does not hold."""
    envelope, keys = adapter.statement.envelope, keyring.public_keys()
    return verification.statement(envelope, keys, adapter.digest, statements.ADAPTER)


def verify(adapter: Adapter) -> dict[str, Any]:
    """The same, once it holds for the files in the store as they are now; raises VerificationError."""
    signed = statement(adapter)
    try:
        found = artifacts.store().found(signed["predicate"]["files"], adapter.digest)
    except OSError as error:
        raise _unreadable(error) from error
    verification.same_files(signed, found)
    return signed


def load(adapter: Adapter, actor: User | None = None) -> Adapter:
    """Verifies, then wants it on every replica of its base model: their agents load it. Raises VerificationError."""
    verify(adapter)
    with transaction.atomic():
        lock(adapter)
        _enter(adapter, Adapter.State.LOADED, "adapter.load", actor)
    return adapter


def unload(adapter: Adapter, actor: User | None = None) -> Adapter:
    """Takes the adapter's name from its tenant's keys; agents unload it once its calls have ended.

    Raises AdapterInUse.
    """
    with transaction.atomic():
        lock(adapter)
        routed = Q(champion=adapter) | Q(challenger=adapter) | Q(fallback_adapter=adapter)
        users = Alias.objects.filter(routed).values_list("name", flat=True)
        if users:
            raise AdapterInUse(adapter, list(users))
        _enter(adapter, Adapter.State.REGISTERED, "adapter.unload", actor)
    return adapter


def lock(adapter: Adapter) -> None:
    """Reads the adapter's state anew; until this transaction ends, nobody else loads, unloads or routes to it."""
    Tenant.objects.select_for_update().get(pk=adapter.tenant_id)
    adapter.refresh_from_db(fields=["state"])


def _directory(path: Path | str, statement: Statement) -> dict[str, Any]:
    try:
        found = verification.directory(path, statement.envelope, keyring.public_keys(), statements.ADAPTER)
    except OSError as error:
        raise _unreadable(error) from error
    if verification.digest_of(found) != statement.subject_digest:
        raise VerificationError("subject", gettext_noop("The statement is about other files."))
    return found


def _unreadable(error: OSError) -> VerificationError:
    template = gettext_noop("The files of the adapter cannot be read: {cause}.")
    return VerificationError("unreadable", template, cause=error.strerror or str(error))


def _enter(adapter: Adapter, state: Adapter.State, action: str, actor: User | None) -> None:
    before, adapter.state = adapter.state, state
    adapter.save(update_fields=["state"])
    if before != state:
        audit.record(actor, action, str(adapter), {"state": before}, {"state": state}, adapter.tenant)
        epochs.raise_(adapter.tenant)
