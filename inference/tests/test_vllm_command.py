"""What vLLM is started with on which hardware, and which wishes are refused before it starts."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from inference.engines import hardware, vllm
from inference.engines.hardware import Hardware
from inference.engines.vllm import Options

T4 = Hardware(("Tesla T4",), 15.0, (7, 5))
L4 = Hardware(("NVIDIA L4",) * 2, 22.5, (8, 9))
A10 = Hardware(("NVIDIA A10G",), 22.5, (8, 6))
A100 = Hardware(("NVIDIA A100-SXM4-80GB",) * 8, 80.0, (8, 0))
H100 = Hardware(("NVIDIA H100 80GB HBM3",) * 4, 79.6, (9, 0))
H200 = Hardware(("NVIDIA H200",), 140.0, (9, 0))
OLD = Hardware(("Tesla V100-SXM2-16GB",), 16.0, (7, 0))
NEW = Hardware(("NVIDIA RTX PRO 6000 Blackwell",), 95.0, (12, 0))
MIXED = Hardware(("NVIDIA L4", "Tesla T4"), 15.0, (7, 5))
CPU, NARROW = Hardware(wide=True), Hardware()
BASE = Options("org/model")


@pytest.fixture
def model(tmp_path: Path):
    def make(name: str = "model", **config: Any) -> str:
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(json.dumps({"num_attention_heads": 32, **config}))
        return str(tmp_path / name)

    return make


def value(argv: list[str], flag: str) -> str:
    return argv[argv.index(flag) + 1]


@pytest.mark.parametrize(
    ("machine", "name", "dtype", "slots"),
    [
        (T4, "T4", "float16", "4"),
        (L4, "L4", "bfloat16", "8"),
        (A10, "A10", "bfloat16", "8"),
        (A100, "A100", "bfloat16", "16"),
        (H100, "H100", "bfloat16", "30"),
        (H200, "H200", "bfloat16", "30"),
        (NEW, "GPU", "bfloat16", "8"),
        (CPU, "CPU", "float32", "16"),
    ],
)
def test_each_hardware_has_its_preset(machine: Hardware, name: str, dtype: str, slots: str):
    assert hardware.preset(machine).name == name
    argv, _ = vllm.command(replace(BASE, tenants=10), machine)
    assert value(argv, "--dtype") == dtype
    assert (value(argv, "--max-loras"), value(argv, "--max-cpu-loras")) == (slots, "30")
    assert ("--enforce-eager" in argv) == (name == "CPU")
    assert ("--gpu-memory-utilization" in argv) == (name != "CPU")


def test_champion_challenger_and_spare_of_each_tenant_have_room():
    argv, env = vllm.command(replace(BASE, tenants=5, max_lora_rank=32, ranks=(8, 32)), H100)
    flags = ("--max-loras", "--max-cpu-loras", "--max-lora-rank")
    assert [value(argv, flag) for flag in flags] == ["15", "15", "32"]
    assert env["VLLM_ALLOW_RUNTIME_LORA_UPDATING"] == "True"
    argv, env = vllm.command(replace(BASE, tenants=0), H100)
    assert "--enable-lora" not in argv
    assert "VLLM_ALLOW_RUNTIME_LORA_UPDATING" not in env


def test_no_key_no_wide_address_and_no_talk_home_are_in_a_command():
    argv, env = vllm.command(BASE, A100)
    assert value(argv, "--host") == "127.0.0.1"
    assert value(argv, "--middleware") == "inference.engines.lock.Lock"
    assert "--api-key" not in argv
    assert "VLLM_API_KEY" not in env
    assert env["VLLM_NO_USAGE_STATS"] == "1"


def test_a_model_that_is_here_is_looked_for_nowhere_else(model):
    assert vllm.command(replace(BASE, model=model()), CPU).env["HF_HUB_OFFLINE"] == "1"
    assert "HF_HUB_OFFLINE" not in vllm.command(BASE, CPU).env


@pytest.mark.parametrize(
    ("kind", "draft", "expected"),
    [
        ("ngram", "", {"method": "ngram", "prompt_lookup_min": 2, "prompt_lookup_max": 4}),
        ("eagle", "org/eagle", {"method": "eagle", "model": "org/eagle"}),
        ("eagle3", "org/eagle3", {"method": "eagle3", "model": "org/eagle3"}),
        ("draft", "org/small", {"method": "draft_model", "model": "org/small"}),
    ],
)
def test_speculation_is_one_json_value(kind: str, draft: str, expected: dict[str, Any]):
    options = replace(BASE, speculation=kind, draft_model=draft, speculative_tokens=5)
    argv, _ = vllm.command(options, L4)
    assert json.loads(value(argv, "--speculative-config")) == expected | {"num_speculative_tokens": 5}
    assert any("speculation" in note for note in vllm.notes(options, L4))


def test_wishes_go_before_presets():
    wishes = replace(BASE, dtype="float16", max_num_seqs=7, max_model_len=2048, memory=0.5, tensor_parallel=2)
    argv, _ = vllm.command(replace(wishes, kv_cache_dtype="fp8", prefix_caching=False), L4)
    flags = ("--dtype", "--max-num-seqs", "--max-model-len", "--gpu-memory-utilization", "--tensor-parallel-size")
    assert [value(argv, flag) for flag in flags] == ["float16", "7", "2048", "0.5", "2"]
    assert value(argv, "--kv-cache-dtype") == "fp8"
    assert "--no-enable-prefix-caching" in argv
    assert vllm.command(replace(BASE, memory=6), CPU).env["VLLM_CPU_KVCACHE_SPACE"] == "6"


@pytest.mark.parametrize(
    ("wish", "machine", "says"),
    [
        ({"kv_cache_dtype": "fp8"}, T4, "8.0 or newer; this is 7.5. Use --kv-cache-dtype auto"),
        ({"kv_cache_dtype": "fp8"}, NARROW, "AVX-512. Use --kv-cache-dtype auto"),
        ({"kv_cache_dtype": "int3"}, H100, "Choose auto or fp8"),
        ({"dtype": "bfloat16"}, T4, "Use --dtype float16"),
        ({"dtype": "int4"}, H100, "Choose float16, bfloat16, float32"),
        ({}, OLD, "7.5 or newer"),
        ({"memory": 24}, H100, "share of it"),
        ({"memory": 0.5}, CPU, "GiB of cache"),
        ({"tensor_parallel": 4}, L4, "there are 2. Use --tensor-parallel 2"),
        ({"tensor_parallel": 2}, MIXED, "CUDA_VISIBLE_DEVICES"),
        ({"tensor_parallel": 2}, CPU, "Use --tensor-parallel 1"),
        ({"tensor_parallel": 0}, H100, "1 GPU at least"),
        ({"speculation": "eagle"}, H100, "needs --draft-model"),
        ({"speculation": "draft"}, H100, "needs --draft-model"),
        ({"speculation": "draft", "draft_model": "/nowhere"}, H100, "There is no model in /nowhere"),
        ({"speculation": "medusa"}, H100, "Choose ngram, eagle, eagle3, draft"),
        ({"draft_model": "org/small"}, H100, "would not be used"),
        ({"speculation": "ngram", "speculative_tokens": 0}, H100, "1 to 16"),
        ({"ranks": (8, 48)}, H100, "rank 48 .* maximum 16. Use --max-lora-rank 64"),
        ({"ranks": (1024,)}, H100, "rank 512 or less"),
        ({"max_lora_rank": 17}, H100, "8, 16, 32"),
        ({"tenants": -1}, H100, "0 or more"),
        ({"port": 0}, H100, "from 1 to 65535"),
    ],
)
def test_what_cannot_be_is_refused_with_what_to_do(wish: dict[str, Any], machine: Hardware, says: str):
    with pytest.raises(vllm.Refused, match=says):
        vllm.command(replace(BASE, **wish), machine)


def test_heads_that_do_not_divide_are_refused(model):
    options = Options(model(num_attention_heads=40, num_key_value_heads=8), tensor_parallel=3)
    with pytest.raises(vllm.Refused, match=r"40 attention heads .* Use one of \[1, 2, 4, 5, 8\]"):
        vllm.command(options, A100)
    assert vllm.command(replace(options, tensor_parallel=8), A100)
    with pytest.raises(vllm.Refused, match="8 heads of keys and values"):
        vllm.command(replace(options, tensor_parallel=5), A100)


def test_a_head_that_no_cpu_serves_and_a_draft_of_another_family_are_refused(model):
    with pytest.raises(vllm.Refused, match="heads of 8 numbers. Use the embedded engine"):
        vllm.command(Options(model(hidden_size=256)), CPU)
    own, other = model("own", vocab_size=100), model("other", vocab_size=200)
    with pytest.raises(vllm.Refused, match="a model of its family"):
        vllm.command(Options(own, speculation="draft", draft_model=other), H100)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "10.1.2.3", "172.31.0.9", "192.168.1.5", "::1", "fd00::1"])
def test_it_listens_on_loopback_and_in_private_networks(host: str):
    assert value(vllm.command(replace(BASE, host=host), CPU).argv, "--host") == host


@pytest.mark.parametrize(
    "host", ["0.0.0.0", "::", "8.8.8.8", "172.32.0.1", "169.254.1.1", "100.64.0.1", "2001:db8::1", "", "engine.example"]
)
def test_it_listens_nowhere_else(host: str):
    with pytest.raises(vllm.Refused):
        vllm.command(replace(BASE, host=host), CPU)


def test_nvidia_smi_is_read():
    text = "NVIDIA H100 80GB HBM3, 81559, 9.0\nNVIDIA H100 80GB HBM3, 81559, 9.0\n"
    assert hardware.parse(text) == Hardware(("NVIDIA H100 80GB HBM3",) * 2, 81559 / 1024, (9, 0))
    assert hardware.parse("NVIDIA L4, 23034, 8.9\nTesla T4, 15360, 7.5\n") == Hardware(
        ("NVIDIA L4", "Tesla T4"), 15.0, (7, 5)
    )
    assert hardware.parse("NVIDIA-SMI has failed because it couldn't communicate with the driver.") is None
    assert hardware.parse("Tesla T4, [N/A], 7.5") is None
    assert hardware.parse("") is None


@pytest.mark.parametrize(
    ("script", "found"),
    [
        ("echo 'NVIDIA L4, 23034, 8.9'", Hardware(("NVIDIA L4",), 23034 / 1024, (8, 9))),
        ("echo 'No devices were found'", hardware.cpu()),
        ("echo broken >&2; exit 9", hardware.cpu()),
    ],
)
def test_without_a_gpu_that_answers_it_is_a_cpu(monkeypatch, tmp_path: Path, script: str, found: Hardware):
    program = tmp_path / "nvidia-smi"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert hardware.detect() == found
