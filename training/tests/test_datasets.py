"""What importing promises: every bad row is named, nothing is stored by halves, equal texts are one prompt."""

from __future__ import annotations

import io
import json
import unicodedata

import pytest
from django.utils import translation

from training import datasets
from training.models import Prompt, PromptDataset


@pytest.fixture(autouse=True)
def _english():
    with translation.override("en"):
        yield


def read(text: str | bytes, name: str = "prompts.jsonl") -> datasets.Parsed:
    return datasets.read(io.BytesIO(text.encode() if isinstance(text, str) else text), name)


def texts(parsed: datasets.Parsed) -> list[str]:
    return [row.text for row in parsed.rows]


def test_good_rows_are_read_in_order_and_empty_lines_skipped():
    parsed = read('{"prompt": "Kota nedir?"}\n\n{"prompt": " Bütçe nedir? ", "topic": "x"}')
    assert texts(parsed) == ["Kota nedir?", "Bütçe nedir?"]
    assert [row.line for row in parsed.rows] == [1, 3]
    assert parsed.errors == []


@pytest.mark.parametrize(
    ("line", "column", "reason"),
    [
        ('{"prompt": "a"', 15, "not valid JSON"),
        ('["prompt"]', 1, "JSON object"),
        ('{"soru": "a"}', 1, "missing; found: soru"),
        ('{"prompt": 7}', 1, "must be text"),
        ('{"prompt": "  "}', 1, "is empty"),
        (json.dumps({"prompt": "x" * 8_001}), 1, "8001 characters"),
        ('{"prompt": "a\\ud800"}', 1, "not text"),
        ('{"prompt": "a\\u0000"}', 1, "not text"),
        ("[" * 100_000, 1, "not valid JSON"),
        ('{"prompt": ' + "7" * 5_000 + "}", 1, "too many digits"),
        ('{"\\ud800": 1}', 1, r"missing; found: \ud800"),
    ],
)
def test_a_bad_row_is_named_by_line_column_and_reason(line, column, reason):
    parsed = read(f'{{"prompt": "iyi"}}\n{line}\n{{"prompt": "sonra"}}\n')
    assert texts(parsed) == ["iyi", "sonra"]
    [error] = parsed.errors
    assert (error.line, error.column) == (2, column)
    assert reason in error.reason
    assert str(error).encode()


def test_bytes_that_are_not_utf8_are_one_bad_row_and_not_the_end():
    parsed = read(b'{"prompt": "iyi"}\n{"prompt": "\xff"}\n{"prompt": "sonra"}\n')
    assert texts(parsed) == ["iyi", "sonra"]
    assert (parsed.errors[0].line, parsed.errors[0].column) == (2, 13)


def test_an_endless_line_is_one_bad_row_and_never_held_whole(monkeypatch):
    monkeypatch.setattr(datasets, "LINE_LIMIT", 64)
    parsed = read('{"prompt": "' + "x" * 1_000 + '"}\n{"prompt": "sonra"}\n')
    assert texts(parsed) == ["sonra"]
    assert "longer than 64 bytes" in parsed.errors[0].reason
    assert parsed.rows[0].line == 2


def test_equal_texts_are_one_prompt_however_they_were_typed():
    composed = "İade süresi kaç gündür, ağabey?"
    parsed = read(
        "\n".join(json.dumps({"prompt": form}) for form in (composed, unicodedata.normalize("NFD", composed)))
    )
    assert texts(parsed) == [composed]
    assert parsed.duplicates == [datasets.Duplicate(2, 1)]


def test_a_csv_is_read_with_its_byte_order_mark_and_semicolons():
    parsed = read('\ufeffid;prompt\n1;Kota nedir?\n2;"iki\nsatır; ve noktalı virgül"\n3;son\n', "sorular.CSV")
    assert texts(parsed) == ["Kota nedir?", "iki\nsatır; ve noktalı virgül", "son"]
    assert [row.line for row in parsed.rows] == [2, 3, 5]


