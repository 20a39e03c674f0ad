"""CPU of a server is that of all its processes; a call's share is what the window took, by the calls in it."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from benchmarks.gateway_parts import proc, speed

STAT = "77 (sh) x) S 5 77 77 0 -1 4194560 1 2 3 4 110 20 7 3 20 0 1 0 99 1000 2 18446744073709551615"


def test_the_ticks_are_found_behind_a_name_with_brackets():
    stat = proc.Stat(STAT)
    assert (stat.parent, stat.ticks) == (5, 140)


def test_a_family_is_everything_below_its_root_and_nothing_beside_it():
    parents = {1: 0, 10: 1, 11: 10, 12: 11, 20: 1, 21: 20}
    assert proc.descendants(parents, 10) == {10, 11, 12}
    assert proc.descendants(parents, 21) == {21}
    assert proc.descendants(parents, 99) == set()


def test_the_time_of_a_child_that_ended_counts():
    before = proc.cpu_seconds(os.getpid())
    busy = "import time\nwhile time.process_time() < 0.3: pass"
    subprocess.run([sys.executable, "-c", busy], check=True)
    assert proc.cpu_seconds(os.getpid()) - before >= 0.29


def test_the_machine_worked_at_least_as_much_as_one_process():
    before, own = proc.machine_seconds(), proc.cpu_seconds(os.getpid())
    subprocess.run([sys.executable, "-c", "import time\nwhile time.process_time() < 0.3: pass"], check=True)
    assert proc.machine_seconds() - before >= proc.cpu_seconds(os.getpid()) - own - 0.1 > 0.1


def test_a_process_has_memory():
    assert proc.rss_kb(os.getpid()) > 1_000
    with pytest.raises(FileNotFoundError):
        proc.rss_kb(2**22 + 1)


def test_a_call_takes_its_share_of_each_kind():
    assert speed.per_call((1.0, 0.5, 0.0), (2.0, 0.6, 0.0), 10_000) == [100.0, 10.0, 0.0]


def window(server, kind, cpu, redis=0.0, rps=100.0):
    return speed.Window(server, kind, 10, cpu, redis, 0.0, rps, 1.0, 2.0)


def test_figures_are_ratios_of_medians_whatever_one_round_did():
    windows = [
        *(window("ours", "json", cpu, redis=50.0, rps=1_000) for cpu in (100.0, 90.0, 900.0)),
        *(window("ours", "sse", cpu) for cpu in (200.0, 200.0, 200.0)),
        *(window("litellm", "json", cpu, redis=150.0, rps=50) for cpu in (9_000.0, 8_850.0, 1.0)),
        *(window("litellm", "sse", cpu) for cpu in (20_000.0, 20_000.0, 20_000.0)),
        *(window("nginx", "json", cpu) for cpu in (20.0, 20.0, 20.0)),
    ]
    found = speed.figures(windows, {"ours": [1.0, 2.0, 9.0], "litellm": [20.0], "nginx": [0.1]})
    assert found == {
        "redis_us": 50.0,
        "nginx_cpu_ratio": 5.0,
        "litellm_cpu_ratio_json": 88.5,
        "litellm_cpu_ratio_sse": 100.0,
        "total_cpu_ratio_json": 60.0,
        "litellm_rps_ratio": 20.0,
        "ttfc_ratio": 10.0,
    }


def test_without_the_peer_its_figures_are_not_there():
    windows = [window("ours", "json", 100.0), window("nginx", "json", 20.0)]
    assert set(speed.figures(windows, {"ours": [1.0], "nginx": [0.1]})) == {"redis_us", "nginx_cpu_ratio"}
