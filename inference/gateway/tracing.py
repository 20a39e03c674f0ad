"""A span for each admitted call, for an installation that sets an OTLP endpoint; any other never imports this module.

Attributes are those of OpenTelemetry's conventions for spans of clients of generative AI, which the gateway is to its
engines, without any content: no prompt, answer, stop text, end user or key. The trace is the caller's, if it sent a W3C
traceparent, and goes on to the engine. Where spans go, and how, the SDK reads from its OTEL_* variables; they leave in
a thread of its own, and what nobody takes in time is dropped.
https://github.com/open-telemetry/semantic-conventions-genai/blob/main/docs/gen-ai/gen-ai-spans.md
https://www.w3.org/TR/trace-context/
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from inference.gateway.answering import Answering, Asked
from inference.gateway.call import Call
from tenants.metering import Event, Verdict

if TYPE_CHECKING:
    from opentelemetry.trace import Span

PROVIDER = "paramstack"
CARRIED = (b"traceparent", b"tracestate")
FLUSH_SECONDS = 5.0  # that an end waits for the last spans
# What a request may say of its wishes, by the convention's names.
WISHES = ("temperature", "top_p", "top_k", "presence_penalty", "frequency_penalty", "seed")


class MissingPackage(RuntimeError):
    def __init__(self) -> None:
        super().__init__(
            "An OTLP endpoint is set (OTEL_EXPORTER_OTLP_ENDPOINT) and OpenTelemetry is not installed: "
            "pip install -r requirements-tracing.txt, or unset it."
        )


class Tracing:
    """The spans of calls under way, by request id, and the exporter behind them. Raises MissingPackage."""

    def __init__(self) -> None:
        try:
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
            from opentelemetry.sdk.resources import SERVICE_NAME, Resource
            from opentelemetry.sdk.trace import TracerProvider
            from opentelemetry.sdk.trace.export import BatchSpanProcessor
            from opentelemetry.trace import SpanKind, Status, StatusCode
            from opentelemetry.trace.propagation import set_span_in_context
            from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
        except ImportError as error:
            raise MissingPackage from error
        resource = Resource.create()  # as OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES say
        if str(resource.attributes[SERVICE_NAME]).startswith("unknown_service"):
            resource = resource.merge(Resource({SERVICE_NAME: "paramstack-gateway"}))
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        self._tracer = self._provider.get_tracer("paramstack.gateway")
        self._propagator, self._within = TraceContextTextMapPropagator(), set_span_in_context
        self._kind, self._error = SpanKind.CLIENT, Status(StatusCode.ERROR)
        self._spans: dict[str, Span] = {}

    async def close(self) -> None:
        """Sends what waits, if somebody takes it soon."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asyncio.to_thread(self._provider.shutdown), FLUSH_SECONDS)

    def begin(self, call: Call, headers: list[tuple[bytes, bytes]], at_ns: int) -> None:
        """A call was admitted; from now on it carries the trace to the engine."""
        told = {name.decode(): value.decode("latin-1") for name, value in headers if name in CARRIED}
        request = call.request
        facts: dict[str, Any] = {
            "gen_ai.operation.name": request.operation.name,
            "gen_ai.provider.name": PROVIDER,
            "gen_ai.request.model": request.model,
            "gen_ai.response.id": call.event.request_id,
            "paramstack.request_id": call.event.request_id,
            "paramstack.tenant_id": call.event.tenant,
        }
        if request.operation.answers:
            facts |= {"gen_ai.request.stream": request.stream, "gen_ai.request.max_tokens": call.max_tokens}
        if request.n > 1:
            facts["gen_ai.request.choice.count"] = request.n
        for name in WISHES:
            if type(value := request.options.get(name)) in (int, float):
                facts[f"gen_ai.request.{name}"] = value if name == "seed" else float(value)  # type: ignore[arg-type]
        span = self._tracer.start_span(
            f"{request.operation.name} {request.model}",
            self._propagator.extract(told),
            self._kind,
            facts,
            start_time=at_ns,
        )
        self._spans[call.event.request_id] = span
        carried: dict[str, str] = {}
        self._propagator.inject(carried, self._within(span))
        call.carried = "".join(f"{name}: {value}\r\n" for name, value in carried.items())

    def end(self, call: Call, event: Event) -> None:
        """It was settled, as `event` says."""
        span = self._spans.pop(event.request_id, None)
        if span is None or not span.is_recording():
            return
        facts: dict[str, Any] = {
            "gen_ai.response.model": event.served,
            "gen_ai.usage.input_tokens": event.input_tokens,
            "gen_ai.usage.cache_read.input_tokens": event.cached_tokens,
            "gen_ai.usage.output_tokens": event.output_tokens,
            "paramstack.cost_nano": event.cost_nano,
            "paramstack.status": event.status,
        }
        facts |= {f"paramstack.{name}": value for name in ("arm", "adapter_digest") if (value := getattr(event, name))}
        if call.host:
            place = urlsplit(call.host.url)
            port = place.port or (443 if place.scheme == "https" else 80)
            facts |= {"server.address": place.hostname or "", "server.port": port, "paramstack.engine": call.host.name}
        if call.request.stream and event.ttft_ms:
            facts["gen_ai.response.time_to_first_chunk"] = event.ttft_ms / 1000
        if event.status != "settled":
            facts["error.type"] = "guardrail_blocked" if event.status == "blocked" else event.reason
            span.set_status(self._error)
        span.set_attributes(facts)
        span.end()


class TracedAnswering(Answering):
    """The same journey, seen from outside."""

    def __init__(self, tracing: Tracing, *parts: Any) -> None:
        super().__init__(*parts)
        self._tracing = tracing

    async def _admit(self, asked: Asked) -> tuple[Call, Verdict]:
        at_ns = time.time_ns()
        call, verdict = await super()._admit(asked)
        self._tracing.begin(call, asked.scope["headers"], at_ns)
        return call, verdict

    async def _settle(self, asked: Asked, call: Call, event: Event) -> None:
        self._tracing.end(call, event)
        await super()._settle(asked, call, event)
