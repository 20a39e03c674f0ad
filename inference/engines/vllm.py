"""How vLLM is started: wishes and hardware in, command and environment out. Pure; `manage.py launch_vllm` runs it.

Flags are those of vLLM 0.32 and 0.33. What cannot work is refused here with what to do instead, because vLLM says it
after a minute of loading, if at all. The key is no part of a command: whoever starts it puts it into the environment.
"""

from __future__ import annotations

import ipaddress
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from inference.engines import hardware as machines
from inference.engines import lock
from inference.engines.hardware import Hardware, Preset

RANKS = (8, 16, 32, 64, 128, 256, 320, 512)  # what vLLM reserves room for
SPECULATIONS = ("ngram", "eagle", "eagle3", "draft")
DTYPES = ("float16", "bfloat16", "float32")
# A tenant's adapters: the champion, a challenger, and one that is being loaded while the two answer. vLLM does not free
# the room of an adapter when it is unloaded (vllm#54839), only when another one needs it.
PER_TENANT = 3
PRIVATE = tuple(
    ipaddress.ip_network(text)
    for text in ("127.0.0.0/8", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "::1/128", "fc00::/7")
)


class Refused(ValueError):
    """A wish that this hardware, this model or this product does not fulfil; says what to do instead."""


@dataclass(frozen=True, slots=True)
class Options:
    """Wishes; what is None or empty is the hardware's to say. `ranks` are those of the adapters to be served."""

    model: str
    name: str = ""
    host: str = "127.0.0.1"
    port: int = 8041
    dtype: str = ""
    tensor_parallel: int = 1
    max_model_len: int | None = None
    max_num_seqs: int | None = None
    memory: float | None = None  # share of a GPU, or GiB of cache on a CPU
    kv_cache_dtype: str = "auto"
    prefix_caching: bool = True
    tenants: int = 4
    max_lora_rank: int = 16
    ranks: tuple[int, ...] = ()
    speculation: str = ""
    draft_model: str = ""
    speculative_tokens: int = 4
    tool_call_parser: str = ""
    eager: bool = False

    @property
    def served_name(self) -> str:
        return self.name or Path(self.model).name

    @property
    def is_local(self) -> bool:
        return self.model.startswith(("/", ".")) or Path(self.model).is_dir()


class Launch(NamedTuple):
    argv: list[str]
    env: dict[str, str]


def command(options: Options, hardware: Hardware, python: str = "python") -> Launch:
    """What to run and what to add to its environment; raises Refused."""
    check(options, hardware)
    preset = machines.preset(hardware)
    argv = [python, "-m", "vllm.entrypoints.openai.api_server"]
    argv += ["--model", options.model, "--served-model-name", options.served_name]
    argv += ["--host", options.host, "--port", str(options.port)]
    argv += ["--middleware", f"{lock.__name__}.{lock.Lock.__name__}", "--disable-fastapi-docs"]
    argv += ["--disable-uvicorn-access-log"]
    argv += _compute(options, hardware, preset) + _cache(options) + _adapters(options, preset)
    if options.speculation:
        argv += ["--speculative-config", json.dumps(_speculation(options), separators=(",", ":"))]
    if options.tool_call_parser:
        argv += ["--enable-auto-tool-choice", "--tool-call-parser", options.tool_call_parser]
    return Launch(argv, _environment(options, hardware, preset))


def _compute(options: Options, hardware: Hardware, preset: Preset) -> list[str]:
    argv = ["--dtype", options.dtype or preset.dtype, "--max-num-seqs", str(options.max_num_seqs or preset.sequences)]
    if options.tensor_parallel > 1:
        argv += ["--tensor-parallel-size", str(options.tensor_parallel)]
    if not hardware.is_cpu:
        argv += ["--gpu-memory-utilization", f"{options.memory or preset.memory:g}"]
    if options.max_model_len or not hardware.is_cpu:  # a GPU's memory may be too small for all of a model's context
        argv += ["--max-model-len", str(options.max_model_len or "auto")]
    if options.eager or hardware.is_cpu:
        argv += ["--enforce-eager"]
    return argv


def _cache(options: Options) -> list[str]:
    if not options.prefix_caching:
        return ["--kv-cache-dtype", options.kv_cache_dtype, "--no-enable-prefix-caching"]
    # With the details the ledger knows which tokens came from the cache, and bills them so.
    return ["--kv-cache-dtype", options.kv_cache_dtype, "--enable-prefix-caching", "--enable-prompt-tokens-details"]


