"""Turns a trained and evaluated run into a signed, registered adapter.

The rule: the statement says where the adapter comes from (base, export, configuration, code, libraries, evaluation),
lies beside the files it signs, and the registry checks it before there is a row.
"""

from __future__ import annotations

import math
import re
import shutil
import subprocess
import unicodedata
from importlib import metadata
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from django.conf import settings
from django.db import transaction
from django.utils.translation import gettext as _

from attestation import statements
from inference import registry
from inference.models import Adapter
from training.models import TrainingRun
from training.problems import Problem, writing

LIBRARIES = ("torch", "transformers", "trl", "peft", "accelerate", "datasets", "tokenizers")
ASCII = str.maketrans("çğıöşüÇĞİÖŞÜ", "cgiosuCGIOSU")  # what Django's slugify would drop ("ırmak" -> "rmak")


class NoAdapter(Problem):
    def __init__(self, run: TrainingRun) -> None:
        super().__init__(_("The run %(run)s left no adapter to publish.") % {"run": run})


def publish(run: TrainingRun) -> Adapter:
    """Signs and registers the adapter of an evaluated run; a second call returns the first one's adapter.

    Raises NoAdapter, DiskFull, attestation.signing.VerificationError.
    """
    if run.adapter is not None:
        return run.adapter
    trained = run.directory / "adapter"
    if not trained.is_dir():
        raise NoAdapter(run)
    numbers = summary(run.evaluation.metrics)
    with TemporaryDirectory(dir=run.directory) as place, transaction.atomic(), writing(run.directory):
        path = Path(place) / "adapter"
        shutil.copytree(trained, path)
        name = adapter_name(run)
        statement = statements.sign_directory(
            str(run.tenant_id), statements.ADAPTER, f"{run.tenant.slug}/{name}", path, predicate(run, numbers)
        )
        run.adapter = registry.register(run.tenant, name, run.base, path, statement, numbers)
        run.save(update_fields=["adapter"])
    return run.adapter


def summary(metrics: dict[str, Any]) -> dict[str, float | int]:
    """The finite numbers of an evaluation: what is signed and shown in lists."""
    numbers = {name: value for name, value in metrics.items() if type(value) in {int, float}}
    return {name: value for name, value in numbers.items() if math.isfinite(value)}


def adapter_name(run: TrainingRun) -> str:
    """The name whose next version this adapter is: the prompt dataset's, as a slug."""
    plain = unicodedata.normalize("NFKD", run.export.run.dataset.name.translate(ASCII)).encode("ascii", "ignore")
    return re.sub(r"[^a-z0-9]+", "-", plain.decode().lower()).strip("-")[:60] or "adapter"


def predicate(run: TrainingRun, numbers: dict[str, Any]) -> dict[str, Any]:
    """Where the adapter comes from. Only names, digests and numbers; no path of this machine."""
    export = run.export
    return {
        "run": run.name,
        "base": {"name": run.base.name, "digest": run.base.digest, "revision": run.base.revision},
        "export": {"run": export.run.name, "digest": export.digest, "statement": str(export.statement_id)},
        "config": run.config,
        "code": code_revision(),
        "libraries": libraries(),
        "evaluation": numbers,
    }


def code_revision() -> str:
    """The commit this code is at, with "+changes" where files differ from it; empty where there is no git."""
    described = _git("rev-parse", "HEAD")
    return described + ("+changes" if described and _git("status", "--porcelain", "--untracked-files=no") else "")


def _git(*arguments: str) -> str:
    try:
        done = subprocess.run(  # noqa: S603
            ["git", *arguments],  # noqa: S607
            cwd=settings.ROOT, capture_output=True, text=True, timeout=10, check=True,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()


def libraries() -> dict[str, str]:
    """Versions of what trained it, as installed."""
    versions = {}
    for name in LIBRARIES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions
