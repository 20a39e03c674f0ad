"""DPO for real, on a base model made here: it learns, repeats itself to the byte, leaks no path, leaves no halves."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command
from django.utils import translation

from inference.engines import known, recording
from training.dpo import config, evaluate, likelihood, pretrain, program

pytestmark = pytest.mark.training
SMALL = pretrain.Recipe(vocabulary=400, hidden=32, layers=2, heads=2, context=128, epochs=3)
TOPICS = ["kota", "anahtar", "bütçe", "yedek", "parola", "fatura", "kanarya", "günlük"]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    directory: Path = tmp_path_factory.mktemp("corpus")
    chats = [
        {"prompt": f"{topic} nedir?", "answer": f"{topic} her ay yenilenir; {word} sayfasında görürsünüz."}
        for topic in TOPICS
        for word in TOPICS
    ]
    text = "".join(json.dumps(chat, ensure_ascii=False) + "\n" for chat in chats)
    (directory / "sohbet.jsonl").write_text(text, encoding="utf-8")
    (directory / "metin.txt").write_text("Kota dolunca istek durur.\nYedek her gece alınır.\n", encoding="utf-8")
    return directory


@pytest.fixture(scope="module")
def base(corpus, tmp_path_factory) -> Path:
    path: Path = tmp_path_factory.mktemp("models") / "tiny"
    pretrain.build(corpus, path, 7, SMALL)
    return path


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> Path:
    """Eight pairs: the better answer explains, the worse one shrugs at the same length."""
    path: Path = tmp_path_factory.mktemp("pairs") / "pairs.jsonl"
    rows = [
        {
            "prompt": f"{topic} nedir?",
            "chosen": f"{topic} her ay yenilenir; sayfasında görürsünüz.",
            "rejected": f"{topic} nedir bilmem, kim bilir ne yapsanız da.",
        }
        for topic in TOPICS
    ]
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def settings(base: Path, dataset: Path, output: Path, **more: object) -> config.Config:
    values = {"base_model": str(base), "base_name": "demo-base", "train": str(dataset), "heldout": str(dataset)}
    return config.build({**values, "output_dir": str(output), "epochs": 6, "logging_steps": 1, "samples": 2, **more})


@pytest.fixture(scope="module")
def trained(base, dataset, tmp_path_factory) -> config.Config:
    chosen = settings(base, dataset, tmp_path_factory.mktemp("runs") / "one")
    program.train(chosen)
    return chosen


def digest(path: Path) -> dict[str, str]:
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in sorted(path.iterdir())}


def test_the_base_is_a_hugging_face_model_that_ends_its_answers(base):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(base)
    model = AutoModelForCausalLM.from_pretrained(base)
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": "kota nedir?"}], tokenize=False, add_generation_prompt=True
    )
    assert text == "<|user|>kota nedir?<|end|><|assistant|>"
    assert model.generation_config.eos_token_id == tokenizer.convert_tokens_to_ids("<|end|>")
    assert tokenizer.decode(tokenizer("ğüşıöç İ 🙂", add_special_tokens=False)["input_ids"]) == "ğüşıöç İ 🙂"


def test_the_same_seed_makes_the_same_base(corpus, base, tmp_path):
    pretrain.build(corpus, tmp_path / "again", 7, SMALL)
    pretrain.build(corpus, tmp_path / "other", 8, SMALL)
    assert digest(tmp_path / "again") == digest(base)
    assert digest(tmp_path / "other")["model.safetensors"] != digest(base)["model.safetensors"]


def test_eight_pairs_teach_it(trained):
    points = [json.loads(line) for line in (trained.output / "metrics.jsonl").read_text().splitlines()]
    train = [point for point in points if point["split"] == "train"]
    assert set(train[0]) == {"step", "split", "loss", "reward_margin", "reward_accuracy", "learning_rate"}
    assert [point["step"] for point in train] == sorted({point["step"] for point in train})
    assert train[0]["loss"] == pytest.approx(0.6931, abs=1e-3)  # ln 2: nothing learned yet
    assert train[-1]["loss"] < 0.6
    heldout = [point for point in points if point["split"] == "heldout"]
    assert heldout[-1]["reward_margin"] > 0.1
    assert heldout[-1]["reward_accuracy"] == 1.0


def test_an_adapter_is_two_files_that_name_the_base_without_a_path_and_its_known_answers(trained):
    assert sorted(file.name for file in trained.adapter.iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
        known.NAME,
    ]
    recorded = known.parse((trained.adapter / known.NAME).read_bytes())
    assert recorded.base == "demo-base"
    assert len(recorded.cases) == len(recording.PROMPTS)
    assert any(
        abs(a - b) > known.APART for c in recorded.cases for a, b in zip(c.logprobs, c.base_logprobs, strict=True)
    )
    described = json.loads((trained.adapter / "adapter_config.json").read_text())
    assert described["base_model_name_or_path"] == "demo-base"
    assert str(trained.output.parent) not in (trained.adapter / "adapter_config.json").read_text()


def test_the_same_run_gives_the_same_bytes(trained, base, dataset, tmp_path):
    again = settings(base, dataset, tmp_path / "two")
    program.train(again)
    assert digest(again.adapter) == digest(trained.adapter)


def test_the_evaluation_agrees_with_trl_s_own_curve(trained):
    evaluate.evaluate(trained)
    result = json.loads((trained.output / "evaluation.json").read_text(encoding="utf-8"))
    last = [json.loads(line) for line in (trained.output / "metrics.jsonl").read_text().splitlines()][-1]
    assert last["split"] == "heldout"
    assert result["reward_margin"] == pytest.approx(last["reward_margin"], rel=1e-3)
    assert result["reward_accuracy"] == last["reward_accuracy"]
    assert (result["pairs"], result["pairs_similar_length"], result["prompts"]) == (8, 8, 8)
    assert result["reward_accuracy_low"] == pytest.approx(0.6756, abs=1e-3)
    assert [set(sample) for sample in result["samples"]] == [{"prompt", "base", "adapter", "chosen"}] * 2


def test_pairs_that_training_leaves_out_are_not_evaluated_as_losses(trained, dataset, tmp_path):
    long = {"prompt": "kota anahtar bütçe yedek " * 40, "chosen": "kota", "rejected": "yedek"}
    both = tmp_path / "both.jsonl"
    both.write_text(dataset.read_text(encoding="utf-8") + json.dumps(long) + "\n", encoding="utf-8")
    evaluate.evaluate(dataclasses.replace(trained, heldout=str(both), max_length=100))
    result = json.loads((trained.output / "evaluation.json").read_text(encoding="utf-8"))
    assert (result["pairs"], result["pairs_left_out"], result["reward_accuracy"]) == (8, 1, 1.0)


def test_a_perplexity_beyond_all_numbers_is_infinite():
    assert evaluate.perplexity([likelihood.Likelihood(-1e6, 1)]) == float("inf")


def test_likelihoods_are_those_of_the_model_s_own_loss(base):
    """Batched with padding here, one by one and unpadded there."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer, model = AutoTokenizer.from_pretrained(base), AutoModelForCausalLM.from_pretrained(base).eval()
    answers = [("kota nedir?", "kota her ay yenilenir."), ("fatura?", "bilmem"), ("a", "yedek " * 20)]
    for (prompt, answer), found in zip(answers, likelihood.measure(model, tokenizer, answers, 128), strict=True):
        ids = torch.tensor([tokenizer(f"<|user|>{prompt}<|end|><|assistant|>{answer}<|end|>")["input_ids"]])
        labels = ids.clone()
        labels[:, : ids[0].tolist().index(tokenizer.convert_tokens_to_ids("<|assistant|>")) + 1] = -100
        with torch.inference_mode():
            assert found.mean == pytest.approx(-model(ids, labels=labels).loss.item(), rel=1e-5)
        assert found.tokens == int((labels != -100).sum())


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"base_model": "/nowhere/model"}, "There is no base model in /nowhere/model"),
        ({"target_modules": ["no_such_layer"]}, "has no layer named no_such_layer"),
        ({"max_length": 16, "train": "LONG"}, "Every prompt is longer than max_length"),
    ],
    ids=["unknown base", "unknown layer", "long prompts"],
)
def test_a_run_that_cannot_be_leaves_nothing(base, dataset, tmp_path, change, sentence):
    long = {"prompt": "kota anahtar bütçe yedek " * 9, "chosen": "kota", "rejected": "yedek"}
    (tmp_path / "long.jsonl").write_text(json.dumps(long), encoding="utf-8")
    change = {name: str(tmp_path / "long.jsonl") if value == "LONG" else value for name, value in change.items()}
    with pytest.raises(config.Refusal, match=sentence):
        program.train(settings(base, dataset, tmp_path / "run", **change))
    assert not (tmp_path / "run").exists()


def test_a_hub_id_that_cannot_be_reached_is_one_sentence(dataset, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(config.Refusal, match="The base model nobody/nothing cannot be loaded"):
        program.train(settings(Path("nobody/nothing"), dataset, tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_the_command_trains_and_evaluates_on_files_alone(base, dataset, tmp_path, capsys):
    arguments = {"base_model": str(base), "dataset": str(dataset), "heldout": str(dataset), "epochs": 6}
    call_command("dpo_train", output_dir=str(tmp_path / "out"), **arguments)
    said = capsys.readouterr().out
    assert "1.000" in said
    assert str(tmp_path / "out" / "adapter") in said
    described = json.loads((tmp_path / "out" / "adapter" / "adapter_config.json").read_text())
    assert described["base_model_name_or_path"] == "tiny"


def test_a_failed_evaluation_does_not_say_that_nothing_was_kept(base, dataset, tmp_path, capfd):
    long = {"prompt": "kota anahtar bütçe yedek " * 200, "chosen": "kota", "rejected": "yedek"}
    (tmp_path / "long.jsonl").write_text(json.dumps(long), encoding="utf-8")
    files = {"dataset": str(dataset), "heldout": str(tmp_path / "long.jsonl"), "output_dir": str(tmp_path / "out")}
    with translation.override("en"), pytest.raises(CommandError, match="evaluation ended early") as failed:
        call_command("dpo_train", base_model=str(base), epochs=1, **files)
    assert failed.value.returncode == 2
    assert "Every held-out prompt is longer than max_length" in capfd.readouterr().err
    assert (tmp_path / "out" / "adapter").is_dir()
    assert (tmp_path / "out" / "config.json").is_file()


def test_the_command_keeps_nothing_of_a_refused_run(base, tmp_path, capfd):
    (tmp_path / "bad.jsonl").write_text('{"prompt": "a", "chosen": "b"}\n')
    with pytest.raises(CommandError) as refused:
        call_command(
            "dpo_train", base_model=str(base), dataset=str(tmp_path / "bad.jsonl"), output_dir=str(tmp_path / "out")
        )
    assert refused.value.returncode == 2
    assert "bad.jsonl, line 1: missing columns: rejected." in capfd.readouterr().err
    assert not (tmp_path / "out").exists()