def _adapters(options: Options, preset: Preset) -> list[str]:
    """Room for every tenant's adapters in memory, and in one batch for as many of them as the hardware bears."""
    if not options.tenants:
        return []
    kept = options.tenants * PER_TENANT
    slots = min(kept, preset.slots)
    argv = ["--enable-lora", "--max-loras", str(slots), "--max-cpu-loras", str(kept)]
    return [*argv, "--max-lora-rank", str(options.max_lora_rank)]


def _speculation(options: Options) -> dict[str, Any]:
    if options.speculation == "ngram":
        found = {"method": "ngram", "prompt_lookup_min": 2, "prompt_lookup_max": 4}
    else:
        method = "draft_model" if options.speculation == "draft" else options.speculation
        found = {"method": method, "model": options.draft_model}
    return found | {"num_speculative_tokens": options.speculative_tokens}


def _environment(options: Options, hardware: Hardware, preset: Preset) -> dict[str, str]:
    env = {"VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"}
    if options.tenants:
        env["VLLM_ALLOW_RUNTIME_LORA_UPDATING"] = "True"
    if options.is_local:
        env["HF_HUB_OFFLINE"] = "1"
    if hardware.is_cpu:
        env["VLLM_CPU_KVCACHE_SPACE"] = f"{options.memory or preset.memory:.0f}"
    return env


def notes(options: Options, hardware: Hardware) -> list[str]:
    """What whoever starts it should know; nothing that stops it."""
    found = [f"{hardware}: preset {machines.preset(hardware).name}"]
    kept, slots = options.tenants * PER_TENANT, machines.preset(hardware).slots
    if kept > slots:
        found.append(f"{kept} adapters are kept and {slots} answer in one batch; calls of more wait for a place")
    if options.kv_cache_dtype == "fp8":
        found.append("an fp8 cache holds twice the tokens and rounds them: answers may differ from those without it")
        if not hardware.is_cpu and hardware.capability < (8, 9):
            found.append("this card only stores fp8, it computes without it: more tokens fit, none comes sooner")
    if options.speculation:
        found.append("speculation leaves greedy answers as they are and pays where few callers wait at a time")
        if options.tenants and options.speculation != "ngram":
            found.append("the draft knows the base model only: the further an adapter is from it, the less it saves")
    return found


def check(options: Options, hardware: Hardware) -> None:
    """Raises Refused for the first wish that cannot be fulfilled."""
    check_address(options.host, options.port)
    _check_hardware(options, hardware)
    _check_parallel(options, hardware)
    _check_adapters(options)
    _check_speculation(options)


def check_address(host: str, port: int) -> None:
    """vLLM trusts whoever reaches it with the key, so it listens where only its gateways are."""
    try:
        address = ipaddress.ip_address("127.0.0.1" if host == "localhost" else host)
    except ValueError:
        raise Refused(f"{host} is no address. Name one of this machine's, such as 127.0.0.1 or 10.0.0.5.") from None
    if not any(address in network for network in PRIVATE):
        raise Refused(
            f"The engine does not listen on {host}: its callers come through the gateway. "
            "Name 127.0.0.1, or this machine's address in a private network (10/8, 172.16/12, 192.168/16, fc00::/7)."
        )
    if not 0 < port < 65536:
        raise Refused(f"{port} is no port. Name one from 1 to 65535.")


def _check_hardware(options: Options, hardware: Hardware) -> None:
    if options.dtype and options.dtype not in DTYPES:
        raise Refused(f"There is no number type {options.dtype}. Choose {', '.join(DTYPES)}.")
    if options.kv_cache_dtype not in ("auto", "fp8"):
        raise Refused(f"The cache cannot be of type {options.kv_cache_dtype}. Choose auto or fp8.")
    fp8 = options.kv_cache_dtype == "fp8"
    if hardware.is_cpu:
        if fp8 and not hardware.wide:
            raise Refused("An fp8 cache on a CPU needs AVX-512. Use --kv-cache-dtype auto.")
        size = _head_size(_config(options.model))
        if size and size not in machines.CPU_HEADS:
            raise Refused(f"On a CPU vLLM has no attention for heads of {size} numbers. Use the embedded engine.")
        if options.memory is not None and options.memory < 1:
            raise Refused("On a CPU the memory is GiB of cache, 1 at least.")
        return
    if options.memory is not None and not 0 < options.memory <= 1:
        raise Refused("On a GPU the memory is vLLM's share of it, above 0 and at most 1, such as 0.9.")
    if hardware.capability < (7, 5):
        raise Refused(f"vLLM needs compute capability 7.5 or newer (a T4); this is {_dotted(hardware)}.")
    if options.dtype == "bfloat16" and hardware.capability < (8, 0):
        raise Refused(f"bfloat16 needs compute capability 8.0; this is {_dotted(hardware)}. Use --dtype float16.")
    if fp8 and hardware.capability < (8, 0):
        raise Refused(
            f"An fp8 cache needs compute capability 8.0 or newer; this is {_dotted(hardware)}. "
            "Use --kv-cache-dtype auto, and fewer sequences or a shorter context if memory is short."
        )


