"""The loop's own fixtures: Anthropic's API on the loopback, written samples, a run with decided pairs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from training import datasets, jobs
from training.models import Candidate, Choice, Job, PreferencePair, RlaifRun, Source
from training.tests.messages_api import MessagesAPI

KEY = "sk-ant-api03-test-key-of-the-loopback"


@pytest.fixture
def api(settings, monkeypatch, tmp_path) -> Iterator[MessagesAPI]:
    """Settings point at a loopback server that speaks the Messages API; no login of the developer is picked up."""
    monkeypatch.setenv("ANTHROPIC_CONFIG_DIR", str(tmp_path))
    served = MessagesAPI()
    server = served.start()
    settings.ANTHROPIC_API_KEY = KEY
    settings.ANTHROPIC_BASE_URL = f"http://127.0.0.1:{server.server_address[1]}"
    yield served
    server.shutdown()
    server.server_close()


def write_samples(path: Path, prompts: list[str]) -> Path:
    """Four answers to each prompt, written out of order, with scores 9, 6, 3 and 0."""
    rows = [
        {
            "id": f"p{n:03d}",
            "topic": "test",
            "prompt": prompt,
            "answers": [
                {"text": f"{prompt} Biraz kısa bir yanıt ({n}).", "score": 6, "reason": "Kısa."},
                {"text": f"KÖTÜ YANIT {n}!", "score": 0, "reason": "Bağırıyor."},
                {"text": f"{prompt} Tam, doğru ve yararlı bir yanıt ({n}).", "score": 9, "reason": "Tam."},
                {"text": f"{prompt} Genel bir yanıt ({n}).", "score": 3, "reason": "Genel."},
            ],
        }
        for n, prompt in enumerate(prompts, 1)
    ]
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture
def prompts() -> list[str]:
    return [f"{n}. soru nasıl yanıtlanır?" for n in range(1, 13)]


@pytest.fixture
def samples(settings, tmp_path, prompts):
    """Written samples for `prompts`, where the product looks for them."""
    settings.SAMPLES = write_samples(tmp_path / "samples.jsonl", prompts)
    return settings.SAMPLES


@pytest.fixture
def dataset(cast, prompts):
    return datasets.create(cast.acme, "destek", prompts, cast.engineer)


@pytest.fixture
def run(cast, dataset) -> RlaifRun:
    """A finished run with two pairs a prompt, none decided; the better candidate is named "iyi"."""
    job = jobs.enqueue(cast.acme, Job.Kind.RLAIF, cast.engineer)
    run = RlaifRun.objects.create(tenant=cast.acme, name="rlaif-0001", dataset=dataset, job=job, config={"seed": 7})
    for prompt in dataset.prompts.all():
        texts = (f"iyi {prompt.number}", f"orta {prompt.number}", f"kötü {prompt.number}")
        good, fair, bad = (
            Candidate.objects.create(
                run=run, prompt=prompt, number=n, text=text, source=Source.WRITTEN, generator="samples.jsonl"
            )
            for n, text in enumerate(texts, 1)
        )
        for a, b, proposal in ((good, fair, Choice.A), (bad, good, Choice.B)):
            PreferencePair.objects.create(
                tenant=cast.acme, run=run, prompt=prompt, a=a, b=b, proposal=proposal, score_a=5, score_b=6
            )
    return run
