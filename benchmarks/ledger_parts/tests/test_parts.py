"""A run that was cut goes on: what is measured for this commit and size is kept, everything else measured."""

from __future__ import annotations

import json

import pytest

from benchmarks import harness, ledger, suite
from benchmarks.ledger_parts import cut
from benchmarks.ledger_parts.stand import Database


class NoDatabase(Database):
    def __init__(self):
        self.postgres, self.template = True, "postgres://nowhere/template"

    def close(self):
        pass


@pytest.fixture
def stored(tmp_path, monkeypatch):
    """Measures nothing: each part's figure is 1. Answers the parts that were measured and where they are kept."""
    measured: list[str] = []

    def measure(bench, name, database, directory):
        measured.append(name)
        return keep(home, name)

    home = tmp_path / "ledger-parts"
    home.mkdir()
    monkeypatch.setattr(suite, "KEPT", tmp_path)
    monkeypatch.setattr(suite.Suite, "measured", measure)
    monkeypatch.setattr(harness, "commit", lambda: "abc1234")
    return measured, home


def keep(directory, name, commit="abc1234", quick=harness.QUICK):
    part = {"part": name, "commit": commit, "quick": quick, "at": "2026-11-25", "seconds": 1, "figures": {"lost": 1}}
    (directory / f"{name}.json").write_text(json.dumps(part))
    return part


def test_parts_of_this_commit_are_not_measured_again(stored, capsys):
    measured, directory = stored
    keep(directory, "race")
    keep(directory, "events", commit="0000000")
    keep(directory, "copy", quick=not harness.QUICK)
    (directory / "pages.json").write_text("{")  # the machine went down while it was written
    parts = ledger.SUITE.measure(ledger.SUITE.arguments([]), NoDatabase())
    assert list(parts) == list(ledger.SUITE.parts)
    assert measured == ["events", "copy", "pages", "revocation", "cost"]
    assert "race: kept from 2026-11-25" in capsys.readouterr().out


def test_fresh_measures_all_and_part_only_one(stored):
    measured, directory = stored
    keep(directory, "race")
    ledger.SUITE.measure(ledger.SUITE.arguments(["--fresh", "--part", "race"]), NoDatabase())
    assert measured == ["race"]


def test_the_calls_settled_in_what_was_cut_off_are_named(tmp_path):
    path = tmp_path / "appendonlydir" / "appendonly.aof.2.incr.aof"
    path.parent.mkdir()
    event = b'{"request_id":"req_%s","status":"settled"}'
    command = b"*5\r\n$4\r\nXADD\r\n$8\r\nps:usage\r\n$15\r\n1764055555555-0\r\n$5\r\nevent\r\n$40\r\n"
    hold = b"*4\r\n$4\r\nHSET\r\n$8\r\nps:holds\r\n$30\r\n"
    path.write_bytes(
        command + event % b"0a" + b"\r\n" + hold + event % b"0b" + b"\r\n" + command + event % b"0c" + b"\r\n"
    )
    size = path.stat().st_size
    gone = cut.off(cut.newest(tmp_path, 1), size - 20)
    assert path.stat().st_size == 20
    assert cut.settled_in(gone) == {"req_0c"}
    assert cut.settled_in(b"..." + path.read_bytes() + gone) == {"req_0a", "req_0c"}
