"""The loop's own records: prompts, candidates, verdicts, pairs, reviews, exports, jobs, training runs, evaluations."""

from training.models.calls import PromptOutcome, ProviderBatch, ProviderCall, ProviderCallQuerySet
from training.models.jobs import Job
from training.models.preferences import (
    Candidate,
    Choice,
    PreferencePair,
    PreferencePairQuerySet,
    Review,
    RlaifRun,
    Source,
    Verdict,
)
from training.models.prompts import Prompt, PromptDataset
from training.models.training import Evaluation, Export, TrainingMetric, TrainingRun

__all__ = [
    "Candidate",
    "Choice",
    "Evaluation",
    "Export",
    "Job",
    "PreferencePair",
    "PreferencePairQuerySet",
    "Prompt",
    "PromptDataset",
    "PromptOutcome",
    "ProviderBatch",
    "ProviderCall",
    "ProviderCallQuerySet",
    "Review",
    "RlaifRun",
    "Source",
    "TrainingMetric",
    "TrainingRun",
    "Verdict",
]
