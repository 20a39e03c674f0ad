"""Is this a request that the Messages API takes? The checks, and the sentence for each that fails.

After anthropic 2.12 (`types/message_create_params.py`) and API version 2026-10-21, which knows no sampling parameters.
"""

from __future__ import annotations

from typing import Any

from training.loopback import catalogue, tokens, wire
from training.loopback.catalogue import Model
from training.loopback.options import Options

SAMPLING = ("temperature", "top_p", "top_k")
KNOWN = {
    "cache_control", "container", "diagnostics", "inference_geo", "max_tokens", "messages", "metadata", "model",
    "output_config", "service_tier", "speed", "stop_sequences", "stream", "system", "thinking", "tool_choice", "tools",
    "user_profile_id", "workspace_id",
}  # fmt: skip
COUNTED = KNOWN - {"max_tokens", "metadata", "stop_sequences", "stream", "container", "diagnostics", "service_tier"}
EFFORTS = ("low", "medium", "high", "xhigh", "max")


def check(body: dict[str, Any], options: Options, counting: bool = False) -> Model:
    """The model that is asked. `counting`: for `count_tokens`, which takes no `max_tokens`. Raises Refused."""
    for name in SAMPLING:
        if name in body:
            raise wire.invalid(f"{name}: this parameter is no longer supported")
    for name in body.keys() - (COUNTED if counting else KNOWN):
        raise wire.invalid(f"{name}: Extra inputs are not permitted")
    model = catalogue.find(_needed(body, "model"))
    if model.id in options.closed_models:
        raise wire.Refused(403, "permission_error", f"Your API key does not have permission to use {model.id}.")
    if not counting:
        _most(_needed(body, "max_tokens"), model)
    _messages(_needed(body, "messages"))
    _blocks("system", body.get("system", []))
    _controls(body)
    _output(body.get("output_config") or {})
    return model


def _needed(body: dict[str, Any], name: str) -> Any:
    if name not in body:
        raise wire.invalid(f"{name}: Field required")
    return body[name]


def _most(value: Any, model: Model) -> None:
    if type(value) is not int or value < 0:
        raise wire.invalid("max_tokens: Input should be a valid integer, 0 or more")
    if value > model.most_output:
        raise wire.invalid(f"max_tokens: {value} > {model.most_output}, the maximum for {model.id}")


def _messages(messages: Any) -> None:
    if not isinstance(messages, list) or not messages:
        raise wire.invalid("messages: at least one message is required")
    for number, message in enumerate(messages):
        if not isinstance(message, dict) or message.get("role") not in ("user", "assistant"):
            raise wire.invalid(f"messages.{number}.role: Input should be 'user' or 'assistant'")
        _blocks(f"messages.{number}.content", message.get("content"))
        if not message["content"]:
            raise wire.invalid(f"messages.{number}: user messages must have non-empty content")
    if messages[-1]["role"] == "assistant":
        raise wire.invalid("This model does not support assistant message prefill: end with a user message.")


def _blocks(place: str, content: Any) -> None:
    if isinstance(content, str):
        return
    if not isinstance(content, list) or not all(isinstance(part, dict) and "type" in part for part in content):
        raise wire.invalid(f"{place}: Input should be a string or a list of content blocks")
    for number, part in enumerate(content):
        if part["type"] == "text" and (not isinstance(part.get("text"), str) or not part["text"]):
            raise wire.invalid(f"{place}.{number}.text: text content blocks must be non-empty")


def _controls(body: dict[str, Any]) -> None:
    """At most four blocks may be marked for the cache."""
    found = [part for part in tokens.parts(body.get("system") or []) if part.get("cache_control")]
    for message in body["messages"]:
        found += [part for part in tokens.parts(message["content"]) if part.get("cache_control")]
    found += [tool for tool in body.get("tools") or () if tool.get("cache_control")]
    if len(found) > 4:
        raise wire.invalid(f"A maximum of 4 blocks with cache_control may be provided. Found {len(found)}.")
    for part in [*found, body] if body.get("cache_control") else found:
        control = part["cache_control"]
        if (
            not isinstance(control, dict)
            or control.get("type") != "ephemeral"
            or control.get("ttl", "5m") not in tokens.TTL
        ):
            raise wire.invalid("cache_control: Input should be {'type': 'ephemeral', 'ttl': '5m' or '1h'}")


def _output(config: Any) -> None:
    if not isinstance(config, dict):
        raise wire.invalid("output_config: Input should be a valid dictionary")
    if config.get("effort", "low") not in EFFORTS:
        raise wire.invalid(f"output_config.effort: Input should be one of {', '.join(EFFORTS)}")
    form = config.get("format")
    if form is not None and (not isinstance(form, dict) or not isinstance(form.get("schema"), dict)):
        raise wire.invalid("output_config.format: Input should be {'type': 'json_schema', 'schema': {...}}")
    if form and form["schema"].get("type") == "object" and form["schema"].get("additionalProperties") is not False:
        raise wire.invalid("output_config.format.schema: For 'object' type, 'additionalProperties' must be false")
