"""What a person can get wrong about a DPO run ends in one sentence, before anything heavy is imported."""

from __future__ import annotations

import errno
import json
import subprocess
import sys
from pathlib import Path

import pytest

from training.dpo import artifacts, config, pairs

GOOD = {"base_model": "m", "train": "t.jsonl", "output_dir": "o"}
ROW = {"prompt": "Kota nedir?", "chosen": "Üst sınırdır.", "rejected": "Bilmem."}


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"epochs": 0}, "epochs must be above 0"),
        ({"beta": "much"}, "beta must be a float"),
        ({"rank": True}, "rank must be a int"),
        ({"learning_rate": -1}, "learning_rate must be above 0"),
        ({"max_length": 8}, "at least 16 tokens"),
        ({"loss_type": "dpo"}, "loss_type must be one of"),
        ({"label_smoothing": 0.5}, r"label_smoothing must lie in \[0, 0.5\)"),
        ({"lr": 1}, "unknown settings: lr"),
    ],
)
def test_impossible_settings_are_refused(change, sentence):
    with pytest.raises(config.Refusal, match=sentence):
        config.build({**GOOD, **change})


def test_what_is_missing_is_named():
    with pytest.raises(config.Refusal, match="lacks: output_dir, train"):
        config.build({"base_model": "m"})


def test_a_base_goes_by_its_name_never_by_its_path(tmp_path):
    assert config.build({**GOOD, "base_model": str(tmp_path / "tiny")}).name == "tiny"
    assert config.build({**GOOD, "base_model": "org/model"}).name == "org/model"
    assert config.build({**GOOD, "base_model": str(tmp_path), "base_name": "demo-base"}).name == "demo-base"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "is empty"),
        ("\n\n", "is empty"),
        ("{", "line 1: not JSON"),
        ("[1]", "line 1: a row must be a JSON object"),
        (json.dumps(ROW) + '\n{"prompt": "a"}', "line 2: missing columns: chosen, rejected"),
        (json.dumps({**ROW, "chosen": " "}), "line 1: chosen must be text"),
        (json.dumps({**ROW, "rejected": ROW["chosen"]}), "line 1: chosen and rejected are the same"),
    ],
)
def test_a_bad_dataset_is_refused_with_its_line(tmp_path, text, sentence):
    path = tmp_path / "pairs.jsonl"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(config.Refusal, match=sentence):
        pairs.read(path)


def test_a_dataset_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(config.Refusal, match="no dataset file"):
        pairs.read(tmp_path / "none.jsonl")


def test_line_separators_inside_a_text_do_not_split_a_row(tmp_path):
    path = tmp_path / "pairs.jsonl"
    path.write_text(json.dumps({**ROW, "chosen": "bir\u2028iki\x85üç"}, ensure_ascii=False) + "\n", encoding="utf-8")
    assert pairs.read(path)[0].chosen == "bir\u2028iki\x85üç"


def test_similar_length_means_at_most_thirty_percent_shorter():
    assert pairs.Pair("p", "a" * 10, "b" * 7).similar_length
    assert not pairs.Pair("p", "a" * 10, "b" * 6).similar_length


def test_a_full_disk_is_one_sentence_and_leaves_nothing(tmp_path, capsys):
    def fill() -> None:
        with artifacts.whole(tmp_path / "adapter") as draft:
            (draft / "half").write_text("half")
            with open("/dev/full", "w") as full:
                full.write("x")

    assert artifacts.run(fill) == 2
    assert capsys.readouterr().err.startswith("The disk is full")
    assert list(tmp_path.iterdir()) == []


def test_a_torn_write_keeps_the_directory_that_was_there(tmp_path):
    with artifacts.whole(tmp_path / "base") as draft:
        (draft / "weights").write_text("old")

    def tear() -> None:
        with artifacts.whole(tmp_path / "base") as draft:
            (draft / "weights").write_text("new")
            raise OSError(errno.EIO, "gone")

    with pytest.raises(OSError, match="gone"):
        tear()
    assert (tmp_path / "base" / "weights").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["base"]


def test_the_program_refuses_without_importing_torch(tmp_path):
    """The same road as the product's: exit code 2, one sentence on stderr, nothing on disk."""
    written = tmp_path / "config.json"
    written.write_text(json.dumps({**GOOD, "train": str(tmp_path / "none.jsonl"), "output_dir": str(tmp_path / "o")}))
    code = (
        "import sys; from training.dpo import program; r = program.main(sys.argv[1:]); "
        "assert 'torch' not in sys.modules; sys.exit(r)"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code, str(written)], capture_output=True, text=True, cwd=root)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"There is no dataset file {tmp_path / 'none.jsonl'}.\n"
    assert not (tmp_path / "o").exists()
