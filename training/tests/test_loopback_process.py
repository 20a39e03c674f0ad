"""The loopback server started by its command lines."""

from __future__ import annotations

import pytest
from django.core.management import CommandError, call_command

from training.loopback import __main__ as process
from training.loopback.options import Options, parse


def test_flags_win_over_the_file_and_wrong_ones_are_named(tmp_path, capsys):
    file = tmp_path / "options.json"
    file.write_text('{"latency_ms": 300, "seed": 7, "refused_keys": ["a"]}')
    told, options = parse(["--port", "8900", "--options", str(file), "--seed", "9", "--credit-nano", "5"])
    assert told.port == 8_900
    assert options == Options(latency_ms=300, seed=9, refused_keys=["a"], credit_nano=5)
    with pytest.raises(SystemExit):
        parse(["--latency-ms", "soon"])
    assert "latency_ms" in capsys.readouterr().err


def test_the_command_serves_with_development_settings_only(settings, monkeypatch):
    started: list[list[str]] = []
    monkeypatch.setattr(process, "main", started.append)
    with pytest.raises(CommandError, match="development settings only"):
        call_command("fake_anthropic")
    monkeypatch.setattr("training.management.commands.fake_anthropic.DEV", settings.SETTINGS_MODULE)
    call_command("fake_anthropic")
    assert started == [[]]
