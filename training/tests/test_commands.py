"""What the commands on files promise: honest names, whole files, exit codes, and no secret on the screen."""

from __future__ import annotations

import errno
import io
import json
import os
import stat
import sys
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command
from django.utils import translation

from training import files
from training.management.commands import dpo_train
from training.problems import DiskFull, Problem
from training.tests import messages_api
from training.tests.conftest import KEY
from training.tests.test_rlaif import claude_says

ROW = {"prompt", "chosen", "rejected", "chosen_score", "rejected_score", "generator", "judge"}


@pytest.fixture(autouse=True)
def _english(settings):
    settings.ENGINE_URL = "http://127.0.0.1:9"
    with translation.override("en"):
        yield


@pytest.fixture
def prompt_file(tmp_path, prompts):
    path = tmp_path / "prompts.jsonl"
    path.write_text("".join(json.dumps({"prompt": prompt}) + "\n" for prompt in prompts))
    return path


def generate(prompts: Path, output: Path, *options: str) -> tuple[list[dict], str]:
    out, err = io.StringIO(), io.StringIO()
    call_command(
        "generate_preferences", "--prompts", str(prompts), "--output", str(output), *options, stdout=out, stderr=err
    )
    rows = [json.loads(line) for line in output.read_text().splitlines()]
    return rows, out.getvalue() + err.getvalue()


def test_without_a_key_written_samples_are_used_and_called_so(prompt_file, samples, tmp_path):
    rows, said = generate(prompt_file, tmp_path / "out.jsonl", "--num-responses", "4")
    assert len(rows) == 36
    assert all(set(row) == ROW for row in rows)
    assert {row["generator"] for row in rows} == {"written:samples.jsonl"}
    assert {row["judge"] for row in rows} == {"written:samples.jsonl"}
    assert all(row["chosen_score"] - row["rejected_score"] >= 2 for row in rows)
    assert "hazır örnek" in said


def test_it_needs_no_database(prompt_file, samples, tmp_path):
    # without the `db` fixture pytest-django fails every query
    generate(prompt_file, tmp_path / "out.jsonl", "--generator", "written", "--judge", "rules")


def test_rule_checks_abstain_and_say_how_often(prompt_file, samples, tmp_path):
    rows, said = generate(prompt_file, tmp_path / "out.jsonl", "--generator", "written", "--judge", "rules")
    assert {row["judge"] for row in rows} == {"rules:rules-1"}
    assert 0 < len(rows) < 36
    assert f"{36 - len(rows)} pairs without a winner" in said


def test_fewer_answers_make_fewer_pairs(prompt_file, samples, tmp_path):
    rows, _said = generate(prompt_file, tmp_path / "out.jsonl", "--num-responses", "2")
    assert len(rows) == 12
    assert all((row["chosen_score"], row["rejected_score"]) == (9, 0) for row in rows)


def test_with_a_key_claude_answers_and_judges_after_a_quote(prompt_file, api, tmp_path):
    api.default = claude_says
    rows, said = generate(prompt_file, tmp_path / "out.jsonl", "--num-responses", "2")
    assert len(rows) == 12
    assert {row["generator"] for row in rows} == {"claude:claude-haiku-5-5"}
    assert all(row["judge"].startswith("claude:claude-haiku-5-5 rubric-1-") for row in rows)
    assert "48 calls to Claude" in said
    assert "commercial terms" in said
    assert KEY not in said


@pytest.mark.parametrize(
    ("answer", "words"),
    [(messages_api.UNAUTHORIZED, "does not accept the key"), (messages_api.LOW_CREDIT, "Plans & Billing")],
)
def test_a_refused_key_writes_nothing(prompt_file, api, tmp_path, answer, words):
    api.default = lambda request: answer
    with pytest.raises(CommandError, match=words):
        generate(prompt_file, tmp_path / "out.jsonl", "--num-responses", "2")
    assert not (tmp_path / "out.jsonl").exists()


def test_the_cost_cap_stops_it(prompt_file, api, tmp_path):
    with pytest.raises(CommandError, match="cost cap"):
        generate(prompt_file, tmp_path / "out.jsonl", "--max-cost", "0.0001")


@pytest.mark.parametrize("key", ["sk-ant-admin01-x", "sk-ant-oat01-x", "sk-proj-x", ""])
def test_claude_with_the_wrong_kind_of_key_is_told_apart(prompt_file, settings, tmp_path, key):
    settings.ANTHROPIC_API_KEY = key
    with pytest.raises(CommandError, match="(?i)key"):
        generate(prompt_file, tmp_path / "out.jsonl", "--generator", "claude")


def test_bad_rows_are_named_and_nothing_is_written(samples, tmp_path, prompts, capsys):
    path = tmp_path / "bad.jsonl"
    path.write_text(json.dumps({"prompt": prompts[0]}) + "\n{broken\n" + '{"prompt": 3}\n')
    err = io.StringIO()
    with pytest.raises(CommandError):
        call_command("generate_preferences", "--prompts", path, "--output", tmp_path / "o.jsonl", stderr=err)
    assert "bad.jsonl, line 2, column 2: not valid JSON" in err.getvalue()
    assert "bad.jsonl, line 3, column 1: “prompt” must be text" in err.getvalue()
    assert not (tmp_path / "o.jsonl").exists()
    rows, said = generate(path, tmp_path / "o.jsonl", "--keep-good")
    assert len(rows) == 3
    assert "line 2" in said


@pytest.mark.parametrize(("body", "words"), [("", "is empty"), ('{"soru": "x"}\n', "columns found are: soru")])
def test_a_file_without_prompts_is_refused(tmp_path, body, words):
    path = tmp_path / "p.jsonl"
    path.write_text(body)
    with pytest.raises(CommandError, match=words):
        generate(path, tmp_path / "out.jsonl")


def test_a_missing_file_and_a_missing_directory_are_said_plainly(prompt_file, samples, tmp_path):
    with pytest.raises(CommandError, match=r"nothing\.jsonl cannot be read: No such file"):
        generate(tmp_path / "nothing.jsonl", tmp_path / "out.jsonl")
    with pytest.raises(CommandError, match=r"out\.jsonl cannot be written: No such file"):
        generate(prompt_file, tmp_path / "missing" / "out.jsonl")


@pytest.mark.parametrize("options", [("--generator", "engine"), ()])
def test_the_engine_down_is_said_with_what_to_do(prompt_file, settings, tmp_path, options):
    settings.SAMPLES = tmp_path / "none.jsonl"
    with pytest.raises(CommandError, match=r"127\.0\.0\.1:9.*make up"):
        generate(prompt_file, tmp_path / "out.jsonl", *options)


def test_a_judge_that_can_tell_nothing_writes_nothing(prompt_file, api, tmp_path):
    with pytest.raises(CommandError, match="No judge could tell"):
        generate(prompt_file, tmp_path / "out.jsonl", "--generator", "claude", "--judge", "written")


def test_a_full_disk_leaves_the_old_file_as_it_was(tmp_path, monkeypatch):
    path = tmp_path / "out.jsonl"
    path.write_text("old\n")

    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DiskFull):
        files.write(path, [{"prompt": "x"}])
    assert path.read_text() == "old\n"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("earlier", [True, False])
def test_a_refused_training_keeps_an_earlier_run_as_it_was(tmp_path, earlier):
    out = tmp_path / "out"
    if earlier:
        (out / "adapter").mkdir(parents=True)
        (out / "config.json").write_text("earlier")
    (tmp_path / "bad.jsonl").write_text('{"prompt": "a", "chosen": "b"}\n')
    with pytest.raises(CommandError, match="ended early") as refused:
        call_command("dpo_train", base_model="m", dataset=str(tmp_path / "bad.jsonl"), output_dir=str(out))
    assert refused.value.returncode == 2
    assert out.exists() == earlier
    if earlier:
        assert (out / "config.json").read_text() == "earlier"
        assert sorted(path.name for path in out.iterdir()) == ["adapter", "config.json"]


def test_a_diverged_evaluation_is_no_verdict(tmp_path):
    (tmp_path / "evaluation.json").write_text('{"pairs": 3, "reward_accuracy": 0.0, "reward_margin": NaN}')
    with pytest.raises(Problem, match="reward_margin"):
        dpo_train.verdict(tmp_path)


def set_up(monkeypatch, typed: str, *options: str) -> str:
    monkeypatch.setattr(sys, "stdin", io.StringIO(typed))
    out = io.StringIO()
    call_command("setup_api_key", *options, stdout=out, stderr=out)
    return out.getvalue()


@pytest.fixture
def stored(settings, tmp_path):
    settings.VAR = tmp_path / "var"
    return settings.VAR / "secrets" / "anthropic"


def test_a_working_key_is_stored_for_its_owner_only_and_never_shown(api, stored, monkeypatch):
    said = set_up(monkeypatch, KEY + "\n")
    assert stored.read_text().strip() == KEY
    assert stat.S_IMODE(stored.stat().st_mode) == 0o600
    assert stat.S_IMODE(stored.parent.stat().st_mode) == 0o700
    assert KEY not in said
    assert "works" in said
    assert api.headers[0]["authorization"] == f"Bearer {KEY}"
    assert api.requests[0]["max_tokens"] == 1


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        ("sk-ant-admin01-x", "admin key"),
        ("sk-ant-oat01-x", "OAuth token"),
        ("sk-proj-x", "OpenAI"),
        ("ps_live_a_b_c", "Param Stack"),
        ("", "No Anthropic API key"),
        ("not a key", "not a key"),
    ],
)
def test_the_wrong_kind_of_key_is_not_stored(stored, monkeypatch, typed, words):
    with pytest.raises(CommandError, match=words):
        set_up(monkeypatch, typed)
    assert not stored.exists()


def test_a_key_that_anthropic_does_not_accept_is_not_stored(api, stored, monkeypatch):
    api.models = messages_api.UNAUTHORIZED
    with pytest.raises(CommandError, match="does not accept"):
        set_up(monkeypatch, KEY)
    assert not stored.exists()


def test_low_credit_is_explained_and_the_key_kept(api, stored, monkeypatch):
    api.script = [messages_api.LOW_CREDIT]
    with pytest.raises(CommandError, match="Plans & Billing"):
        set_up(monkeypatch, KEY)
    assert stored.read_text().strip() == KEY


def test_no_network_is_explained_and_can_be_left_out(stored, settings, monkeypatch):
    settings.ANTHROPIC_BASE_URL = "http://127.0.0.1:9"
    with pytest.raises(CommandError, match="cannot be reached"):
        set_up(monkeypatch, KEY)
    assert not stored.exists()
    assert "without a test" in set_up(monkeypatch, KEY, "--no-test")
    assert stored.exists()