def _check_parallel(options: Options, hardware: Hardware) -> None:
    size = options.tensor_parallel
    if size < 1:
        raise Refused("Tensor parallelism is over 1 GPU at least.")
    if size == 1:
        return
    if hardware.is_cpu:
        raise Refused("Tensor parallelism needs GPUs and there is none. Use --tensor-parallel 1.")
    if size > len(hardware.names):
        raise Refused(
            f"Tensor parallelism over {size} GPUs, and there are {len(hardware.names)}. Use --tensor-parallel "
            f"{len(hardware.names)} or less."
        )
    if hardware.is_mixed:
        raise Refused("Tensor parallelism needs GPUs of one kind. Choose some with CUDA_VISIBLE_DEVICES.")
    config = _config(options.model)
    heads, shared = config.get("num_attention_heads"), config.get("num_key_value_heads")
    if heads and heads % size:
        fits = [n for n in range(1, len(hardware.names) + 1) if not heads % n]
        raise Refused(f"{heads} attention heads cannot be divided over {size} GPUs. Use one of {fits}.")
    if shared and shared % size and size % shared:
        raise Refused(f"{shared} heads of keys and values can be neither divided over {size} GPUs nor copied to them.")


def _check_adapters(options: Options) -> None:
    if options.tenants < 0:
        raise Refused("The number of tenants with adapters is 0 or more.")
    if options.max_lora_rank not in RANKS:
        raise Refused(f"The largest rank must be one that vLLM knows: {', '.join(map(str, RANKS))}.")
    largest = max(options.ranks, default=0)
    if options.tenants and largest > options.max_lora_rank:
        fits = [rank for rank in RANKS if rank >= largest]
        to_do = f"Use --max-lora-rank {fits[0]}." if fits else f"Train adapters of rank {RANKS[-1]} or less."
        raise Refused(
            f"An adapter of rank {largest} is to be served, above the maximum {options.max_lora_rank}. {to_do}"
        )


def _check_speculation(options: Options) -> None:
    kind, draft = options.speculation, options.draft_model
    if kind and kind not in SPECULATIONS:
        raise Refused(f"There is no speculation {kind}. Choose {', '.join(SPECULATIONS)}.")
    if kind in ("", "ngram"):
        if draft:
            raise Refused(f"{draft} would not be used. Name how it drafts: --speculation eagle, eagle3 or draft.")
    elif not draft:
        raise Refused(f"--speculation {kind} needs --draft-model, the model that drafts. Without one: ngram.")
    elif draft.startswith(("/", ".")) and not (Path(draft) / "config.json").is_file():
        raise Refused(f"There is no model in {draft}. Name the directory of the one that drafts.")
    if kind and not 1 <= options.speculative_tokens <= 16:
        raise Refused("1 to 16 tokens can be speculated at a time.")
    if kind == "draft":
        own, other = (_config(model).get("vocab_size") for model in (options.model, draft))
        if own and other and own != other:
            raise Refused(f"The draft's vocabulary has {other} tokens, the model's {own}. Use a model of its family.")


def _config(model: str) -> dict[str, Any]:
    """The model's config.json where its files are here and can be read; else nothing."""
    try:
        found = json.loads((Path(model) / "config.json").read_bytes())
    except (OSError, ValueError):
        return {}
    return dict(found.get("text_config") or found) if isinstance(found, dict) else {}


def _head_size(config: dict[str, Any]) -> int:
    heads, hidden = config.get("num_attention_heads"), config.get("hidden_size")
    return int(config.get("head_dim") or (hidden // heads if heads and hidden else 0))


def _dotted(hardware: Hardware) -> str:
    return ".".join(map(str, hardware.capability))