def test_bad_rows_of_a_csv_are_named_by_line_and_field():
    body = b'id,prompt\n1,iyi\n2\n3,\n4,a,b\n5,"a" b\n6,\xff\n7,sonra\n'
    parsed = read(body, "sorular.csv")
    assert texts(parsed) == ["iyi", "sonra"]
    assert [error.line for error in parsed.errors] == [3, 4, 5, 6, 7]
    assert parsed.errors[1].column == 2


@pytest.mark.parametrize("name", ["a.jsonl", "a.csv"])
def test_missing_columns_name_those_that_were_found(name):
    body = '{"soru": "a", "id": 1}\n{"soru": "b", "id": 2}\n' if name.endswith("jsonl") else "id,soru\n1,a\n"
    with pytest.raises(datasets.MissingColumn, match="“prompt”; the columns found are: id, soru"):
        read(body, name)


@pytest.mark.parametrize(("body", "name"), [("", "a.jsonl"), ("\n\n", "a.jsonl"), ("prompt\n", "a.csv"), ("", "a.csv")])
def test_an_empty_file_is_an_error(body, name):
    with pytest.raises(datasets.Empty):
        read(body, name)


def test_another_format_is_refused_by_name():
    with pytest.raises(datasets.UnknownFormat, match=r"notes\.xlsx"):
        read("x", "notes.xlsx")


def test_nothing_is_stored_while_a_row_is_bad(cast):
    file = io.BytesIO(b'{"prompt": "iyi"}\n{"prompt": 1}\n')
    with pytest.raises(datasets.Malformed, match="line 2, column 1: “prompt” must be text") as caught:
        datasets.import_file(cast.acme, "destek", file, "a.jsonl", cast.engineer)
    assert len(caught.value.parsed.errors) == 1
    assert not PromptDataset.objects.exists()
    assert not Prompt.objects.exists()


def test_good_rows_are_kept_when_the_user_says_so(cast):
    file = io.BytesIO(b'{"prompt": "iyi"}\n{"prompt": 1}\n')
    dataset, parsed = datasets.import_file(cast.acme, "destek", file, "a.jsonl", cast.engineer, keep_good=True)
    assert [prompt.text for prompt in dataset.prompts.all()] == ["iyi"]
    assert len(parsed.errors) == 1


def test_keeping_good_rows_of_a_file_without_any_is_refused(cast):
    with pytest.raises(datasets.Malformed):
        datasets.import_file(cast.acme, "destek", io.BytesIO(b'{"prompt": 1}\n'), "a.jsonl", None, keep_good=True)


def test_versions_count_per_name_and_tenant_and_the_digest_follows_the_texts(cast):
    first = datasets.create(cast.acme, "destek", ["a", "b"], cast.engineer)
    second = datasets.create(cast.acme, "destek", ["a", "b"], cast.engineer)
    third = datasets.create(cast.acme, "destek", ["b", "a"], cast.engineer)
    other = datasets.create(cast.globex, "destek", ["a"], cast.outsider)
    assert [first.version, second.version, third.version, other.version] == [1, 2, 3, 1]
    assert first.digest == second.digest != third.digest
    assert [prompt.number for prompt in first.prompts.all()] == [1, 2]


def test_the_shipped_prompts_can_be_imported(cast, settings):
    for name, least in (("prompts.jsonl", 64), ("demo_prompts.jsonl", 5), ("test_single_prompt.jsonl", 1)):
        with (settings.ROOT / "data" / name).open("rb") as file:
            parsed = datasets.read(file, name)
        assert len(parsed.rows) >= least
        assert parsed.errors == []
        assert parsed.duplicates == []


def test_ten_thousand_rows_take_seconds(cast):
    body = "\n".join(json.dumps({"prompt": f"Soru {n}?"}) for n in range(10_000))
    dataset, _parsed = datasets.import_file(cast.acme, "çok", io.BytesIO(body.encode()), "a.jsonl", cast.engineer)
    assert dataset.prompts.count() == 10_000
